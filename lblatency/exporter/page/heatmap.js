// Latency over time: a column per sample, a row per bucket, colour by its share of the column.

import { readable } from "./heatcolumns.js";
import { clock, duration, element, percent, rate, tick, whole } from "./format.js";
import { fit, placeTip, ticks } from "./plot.js";
import { shades } from "./ramp.js";
import { colour } from "./theme.js";

// Shares that have the first and the last shade; those in between, by their logarithm.
const FAINTEST = 1 / 512;
const BRIGHTEST = 1 / 4;
const ROWS_MIN = 14; // so that a narrow distribution is not drawn as a few huge cells
// Room around the cells, in px.
const LEFT = 52;
const RIGHT = 6;
const TOP = 4;
const GAP = 5;
const STRIP = 26;
const BOTTOM = 18;
const SHORTEST_S = 60; // of the axis, while the exporter is young
const FONT = "11px system-ui, sans-serif";

export class Heatmap {
  #canvas = document.getElementById("heat-canvas");
  #tip = document.getElementById("heat-tip");
  #image = document.createElement("canvas"); // a pixel per cell
  #document = null;
  #absolute = false; // colour by count, not by share
  #growth = 0; // from row to row
  #rows = 0; // as many are drawn
  #below = 0; // those of them that are below the document's
  #span = []; // of time
  #plot = null; // where the cells are
  #columns = []; // of the document, as they are drawn
  #cell = null; // [column, row] under the pointer, or where the arrows went
  #pointer = null; // {offsetX, offsetY} of that

  constructor() {
    this.#canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.#canvas.addEventListener("pointerleave", () => this.#leave());
    this.#canvas.addEventListener("blur", () => this.#leave());
    this.#canvas.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.draw()).observe(this.#canvas.parentElement);
  }

  show(document, absolute) {
    this.#document = document;
    this.#absolute = absolute;
    this.#measure();
    this.#paint();
    this.draw();
    if (this.#cell) this.#point(this.#pointer); // what is there now
  }

  clear() {
    this.#document = null;
    this.#leave();
    this.draw();
  }

  #measure() {
    const { upper, schema } = this.#document;
    this.#columns = readable(this.#document);
    this.#growth = 2 ** (2 ** -schema);
    this.#below = Math.max(0, Math.ceil((ROWS_MIN - upper.length) / 2));
    this.#rows = Math.max(ROWS_MIN, upper.length);
    const columns = this.#columns;
    const last = columns.at(-1);
    if (last) this.#span = [Math.min(columns[0].begin, last.end - SHORTEST_S), last.end];
    const all = columns.reduce((sum, { total }) => sum + total, 0);
    this.#canvas.ariaLabel = upper.length
      ? `Heat map of ${columns.length} columns: ${whole(all)} connections; newest p50 ` +
        `${duration(last.p50)}, p99 ${duration(last.p99)}. Arrow keys read its cells.`
      : "Heat map: no connection in this time";
  }

  #paint() {
    const columns = this.#columns;
    const [width, height] = [columns.length, this.#document.upper.length];
    if (!width || !height) return;
    [this.#image.width, this.#image.height] = [width, height];
    const context = this.#image.getContext("2d");
    const image = context.createImageData(width, height);
    const steps = shades();
    const most = this.#absolute
      ? Math.max(1, ...columns.map(({ counts }) => Math.max(...counts)))
      : 0;
    this.#scale(steps, most);
    columns.forEach(({ counts, total }, c) =>
      counts.forEach((count, r) => {
        if (!count) return;
        const share = (count / (most || total)) * (most ? BRIGHTEST : 1);
        const shade = Math.round(
          (steps.length - 1) * (1 - Math.log(share / BRIGHTEST) / Math.log(FAINTEST / BRIGHTEST)),
        );
        const at = 4 * ((height - 1 - r) * width + c);
        image.data.set(steps[Math.max(0, Math.min(steps.length - 1, shade))], at);
        image.data[at + 3] = 255;
      }),
    );
    context.putImageData(image, 0, 0);
  }

  // What the colours mean.
  #scale(steps, most) {
    const [low, bar, high] = document.getElementById("scale").children;
    const colours = steps.map((each) => `rgb(${each.join(" ")})`);
    bar.style.background = `linear-gradient(to right, ${colours.join(", ")})`;
    low.textContent = most ? whole(Math.ceil((most * FAINTEST) / BRIGHTEST)) : percent(FAINTEST, 1);
    high.textContent = most ? whole(most) : `${BRIGHTEST * 100} % of its column`;
  }

