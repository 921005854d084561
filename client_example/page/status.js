// What the page says: the state of the connection, and messages.

import { liveWords, stateWords } from "./words.js";

const $ = (id) => document.getElementById(id);

/** Show a message; `action` is {label, run} for a button beside it. */
export function notice(text, action = null) {
  $("notice-text").textContent = text;
  $("notice-action").hidden = !action;
  if (action) {
    $("notice-action").textContent = action.label;
    $("notice-action").onclick = () => {
      quiet();
      action.run();
    };
  }
  $("notice").hidden = false;
}

/** Take the message away. */
export function quiet() {
  $("notice").hidden = true;
}

/** Say on the picture that it is synthetic, in these words, if there are any. */
export function showLabel(words) {
  if (!words) return;
  $("label").textContent = words;
  $("label").hidden = false;
}

/** Show a state of the connection, as its "state" event describes it. */
export function showState(state) {
  for (const place of [document.documentElement, $("pill"), $("stage")]) place.dataset.state = state.name;
  if (state.name === "live") showLive();
  else if (state.name === "waiting") announceWaiting(stateWords(state));
  else $("state").textContent = stateWords(state);
}

/** A countdown is shown every second but spoken once: the number is not part of the live region. */
function announceWaiting(text) {
  const match = text.match(/^(.*?)(\d+ s)$/);
  const seconds = Object.assign(document.createElement("span"), { textContent: match[2] });
  seconds.setAttribute("aria-hidden", "true");
  if ($("state").firstChild?.nodeValue !== match[1]) $("state").replaceChildren(match[1], seconds);
  else $("state").lastChild.textContent = match[2];
}

const live = { level: 0, mood: "idle", slow: false };

/** What is to be said of the live picture from now on: see `liveWords`. A screen reader hears only changes. */
export function showLive(changes = {}) {
  Object.assign(live, changes);
  if (document.documentElement.dataset.state !== "live") return;
  const text = liveWords(live);
  if ($("state").textContent !== text) $("state").textContent = text;
}
