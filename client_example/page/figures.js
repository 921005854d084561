// The live figures of the page: delay and frame rate, each with its line, and the legs of the delay.

import { Plot } from "./plot.js";
import { Meter } from "./stats.js";
import { showLive } from "./status.js";

const SLOW_SHARE = 0.8; // of the frame rate
const SLOW_AFTER_S = 5;

const $ = (id) => document.getElementById(id);

/** Show the figures of `connection` once a second from now on. */
export function startFigures(connection, config) {
  const meter = new Meter();
  connection.addEventListener("state", (event) => event.detail.name !== "live" && meter.reset());
  connection.addEventListener("message", (event) => event.detail.type === "stats" && meter.heard(event.detail));
  const delayPlot = new Plot($("delay-plot"), { top: 400 });
  const fpsPlot = new Plot($("fps-plot"), { top: config.fps * 1.2, target: config.fps });
  let slowSeconds = 0;
  setInterval(async () => {
    const pc = connection.pc;
    const live = pc?.connectionState === "connected";
    const { fps, delayMs, legs } = live ? await meter.sample(pc) : { fps: null, delayMs: null, legs: [] };
    connection.tell({ type: "ping", t: performance.now() });
    $("fps").textContent = fps === null ? "–" : fps.toFixed(1);
    $("delay").textContent = delayMs === null ? "–" : String(Math.round(delayMs));
    delayPlot.push(delayMs);
    fpsPlot.push(fps);
    if (legs.length) showLegs(legs);
    slowSeconds = fps !== null && fps < config.fps * SLOW_SHARE ? slowSeconds + 1 : 0;
    if (fps !== null) showLive({ slow: slowSeconds >= SLOW_AFTER_S });
  }, 1000);
}

function showLegs(legs) {
  $("legs").replaceChildren(
    ...legs.map(({ name, ms }) => {
      const row = document.createElement("tr");
      const head = Object.assign(document.createElement("th"), { textContent: name, scope: "row" });
      const cell = Object.assign(document.createElement("td"), { textContent: ms === null ? "–" : `${ms.toFixed(0)} ms` });
      row.append(head, cell);
      return row;
    }),
  );
}
