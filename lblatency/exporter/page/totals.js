// Percentiles of whole proxies, for the totals in view: they are no sum of their backends'.

import { Resource } from "./api.js";
import { state } from "./state.js";

const MOST = 16; // series of one request
const LONGEST = 400; // characters of a name in it
const METRICS = ["lifetime", "connect", "first_byte", "active"];

export class Totals {
  #resources = new Map(METRICS.map((metric) => [metric, new Resource("distribution")]));
  #found = new Map(); // proxy to metric to series
  #asked = ""; // what was asked last, and of which sample
  #changed;

  constructor(changed) {
    this.#changed = changed;
  }

  // {metric: {p50, p95, p99}} of a proxy, as far as known
  get(proxy) {
    return this.#found.get(proxy);
  }

  // The proxies (indexes) whose totals can be seen now.
  want(backends, proxies) {
    const names = [...proxies]
      .map((proxy) => backends.proxies[proxy])
      .filter((name) => encodeURIComponent(name.slice(0, LONGEST + 1)).length <= LONGEST)
      .slice(0, MOST);
    const asked = JSON.stringify([backends.until, state.window, names]);
    if (asked === this.#asked) return;
    this.#asked = asked;
    if (!names.length) return;
    for (const metric of backends.metrics)
      if (this.#resources.has(metric)) this.#load(metric, names);
  }

  async #load(metric, names) {
    const query = [
      ...names.map((name) => ["proxy", name]),
      ["window", state.window],
      ["metric", metric],
    ];
    // Without an answer, the next sample asks again; the poll says if the exporter is away.
    const found = await this.#resources
      .get(metric)
      .load(query)
      .catch(() => null);
    for (const series of found?.series ?? []) {
      if (series.target !== null) continue;
      const { p50, p95, p99 } = series;
      this.#found.set(series.proxy, {
        ...this.#found.get(series.proxy),
        [metric]: { p50, p95, p99 },
      });
    }
    if (found) this.#changed();
  }
}
