// A small line of the last minute on a canvas. Colours come from the style sheet.

const POINTS = 60;

export class Plot {
  #values = [];

  /**
   * `top` is the least height of the scale; `target` draws a dashed line.
   */
  constructor(canvas, { top, target = null }) {
    this.canvas = canvas;
    this.top = top;
    this.target = target;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Add one value; null leaves a gap. */
  push(value) {
    this.#values.push(value);
    if (this.#values.length > POINTS) this.#values.shift();
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!width || !height) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const top = Math.max(this.top, ...this.#values.map((v) => (v ?? 0) * 1.1));
    const y = (value) => height - 2 - (value / top) * (height - 4);
    const x = (index) => width - 3 - ((this.#values.length - 1 - index) / (POINTS - 1)) * (width - 6);

    pen.strokeStyle = style.getPropertyValue("--line");
    pen.setLineDash([3, 4]);
    for (const level of [0, this.target].filter((v) => v !== null)) {
      pen.beginPath();
      pen.moveTo(0, y(level));
      pen.lineTo(width, y(level));
      pen.stroke();
    }
    pen.setLineDash([]);
    pen.strokeStyle = style.getPropertyValue("--accent");
    pen.lineWidth = 1.75;
    pen.lineJoin = "round";
    pen.beginPath();
    let drawing = false;
    this.#values.forEach((value, index) => {
      if (value === null) drawing = false;
      else if (drawing) pen.lineTo(x(index), y(value));
      else {
        pen.moveTo(x(index), y(value));
        drawing = true;
      }
    });
    pen.stroke();
    const last = this.#values.at(-1);
    if (last === null || last === undefined) return;
    pen.fillStyle = style.getPropertyValue("--accent");
    pen.beginPath();
    pen.arc(x(this.#values.length - 1), y(last), 2.75, 0, 2 * Math.PI);
    pen.fill();
  }
}
