// Plain words for everything that can go wrong. Keys are the server's stable error codes.

const PORTRAIT = {
  no_face: "No face found in this picture. Try one that shows the whole face, looking at the camera.",
  several_faces: "There are two faces or more in this picture. Choose one with a single person, or crop it.",
  face_too_small: "The face is too small in this picture. Choose a closer one, or crop it.",
  turned_away: "The face is turned away. Choose a picture that looks at the camera.",
  bad_image: "This is not a picture that can be read. JPEG, PNG and WebP work.",
  too_large: "This picture is too big. Up to 10 MB and 40 million pixels work.",
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

export const EXPRESSION_LOST = "The expression could not be sent. Try again.";
export const LOST_PORTRAIT = "The server no longer has that portrait, so here is the first one. You can upload it again.";
export const NO_WEBRTC = "This browser cannot show live video. A recent Chrome, Edge, Firefox or Safari can.";
export const SLOW = "Live, but the computer or the connection is slow";
export const NOT_A_MEDIA_FILE = "Drop a picture or a sound file.";
export const REFUSED = "The server could not agree on a video connection with this browser.";
