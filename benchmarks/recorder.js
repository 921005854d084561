// Runs inside the measured page, before its own scripts. Notes when the microphone heard a beep, when the
// beep came back as sound, and what every shown frame's code strip says. Judges nothing.
(() => {
  const LOUD = 0.1;
  const QUIET_S = 0.2;
  const SYNC = 0xa5;
  const ROWS = 3;
  const COLUMNS = 32;
  const wall = (t = performance.now()) => performance.timeOrigin + t;

  // Beeps are no speech: the browser's noise suppression would eat them.
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wish) => {
    const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await open({ ...wish, audio: { ...wish.audio, ...raw } });
    recorder.microphone = stream.getAudioTracks()[0].clone();
    return stream;
  };

  class Ear {
    constructor(track, keep = false) {
      this.kept = keep ? [] : null; // all of the sound, as Int16Array
      this.rate = 0;
      this.chunks = []; // [wall ms of arrival, samples before it, its samples, its peak]
      this.onsets = []; // sample at which a beep begins
      this.samples = 0;
      this.lastLoud = Number.NEGATIVE_INFINITY;
      this.reader = new MediaStreamTrackProcessor({ track, maxBufferSize: 1000 }).readable.getReader();
      this.run();
    }

    async run() {
      for (;;) {
        const { value, done } = await this.reader.read();
        if (done) return;
        this.hear(value, wall());
        value.close();
      }
    }

    hear(data, now) {
      const pcm = new Float32Array(data.numberOfFrames);
      data.copyTo(pcm, { planeIndex: 0, format: "f32-planar" });
      this.rate = data.sampleRate;
      let peak = 0;
      for (let i = 0; i < pcm.length; i += 1) {
        peak = Math.max(peak, Math.abs(pcm[i]));
        if (Math.abs(pcm[i]) <= LOUD) continue;
        const at = this.samples + i;
        if (at - this.lastLoud >= QUIET_S * this.rate) this.onsets.push(at);
        this.lastLoud = at;
      }
      this.kept?.push(Int16Array.from(pcm, (x) => 32767 * x));
      this.chunks.push([now, this.samples, pcm.length, peak]);
      this.samples += pcm.length;
    }

    take() {
      return { rate: this.rate, chunks: this.chunks, onsets: this.onsets, sound: this.sound() };
    }

    /** What was kept, as base64 of 16-bit samples, or null. */
    sound() {
      if (this.kept === null) return null;
      let bytes = "";
      for (const piece of this.kept) bytes += String.fromCharCode(...new Uint8Array(piece.buffer));
      return btoa(bytes);
    }
  }

  class Eye {
    constructor(video) {
      this.video = video;
      this.frames = []; // [shown, called, received (wall ms or null), presented, code or null]
      this.pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
      this.look();
    }

    look() {
      this.video.requestVideoFrameCallback((now, about) => {
        this.look();
        const received = about.receiveTime === undefined ? null : wall(about.receiveTime);
        this.frames.push([wall(about.expectedDisplayTime), wall(now), received, about.presentedFrames, this.read()]);
      });
    }

    /** [counter, low 32 bits of the wall clock in ms, flags, id], or null when it cannot be read. */
    read() {
      const width = this.video.videoWidth;
      const block = Math.floor(width / COLUMNS);
      const height = ROWS * block;
      const { canvas } = this.pen;
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
      this.pen.drawImage(this.video, 0, 0, width, height, 0, 0, width, height);
      const { data } = this.pen.getImageData(0, 0, width, height);
      const bytes = new Uint8Array((ROWS * COLUMNS) / 8);
      for (let bit = 0; bit < ROWS * COLUMNS; bit += 1) {
        const x = (bit % COLUMNS) * block + (block >> 1);
        const y = Math.floor(bit / COLUMNS) * block + (block >> 1);
        const at = 4 * (y * width + x);
        if (data[at] + data[at + 1] + data[at + 2] > 3 * 127) bytes[bit >> 3] |= 128 >> (bit & 7);
      }
      const view = new DataView(bytes.buffer);
      if (bytes[0] !== SYNC || view.getUint16(10) !== crc(bytes.subarray(0, 10))) return null;
      return [view.getUint32(0) & 0xffffff, view.getUint32(4), bytes[8], bytes[9]];
    }
  }

  /** CRC-16/CCITT-FALSE. */
  function crc(bytes) {
    let value = 0xffff;
    for (const byte of bytes) {
      value ^= byte << 8;
      for (let i = 0; i < 8; i += 1) value = value & 0x8000 ? (value << 1) ^ 0x1021 : value << 1;
      value &= 0xffff;
    }
    return value;
  }

  async function totals(pc) {
    const found = { at: wall() };
    for (const stat of (await pc.getStats()).values()) {
      if (stat.type === "outbound-rtp" && stat.kind === "audio") found.packetsSent = stat.packetsSent;
      if (stat.type === "inbound-rtp") {
        for (const [key, value] of Object.entries(stat)) {
          if (typeof value === "number") found[`${stat.kind}.${key}`] = value;
        }
        found[`${stat.kind}.decoder`] = stat.decoderImplementation ?? null;
      }
    }
    return found;
  }

  const recorder = (window.__recorder = {
    microphone: null,
    async start({ keepSound = false } = {}) {
      const pc = window.__connections.at(-1);
      const receiver = pc.getReceivers().find((each) => each.track.kind === "audio");
      this.pc = pc;
      this.captured = this.microphone && new Ear(this.microphone); // none where the page only receives
      this.heard = new Ear(receiver.track, keepSound);
      this.seen = new Eye(document.getElementById("video"));
      this.before = await totals(pc);
    },
    async take() {
      const after = await totals(this.pc);
      return {
        before: this.before,
        after,
        captured: this.captured?.take() ?? null,
        heard: this.heard.take(),
        frames: this.seen.frames,
        connections: window.__connections.length,
      };
    },
  });
})();
