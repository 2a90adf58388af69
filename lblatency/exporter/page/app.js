// The page: asks the exporter every two seconds, and tells the table and the plots what to show.

import { AwayError, RequestError, Resource } from "./api.js";
import { Backends } from "./backends.js";
import { Coverage } from "./coverage.js";
import { Detail } from "./detail.js";
import { parse } from "./filter.js";
import { clock, whole } from "./format.js";
import { Grid } from "./grid.js";
import { TABLE_WINDOWS, choose, readUrl, segments, state, writeUrl } from "./state.js";
import { startTheme } from "./theme.js";
import { Totals } from "./totals.js";

const POLL_MS = 2000;

const find = (id) => document.getElementById(id);
const filterInput = find("filter");
const table = new Resource("backends");
const status = new Resource("status");
const folded = new Set();
const totals = new Totals(() => grid.render());
let backends = null;
let timer = null;
let answered = null; // when the exporter last did

readUrl();
const coverage = new Coverage();
const detail = new Detail(() => {
  arrange();
  refreshDetail();
});
const grid = new Grid(find("grid"), {
  sort(column) {
    state.descending = column === state.column ? !state.descending : column !== "backend";
    state.column = column;
    changed();
  },
  choose(name, beside) {
    choose(name, beside);
    changed();
    refreshDetail();
  },
  fold(proxy, fold) {
    if (fold) folded.add(proxy);
    else folded.delete(proxy);
    arrange();
  },
  seen(proxies) {
    totals.want(backends, proxies);
  },
});

function emptyText() {
  if (backends.until === null) return "The first sample comes within seconds.";
  return backends.count ? "No backend matches the filter." : "No backend has had a connection yet.";
}

// Filter, sort and show what the exporter last said.
function arrange() {
  const { test, mistakes } = parse(state.filter);
  filterInput.ariaInvalid = mistakes.length > 0;
  find("mistake").textContent = mistakes.join("; ");
  find("mistake").hidden = !mistakes.length;
  if (!backends) return;
  const lines = backends.lines({ ...state, test, folded });
  const shown = backends.shown.reduce((sum, each) => sum + each, 0);
  const all = `${whole(backends.count)} backend${backends.count === 1 ? "" : "s"}`;
  const leftOut = backends.leftOut ? `, ${whole(backends.leftOut)} left out` : "";
  find("counts").textContent = (test ? `${whole(shown)} of ` : "") + all + leftOut;
  find("empty").hidden = lines.length > 0;
  find("empty").textContent = emptyText();
  grid.show(backends, lines, { ...state, folded }, totals);
}

function changed() {
  writeUrl();
  arrange();
}

function sayAway(error) {
  const text = error
    ? `No data from the exporter: ${error.message}. ` +
      (answered ? `What you see is from ${clock(answered / 1000)}. ` : "") +
      "Trying again."
    : "";
  if (find("away").textContent !== text) find("away").textContent = text;
  find("away").hidden = !error;
  document.body.classList.toggle("stale", error !== null);
}

async function refreshStatus() {
  const found = await status.load();
  if (!found) return;
  coverage.show(found);
  detail.offer(found.metrics);
}

async function refreshTable() {
  const found = await table.load([["window", state.window]]);
  if (!found) return;
  backends = new Backends(found);
  arrange();
}

// Whatever a person's click asks for shows what went wrong as the polls do.
async function attempt(...parts) {
  try {
    await Promise.all(parts);
    answered = Date.now();
    sayAway(null);
  } catch (error) {
    if (!(error instanceof AwayError || error instanceof RequestError)) throw error;
    sayAway(error);
  }
}

function refreshDetail() {
  return attempt(detail.load());
}

async function poll() {
  clearTimeout(timer);
  timer = null;
  try {
    await attempt(refreshStatus(), refreshTable(), detail.load());
  } finally {
    if (!document.hidden && timer === null) timer = setTimeout(poll, POLL_MS);
  }
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else poll();
});

filterInput.value = state.filter;
filterInput.addEventListener("input", () => {
  state.filter = filterInput.value;
  changed();
});
find("tools").addEventListener("submit", (event) => {
  event.preventDefault();
  find("grid").focus();
});
find("grouped").checked = state.grouped;
find("grouped").addEventListener("change", ({ target }) => {
  state.grouped = target.checked;
  changed();
});
segments(find("windows"), TABLE_WINDOWS, state.window, (window) => {
  state.window = window;
  writeUrl();
  attempt(refreshTable(), detail.load());
});

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.matches("input, select")) {
    event.preventDefault();
    filterInput.select();
  } else if (event.key === "Escape" && event.target === filterInput) {
    filterInput.value = state.filter = "";
    find("grid").focus();
    changed();
  } else if (event.key === "Escape" && coverage.close()) {
    event.preventDefault();
  } else if (event.key === "Escape" && state.chosen.length) {
    state.chosen = [];
    changed();
    refreshDetail();
  }
});

startTheme(find("theme"), () => detail.draw());
poll();
