// The dialog for choosing a portrait: the ones on the server, a picture file, or the phone's camera.

import { ServerError } from "./server.js";
import { portraitWords } from "./words.js";

const LIMIT_BYTES = 10e6;
const SHRINK_ABOVE_BYTES = 4e6;
const SHRINK_TO_PX = 2048;

const $ = (id) => document.getElementById(id);

/** Event "chosen": {id, width, height}. */
export class PortraitChooser extends EventTarget {
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
    this.#busy = true;
    if (!this.dialog.open) await this.open();
    $("preview").hidden = false;
    say("Looking for the face …", "busy");
    const picture = $("preview-image");
    const url = URL.createObjectURL(file);
    picture.hidden = false;
    picture.onerror = () => (picture.hidden = true);
    picture.src = url;
    try {
      const portrait = await this.#server.addPortrait(await fitting(file));
      say("There you are.", "good");
      this.#own.push({ ...portrait, name: "Yours" });
      this.#choose(portrait);
    } catch (error) {
      const code = error instanceof ServerError ? error.code : "unreachable";
      say(code === "unreachable" ? "The server cannot be reached. Try again in a moment." : portraitWords(code), "bad");
    } finally {
      this.#busy = false;
      URL.revokeObjectURL(url);
    }
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

  #choose(portrait) {
    this.#chosen = portrait.id;
    this.dialog.close();
    this.dispatchEvent(new CustomEvent("chosen", { detail: portrait }));
  }
}

function say(text, mood) {
  $("preview-text").textContent = text;
  $("preview").dataset.mood = mood;
}

/** The picture itself, or a smaller copy of it when it is large and the browser can read it. */
async function fitting(file) {
  if (file.size > SHRINK_ABOVE_BYTES) {
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
    if (bitmap) return shrunk(bitmap);
  }
  if (file.size > LIMIT_BYTES) throw new ServerError(413, "too_large", "too large", null);
  return file;
}

function shrunk(bitmap) {
  const scale = Math.min(1, SHRINK_TO_PX / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.93));
}
