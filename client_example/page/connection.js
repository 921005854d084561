// One avatar kept alive: connects, notices within a second that nothing comes, takes its place again.

import { Link } from "./link.js";
import { onNetworkChange } from "./network.js";
import { Place } from "./place.js";
import { ServerError } from "./server.js";

const BACK_OFF_S = [0.2, 0.4, 0.8, 1.6, 3.2, 5];
const COUNTED_S = 2; // a shorter pause is not counted down
const FIRST_LIMIT_MS = 12_000; // until the first frame
const AGAIN_LIMIT_MS = 5_000;
const STEADY_MS = 3_000; // live for so long: what failed before is forgotten
const HURRY_MS = 400; // without a frame, when the network has changed
// Ends after which a session is looked for anew, after so many seconds; null: a growing pause.
const RETURN_S = { full: 5, failed: 1, expired: 0, server_stopping: null };

/**
 * The face and its voice are `stream`, one object for good; its tracks change with every connection, and only when
 * the new one shows frames.
 *
 * Events (all CustomEvent, values in `detail`):
 *   state    {name, reason?, seconds?}: "connecting", "live" (frames arrive), "stalled" (sound, but no frames),
 *            "reconnecting" (nothing arrives), "waiting" (`seconds` until the next try), "refused" or "ended" (`reason`)
 *   stream   there is something to show in `stream`
 *   message  one parsed JSON message of the control channel
 *   lost     the server does not know the portrait any more
 *   unexpressed  {prompt, error}: words kept for this connection could not be shown; `prompt` is shown instead
 */
export class Connection extends EventTarget {
  stream = new MediaStream();
  #place;
  #iceServers = [];
  #attempt = 0; // raised by every attempt and its end: older callbacks see it and stop
  #failures = 0;
  #shown = null; // the link whose frames are seen, or were last
  #coming = null; // the one being made
  #asking = false; // whether its offer is sent
  #track = null;
  #timers = new Set();
  #state = "";
  #unwatch = null;

  constructor(server) {
    super();
    this.#place = new Place(server);
  }

  get pc() {
    return this.#shown?.pc ?? this.#coming?.pc ?? null;
  }

  get sessionId() {
    return this.#place.sessionId;
  }

  /** Who is spoken by the face: "microphone", "assistant" or "both". */
  get voice() {
    return this.#place.voice;
  }

