// What the page says: the state of the connection, and messages.

import { SLOW } from "./words.js";

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

const WAITING = {
  full: (s) => `The server is full, trying again in ${s} s`,
  lost: (s) => `Connection lost, trying again in ${s} s`,
  unreachable: (s) => `The server cannot be reached, trying again in ${s} s`,
  "no-answer": (s) => `No video arrived, trying again in ${s} s`,
};

/** Show a state of the connection, as its "state" event describes it. */
export function showState({ name, reason, seconds, again }) {
  document.documentElement.dataset.state = name;
  $("pill").dataset.state = name;
  if (name === "waiting") announceWaiting(WAITING[reason](seconds));
  else $("state").textContent = { connecting: again ? "Connecting again" : "Connecting", live: "Live", refused: "Not connected" }[name];
}

/** A countdown is shown every second but spoken once: the number is not part of the live region. */
function announceWaiting(text) {
  const match = text.match(/^(.*?)(\d+ s)$/);
  const seconds = Object.assign(document.createElement("span"), { textContent: match[2] });
  seconds.setAttribute("aria-hidden", "true");
  if ($("state").firstChild?.nodeValue !== match[1]) $("state").replaceChildren(match[1], seconds);
  else $("state").lastChild.textContent = match[2];
}

/** Say so when the picture stays slow, and take it back; a screen reader hears only changes. */
export function showSlow(slow) {
  if (document.documentElement.dataset.state !== "live") return;
  const text = slow ? SLOW : "Live";
  if ($("state").textContent !== text) $("state").textContent = text;
}
