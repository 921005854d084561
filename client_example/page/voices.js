// Where the sound comes from: silence, the microphone or a file. Each gives one audio track to send.

export const FILE_LIMIT_BYTES = 100e6;

let context = null;

/** The page's audio context, made once; it runs only after the visitor has touched the page. */
export function audioContext() {
  context ??= new AudioContext({ latencyHint: "interactive" });
  return context;
}

/** A track of pure silence, so that the connection carries sound packets from the first touch on. */
export function silence() {
  return audioContext().createMediaStreamDestination().stream.getAudioTracks()[0];
}

/** The microphone: `track` to send, `level()` in 0..1 for the meter, `muted`, `stop()`. */
export class Microphone {
  static async open() {
    const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
    return new Microphone(await navigator.mediaDevices.getUserMedia({ audio }));
  }

  constructor(stream) {
    this.stream = stream;
    this.track = stream.getAudioTracks()[0];
    this.source = audioContext().createMediaStreamSource(stream);
    this.analyser = new AnalyserNode(audioContext(), { fftSize: 1024 });
    this.source.connect(this.analyser);
    this.samples = new Float32Array(this.analyser.fftSize);
  }

  get muted() {
    return !this.track.enabled;
  }

  set muted(value) {
    this.track.enabled = !value;
  }

  level() {
    this.analyser.getFloatTimeDomainData(this.samples);
    const power = this.samples.reduce((sum, x) => sum + x * x, 0) / this.samples.length;
    return Math.min(1, Math.max(0, 1 + Math.log10(power + 1e-9) / 5)); // -50 dB .. 0 dB
  }

  stop() {
    this.source.disconnect();
    for (const track of this.stream.getTracks()) track.stop();
  }
}

/** A decoded sound file: `track` to send, `seconds`, `position()`, `play(onEnd)`, `stop()`. */
export class SoundFile {
  /** Read and decode; throws what decodeAudioData throws when it is not sound. */
  static async read(file) {
    return new SoundFile(await audioContext().decodeAudioData(await file.arrayBuffer()));
  }

  constructor(buffer) {
    this.seconds = buffer.duration;
    this.node = new AudioBufferSourceNode(audioContext(), { buffer });
    const destination = new MediaStreamAudioDestinationNode(audioContext(), { channelCount: 1, channelCountMode: "explicit" });
    this.node.connect(destination);
    this.track = destination.stream.getAudioTracks()[0];
    this.startTime = 0;
  }

  play(onEnd) {
    this.startTime = audioContext().currentTime;
    this.node.addEventListener("ended", onEnd, { once: true });
    this.node.start();
  }

  position() {
    return Math.min(this.seconds, audioContext().currentTime - this.startTime);
  }

  stop() {
    this.node.stop();
    this.track.stop();
  }
}
