// Ties the page together: the connection, what is spoken, the portrait and the live figures.

import { Captions } from "./captions.js";
import { Connection } from "./connection.js";
import { startExpressions } from "./expressions.js";
import { startFigures } from "./figures.js";
import { PortraitChooser } from "./portraits.js";
import { Server } from "./server.js";
import { notice, quiet, showLabel, showLive, showState } from "./status.js";
import { FILE_LIMIT_BYTES, Microphone, SoundFile, audioContext, silence } from "./voices.js";
import { ASSISTANT, LOST_PORTRAIT, NOT_A_MEDIA_FILE, NO_WEBRTC, REFUSED, SOUND, microphoneWords, stateWords } from "./words.js";

const $ = (id) => document.getElementById(id);
const video = $("video");

// A session token of whoever runs the page: in the address, best behind `#`, which is sent to nobody.
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? new URLSearchParams(location.search).get("token");
const server = new Server("", () => token);
const connection = new Connection(server);
const chooser = new PortraitChooser(server);
const captions = new Captions($("captions"));

let voice = null; // {kind: "microphone" | "file", microphone?, file?}
let resting = null; // the silent track; none before the first touch
let touched = false; // a browser plays sound only after the visitor has touched the page
let portraitId = "default";
const soundWanted = { none: true, file: true, microphone: false, assistant: true }; // the visitor's choice for each kind

// ---------------------------------------------------------------- picture and sound

async function playVideo() {
  applySound();
  try {
    await video.play();
    $("tap").hidden = true;
  } catch (error) {
    if (error.name === "NotAllowedError") $("tap").hidden = false;
  }
}

/** What is heard: an assistant answers, everything else comes back as it was said. */
const heard = () => (connection.voice === "assistant" ? "assistant" : (voice?.kind ?? "none"));

function applySound() {
  const wanted = soundWanted[heard()];
  video.muted = !(wanted && touched);
  $("sound").setAttribute("aria-pressed", String(wanted));
  $("sound-label").textContent = wanted ? "Sound on" : "Sound off";
  $("hint").hidden = heard() !== "microphone" || wanted;
}

function toggleSound() {
  soundWanted[heard()] = !soundWanted[heard()];
  playVideo();
}

/** Runs at the first touch or key: sound becomes possible, and packets of silence start to flow. */
function firstTouch() {
  if (touched) return;
  touched = true;
  resting = silence();
  audioContext().resume();
  if (!voice) connection.speak(resting);
  if (video.srcObject) playVideo();
}

function showPoster(id) {
  $("poster").src = server.portraitImage(id);
}

function fitStage(width, height) {
  if (width && height) $("stage").style.setProperty("--ratio", String(width / height));
}

// ---------------------------------------------------------------- what is spoken

async function startTalking() {
  await stopVoice();
  $("talk").disabled = true;
  $("talk-label").textContent = "Waiting for permission";
  try {
    audioContext().resume();
    const microphone = await Microphone.open();
    voice = { kind: "microphone", microphone };
    microphone.track.addEventListener("ended", () => voice?.microphone === microphone && stopVoice());
    quiet();
    await connection.speak(microphone.track);
    showVoice("Listening");
  } catch (error) {
    notice(microphoneWords(error));
  } finally {
    $("talk").disabled = false;
    showTalkButton();
  }
}

async function playFile(file) {
  if (file.size > FILE_LIMIT_BYTES) return notice(SOUND.tooLarge);
  if (!touched) return notice(SOUND.ready, { label: "Play", run: () => playFile(file) }); // dropped
  await stopVoice();
  quiet();
  await audioContext().resume();
  let sound;
  try {
    sound = await SoundFile.read(file);
  } catch {
    return notice(SOUND.unreadable); // decodeAudioData says only that it failed
  }
  if (!sound.seconds) return notice(SOUND.silent);
  voice = { kind: "file", file: sound };
  await connection.speak(sound.track);
  sound.play(() => voice?.file === sound && stopVoice({ cut: false }));
  showVoice(file.name);
}

/** Back to silence. `cut` also throws away what the server has not shown yet. */
async function stopVoice({ cut = true } = {}) {
  if (!voice) return;
  const { microphone, file } = voice;
  voice = null;
  await connection.speak(resting);
  microphone?.stop();
  file?.stop();
  if (cut && file) connection.interrupt();
  $("source").hidden = true;
  $("mute").setAttribute("aria-pressed", "false");
  $("mute").textContent = "Mute";
  showTalkButton();
  applySound();
}

function showTalkButton() {
  const talking = voice?.kind === "microphone";
  $("talk").setAttribute("aria-pressed", String(talking));
  $("talk-label").textContent = talking ? "Stop talking" : "Talk";
}

function showVoice(name) {
  const file = voice.kind === "file";
  $("source-name").textContent = name;
  $("source-time").textContent = "";
  $("mute").hidden = file;
  $("stop").hidden = !file; // the big button stops the microphone
  $("source").hidden = false;
  $("source").dataset.kind = voice.kind;
  showTalkButton();
  playVideo();
  moveBar(voice);
}

