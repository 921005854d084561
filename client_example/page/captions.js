// What the avatar says, word by word, while it says it.

const LINE = 84; // characters that are shown at once
const READ_MS = 4_000; // the last words stay so long

/** Shows `caption` events in `element`, which is hidden while there is nothing to read. */
export class Captions {
  #element;
  #utterance = null;
  #words = [];
  #timer = 0;

  constructor(element) {
    this.#element = element;
  }

  /** Take any message of the control channel. */
  take(message) {
    if (message.type === "caption") this.#add(message);
    else if (message.type === "speaking_stopped" && message.utterance === this.#utterance) this.#finish(message.interrupted);
  }

  /** Take the words away. */
  clear() {
    clearTimeout(this.#timer);
    this.#words = [];
    this.#utterance = null;
    this.#element.hidden = true;
    this.#element.textContent = "";
  }

  #add({ utterance, text }) {
    if (utterance !== this.#utterance) this.clear();
    clearTimeout(this.#timer);
    this.#utterance = utterance;
    if (this.#words.join(" ").length + text.length >= LINE) this.#words = [];
    this.#words.push(text);
    this.#element.textContent = this.#words.join(" ");
    this.#element.hidden = false;
  }

  #finish(interrupted) {
    if (interrupted) this.#element.textContent += " –";
    this.#timer = setTimeout(() => this.clear(), READ_MS);
  }
}
