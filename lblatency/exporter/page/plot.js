// What both plots need: where a logarithmic axis of durations has its ticks.

const STEPS = [1, 2, 5];
const LADDER = [60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400, 259200, 864000, 2592000];

function candidates() {
  const found = [];
  for (let power = -9; power <= 1; power++)
    for (const step of STEPS) found.push(step * 10 ** power);
  return [...found.filter((value) => value < 60), ...LADDER];
}

const ALL = candidates();

// Round durations between two, at most `most`, evenly thinned if there are more.
export function ticks(low, high, most) {
  const within = ALL.filter((value) => value >= low && value <= high);
  if (within.length <= most) return within;
  const decades = within.filter((value) => value >= 60 || Math.abs(Math.log10(value) % 1) < 1e-9);
  const thin = decades.length >= 2 ? decades : within;
  const step = Math.ceil(thin.length / most);
  return thin.filter((_, i) => i % step === 0);
}

// A canvas of the size of its element, in the screen's own pixels; its context draws in CSS pixels.
export function fit(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

// Put a tooltip beside a point of the plot that it is in, on the side where there is room.
export function placeTip(tip, x, y) {
  tip.hidden = false;
  const { clientWidth, clientHeight } = tip.parentElement;
  const beside = x > clientWidth / 2 ? x - tip.offsetWidth - 14 : x + 14;
  const left = Math.min(beside, clientWidth - tip.offsetWidth);
  const top = Math.min(y + 10, clientHeight - tip.offsetHeight);
  tip.style.transform = `translate(${Math.max(0, left)}px, ${Math.max(0, top)}px)`;
}