function moveBar(shown) {
  if (voice !== shown) return;
  let part;
  if (voice.kind === "file") {
    const { file } = voice;
    part = file.position() / file.seconds;
    $("source-time").textContent = `${clock(file.position())} / ${clock(file.seconds)}`;
  } else {
    part = voice.microphone.muted ? 0 : voice.microphone.level();
  }
  $("bar").style.transform = `scaleX(${part.toFixed(3)})`;
  requestAnimationFrame(() => moveBar(shown));
}

function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function toggleMute() {
  const { microphone } = voice;
  microphone.muted = !microphone.muted;
  $("mute").setAttribute("aria-pressed", String(microphone.muted));
  $("mute").textContent = microphone.muted ? "Unmute" : "Mute";
  $("source-name").textContent = microphone.muted ? "Microphone muted" : "Listening";
}

// ---------------------------------------------------------------- start

function acceptDrops() {
  let depth = 0;
  const show = (on) => ($("drop").hidden = !on);
  addEventListener("dragenter", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    depth += 1;
    show(true);
  });
  addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (!depth) show(false);
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    show(false);
    const [file] = event.dataTransfer?.files ?? [];
    if (!file) return;
    if (file.type.startsWith("image/")) chooser.upload(file);
    else if (/^(audio|video)\//.test(file.type)) playFile(file);
    else notice(NOT_A_MEDIA_FILE);
  });
}

function listen() {
  for (const type of ["pointerup", "keydown"]) addEventListener(type, firstTouch, { once: true, capture: true });
  $("talk").addEventListener("click", () => (voice?.kind === "microphone" ? stopVoice() : startTalking()));
  $("play").addEventListener("click", () => $("sound-input").click());
  $("sound-input").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // the same file may be chosen again
    if (file) playFile(file);
  });
  $("portrait").addEventListener("click", () => chooser.open());
  $("sound").addEventListener("click", toggleSound);
  $("mute").addEventListener("click", toggleMute);
  $("stop").addEventListener("click", () => stopVoice());
  $("tap").addEventListener("click", playVideo);
  $("notice-close").addEventListener("click", quiet);
  video.addEventListener("resize", () => fitStage(video.videoWidth, video.videoHeight));
  acceptDrops();

  connection.addEventListener("state", ({ detail }) => follow(detail));
  connection.addEventListener("message", ({ detail }) => take(detail));
  connection.addEventListener("lost", () => {
    notice(LOST_PORTRAIT);
    chooser.forget();
    usePortrait({ id: "default" });
  });
  connection.addEventListener("stream", () => {
    video.srcObject ??= connection.stream;
    playVideo();
    const seen = () => $("stage").classList.add("playing");
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(seen);
    else seen();
  });
  chooser.addEventListener("chosen", (event) => {
    const { id, notices } = event.detail;
    usePortrait(event.detail);
    connection.show(id);
    if (notices?.length) notice(notices.join(" "));
  });
  addEventListener("pagehide", () => connection.close());
  addEventListener("pageshow", (event) => event.persisted && connection.connect()); // back from the history
}

function follow(state) {
  if (state.name !== "live" && state.name !== "stalled") showLive({ level: 0, mood: "idle", slow: false }); // until told anew
  showState(state);
  if (state.name === "ended") captions.clear();
  if (state.name === "connecting") $("stage").classList.remove("playing"); // not what another session showed
  if (state.name === "refused") notice(REFUSED, { label: "Try again", run: () => connection.connect() });
  if (state.name === "ended") notice(stateWords(state) + ".", { label: "Start again", run: () => startAgain(state) });
  if (state.name === "live" && connection.voice === "assistant") $("lead").textContent = ASSISTANT;
}

/** A session that is over cannot be joined again: the page starts one of its own. */
function startAgain({ reason }) {
  connection.connect(reason === "replaced" ? {} : { sessionId: null });
}

function take(message) {
  captions.take(message);
  if (message.type === "disclosure") showLabel(message.label);
  if (message.type === "quality") showLive({ level: message.level });
  if (message.type === "state") showLive({ mood: message.state });
  if (message.type === "portrait" && message.portrait_id !== portraitId) usePortrait({ id: message.portrait_id });
}

function usePortrait({ id, width, height }) {
  portraitId = id;
  chooser.mark(id);
  showPoster(id);
  fitStage(width, height);
}

async function main() {
  if (!window.RTCPeerConnection) return notice(NO_WEBRTC);
  listen();
  showPoster(portraitId);
  const config = await server.config().catch(() => ({ fps: 25, ice_servers: [] }));
  showLabel(config.disclosure);
  chooser.asksConsent = config.consent_required;
  startFigures(connection, config);
  startExpressions(connection, config);
  const sessionId = new URLSearchParams(location.search).get("session"); // one that an assistant has made
  connection.connect({ portraitId, sessionId, iceServers: config.ice_servers });
  const portraits = await server.portraits().catch(() => []);
  const shown = portraits.find((portrait) => portrait.id === portraitId);
  if (shown) fitStage(shown.width, shown.height);
}

main();
