// Distributions compared: the share of connections that lasted at most so long. Drawn by uPlot.

import { duration, element, exact, nameElement, percent, tick, whole } from "./format.js";
import { placeTip, ticks } from "./plot.js";
import { colour } from "./theme.js";

const FLAGS = [
  ["p50", 0.5],
  ["p90", 0.9],
  ["p99", 0.99],
];
const SMALLEST = 1e-4; // share of the tail that is still drawn
const PER_OCTAVE = 64; // buckets; the classic bounds split some of them in two
const { uPlot } = window;

// Where a bucket begins, by its upper end.
function lowerEnd(upper, bounds) {
  const place = Math.ceil(Math.log2(upper) * PER_OCTAVE - 1e-6) - 1;
  const bound = bounds.findLast((each) => each < upper) ?? 0;
  return Math.max(2 ** (place / PER_OCTAVE), bound);
}

// A series of the API as points: at each upper end, the share of connections up to there.
function curve({ upper, counts, count }) {
  const ends = upper.filter((end) => end !== null);
  const shares = new Array(ends.length);
  let sum = 0;
  for (let i = 0; i < ends.length; i++) {
    sum += counts[i];
    shares[i] = sum / count;
  }
  return { ends, shares };
}

// The bucket that holds x: the first whose upper end is not below it.
function bucket(ends, x) {
  let [low, high] = [0, ends.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low;
}

export class Cdf {
  #root = document.getElementById("cdf-plot");
  #tip = document.getElementById("cdf-tip");
  #chart = null;
  #document = null;
  #styles = [];
  #tail = false;
  #curves = [];

  constructor() {
    new ResizeObserver(() => this.#chart?.setSize(this.#size())).observe(this.#root);
    this.#root.addEventListener("keydown", (event) => this.#key(event));
    this.#root.addEventListener("blur", () => this.#chart?.setCursor({ left: -10, top: -10 }));
  }

  // styles: of each series, {name, stroke (a colour of style.css), dashed}
  show(document, styles, tail) {
    this.#document = document;
    this.#styles = styles;
    this.#tail = tail;
    this.draw();
  }

  clear() {
    this.#document = null;
    this.draw();
  }

  #size() {
    return { width: this.#root.clientWidth, height: this.#root.clientHeight };
  }

  draw() {
    const { left, top } = this.#chart?.cursor ?? {};
    this.#chart?.destroy();
    this.#chart = null;
    this.#tip.hidden = true;
    this.#curves = (this.#document?.series ?? []).map(curve);
    const drawn = this.#curves.filter(({ ends }) => ends.length);
    this.#root.classList.toggle("empty", this.#document !== null && !drawn.length);
    this.#root.ariaLabel = this.#document ? this.#summary() : "Distribution";
    if (!drawn.length) return;
    const y = (share) => (this.#tail ? (share < 1 - SMALLEST / 2 ? 1 - share : null) : share);
    const tables = this.#curves.map(({ ends, shares }) => {
      const start = ends.length ? [lowerEnd(ends[0], this.#document.bounds)] : [];
      return [
        [...start, ...ends],
        [...start.map(() => y(0)), ...shares.map(y)],
      ];
    });
    const low = Math.min(...drawn.map(({ ends }) => ends[0])) / 1.05;
    const high = Math.max(...drawn.map(({ ends }) => ends.at(-1))) * 1.05;
    this.#chart = new uPlot(this.#options(low, high), uPlot.join(tables), this.#root);
    if (left >= 0) this.#chart.setCursor({ left, top }); // what is there now
  }

  #summary() {
    const said = this.#document.series.map(({ count, p50, p99 }, i) => {
      const name = this.#styles[i].name.slice(0, 100);
      return `${name}: ${whole(count)} connections, p50 ${duration(p50)}, p99 ${duration(p99)}`;
    });
    return `Distributions of ${said.join("; ")}`;
  }

  #options(low, high) {
    const axis = {
      stroke: colour("muted"),
      font: "11px system-ui, sans-serif",
      grid: { stroke: colour("line"), width: 1 },
      ticks: { show: false },
    };
    return {
      ...this.#size(),
      legend: { show: false },
      padding: [10, 12, 0, 0],
      cursor: { drag: { x: false, y: false }, points: { size: 7 } },
      scales: {
        x: { time: false, distr: 3, range: () => [low, high] },
        y: this.#tail ? { distr: 3, range: () => [SMALLEST, 1] } : { range: () => [0, 1] },
      },
      axes: [
        {
          ...axis,
          size: 26,
          gap: 4,
          splits: (u, _, min, max) => ticks(min, max, Math.max(2, Math.floor(u.width / 64))),
          filter: (_, splits) => splits,
          values: (_, splits) => splits.map(tick),
        },
        {
          ...axis,
          size: 52,
          gap: 4,
          splits: () => (this.#tail ? [1e-4, 1e-3, 1e-2, 1e-1, 1] : [0, 0.25, 0.5, 0.75, 1]),
          filter: (_, splits) => splits,
          values: (_, splits) => splits.map((share) => `${+(share * 100).toPrecision(3)} %`),
        },
      ],
      series: [
        {},
        ...this.#styles.map(({ stroke, dashed }) => ({
          stroke: colour(stroke),
          width: dashed ? 1.5 : 2,
          dash: dashed ? [5, 4] : undefined,
          spanGaps: true,
          points: { show: false },
          paths: uPlot.paths.stepped({ align: 1 }),
        })),
      ],
      hooks: { draw: [(u) => this.#flags(u)], setCursor: [(u) => this.#hover(u)] },
    };
  }

  // Percentiles as flags on the curves; those of the first series say what they are.
  #flags(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.textAlign = "left";
    this.#document.series.forEach((series, i) => {
      FLAGS.forEach(([name, share], flag) => {
        if (series[name] === null) return;
        const x = u.valToPos(series[name], "x", true);
        const y = u.valToPos(this.#tail ? 1 - share : share, "y", true);
        if (x < bbox.left || x > bbox.left + bbox.width) return;
        ctx.fillStyle = colour(this.#styles[i].stroke);
        ctx.beginPath();
        ctx.arc(x, y, 4 * devicePixelRatio, 0, 7);
        ctx.fill();
        if (i) return;
        ctx.globalAlpha = 0.45;
        ctx.fillRect(x - 0.5, y, devicePixelRatio, bbox.top + bbox.height - y);
        ctx.globalAlpha = 1;
        const text = `${name} ${duration(series[name])}`;
        const wide = ctx.measureText(text).width;
        const isRoom = x + wide + 6 * devicePixelRatio < bbox.left + bbox.width;
        const at = isRoom ? x + 4 * devicePixelRatio : x - wide - 4 * devicePixelRatio;
        const foot =
          bbox.top + bbox.height - (6 + 14 * (FLAGS.length - 1 - flag)) * devicePixelRatio;
        ctx.lineWidth = 4 * devicePixelRatio;
        ctx.lineJoin = "round";
        ctx.strokeStyle = colour("surface");
        ctx.strokeText(text, at, foot);
        ctx.fillText(text, at, foot);
      });
    });
    ctx.restore();
  }

  #hover(u) {
    const { left, top } = u.cursor;
    if (!(left >= 0)) {
      this.#tip.hidden = true;
      return;
    }
    const x = u.posToVal(left, "x");
    this.#tip.replaceChildren(element("b", duration(x)));
    this.#document.series.forEach((series, i) => {
      const { ends, shares } = this.#curves[i];
      const at = bucket(ends, x);
      const row = element("span");
      row.append(
        this.#swatch(i),
        nameElement(this.#styles[i].name),
        element("span", `n ${whole(series.count)}`, "quiet"),
      );
      this.#tip.append(row);
      const lower = at < ends.length ? lowerEnd(ends[at], this.#document.bounds) : Infinity;
      const isInside = x > lower;
      const share = isInside ? shares[at] : (shares[at - 1] ?? 0);
      const count = isInside
        ? `${whole(series.counts[at])} in ${exact(lower)} – ${exact(ends[at])}`
        : "none in this bucket";
      this.#tip.append(element("span", `${percent(share)} up to here, ${count}`, "quiet"));
    });
    placeTip(this.#tip, left + u.over.offsetLeft, top + u.over.offsetTop);
  }

  #swatch(i) {
    const made = element("i", "", "swatch");
    made.style.setProperty("--colour", `var(--${this.#styles[i].stroke})`);
    return made;
  }

  #key(event) {
    const step = { ArrowLeft: -6, ArrowRight: 6 }[event.key];
    if (!step || !this.#chart) return;
    event.preventDefault();
    const { left } = this.#chart.cursor;
    const { clientWidth, clientHeight } = this.#chart.over;
    const from = left >= 0 ? left + step : clientWidth / 2;
    this.#chart.setCursor({
      left: Math.max(0, Math.min(clientWidth - 1, from)),
      top: clientHeight / 3,
    });
  }
}
