// What the page shows, kept in its URL: to reload it, to go back, and to send it to others.

import { element } from "./format.js";

export const TABLE_WINDOWS = { 60: "1 min", 300: "5 min", 900: "15 min", start: "all" };
export const HEAT_WINDOWS = { 300: "5 min", 900: "15 min", 14400: "4 h" };
const LONGEST = 1500; // characters of a backend that still goes into a URL
const CHOSEN = 8; // as many colours as there are

export const state = {
  filter: "",
  column: "closed_per_s",
  descending: true,
  grouped: true,
  window: "60",
  heatWindow: "900",
  metric: "lifetime",
  chosen: [],
  absolute: false,
  tail: false,
};
const DEFAULTS = { ...state };

export function readUrl() {
  const query = new URLSearchParams(location.search);
  const text = (name, fallback) => query.get(name) ?? fallback;
  const sort = text("sort", "-closed_per_s");
  Object.assign(state, {
    filter: text("q", "").slice(0, 500),
    column: sort.replace(/^-/, ""),
    descending: sort.startsWith("-"),
    grouped: text("group", "1") === "1",
    window: Object.hasOwn(TABLE_WINDOWS, text("window", ""))
      ? query.get("window")
      : DEFAULTS.window,
    heatWindow: Object.hasOwn(HEAT_WINDOWS, text("time", ""))
      ? query.get("time")
      : DEFAULTS.heatWindow,
    metric: text("metric", DEFAULTS.metric),
    chosen: [...new Set(query.getAll("show"))]
      .filter((name) => name.includes("/"))
      .slice(0, CHOSEN),
    absolute: query.has("absolute"),
    tail: query.has("tail"),
  });
}

export function writeUrl() {
  const query = new URLSearchParams();
  if (state.filter) query.set("q", state.filter);
  const sort = (state.descending ? "-" : "") + state.column;
  if (sort !== "-closed_per_s") query.set("sort", sort);
  if (!state.grouped) query.set("group", "0");
  if (state.window !== DEFAULTS.window) query.set("window", state.window);
  if (state.heatWindow !== DEFAULTS.heatWindow) query.set("time", state.heatWindow);
  if (state.metric !== DEFAULTS.metric) query.set("metric", state.metric);
  for (const name of state.chosen) if (name.length <= LONGEST) query.append("show", name);
  if (state.absolute) query.set("absolute", "1");
  if (state.tail) query.set("tail", "1");
  const text = query.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}

// Choose one alone, or one more; one that is chosen beside others goes.
export function choose(name, beside) {
  const others = state.chosen.filter((each) => each !== name);
  if (!beside) state.chosen = [name];
  else if (others.length < state.chosen.length) state.chosen = others;
  else state.chosen = [...others.slice(-(CHOSEN - 1)), name];
}

// Radio buttons in a row. words: {value: text}
export function segments(fieldset, words, chosen, on) {
  for (const [value, text] of Object.entries(words)) {
    const input = element("input");
    Object.assign(input, { type: "radio", name: fieldset.id, value, checked: value === chosen });
    input.addEventListener("change", () => on(value));
    const label = element("label", text);
    label.prepend(input);
    fieldset.append(label);
  }
}
