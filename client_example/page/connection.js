// One live session with the server, kept alive: connects, notices trouble, tries again.

import { ServerError, deleteSession, patchCandidates, patchPrompt, postOffer } from "./server.js";

const BACK_OFF_S = [1, 2, 4, 8, 15];
const GATHERING_LIMIT_MS = 500; // later candidates are sent by PATCH
const CONNECT_LIMIT_MS = 12_000;
const DISCONNECT_GRACE_MS = 4_000;

/**
 * Events (all CustomEvent, values in `detail`):
 *   state    {name: "connecting"|"live"|"waiting"|"refused", reason?, seconds?}
 *   stream   MediaStream with the portrait's picture and voice
 *   message  one parsed JSON message of the control channel
 *   lost     the server does not know the portrait any more
 *   unexpressed  {prompt, error}: words kept for this connection could not be shown; `prompt` is shown instead
 */
export class Connection extends EventTarget {
  pc = null;
  #attempt = 0; // raised by every (re)connect and close: older callbacks see it and stop
  #failures = 0;
  #portraitId = "default";
  #iceServers = [];
  #prompt = ""; // wanted
  #asked = ""; // what the last offer asked for
  #sessionId = null;
  #channel = null;
  #sender = null;
  #track = null;
  #timers = new Set();

  /** Connect, or reconnect at once, with the given portrait. */
  async connect(portraitId = this.#portraitId, iceServers = this.#iceServers) {
    this.#portraitId = portraitId;
    this.#iceServers = iceServers;
    this.#failures = 0;
    const closing = this.close();
    const attempt = this.#attempt;
    await closing;
    if (attempt === this.#attempt) await this.#open();
  }

  /** End the session on both sides. Safe to call twice, and while the page goes away. */
  async close() {
    this.#attempt += 1;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.pc?.close();
    this.pc = null;
    this.#channel = null;
    this.#sender = null;
    const sessionId = this.#sessionId;
    this.#sessionId = null;
    if (sessionId) await deleteSession(sessionId);
  }

  /** Send this audio track from now on, also after a reconnect; null sends nothing. */
  async speak(track) {
    this.#track = track;
    await this.#sender?.replaceTrack(track);
  }

  /**
   * Express this from now on, also after a reconnect. Rejects with ServerError on words it cannot show.
   * Without a session the words are kept and sent when the connection stands: see "unexpressed".
   */
  async express(prompt) {
    const before = this.#prompt;
    this.#prompt = prompt;
    await this.#sendPrompt(before);
  }

  /** Send a JSON message if the control channel is open. */
  tell(message) {
    if (this.#channel?.readyState === "open") this.#channel.send(JSON.stringify(message));
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #later(ms, action) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      action();
    }, ms);
    this.#timers.add(timer);
  }

  async #open() {
    const attempt = ++this.#attempt;
    this.#emit("state", { name: "connecting", again: this.#failures > 0 });
    this.#later(CONNECT_LIMIT_MS, () => this.#retry(attempt, "no-answer"));
    try {
      await this.#negotiate(attempt);
    } catch (error) {
      if (attempt === this.#attempt) this.#failed(attempt, error);
    }
  }

