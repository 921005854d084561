// Plain words for everything that can go wrong. Keys are the server's stable error codes.

const PORTRAIT = {
  no_face: "No face found in this picture. Try one that shows the whole face, looking at the camera, with nothing before it.",
  no_such_face: "That face was not found again. Choose the picture once more.",
  face_too_small: "The face is too small in this picture. Choose a closer one, or crop it.",
  turned_away: "The face is turned away. Choose a picture that looks at the camera.",
  mouth_hidden: "The mouth is covered or cut off in this picture. Choose one that shows the lips.",
  consent_required: "The server wants to know who is in the picture, and that they agree.",
  mouth_open: "The mouth is too wide open in this picture. Choose one with the mouth closed or smiling.",
  bad_image: "This is not a picture that can be read. JPEG, PNG, WebP and AVIF work.",
  too_large: "This picture is too big to be sent as it is. Save it as JPEG, or make it smaller.",
  server_full: "The server is busy. Try again in a moment.",
};

const MICROPHONE = {
  NotAllowedError: "The microphone is blocked. Allow it in the browser's address bar, then press Talk again.",
  NotFoundError: "No microphone found. Connect one, or play a sound file instead.",
  NotReadableError: "The microphone is in use by another program. Close that one, then press Talk again.",
  OverconstrainedError: "This microphone cannot be used. Choose another one in the browser's settings.",
};

/** Words for an error code of POST /api/portraits. */
export function portraitWords(code) {
  return PORTRAIT[code] ?? "The picture could not be used. Try another one.";
}

/** Words for an exception of getUserMedia. */
export function microphoneWords(error) {
  if (!window.isSecureContext) {
    return "The browser gives the microphone only to secure pages. Open this page by https or on localhost, or play a sound file.";
  }
  return MICROPHONE[error.name] ?? "The microphone could not be opened. A sound file works too.";
}

export const SOUND = {
  unreadable: "This is not a sound file that the browser can read. WAV, MP3, M4A, Ogg and FLAC usually work.",
  silent: "There is no sound in this file.",
  ready: "Browsers play sound only after a click.",
  tooLarge: "This sound file is too big. Files up to 100 MB work.",
};

export const OTHER_FACES = "The largest face talks. Choose another one, or close.";
export const CONSENT_WANTED = "Write who is in the picture and what for, then choose it again.";
export const ASSISTANT = "Press Talk and speak with it.";
export const EXPRESSION_LOST = "The expression could not be sent. Try again.";
export const LOST_PORTRAIT = "The server no longer has that portrait, so here is the first one. You can upload it again.";
export const NO_WEBRTC = "This browser cannot show live video. A recent Chrome, Edge, Firefox or Safari can.";
export const NOT_A_MEDIA_FILE = "Drop a picture or a sound file.";
export const REFUSED = "The server could not agree on a video connection with this browser.";

// Why there is no connection right now; some are reasons of `closing`.
const TROUBLE = {
  lost: "Connection lost",
  offline: "This computer is offline",
  unreachable: "The server cannot be reached",
  "no-answer": "No video arrived",
  full: "The server is full",
  server_stopping: "The server is stopping",
  failed: "The portrait failed on the server",
  expired: "The session has expired",
};

// Reasons of `closing` after which nothing is tried.
const ENDED = {
  client: "The session was ended",
  door_closed: "The assistant has left",
  portrait_deleted: "This portrait was deleted",
  replaced: "Shown in another window now",
  unknown_session: "This conversation is over",
  full: "The server is full",
  failed: "The portrait failed on the server",
  expired: "The session has expired",
};

/** Words for a state of a connection, as its "state" event describes it. */
export function stateWords({ name, reason, seconds, again }) {
  const trouble = TROUBLE[reason] ?? TROUBLE.lost;
  if (name === "waiting") return `${trouble}, trying again in ${seconds} s`;
  if (name === "reconnecting") return `${trouble}, reconnecting`;
  if (name === "connecting") return again ? "Connecting again" : "Connecting";
  if (name === "stalled") return "The picture stands still";
  if (name === "ended") return ENDED[reason] ?? "The session has ended";
  return name === "live" ? liveWords({}) : "Not connected";
}

const MOODS = { listening: "Live, listening", thinking: "Live, thinking", speaking: "Live, speaking" };

/** Words for a live picture: the server's quality level (0 is full), the assistant's mood, whether frames are few. */
export function liveWords({ level = 0, mood = "idle", slow = false }) {
  if (level >= 3) return "Live with fewer frames, the server is busy";
  if (slow) return "Live, but the computer or the connection is slow";
  if (level > 0) return "Live with fewer details, the server is busy";
  return MOODS[mood] ?? "Live";
}
