// One peer connection: the face and its voice in, a microphone out, the control channel, and whether media arrive.

const GATHERING_LIMIT_MS = 500; // later candidates are sent by themselves
const LOOK_MS = 100;
const STILL_MS = 700; // no frame for so long: the picture stands still
const SILENT_MS = 500; // no packet of sound, or of its silence

/**
 * Events (CustomEvent, values in `detail`):
 *   candidate  one ICE candidate that was found after the offer
 *   message    one parsed JSON message of the control channel
 *   media      {frames, sound}: whether they arrive, when that changes; the first says that the first frame is there
 *   over       the connection is closed by the other side, or failed
 */
export class Link extends EventTarget {
  frames = false; // whether they arrive
  sound = false;
  #pc;
  #channel;
  #sender;
  #looking = 0;
  #closed = false; // by ourselves
  #video = new Arrivals();
  #audio = new Arrivals();

  constructor(iceServers) {
    super();
    this.#pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.#pc.addTransceiver("video", { direction: "recvonly" });
    this.#sender = this.#pc.addTransceiver("audio", { direction: "sendrecv" }).sender;
    this.#channel = this.#pc.createDataChannel("control");
    this.#channel.addEventListener("message", ({ data }) => this.#emit("message", JSON.parse(data)));
    this.#channel.addEventListener("close", () => this.#emit("over"));
    this.#pc.addEventListener("connectionstatechange", () => {
      if (["failed", "closed"].includes(this.#pc.connectionState)) this.#emit("over");
    });
  }

  get pc() {
    return this.#pc;
  }

  /** The tracks of the face and its voice. */
  get tracks() {
    return this.#pc.getReceivers().map((receiver) => receiver.track);
  }

  /** Make the offer, with the candidates that are found quickly; `track` is sent from the start. */
  async offer(track) {
    await this.#sender.replaceTrack(track);
    let made = false;
    this.#pc.addEventListener("icecandidate", ({ candidate }) => {
      if (made && candidate?.candidate) this.#emit("candidate", candidate.toJSON());
    });
    await this.#pc.setLocalDescription();
    await gathered(this.#pc, GATHERING_LIMIT_MS);
    made = true;
    return this.#pc.localDescription;
  }

  /** Take the answer; from now on media are watched. */
  async accept({ type, sdp }) {
    await this.#pc.setRemoteDescription({ type, sdp });
    if (!this.#closed) this.#looking = setInterval(() => this.look(), LOOK_MS);
  }

  /** Send this audio track from now on; null sends nothing. */
  speak(track) {
    return this.#sender.replaceTrack(track);
  }

  /** Send a JSON message if the control channel is open. */
  tell(message) {
    if (this.#channel.readyState === "open") this.#channel.send(JSON.stringify(message));
  }

  /** Look now whether media arrive; none for `patience` ms are none. */
  look(patience = STILL_MS) {
    const now = performance.now();
    const [video, audio] = this.#pc.getReceivers();
    const frames = this.#video.look(video, now) < patience;
    const sound = this.#audio.look(audio, now) < Math.min(patience, SILENT_MS);
    if (frames === this.frames && sound === this.sound) return;
    [this.frames, this.sound] = [frames, sound];
    this.#emit("media", { frames, sound });
  }

  close() {
    this.#closed = true;
    clearInterval(this.#looking);
    this.#pc.close();
  }

  #emit(type, detail) {
    if (!this.#closed) this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** When a receiver last gave something: what left its jitter buffer carries another time stamp than before. */
class Arrivals {
  #stamp = null;
  #at = Number.NEGATIVE_INFINITY;

  /** Milliseconds since something arrived; Infinity if nothing ever did. */
  look(receiver, now) {
    const stamp = receiver?.getSynchronizationSources()[0]?.rtpTimestamp ?? null;
    if (stamp !== null && stamp !== this.#stamp) [this.#stamp, this.#at] = [stamp, now];
    return now - this.#at;
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
