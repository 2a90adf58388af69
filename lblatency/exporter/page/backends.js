// The table of all backends, in typed arrays: which rows are shown, and in which order.

import { COLUMNS } from "./columns.js";

function numbers(values) {
  const made = new Float64Array(values.length);
  for (let i = 0; i < made.length; i++) made[i] = values[i] ?? NaN;
  return made;
}

// A backend, or a proxy (whose target is ""), has one name in URLs, in the API and in here.
export const key = (proxy, target) => `${proxy}/${target}`;

export function parts(name) {
  const slash = name.lastIndexOf("/");
  return [name.slice(0, slash), name.slice(slash + 1)];
}

export class Backends {
  #document;
  #proxy; // of each row, its number
  #columns = new Map();
  #totals = new Map();
  #medians; // p99 of the median backend of each proxy
  #rows = null; // key to row, made when asked for

  constructor(document) {
    this.#document = document;
    this.#proxy = Uint32Array.from(document.columns.proxy);
    this.count = document.rows;
    this.proxies = document.proxies;
    this.metrics = document.metrics;
    this.until = document.until; // null before the second sample
    this.leftOut = document.left_out;
    for (const { id, total } of [...COLUMNS, { id: "count" }]) {
      if (!document.columns[id]) continue;
      const values = numbers(document.columns[id]);
      this.#columns.set(id, values);
      if (total === "sum") this.#totals.set(id, this.#sums(values));
    }
    // Rows are in order of their proxy.
    this.first = new Uint32Array(this.proxies.length + 1);
    for (const proxy of this.#proxy) this.first[proxy + 1]++;
    for (let i = 0; i < this.proxies.length; i++) this.first[i + 1] += this.first[i];
    this.#medians = this.proxies.map((_, i) => this.#median(i));
  }

  #sums(values) {
    const sums = new Float64Array(this.proxies.length);
    for (let row = 0; row < this.count; row++) sums[this.#proxy[row]] += values[row] || 0;
    return sums;
  }

  #median(proxy) {
    const sorted = this.#columns
      .get("p99")
      .slice(this.first[proxy], this.first[proxy + 1])
      .sort();
    const missing = sorted.findIndex(Number.isNaN); // NaN is sorted to the end
    return sorted[Math.floor((missing < 0 ? sorted.length : missing) / 2)];
  }

  get columns() {
    return COLUMNS.filter(({ id }) => id === "backend" || this.#columns.has(id));
  }

  value(id, row) {
    return this.#columns.get(id)?.[row] ?? NaN;
  }

  total(id, proxy) {
    return this.#totals.get(id)?.[proxy];
  }

  proxyIndex(row) {
    return this.#proxy[row];
  }

  proxyOf(row) {
    return this.proxies[this.proxyIndex(row)];
  }

  target(row) {
    return this.#document.columns.target[row];
  }

  server(row) {
    return this.#document.columns.server?.[row] ?? null;
  }

  changeIn(row) {
    return this.#document.columns.change_in[row];
  }

  // How many times its proxy's median p99 a backend's p99 is.
  slowness(row) {
    return this.value("p99", row) / this.#medians[this.proxyIndex(row)];
  }

  key(row) {
    return key(this.proxyOf(row), this.target(row));
  }

  rowOf(name) {
    if (!this.#rows) {
      this.#rows = new Map();
      for (let row = 0; row < this.count; row++) this.#rows.set(this.key(row), row);
    }
    return this.#rows.get(name);
  }

  // The lines of the table, from above: a row's number, or ~proxy for the totals of a proxy.
  lines({ column, descending, grouped, test, folded }) {
    const order = this.#sorted(this.#matching(test), column, descending);
    this.shown = new Uint32Array(this.proxies.length);
    for (let i = 0; i < order.length; i++) this.shown[this.#proxy[order[i]]]++;
    return grouped ? this.#grouped(order, column, descending, folded) : Int32Array.from(order);
  }

  #matching(test) {
    const rows = new Uint32Array(this.count);
    let length = 0;
    for (let row = 0; row < this.count; row++) if (!test || test(this, row)) rows[length++] = row;
    return rows.subarray(0, length);
  }

  #sorted(rows, column, descending) {
    const values = this.#columns.get(column);
    if (!values) return descending ? rows.reverse() : rows;
    const sign = descending ? -1 : 1;
    return rows.sort((a, b) => {
      const x = values[a];
      const y = values[b];
      if (x === y) return a - b;
      if (x !== x) return y !== y ? a - b : 1; // no value: last, either way
      return y !== y ? -1 : (x - y) * sign;
    });
  }

  // Proxies are in order of their totals, where a column has any; else, of their first rows.
  #grouped(order, column, descending, folded) {
    const found = [...new Set(order.map((row) => this.#proxy[row]))];
    const totals = this.#totals.get(column);
    if (totals) found.sort((a, b) => (descending ? totals[b] - totals[a] : totals[a] - totals[b]));
    const isFolded = this.proxies.map((name) => folded.has(name));
    const next = new Uint32Array(this.proxies.length); // where its next row goes
    let length = 0;
    for (const proxy of found) {
      next[proxy] = length + 1;
      length += 1 + (isFolded[proxy] ? 0 : this.shown[proxy]);
    }
    const lines = new Int32Array(length);
    for (const proxy of found) lines[next[proxy] - 1] = ~proxy;
    for (let i = 0; i < order.length; i++) {
      const proxy = this.#proxy[order[i]];
      if (!isFolded[proxy]) lines[next[proxy]++] = order[i];
    }
    return lines;
  }
}