  async #negotiate(attempt) {
    const pc = new RTCPeerConnection({ iceServers: this.#iceServers, bundlePolicy: "max-bundle" });
    this.pc = pc;
    pc.addTransceiver("video", { direction: "recvonly" });
    this.#sender = pc.addTransceiver("audio", { direction: "sendrecv" }).sender;
    await this.#sender.replaceTrack(this.#track);
    this.#openChannel(pc);
    pc.addEventListener("track", (event) => {
      if (event.track.kind === "video") this.#emit("stream", event.streams[0] ?? new MediaStream([event.track]));
    });
    pc.addEventListener("connectionstatechange", () => this.#follow(attempt, pc));

    const late = [];
    const sendLate = () => {
      if (!this.#sessionId || attempt !== this.#attempt || !late.length) return;
      patchCandidates(this.#sessionId, late.splice(0)).catch(() => {}); // the connect limit judges the outcome
    };
    let offered = false;
    pc.addEventListener("icecandidate", ({ candidate }) => {
      if (!offered || !candidate?.candidate) return;
      late.push(candidate.toJSON());
      sendLate();
    });
    await pc.setLocalDescription();
    await gathered(pc, GATHERING_LIMIT_MS);
    if (attempt !== this.#attempt) return;
    offered = true;
    const asked = (this.#asked = this.#prompt);
    const answer = await postOffer(pc.localDescription, this.#portraitId, asked);
    if (attempt !== this.#attempt) {
      await deleteSession(answer.session_id);
      return;
    }
    this.#sessionId = answer.session_id;
    if (this.#prompt !== asked) this.#sendPrompt(asked).catch((error) => this.#unexpressed(error));
    await pc.setRemoteDescription({ type: answer.type, sdp: answer.sdp });
    sendLate();
  }

  /** Send the wanted words to the session, if there is one; `before` are wanted again if it refuses them. */
  async #sendPrompt(before) {
    const sessionId = this.#sessionId;
    const wanted = this.#prompt;
    if (!sessionId) return;
    try {
      await patchPrompt(sessionId, wanted);
    } catch (error) {
      if (sessionId !== this.#sessionId) return; // the session is over: the next offer carries them
      if (this.#prompt === wanted) this.#prompt = before;
      throw error;
    }
  }

  #unexpressed(error) {
    this.#emit("unexpressed", { prompt: this.#prompt, error });
  }

  #openChannel(pc) {
    const channel = pc.createDataChannel("control");
    channel.addEventListener("message", (event) => {
      if (channel === this.#channel) this.#emit("message", JSON.parse(event.data));
    });
    this.#channel = channel;
  }

  #follow(attempt, pc) {
    if (attempt !== this.#attempt) return;
    if (pc.connectionState === "connected") {
      for (const timer of this.#timers) clearTimeout(timer);
      this.#timers.clear();
      this.#failures = 0;
      this.#emit("state", { name: "live" });
    } else if (pc.connectionState === "disconnected") {
      this.#later(DISCONNECT_GRACE_MS, () => {
        if (pc.connectionState !== "connected") this.#retry(attempt, "lost");
      });
    } else if (pc.connectionState === "failed" || pc.connectionState === "closed") {
      this.#retry(attempt, "lost");
    }
  }

  #failed(attempt, error) {
    if (!(error instanceof ServerError)) {
      this.#retry(attempt, "unreachable");
    } else if (error.code === "unknown_portrait" && this.#portraitId !== "default") {
      this.#emit("lost");
      this.connect("default");
    } else if (error.code === "bad_prompt" && this.#asked) {
      if (this.#prompt === this.#asked) {
        this.#prompt = "";
        this.#unexpressed(error);
      }
      this.connect();
    } else if (error.code === "server_full") {
      this.#retry(attempt, "full", error.retryAfter);
    } else if (error.status >= 500) {
      this.#retry(attempt, "unreachable");
    } else {
      this.close();
      this.#emit("state", { name: "refused", reason: error.message });
    }
  }

  /** Close what is left and try again, after `seconds` or a growing pause. */
  async #retry(attempt, reason, seconds = null) {
    if (attempt !== this.#attempt) return;
    const pause = seconds ?? BACK_OFF_S[Math.min(this.#failures, BACK_OFF_S.length - 1)];
    this.#failures += 1;
    const closing = this.close();
    const waiting = this.#attempt;
    await closing;
    if (waiting === this.#attempt) this.#countDown(waiting, reason, Math.max(1, Math.ceil(pause)));
  }

  #countDown(attempt, reason, seconds) {
    if (attempt !== this.#attempt) return;
    if (seconds <= 0) {
      this.#open();
      return;
    }
    this.#emit("state", { name: "waiting", reason, seconds });
    this.#later(1000, () => this.#countDown(attempt, reason, seconds - 1));
  }
}

/** Wait until ICE gathering is complete, at most `limit` ms. */
function gathered(pc, limit) {
  if (pc.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    setTimeout(resolve, limit);
    pc.addEventListener("icegatheringstatechange", () => {
      if (pc.iceGatheringState === "complete") resolve();
    });
  });
}
