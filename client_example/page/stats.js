// Frame rate and delay of a live connection, once a second, from getStats and the server's figures.

const PACKET_MS = 20; // the browser fills one Opus packet before it leaves

// The keys of `legs_ms`; an unknown one is shown as it is.
const LEG_WORDS = {
  mic: "Server: packet to sound",
  hop: "Server: filling a frame of sound",
  lookahead: "Server: listening ahead",
  queue: "Server: waiting for its turn",
  engine: "Server: making the picture",
  wait: "Server: keeping an even pace",
};

/** Turns the totals of getStats into the figures of the last second. Feed it regularly. */
export class Meter {
  #before = null;
  #server = null;

  /** Remember the newest "stats" message of the control channel. */
  heard(message) {
    this.#server = message;
  }

  /** Forget everything: a new connection starts from zero. */
  reset() {
    this.#before = null;
    this.#server = null;
  }

  /** Resolves to {fps, delayMs, legs: [{name, ms}]}; null where it is not known (yet). */
  async sample(pc) {
    const now = readReport(await pc.getStats());
    const before = this.#before;
    this.#before = now;
    if (!before?.framesDecoded || now.at <= before.at) return { fps: null, delayMs: null, legs: [] };
    const fps = ((now.framesDecoded - before.framesDecoded) * 1000) / (now.at - before.at);
    const legs = [...this.#serverLegs(), ...browserLegs(before, now)];
    const known = this.#server !== null && legs.every((leg) => leg.ms !== null);
    const delayMs = known ? legs.reduce((sum, leg) => sum + leg.ms, 0) : null;
    return { fps, delayMs, legs };
  }

  #serverLegs() {
    const legs = Object.entries(this.#server?.legs_ms ?? {});
    return legs.map(([key, ms]) => ({ name: LEG_WORDS[key] ?? `Server: ${key.replaceAll("_", " ")}`, ms }));
  }
}

function browserLegs(before, now) {
  const frames = now.framesDecoded - before.framesDecoded;
  const emitted = now.emitted - before.emitted;
  return [
    { name: "Filling a sound packet (fixed)", ms: PACKET_MS },
    { name: "Network, there and back", ms: now.rttMs },
    { name: "Browser: evening out", ms: emitted > 0 ? ((now.bufferS - before.bufferS) * 1000) / emitted : null },
    { name: "Browser: decoding", ms: frames > 0 ? ((now.decodeS - before.decodeS) * 1000) / frames : null },
  ];
}

function readReport(report) {
  const found = { at: performance.now(), framesDecoded: 0, bufferS: 0, emitted: 0, decodeS: 0, rttMs: null };
  for (const stat of report.values()) {
    if (stat.type === "inbound-rtp" && stat.kind === "video") {
      found.at = stat.timestamp;
      found.framesDecoded = stat.framesDecoded ?? 0;
      found.bufferS = stat.jitterBufferDelay ?? 0;
      found.emitted = stat.jitterBufferEmittedCount ?? 0;
      found.decodeS = stat.totalDecodeTime ?? 0;
    } else if (stat.type === "candidate-pair" && stat.nominated && stat.currentRoundTripTime !== undefined) {
      found.rttMs = stat.currentRoundTripTime * 1000;
    }
  }
  return found;
}
