// The table: only lines in view are elements. A line is a backend, or the totals of a proxy.

import { NONE, element, plain } from "./format.js";

const ROW = 28; // px
const BEYOND = 6; // lines above and below the view, so that scrolling shows no gap

const dotSize = (rate) => (rate > 0 ? Math.min(14, 4 + 2 * Math.log10(1 + rate)) : 3);

function heat(slowness) {
  if (!(slowness > 0)) return "none";
  return slowness > 4 ? "hot" : slowness > 2 ? "warm" : "even";
}

function setText(node, text) {
  if (node.data !== text) node.data = text;
}

// One line's element: cells that keep their text nodes.
class Line {
  constructor(columns) {
    this.root = element("div", "", "line");
    this.root.role = "row";
    this.cells = columns.map((column, i) => {
      const cell = element("div", "", i ? "number" : "backend");
      cell.role = "gridcell";
      cell.ariaColIndex = i + 1;
      this.root.append(cell);
      return cell;
    });
    this.dot = element("i", "", "dot");
    this.fold = element("button", "", "fold");
    this.fold.type = "button";
    this.fold.tabIndex = -1; // the keyboard folds by the arrows
    this.names = [element("bdi", " ", "name"), element("bdi", " ", "more")];
    this.cells[0].append(this.dot, this.fold, ...this.names);
    this.texts = this.cells.slice(1).map((cell) => {
      cell.textContent = " ";
      return cell.firstChild;
    });
  }

  // What differs between totals and a backend besides text.
  be(totals) {
    this.root.classList.toggle("totals", totals);
    this.dot.hidden = totals;
    this.fold.hidden = !totals;
  }

  name(name, more) {
    setText(this.names[0].firstChild, plain(name));
    setText(this.names[1].firstChild, more);
    this.cells[0].title = `${name.slice(0, 1000)}  ${more}`;
  }
}

export class Grid {
  #root;
  #head = element("div", "", "head");
  #body = element("div", "", "body");
  #space = element("div", "", "space");
  #pinned = null; // the totals of the proxy whose own line is above the view
  #lines = [];
  #columns = [];
  #backends = null;
  #view = new Int32Array(0);
  #state = null;
  #totals = null;
  #active = null; // key of the line that has the keyboard
  #waiting = false;
  #on;

  // on: {sort(id), choose(key, beside), fold(proxy, fold), seen(proxies)}
  constructor(root, on) {
    this.#root = root;
    this.#on = on;
    this.#head.role = "rowgroup";
    this.#body.role = "rowgroup";
    this.#space.append(this.#body);
    root.append(this.#head, this.#space);
    root.style.setProperty("--row", `${ROW}px`);
    root.addEventListener("scroll", () => this.#soon(), { passive: true });
    root.addEventListener("keydown", (event) => this.#key(event));
    this.#body.addEventListener("click", (event) => this.#click(event));
    new ResizeObserver(() => this.#soon()).observe(root);
  }

  // view: lines as of Backends.lines(); state: what the page shows, and which proxies are folded
  show(backends, view, state, totals) {
    const place = this.#place();
    this.#backends = backends;
    this.#view = view;
    this.#state = state;
    this.#totals = totals;
    this.#showHead(backends.columns);
    this.#space.style.height = `${view.length * ROW}px`;
    this.#root.style.setProperty("--content", `${(view.length + 1) * ROW + 3}px`);
    this.#root.ariaRowCount = view.length + 1;
    if (place !== null) this.#keep(place);
    this.render();
  }

  #soon() {
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => {
      this.#waiting = false;
      this.render();
    });
  }

  // Where the line with the keyboard is on the screen, if it is and if somebody has scrolled to it.
  #place() {
    if (!this.#active || !this.#root.scrollTop) return null;
    const top = this.#lineOf(this.#active) * ROW - this.#root.scrollTop;
    return top >= 0 && top < this.#root.clientHeight ? top : null;
  }

  #keep(top) {
    const line = this.#lineOf(this.#active);
    if (line >= 0) this.#root.scrollTop = line * ROW - top;
  }

  #showHead(columns) {
    const ids = columns.map(({ id }) => id).join();
    if (ids !== this.#root.dataset.columns) {
      this.#root.dataset.columns = ids;
      this.#columns = columns;
      this.#makeHead();
      this.#lines = [];
      this.#body.replaceChildren();
      const widths = columns.slice(1).map(({ width }) => `${width}px`);
      this.#root.style.setProperty("--numbers", `calc(${widths.join(" + ")})`);
      this.#root.style.setProperty("--template", `minmax(var(--first), 1fr) ${widths.join(" ")}`);
      this.#root.ariaColCount = columns.length;
    }
    const { column, descending } = this.#state;
    columns.forEach(({ id }, i) => {
      const cell = this.#head.firstChild.children[i];
      cell.ariaSort = id === column ? (descending ? "descending" : "ascending") : "none";
    });
  }

