// Numbers, times and names as people read them.

export const NONE = "–";
const SHOWN = 160; // characters of a name; who needs more reads it in the API

function three(value) {
  return value.toFixed(value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2);
}

// Seconds, in three digits and the unit that suits.
export function duration(seconds) {
  if (seconds === null || !(seconds >= 0)) return NONE;
  if (seconds === 0) return "0";
  if (seconds < 0.0009995) return `${three(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${three(seconds * 1e3)} ms`;
  if (seconds < 119.5) return `${three(seconds)} s`;
  if (seconds < 7200) return `${three(seconds / 60)} min`;
  if (seconds < 172800) return `${three(seconds / 3600)} h`;
  return `${three(seconds / 86400)} d`;
}

// A bucket's end, in more digits: neighbours differ by a hundredth.
export function exact(seconds) {
  const [unit, scale] = seconds < 1e-3 ? ["µs", 1e6] : seconds < 1 ? ["ms", 1e3] : ["s", 1];
  return `${+(seconds * scale).toPrecision(5)} ${unit}`;
}

// A duration without the zeros at its end: for axes.
export function tick(seconds) {
  return duration(seconds)
    .replace(/(\.\d*?)0+ /, "$1 ")
    .replace(". ", " ");
}

// A number of something per second, in three digits.
export function rate(value) {
  if (!Number.isFinite(value)) return NONE;
  if (value === 0) return "0";
  if (value >= 999.5e6) return `${three(value / 1e9)} G`;
  if (value >= 999.5e3) return `${three(value / 1e6)} M`;
  return value >= 9999.5 ? `${three(value / 1e3)} k` : three(value);
}

// A number of things.
export function amount(value) {
  return value < 9999.5 ? value.toFixed(0) : rate(value);
}

export function whole(value) {
  return Number.isFinite(value) ? value.toLocaleString("en") : NONE;
}

// A share of 1. It is "100 %" only if nothing is missing.
export function percent(share, digits = 2) {
  if (!Number.isFinite(share)) return NONE;
  if (share === 1) return "100 %";
  const scale = 10 ** digits;
  return `${(Math.floor(share * 100 * scale + 1e-6) / scale).toFixed(digits)} %`;
}

export function clock(unix) {
  return new Date(unix * 1000).toLocaleTimeString("en-GB");
}

// A name of any characters: control characters become visible, and a long name ends in "…".
export function plain(name) {
  const short = name.length > SHOWN ? `${name.slice(0, SHOWN)}…` : name;
  return short.replace(/[\0-\x1f\x7f]/g, (control) =>
    control === "\x7f" ? "␡" : String.fromCharCode(0x2400 + control.charCodeAt(0)),
  );
}

// An element with text. All text of the page that comes from outside goes through here or `.data`.
export function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// A name in an element of its own, so that its direction turns nothing beside it around.
export function nameElement(name, className = "name") {
  const made = element("bdi", plain(name), className);
  made.title = name.slice(0, 1000);
  return made;
}
