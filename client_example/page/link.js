// One peer connection: the face and its voice in, a microphone out, the control channel, and whether media arrive.

const GATHERING_LIMIT_MS = 300; // later candidates are sent by themselves
const MORE_CANDIDATES_MS = 30; // after the first
const LOOK_MS = 100;
const STILL_MS = 700; // no frame for so long: the picture stands still
const DOUBT_MS = 300; // no frame for so long: do packets of sound come?
const SILENT_MS = 300; // none for so long, asked for meanwhile

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
  #frame = new Change();
  #packet = new Change();

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
    await gathered(this.#pc);
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

  /** Look now whether media arrive; no frame for `patience` ms is none. */
  async look(patience = STILL_MS) {
    const [video, audio] = this.#pc.getReceivers();
    const still = this.#frame.since(video.getSynchronizationSources()[0]?.rtpTimestamp);
    if (still > DOUBT_MS) this.#packet.since(await packets(audio));
    const frames = still < patience;
    const sound = frames || this.#packet.since() < SILENT_MS;
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

/** When a figure last changed. */
class Change {
  #value;
  #at = Number.NEGATIVE_INFINITY;

  /** Milliseconds since it changed, with its newest value if that is known; Infinity if it never did. */
  since(value) {
    const now = performance.now();
    if (value !== undefined && value !== this.#value) [this.#value, this.#at] = [value, now];
    return now - this.#at;
  }
}

/** How many packets a receiver got. */
async function packets(receiver) {
  for (const stat of (await receiver.getStats()).values()) if (stat.type === "inbound-rtp") return stat.packetsReceived;
  return undefined;
}

/** Wait until ICE gathering is complete, or the first candidate has been there for a moment, or for the limit. */
function gathered(pc) {
  if (pc.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    setTimeout(resolve, GATHERING_LIMIT_MS);
    pc.addEventListener("icecandidate", ({ candidate }) => setTimeout(resolve, candidate ? MORE_CANDIDATES_MS : 0));
  });
}