  #makeHead() {
    const row = element("div", "", "line");
    row.role = "row";
    row.ariaRowIndex = 1;
    this.#columns.forEach(({ id, title, help }, i) => {
      const cell = element("div", "", i ? "number" : "backend");
      const button = element("button", title);
      button.type = "button";
      button.title = help;
      button.addEventListener("click", () => this.#on.sort(id));
      cell.role = "columnheader";
      cell.ariaColIndex = i + 1;
      cell.dataset.column = id;
      cell.append(button);
      row.append(cell);
    });
    this.#pinned = new Line(this.#columns);
    this.#pinned.root.classList.add("pinned");
    this.#pinned.root.ariaHidden = true; // its proxy's own line says the same
    this.#head.replaceChildren(row, this.#pinned.root);
  }

  render() {
    if (!this.#backends) return;
    const first = Math.max(0, Math.floor(this.#root.scrollTop / ROW) - BEYOND);
    const fit = Math.ceil(this.#root.clientHeight / ROW) + 2 * BEYOND;
    const count = Math.min(fit, this.#view.length - first);
    while (this.#lines.length < count) {
      const line = new Line(this.#columns);
      this.#lines.push(line);
      this.#body.append(line.root);
    }
    this.#body.style.transform = `translateY(${first * ROW}px)`;
    const proxies = new Set();
    let active = "";
    this.#lines.forEach((line, i) => {
      line.root.hidden = i >= count;
      line.root.id = i < count ? `line-${first + i}` : "";
      if (i >= count) return;
      const what = this.#view[first + i];
      line.root.ariaRowIndex = first + i + 2;
      const name = what < 0 ? this.#showTotals(line, ~what) : this.#showBackend(line, what);
      if (what < 0) proxies.add(~what);
      const colour = this.#state.chosen.indexOf(name);
      line.root.ariaSelected = colour >= 0;
      line.root.dataset.series = colour;
      line.root.classList.toggle("active", name === this.#active);
      if (name === this.#active) active = line.root.id;
    });
    this.#pin(proxies);
    if (active) this.#root.setAttribute("aria-activedescendant", active);
    else this.#root.removeAttribute("aria-activedescendant");
    if (proxies.size) this.#on.seen(proxies);
  }

  #pin(proxies) {
    const top = this.#view[Math.floor(this.#root.scrollTop / ROW)];
    const needed = this.#state.grouped && top >= 0;
    this.#pinned.root.hidden = !needed;
    if (!needed) return;
    this.#showTotals(this.#pinned, this.#backends.proxyIndex(top));
    proxies.add(this.#backends.proxyIndex(top));
  }

  #showBackend(line, row) {
    const backends = this.#backends;
    const server = backends.server(row);
    const target = backends.target(row);
    line.be(false);
    const more = server ? [target] : [];
    if (!this.#state.grouped) more.push(plain(backends.proxyOf(row)));
    line.name(server ?? target, more.join(" "));
    const slowness = backends.slowness(row);
    line.dot.style.setProperty("--size", `${dotSize(backends.value("closed_per_s", row))}px`);
    line.dot.dataset.heat = heat(slowness);
    line.dot.title =
      slowness > 0 ? `p99 is ${slowness.toFixed(1)} times the median of its proxy` : "";
    this.#columns.slice(1).forEach(({ id, format }, i) => {
      const value = backends.value(id, row);
      this.#number(line, i, id, value, format(value));
      if (id === "change") this.#change(line, i, value, row);
    });
    return backends.key(row);
  }

  #showTotals(line, proxy) {
    const backends = this.#backends;
    const name = backends.proxies[proxy];
    const all = backends.first[proxy + 1] - backends.first[proxy];
    const shown = backends.shown[proxy];
    const folded = this.#state.folded.has(name);
    line.be(true);
    line.name(name, shown === all ? `${all}` : `${shown} of ${all}`);
    line.fold.ariaExpanded = !folded;
    line.fold.ariaLabel = "Its backends";
    const seen = this.#totals.get(name);
    this.#columns.slice(1).forEach(({ id, format, total }, i) => {
      const value =
        total === "sum"
          ? backends.total(id, proxy)
          : (seen?.[total?.metric]?.[total.quantile] ?? NaN);
      this.#number(line, i, id, value, total ? format(value) : "");
      if (id === "change") line.cells[i + 1].style.removeProperty("--share");
    });
    return `${name}/`;
  }

  #number(line, i, id, value, text) {
    setText(line.texts[i], text);
    const cell = line.cells[i + 1];
    cell.dataset.kind =
      value > 0 && id === "failed_connects" ? "bad" : text === "0" || text === NONE ? "quiet" : "";
  }

  #change(line, i, value, row) {
    const cell = line.cells[i + 1];
    if (value > 0) {
      setText(line.texts[i], `${line.texts[i].data} ${plain(this.#backends.changeIn(row) ?? "")}`);
      cell.style.setProperty("--share", `${value * 100}%`);
    } else {
      cell.style.removeProperty("--share");
    }
  }

  #nameOf(line) {
    const what = this.#view[line];
    return what < 0 ? `${this.#backends.proxies[~what]}/` : this.#backends.key(what);
  }

  #lineOf(name) {
    if (!this.#backends) return -1;
    const proxy = name.endsWith("/") ? this.#backends.proxies.indexOf(name.slice(0, -1)) : -1;
    return this.#view.indexOf(proxy >= 0 ? ~proxy : (this.#backends.rowOf(name) ?? NaN));
  }

  #click(event) {
    const row = event.target.closest(".line");
    if (!row) return;
    const line = Number(row.id.slice("line-".length));
    this.#active = this.#nameOf(line);
    if (event.target.className === "fold") this.#fold(line);
    else this.#on.choose(this.#active, event.ctrlKey || event.metaKey || event.shiftKey);
  }

  #fold(line, fold) {
    const name = this.#backends.proxies[~this.#view[line]];
    this.#on.fold(name, fold ?? !this.#state.folded.has(name));
  }

  #key(event) {
    if (event.target !== this.#root || !this.#view.length || event.altKey || event.metaKey) return;
    const line = this.#active ? this.#lineOf(this.#active) : -1;
    const page = Math.max(1, Math.floor(this.#root.clientHeight / ROW) - 2);
    const moves = {
      ArrowDown: line + 1,
      ArrowUp: line - 1,
      PageDown: line + page,
      PageUp: line - page,
      Home: 0,
      End: this.#view.length - 1,
    };
    if (event.key in moves) this.#move(moves[event.key]);
    else if (line < 0) return;
    else if (event.key === "Enter") this.#on.choose(this.#active, false);
    else if (event.key === " ") this.#on.choose(this.#active, true);
    else if (this.#view[line] < 0 && event.key === "ArrowLeft") this.#fold(line, true);
    else if (this.#view[line] < 0 && event.key === "ArrowRight") this.#fold(line, false);
    else return;
    event.preventDefault();
  }

  #move(line) {
    line = Math.max(0, Math.min(this.#view.length - 1, line));
    this.#active = this.#nameOf(line);
    const height = this.#root.clientHeight - this.#head.offsetHeight;
    const top = this.#root.scrollTop;
    // What is pinned hides a line.
    const above = this.#state.grouped && this.#view[line] >= 0 ? line - 1 : line;
    if (above * ROW < top) this.#root.scrollTop = above * ROW;
    else if ((line + 1) * ROW > top + height) this.#root.scrollTop = (line + 1) * ROW - height;
    this.render();
  }
}