  draw() {
    const { context, width, height } = fit(this.#canvas);
    if (!this.#document || width < 2 * LEFT) return;
    this.#plot = {
      left: LEFT,
      top: TOP,
      width: width - LEFT - RIGHT,
      height: height - BOTTOM - STRIP - GAP - TOP,
    };
    context.font = FONT;
    if (!this.#document.upper.length) {
      context.fillStyle = colour("muted");
      context.textAlign = "center";
      context.fillText("No connection in this time", width / 2, height / 2);
      return;
    }
    this.#axes(context);
    this.#cells(context);
    this.#line(context, "p50", 15);
    this.#line(context, "p99", -6);
    this.#strip(context);
    this.#cross(context);
  }

  #x(time) {
    const [since, until] = this.#span;
    return this.#plot.left + ((time - since) / (until - since)) * this.#plot.width;
  }

  // The y of a row's lower edge, or of a place between rows.
  #y(row) {
    return this.#plot.top + this.#plot.height * (1 - (row + this.#below) / this.#rows);
  }

  // Where a latency lies, in rows.
  #row(seconds) {
    const { upper } = this.#document;
    return 1 + Math.log(seconds / upper[0]) / Math.log(this.#growth);
  }

  #edges(c) {
    const { begin, end } = this.#columns[c];
    return [this.#x(begin), this.#x(end)];
  }

  #cells(context) {
    const { upper } = this.#document;
    context.imageSmoothingEnabled = false;
    const top = this.#y(upper.length);
    const height = this.#y(0) - top;
    this.#columns.forEach((_, c) => {
      const [left, right] = this.#edges(c);
      const from = Math.round(left);
      const width = Math.max(1, Math.round(right) - from);
      context.drawImage(this.#image, c, 0, 1, upper.length, from, top, width, height);
    });
  }

  #axes(context) {
    const { upper } = this.#document;
    const { left, top, width, height } = this.#plot;
    context.fillStyle = colour("muted");
    context.strokeStyle = colour("line");
    context.lineWidth = 1;
    context.textAlign = "right";
    context.textBaseline = "middle";
    const low = upper[0] * this.#growth ** (-1 - this.#below);
    for (const value of ticks(low, low * this.#growth ** this.#rows, Math.floor(height / 18))) {
      const y = this.#y(this.#row(value));
      context.fillText(tick(value), left - 6, Math.max(top + 5, y));
      context.globalAlpha = 0.5;
      context.strokeRect(left, Math.round(y) + 0.5, width, 0);
      context.globalAlpha = 1;
    }
    context.textBaseline = "alphabetic";
    const [since, until] = this.#span;
    const bottom = top + height + GAP + STRIP + BOTTOM - 5;
    const count = Math.max(2, Math.min(6, Math.floor(width / 90)));
    for (let i = 0; i <= count; i++) {
      context.textAlign = i === 0 ? "left" : i === count ? "right" : "center";
      const time = since + ((until - since) * i) / count;
      context.fillText(clock(time).slice(0, until - since > 3600 ? 5 : 8), this.#x(time), bottom);
    }
  }

  // A percentile of each column; what it is now is said so many px below its end.
  #line(context, name, below) {
    const values = this.#columns.map((column) => column[name]);
    const draw = (width, style) => {
      context.lineWidth = width;
      context.strokeStyle = colour(style);
      context.beginPath();
      let down = false;
      values.forEach((value, c) => {
        if (value === null) {
          down = false;
          return;
        }
        const [left, right] = this.#edges(c);
        const y = this.#y(this.#row(value));
        if (down) context.lineTo(left, y);
        else context.moveTo(left, y);
        context.lineTo(right, y);
        down = true;
      });
      context.stroke();
    };
    draw(3.5, "surface");
    draw(1.5, name);
    const last = values.findLastIndex((value) => value !== null);
    if (last < 0) return;
    const x = this.#edges(last)[1] - 4;
    const { top, height } = this.#plot;
    const beside = this.#y(this.#row(values[last])) + below;
    const y = Math.max(top + 10, Math.min(top + height - 3, beside));
    context.textAlign = "right";
    context.lineWidth = 3.5;
    context.lineJoin = "round";
    context.strokeStyle = colour("surface");
    context.fillStyle = colour(name);
    const text = `${name} ${duration(values[last])}`;
    context.strokeText(text, x, y);
    context.fillText(text, x, y);
  }

  #strip(context) {
    const rates = this.#columns.map(({ begin, end, total }) => total / (end - begin));
    const most = Math.max(...rates, 1e-9);
    const bottom = this.#plot.top + this.#plot.height + GAP + STRIP;
    context.fillStyle = colour("bar");
    rates.forEach((each, c) => {
      const [left, right] = this.#edges(c);
      const height = (each / most) * STRIP;
      const width = right - left > 4 ? right - left - 1 : Math.max(1, right - left);
      context.fillRect(left, bottom - height, width, height);
    });
    context.fillStyle = colour("muted");
    context.textAlign = "right";
    context.fillText(`${rate(most)}/s`, this.#plot.left - 6, bottom - STRIP + 10);
  }

  #cross(context) {
    if (!this.#cell) return;
    const [c, r] = this.#cell;
    const [left, right] = this.#edges(c);
    context.strokeStyle = colour("text");
    context.lineWidth = 1.5;
    context.strokeRect(left, this.#y(r + 1), right - left, this.#y(r) - this.#y(r + 1));
  }

  #point({ offsetX, offsetY }) {
    if (!this.#document?.upper.length) return;
    const c = this.#columns.findIndex((_, i) => {
      const [left, right] = this.#edges(i);
      return offsetX >= left && offsetX < right;
    });
    const r =
      Math.floor(this.#rows * (1 - (offsetY - this.#plot.top) / this.#plot.height)) - this.#below;
    if (c < 0 || r < -this.#below || r >= this.#rows - this.#below) this.#leave();
    else this.#tell(c, r, offsetX, offsetY);
  }

  #leave() {
    if (!this.#cell) return;
    this.#cell = null;
    this.#tip.hidden = true;
    this.draw();
  }

  #tell(c, r, x, y) {
    const { upper } = this.#document;
    const { begin, end, total, p50, p99, counts } = this.#columns[c];
    const high = upper[0] * this.#growth ** r;
    const low = high / this.#growth;
    const count = counts[r] ?? 0;
    const share = total ? percent(count / total, 1) : "none";
    this.#cell = [c, r];
    this.#pointer = { offsetX: x, offsetY: y };
    this.#tip.replaceChildren(
      element("b", `${duration(upper[r - 1] ?? low)} – ${duration(upper[r] ?? high)}`),
      element("span", `${whole(count)} of ${whole(total)} (${share})`),
      element("span", `${clock(begin)} – ${clock(end)}`),
      element("span", `p50 ${duration(p50)}, p99 ${duration(p99)}`),
    );
    placeTip(this.#tip, x, y);
    this.draw();
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const move = moves[event.key];
    if (!move || !this.#document?.upper.length) return;
    event.preventDefault();
    const { upper } = this.#document;
    const columns = this.#columns;
    const median = columns.at(-1).p50 ?? upper[0];
    const at = this.#cell ?? [columns.length - 1, Math.ceil(this.#row(median) - 0.05) - 1];
    const within = (value, count) => Math.max(0, Math.min(count - 1, value));
    const c = within(at[0] + (this.#cell ? move[0] : 0), columns.length);
    const r = within(at[1] + (this.#cell ? move[1] : 0), upper.length);
    const [left, right] = this.#edges(c);
    this.#tell(c, r, (left + right) / 2, this.#y(r + 0.5));
  }
}
