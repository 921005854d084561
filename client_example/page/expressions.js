// The expression of the face: chips for single words, a line of text for mixtures.

import { ServerError } from "./server.js";
import { notice, quiet } from "./status.js";
import { EXPRESSION_LOST } from "./words.js";

let told = false; // whether a refusal is shown: no other message is taken away

const $ = (id) => document.getElementById(id);

/** Offer the words that the server knows; none are shown for a server that knows none. */
export function startExpressions(connection, { expressions = [] }) {
  for (const word of expressions) {
    const chip = Object.assign(document.createElement("button"), { type: "button", textContent: label(word) });
    chip.dataset.word = word;
    chip.addEventListener("click", () => express(connection, word === "neutral" ? "" : word));
    $("chips").append(chip);
  }
  $("prompt-form").addEventListener("submit", (event) => {
    event.preventDefault();
    express(connection, $("prompt").value.trim());
  });
  connection.addEventListener("unexpressed", ({ detail }) => {
    mark(detail.prompt);
    refused(detail.error);
  });
  connection.addEventListener("message", ({ detail }) => {
    if (detail.type === "prompt") mark(detail.prompt.replace(/ 1$/, "")); // by whomever it was changed
  });
  $("expression").hidden = !expressions.length;
  mark("");
}

async function express(connection, prompt) {
  try {
    await connection.express(prompt);
    if (told) quiet();
    told = false;
    $("prompt").value = prompt;
    mark(prompt);
  } catch (error) {
    refused(error);
  }
}

function refused(error) {
  const said = error instanceof ServerError && error.status === 422;
  told = true;
  notice(said ? error.message : EXPRESSION_LOST); // the server's own words: it knows what it can show
}

function mark(prompt) {
  for (const chip of $("chips").children) {
    chip.setAttribute("aria-pressed", String(chip.dataset.word === (prompt.toLowerCase() || "neutral")));
  }
}

function label(word) {
  return word[0].toUpperCase() + word.slice(1);
}