  /**
   * Connect anew, or for the first time. Wishes stay until others come: portraitId and voice for a session of our own,
   * or the sessionId of one to join; iceServers.
   */
  async connect({ iceServers = this.#iceServers, ...wishes } = {}) {
    this.#iceServers = iceServers;
    this.#failures = 0;
    const closing = this.close();
    Object.assign(this.#place.wishes, wishes);
    const attempt = this.#attempt;
    await closing;
    if (attempt !== this.#attempt) return;
    this.#unwatch ??= onNetworkChange(() => this.#hurry());
    await this.#open();
  }

  /** Hang up; a session of our own ends. Safe to call twice, and while the page goes away. */
  async close() {
    this.#stop();
    this.#unwatch?.();
    this.#shown?.close();
    this.#unwatch = this.#shown = null;
    this.#state = "";
    await this.#place.leave();
  }

  /** Send this audio track from now on, also after a reconnect; null sends nothing. */
  async speak(track) {
    this.#track = track;
    await Promise.all([this.#shown?.speak(track), this.#coming?.speak(track)]);
  }

  /**
   * Express this from now on, also after a reconnect. Rejects with ServerError on words it cannot show.
   * Without a session the words are kept and sent when the connection stands: see "unexpressed".
   */
  async express(prompt) {
    this.#place.prompt = prompt;
    await this.#place.express();
  }

  /** Show another portrait from now on: in the session that is live, else in the next one. */
  async show(portraitId) {
    if (this.#state !== "live" && !this.#place.joined) return this.connect({ portraitId });
    try {
      await this.#place.show(portraitId);
    } catch (error) {
      if (error.code === "unknown_portrait") this.#emit("lost");
      else await this.connect();
    }
  }

  /** Cut off what the avatar says. */
  interrupt() {
    this.tell({ type: "interrupt" });
  }

  /** Send a JSON message if the control channel is open. */
  tell(message) {
    this.#shown?.tell(message);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #become(name, more = {}) {
    this.#state = name;
    this.#emit("state", { name, ...more });
  }

  #later(ms, action) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      action();
    }, ms);
    this.#timers.add(timer);
  }

  /** Give up what is being tried. */
  #stop() {
    this.#attempt += 1;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#coming?.close();
    this.#coming = null;
    this.#asking = false;
  }

  async #open(reason) {
    this.#stop();
    const attempt = this.#attempt;
    this.#becomeTrying(reason);
    this.#later(this.#shown ? AGAIN_LIMIT_MS : FIRST_LIMIT_MS, () => this.#retry(attempt, "no-answer"));
    try {
      await this.#negotiate(() => attempt === this.#attempt);
    } catch (error) {
      if (attempt === this.#attempt) this.#failed(attempt, error);
    }
  }

  #becomeTrying(reason) {
    this.#become(this.#shown ? "reconnecting" : "connecting", { reason, again: this.#failures > 0 });
  }

  async #negotiate(wanted) {
    const link = (this.#coming = new Link(this.#iceServers));
    const late = [];
    let answered = false;
    const sendLate = () => {
      if (!answered || !late.length) return;
      this.#place.addCandidates(late.splice(0)).catch(() => {}); // the limit judges the outcome
    };
    link.addEventListener("candidate", ({ detail }) => {
      late.push(detail);
      sendLate();
    });
    link.addEventListener("message", ({ detail }) => this.#heard(link, detail));
    link.addEventListener("media", () => this.#judge(link));
    link.addEventListener("over", () => this.#lost(link));
    const description = await link.offer(this.#track);
    if (!wanted()) return;
    this.#asking = true;
    const answer = await this.#place.take(description, wanted);
    if (!answer) return;
    this.#place.express().catch((error) => this.#unexpressed(error));
    await link.accept(answer);
    answered = wanted();
    sendLate();
  }

  #unexpressed(error) {
    this.#emit("unexpressed", { prompt: this.#place.prompt, error });
  }

  #heard(link, message) {
    if (link !== this.#shown && link !== this.#coming) return;
    if (message.type === "closing") this.#ended(message.reason);
    else this.#emit("message", message);
  }

  /** Media began to arrive on a link, or ceased to. */
  #judge(link) {
    if (link === this.#coming && link.frames) return this.#take(link);
    if (link !== this.#shown || this.#asking || this.#state === "ended") return;
    if (!this.#standing) {
      if (!link.frames) return;
      this.#stop(); // it is back before another one was asked for
    } else if (!link.frames && !link.sound) return this.#lost(link);
    this.#become(link.frames ? "live" : "stalled");
  }

  get #standing() {
    return this.#state === "live" || this.#state === "stalled";
  }

  /** Show what comes on this link, in the place of what was shown. */
  #take(link) {
    const before = this.#shown;
    const old = this.stream.getTracks();
    this.#coming = null;
    this.#stop();
    this.#shown = link;
    for (const track of link.tracks) this.stream.addTrack(track);
    for (const track of old) this.stream.removeTrack(track);
    before?.close();
    this.#emit("stream");
    this.#later(STEADY_MS, () => (this.#failures = 0));
    this.#become("live");
  }

  #lost(link) {
    if (link === this.#coming) this.#retry(this.#attempt, "lost");
    else if (link === this.#shown && this.#standing) {
      if (this.#failures) this.#retry(this.#attempt, "lost");
      else this.#open("lost");
    }
  }

  /** The network may be another one: look, and wait no longer. */
  #hurry() {
    if (this.#state === "waiting") this.#open("lost");
    else this.#shown?.look(HURRY_MS);
  }

  /** The session has ended, and the server said why. */
  #ended(reason) {
    if (reason === "replaced" && this.#asking) return; // by ourselves
    this.#place.forget();
    if (reason in RETURN_S && (!this.#place.joined || reason === "server_stopping")) {
      this.#retry(this.#attempt, reason, RETURN_S[reason]);
    } else {
      this.#stop();
      this.#become("ended", { reason });
    }
  }

  #failed(attempt, error) {
    const { joined, wishes, prompt, asked } = this.#place;
    if (!(error instanceof ServerError)) {
      this.#retry(attempt, navigator.onLine ? "unreachable" : "offline");
    } else if (error.code === "unknown_session" && joined) {
      this.#ended("unknown_session");
    } else if (error.code === "unknown_portrait" && wishes.portraitId !== "default") {
      this.#emit("lost");
      wishes.portraitId = "default";
      this.#open();
    } else if (error.code === "bad_prompt" && asked) {
      if (prompt === asked) {
        this.#place.prompt = "";
        this.#unexpressed(error);
      }
      this.#open();
    } else if (["server_full", "too_many_offers"].includes(error.code)) {
      this.#retry(attempt, "full", error.retryAfter);
    } else if (error.status >= 500) {
      this.#retry(attempt, "unreachable");
    } else {
      this.close();
      this.#become("refused", { reason: error.message });
    }
  }

  /** Try again after `seconds` or a growing pause; what was shown last stays. */
  #retry(attempt, reason, seconds = null) {
    if (attempt !== this.#attempt) return;
    const pause = seconds ?? BACK_OFF_S[Math.min(this.#failures, BACK_OFF_S.length - 1)];
    this.#failures += 1;
    this.#stop();
    if (pause >= COUNTED_S) return this.#countDown(reason, Math.ceil(pause));
    this.#becomeTrying(reason);
    this.#later(pause * 1000, () => this.#open(reason));
  }

  #countDown(reason, seconds) {
    if (seconds <= 0) return this.#open(reason);
    this.#become("waiting", { reason, seconds });
    this.#later(1000, () => this.#countDown(reason, seconds - 1));
  }
}
