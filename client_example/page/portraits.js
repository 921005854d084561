// The dialog for choosing a portrait: the ones on the server, a picture file, or the phone's camera.

import { closeUp, fitting } from "./picture.js";
import { ServerError } from "./server.js";
import { CONSENT_WANTED, OTHER_FACES, portraitWords } from "./words.js";

const $ = (id) => document.getElementById(id);

/** Event "chosen": {id, width, height, notices}. */
export class PortraitChooser extends EventTarget {
  asksConsent = false; // whether the server wants to know that who is in a picture agrees
  #chosen = "default";
  #busy = false;
  #server;
  #own = []; // uploads of this visit; the server lists them to nobody

  constructor(server) {
    super();
    this.#server = server;
    this.dialog = $("chooser");
    $("chooser-close").addEventListener("click", () => this.dialog.close());
    $("upload").addEventListener("click", () => $("picture-input").click());
    $("camera").addEventListener("click", () => $("camera-input").click());
    for (const id of ["picture-input", "camera-input"]) {
      $(id).addEventListener("change", (event) => {
        const [file] = event.target.files;
        event.target.value = ""; // the same file may be chosen again
        if (file) this.upload(file);
      });
    }
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // a click beside the dialog
    });
  }

  async open() {
    $("preview").hidden = true;
    $("faces").hidden = true;
    $("consent").hidden = !this.asksConsent;
    this.dialog.showModal();
    await this.#fillGallery();
  }

  /** Forget the uploads: the server does not know them any more. */
  forget() {
    this.#own = [];
  }

  /** Mark which portrait is shown, without an event. */
  mark(id) {
    this.#chosen = id;
  }

  /** Show a picture, send it, and either switch to it or say what is wrong with it. */
  async upload(file) {
    if (this.#busy) return;
    if (!this.dialog.open) await this.open();
    if (this.asksConsent && !this.#consent()) return this.#askConsent();
    const picture = $("preview-image");
    const url = URL.createObjectURL(file);
    $("preview").hidden = false;
    $("faces").hidden = true;
    picture.hidden = false;
    picture.onerror = () => (picture.hidden = true);
    picture.src = url;
    await this.#send(async () => {
      const sent = await fitting(file);
      const portrait = await this.#server.addPortrait(sent, undefined, this.#consent());
      if (portrait.faces.length > 1) await this.#offerFaces(sent, portrait);
      return portrait;
    });
    URL.revokeObjectURL(url);
  }

  /** What was written of it, if it is whole; null where nobody asks. */
  #consent() {
    const [who, purpose] = [$("consent-who").value.trim(), $("consent-purpose").value.trim()];
    return this.asksConsent && who && purpose ? { who, purpose } : null;
  }

  #askConsent() {
    $("preview").hidden = false;
    $("preview-image").hidden = true;
    say(CONSENT_WANTED, "bad");
    $($("consent-who").value.trim() ? "consent-purpose" : "consent-who").focus();
  }

  /** Enrol a portrait with `add` and switch to it; the dialog stays where there is another face to choose. */
  async #send(add) {
    if (this.#busy) return;
    this.#busy = true;
    say("Looking for the face …", "busy");
    try {
      const portrait = await add();
      const stays = !$("faces").hidden;
      say(stays ? OTHER_FACES : "There you are.", "good");
      this.#own.push({ ...portrait, name: "Yours" });
      this.#choose(portrait, stays);
    } catch (error) {
      const code = error instanceof ServerError ? error.code : "unreachable";
      say(code === "unreachable" ? "The server cannot be reached. Try again in a moment." : portraitWords(code), "bad");
    } finally {
      this.#busy = false;
    }
  }

  /** Show the faces of a picture, to choose another one than the largest. */
  async #offerFaces(picture, portrait) {
    const image = Object.assign(new Image(), { src: this.#server.portraitImage(portrait.id) });
    await image.decode();
    const cards = portrait.faces.map((box, index) => {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.setAttribute("aria-label", `Face ${index + 1} of ${portrait.faces.length}`);
      button.setAttribute("aria-pressed", String(index + 1 === portrait.face));
      button.append(closeUp(image, box));
      button.addEventListener("click", () => this.#takeFace(picture, index + 1, portrait));
      const item = document.createElement("li");
      item.append(button);
      return item;
    });
    $("faces").replaceChildren(...cards);
    $("faces").hidden = false;
  }

  async #takeFace(picture, face, before) {
    if (face === before.face) return this.dialog.close();
    await this.#send(async () => {
      const portrait = await this.#server.addPortrait(picture, face, this.#consent());
      this.#own = this.#own.filter(({ id }) => id !== before.id);
      $("faces").hidden = true;
      return portrait;
    });
  }

  async #fillGallery() {
    const portraits = [...(await this.#server.portraits().catch(() => [])), ...this.#own];
    $("gallery").replaceChildren(...portraits.map((portrait) => this.#card(portrait)));
  }

  #card(portrait) {
    const picture = Object.assign(new Image(), { src: this.#server.portraitImage(portrait.id), alt: "", loading: "lazy" });
    const name = Object.assign(document.createElement("span"), { textContent: portrait.name });
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.setAttribute("aria-pressed", String(portrait.id === this.#chosen));
    button.append(picture, name);
    button.addEventListener("click", () => this.#choose(portrait));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  #choose(portrait, stays = false) {
    this.#chosen = portrait.id;
    if (!stays) this.dialog.close();
    this.dispatchEvent(new CustomEvent("chosen", { detail: portrait }));
  }
}

function say(text, mood) {
  $("preview-text").textContent = text;
  $("preview").dataset.mood = mood;
}
