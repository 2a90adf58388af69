// The header: how much of what happened the exporter knows, before anything else.

import { clock, duration, element, nameElement, percent, plain, whole } from "./format.js";

const ENOUGH = 0.999; // share of connections with a lifetime below which the header is red

// "good", "bad", or "unknown": nothing has ended yet, or nobody counts what is lost.
function verdict({ running, coverage, sources }) {
  if (!running || coverage.lost > 0 || sources.some(({ trouble }) => trouble)) return "bad";
  if (coverage.share !== null && coverage.share < ENOUGH) return "bad";
  return coverage.share === null || !coverage.counted ? "unknown" : "good";
}

function lostText({ running, coverage, sources }) {
  const said = [];
  if (!running) said.push("not recording");
  if (coverage.lost > 0 || coverage.counted) said.push(`${whole(coverage.lost)} lost`);
  if (!coverage.counted) said.push("losses are not counted");
  const troubled = sources.filter(({ trouble }) => trouble).length;
  if (troubled) said.push(`${troubled} of ${sources.length} sources in trouble`);
  return said.join(", ");
}

function coveredText({ coverage }) {
  return coverage.share === null
    ? "no connection has closed yet"
    : "of closed connections have a lifetime";
}

function line(term, ...values) {
  const made = document.createDocumentFragment();
  made.append(term instanceof Node ? term : element("dt", term));
  for (const value of values) made.append(value instanceof Node ? value : element("dd", value));
  return made;
}

function list(title, lines) {
  const made = element("section");
  const terms = element("dl");
  terms.append(...lines);
  made.append(element("h2", title), terms);
  return made;
}

const words = (name) => plain(name).replaceAll("_", " ");

function sourceLine(source) {
  const dd = element("dd", source.trouble ? "" : source.attached ? "attached" : "not attached");
  if (source.trouble) dd.append(nameElement(source.trouble, "bad"));
  const failed = Object.entries(source.failed_connects).filter(([, count]) => count > 0);
  const said = failed.map(([cause, count]) => `${whole(count)} ${words(cause)}`).join(", ");
  if (said) dd.append(element("span", ` · failed connects: ${said}`));
  return line(words(source.name), dd);
}

function namesLine(reader) {
  const dt = element("dt", words(reader.from));
  const dd = element("dd", `${whole(reader.count)} names, `);
  dd.append(reader.age_s === null ? "never read" : `${duration(reader.age_s)} old`);
  if (reader.error) dd.append(" · ", nameElement(reader.error, "bad"));
  return line(dt, dd);
}

function details(status) {
  const { coverage, events, history } = status;
  const lost = Object.entries(coverage.lost_by).filter(([, count]) => count !== 0);
  const counts = [
    line("closed", whole(coverage.closed)),
    line("with a lifetime", whole(coverage.recorded)),
    ...lost.map(([reason, count]) =>
      line(words(reason), count === null ? "not known" : whole(count)),
    ),
  ];
  if (coverage.open_error === null) counts.push(line("open", "not known exactly"));
  else if (coverage.open_error)
    counts.push(line("open, at most off by", whole(coverage.open_error)));
  const sections = [list("Connections", counts)];
  sections.push(
    list(
      "Events",
      Object.entries(events).map(([name, count]) =>
        line(words(name), count === null ? "not known" : whole(count)),
      ),
    ),
  );
  sections.push(list("Sources", status.sources.map(sourceLine)));
  if (status.names.length) sections.push(list("Names", status.names.map(namesLine)));
  sections.push(
    list("History", [
      line("reaches back", duration(history.covers_s)),
      line("backends", whole(history.backends)),
      ...(history.left_out ? [line("left out for want of memory", whole(history.left_out))] : []),
      line(
        "memory",
        `${Math.round(history.bytes / 2 ** 20)} of ${Math.round(history.bytes_max / 2 ** 20)} MiB`,
      ),
    ]),
  );
  return sections;
}

export class Coverage {
  #root = document.getElementById("coverage");
  #said = document.getElementById("said");
  #status = null;

  constructor() {
    this.#root.addEventListener("toggle", () => this.#showDetails());
    document.addEventListener("click", ({ target }) => {
      if (!this.#root.contains(target)) this.#root.open = false;
    });
  }

  show(status) {
    this.#status = status;
    const health = verdict(status);
    const lost = lostText(status);
    this.#root.className = health;
    document.getElementById("share").textContent =
      status.coverage.share === null ? "" : percent(status.coverage.share);
    document.getElementById("covered").textContent = coveredText(status);
    document.getElementById("lost").textContent = lost;
    document.getElementById("about").textContent =
      `${status.software} · up ${duration(status.now - status.started)}` +
      (status.history.sampled === null ? "" : ` · as of ${clock(status.history.sampled)}`);
    document.title = health === "bad" ? `(!) ${lost} – lblatency` : "lblatency";
    // Said aloud when the state changes, not with each poll.
    const aloud = `Coverage ${health}: ${lost}`;
    if (this.#said.textContent !== aloud) this.#said.textContent = aloud;
    this.#showDetails();
  }

  // Returns whether it was open.
  close() {
    const { open } = this.#root;
    this.#root.open = false;
    return open;
  }

  #showDetails() {
    if (!this.#root.open || !this.#status) return;
    document.getElementById("losses").replaceChildren(...details(this.#status));
  }
}
