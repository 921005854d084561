// <portrait-talk>: the avatar on any page, as a web component. Nothing but this file and those beside it is needed.
//
//   <script type="module" src="https://avatar.example/embed.js"></script>
//   <portrait-talk voice="assistant" captions></portrait-talk>
//
// The server has to allow the page: --allow-origin https://page.example
//
// Attributes (each may change at any time):
//   server      address of the server; that of this file by default
//   token       session token, if the server asks for one; a new value is used from the next request on
//   session     id of a session to join: an assistant has made it; without it the avatar has one of its own
//   portrait    id of the portrait        prompt    what the face expresses
//   voice       whose voice the face speaks in a session of its own: microphone, assistant or both
//   captions    show what an assistant says, under the face
//   microphone  offer a button to talk    muted     no sound
//   poster      picture until the face is there; the portrait by default
//   manual      connect only when start() is called
// Size: style it like an image (width; its height follows the face). Parts: stage poster video status label start talk captions.
// Properties: sessionId, state ("connecting", "live", ...), mood ("idle", "listening", "thinking", "speaking"), talking,
//   muted, video (the element), connection (page/connection.js).
// Methods: start(), stop(), interrupt(), talk(on) (the microphone), mute(on), express(prompt), show(portraitId).
// Events (CustomEvent): "connection" {name, reason, seconds, words}; and all that the server tells, by its name, as it
//   comes: disclosure ready state speaking_started speaking_stopped interrupted buffer caption quality prompt portrait viewers stats error.

import { Captions } from "./page/captions.js";
import { Connection } from "./page/connection.js";
import { Server, ServerError } from "./page/server.js";
import { Microphone, audioContext } from "./page/voices.js";
import { liveWords, microphoneWords, stateWords } from "./page/words.js";

const HOME = new URL(".", import.meta.url).href;

const SHEET = new CSSStyleSheet();
SHEET.replaceSync(`
  :host { display: block; width: 20rem; max-width: 100%; font: 1rem/1.4 system-ui, sans-serif; }
  :host([hidden]), [hidden] { display: none !important; }
  .stage { position: relative; aspect-ratio: var(--ratio, 1); border-radius: 1rem; overflow: hidden; background: #8884; }
  img, video { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: cover; transition: filter .35s; }
  video:not(.playing) { visibility: hidden; }
  .stage:not([data-state="live"]) video, .stage:not([data-state="live"]) img { filter: saturate(.35) brightness(.7); }
  .status { position: absolute; z-index: 1; left: .6rem; top: .6rem; max-width: calc(100% - 1.2rem); box-sizing: border-box; margin: 0;
    padding: .2rem .7rem; border-radius: 99px; background: rgb(18 20 23 / 70%); color: #fff; font-size: .8rem; }
  .status::before { content: ""; display: inline-block; width: .5rem; height: .5rem; margin-inline-end: .4rem;
    border-radius: 50%; background: #e0b05c; }
  [data-state="live"] .status::before { background: #5cd694; }
  [data-state="ended"] .status::before, [data-state="refused"] .status::before { background: #f08a80; }
  .label { position: absolute; right: .6rem; bottom: .6rem; margin: 0; padding: .2rem .7rem; border-radius: 99px; pointer-events: none;
    background: rgb(18 20 23 / 75%); color: #fff; font-size: .75rem; font-weight: 600; }
  button { font: inherit; color: #fff; border: 0; cursor: pointer; background: rgb(18 20 23 / 70%); }
  button:focus-visible { outline: 3px solid #6fc2b8; outline-offset: -3px; }
  .start { position: absolute; inset: auto 0 0; min-height: 3rem; width: 100%; font-weight: 600; }
  .start.whole { inset: 0; height: 100%; }
  .talk { display: block; width: 100%; min-height: 2.9rem; margin-top: .5rem; border-radius: .9rem; background: #2a6b66; }
  .talk[aria-pressed="true"] { background: #b23b3b; }
  .captions { min-height: 2.8em; margin: .5rem 0 0; text-align: center; overflow-wrap: anywhere; text-wrap: balance; }
  @media (prefers-reduced-motion: reduce) { * { transition: none !important; } }
`);

const MARKUP = `
  <div class="stage" part="stage">
    <img class="poster" part="poster" alt="">
    <video part="video" playsinline disablepictureinpicture aria-label="The talking portrait"></video>
    <p class="status" part="status" role="status" hidden></p>
    <p class="label" part="label" hidden></p>
    <button class="start" part="start" type="button" hidden></button>
  </div>
  <p class="captions" part="captions" hidden></p>
  <button class="talk" part="talk" type="button" aria-pressed="false" hidden>Talk</button>
`;

export class PortraitTalk extends HTMLElement {
  static observedAttributes = ["server", "session", "portrait", "prompt", "voice", "captions", "microphone", "muted", "poster", "token"];

  connection = null;
  state = "stopped";
  mood = "idle";
  #parts = {};
  #captions;
  #microphone = null;
  #level = 0;
  #start = null; // what a press of the start button does
  #leaving = () => this.stop();
  #returning = (event) => event.persisted && this.start();

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [SHEET];
    root.innerHTML = MARKUP;
    for (const part of root.querySelectorAll("[part]")) this.#parts[part.getAttribute("part")] = part;
    const { video, start, talk, captions, stage } = this.#parts;
    this.#captions = new Captions(captions);
    start.addEventListener("click", () => this.#start?.());
    talk.addEventListener("click", () => this.talk(!this.talking).catch((error) => this.#say(microphoneWords(error))));
    video.addEventListener("resize", () => {
      if (video.videoHeight) stage.style.setProperty("--ratio", String(video.videoWidth / video.videoHeight));
    });
  }

  get video() {
    return this.#parts.video;
  }

  get sessionId() {
    return this.connection?.sessionId ?? null;
  }

  get talking() {
    return this.#microphone !== null;
  }

  get muted() {
    return this.hasAttribute("muted");
  }

  set muted(value) {
    this.toggleAttribute("muted", Boolean(value));
  }

  connectedCallback() {
    addEventListener("pagehide", this.#leaving);
    addEventListener("pageshow", this.#returning);
    this.#showPoster();
    if (this.hasAttribute("manual")) this.#offer("Start", () => this.start());
    else this.start();
  }

  disconnectedCallback() {
    queueMicrotask(() => {
      if (this.isConnected) return; // only moved
      removeEventListener("pagehide", this.#leaving);
      removeEventListener("pageshow", this.#returning);
      this.stop();
    });
  }

  attributeChangedCallback(name, before, value) {
    if (before === value || !this.isConnected) return;
    if (["portrait", "poster", "server", "token"].includes(name)) this.#showPoster();
    if (name === "captions") this.#captions.clear();
    if (!this.connection) return;
    if (["server", "session", "voice"].includes(name)) this.stop().then(() => this.start());
    if (name === "portrait") this.connection.show(value ?? "default");
    if (name === "prompt") this.express(value ?? "").catch((error) => this.#say(error.message));
    if (name === "microphone") this.#parts.talk.hidden = value === null;
    if (name === "muted") this.#play();
  }

  /** Connect; resolves when the offer is answered. Does nothing if it is started. */
  async start() {
    if (this.connection) return;
    const connection = (this.connection = new Connection(this.#server()));
    const { video, talk } = this.#parts;
    talk.hidden = !this.hasAttribute("microphone");
    this.#offer(null);
    connection.addEventListener("state", ({ detail }) => this.#follow(detail));
    connection.addEventListener("message", ({ detail }) => this.#take(detail));
    connection.addEventListener("unexpressed", ({ detail }) => this.#say(detail.error.message));
    connection.addEventListener("stream", () => {
      video.srcObject ??= connection.stream;
      const seen = () => video.classList.add("playing");
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(seen);
      else seen();
      this.#play();
    });
    const config = await this.#server().config().catch((error) => void (error instanceof ServerError || this.#warn()));
    if (connection !== this.connection) return;
    this.#label(config?.disclosure);
    await connection.express(this.getAttribute("prompt") ?? "");
    await connection.connect({
      portraitId: this.getAttribute("portrait") ?? "default",
      sessionId: this.getAttribute("session"),
      voice: this.getAttribute("voice") ?? undefined,
      iceServers: config?.ice_servers ?? [],
    });
  }

  /** Hang up and close the microphone; a session of its own ends. */
  async stop() {
    const { connection } = this;
    this.connection = null;
    await this.talk(false);
    this.#captions.clear();
    this.video.classList.remove("playing");
    this.video.srcObject = null;
    this.#follow({ name: "stopped" });
    this.#offer("Start", () => this.start());
    await connection?.close();
  }

  /** Cut off what the avatar says. */
  interrupt() {
    this.connection?.interrupt();
  }

  /** Open the visitor's microphone, or close it. Rejects as getUserMedia does. */
  async talk(on = true) {
    if (on && !this.#microphone) {
      audioContext().resume();
      this.#microphone = await Microphone.open();
    } else if (!on && this.#microphone) {
      this.#microphone.stop();
      this.#microphone = null;
    }
    this.#parts.talk.setAttribute("aria-pressed", String(this.talking));
    this.#parts.talk.textContent = this.talking ? "Stop talking" : "Talk";
    await this.connection?.speak(this.#microphone?.track ?? null);
    if (this.video.srcObject) await this.#play();
  }

  mute(on = true) {
    this.muted = on;
  }

  /** Change the face's expression; rejects with the server's words if it cannot show it. */
  async express(prompt) {
    await this.connection?.express(prompt);
  }

  show(portraitId) {
    this.setAttribute("portrait", portraitId);
  }

  #server() {
    return new Server(this.getAttribute("server") ?? HOME, () => this.getAttribute("token"));
  }

  #showPoster() {
    const own = () => this.#server().portraitImage(this.getAttribute("portrait") ?? "default");
    this.#parts.poster.src = this.getAttribute("poster") ?? own();
  }

  /** Play with sound if it is wanted and the browser lets us; else offer a button. */
  async #play() {
    const howls = this.talking && this.connection?.voice !== "assistant"; // the visitor's own voice comes back
    this.video.muted = this.muted || howls;
    try {
      await this.video.play();
      this.#offer(null);
    } catch (error) {
      if (error.name !== "NotAllowedError") return; // it was stopped meanwhile
      if (this.video.muted) return this.#offer("Tap to start", () => this.#play());
      this.video.muted = true;
      await this.video.play().then(() => this.#offer("Turn the sound on", () => this.#play(), false), () => this.#offer("Tap to start", () => this.#play()));
    }
  }

  /** Show a button that calls `run`, over the whole face or at its foot; null takes it away. */
  #offer(label, run = null, whole = true) {
    const { start } = this.#parts;
    this.#start = run;
    start.hidden = label === null;
    start.textContent = label ?? "";
    start.classList.toggle("whole", whole);
  }

  #follow(state) {
    this.state = state.name;
    if (!["live", "stalled"].includes(state.name)) [this.#level, this.mood] = [0, "idle"]; // until told anew
    this.#parts.stage.dataset.state = state.name;
    const words = state.name === "live" ? liveWords(this.#live()) : stateWords(state);
    this.#say(state.name === "stopped" ? "" : words);
    if (state.name === "ended") this.#captions.clear();
    if (["ended", "refused"].includes(state.name)) this.#offer("Start again", () => this.stop().then(() => this.start()));
    this.dispatchEvent(new CustomEvent("connection", { detail: { ...state, words } }));
  }

  #take(message) {
    if (message.type === "pong") return;
    if (this.hasAttribute("captions")) this.#captions.take(message);
    if (message.type === "disclosure") this.#label(message.label);
    if (message.type === "quality") this.#level = message.level;
    if (message.type === "state") this.mood = message.state;
    if (["quality", "state"].includes(message.type) && this.state === "live") this.#say(liveWords(this.#live()));
    this.dispatchEvent(new CustomEvent(message.type, { detail: message }));
  }

  #live() {
    return { level: this.#level, mood: this.mood };
  }

  #say(words) {
    this.#parts.status.textContent = words;
    this.#parts.status.hidden = !words;
  }

  /** Say on the picture that it is synthetic, in these words, if there are any. */
  #label(words) {
    if (!words) return;
    this.#parts.label.textContent = words;
    this.#parts.label.hidden = false;
  }

  #warn() {
    const server = this.getAttribute("server") ?? HOME;
    console.warn(`portrait-talk: ${server} does not answer this page; is it running, with --allow-origin ${location.origin}?`);
  }
}

customElements.define("portrait-talk", PortraitTalk);
