// What is chosen, in detail: over time, and as distributions beside that of its proxy.

import { RequestError, Resource } from "./api.js";
import { key, parts } from "./backends.js";
import { Cdf } from "./cdf.js";
import { duration, element, nameElement, plain, whole } from "./format.js";
import { Heatmap } from "./heatmap.js";
import { HEAT_WINDOWS, choose, segments, state, writeUrl } from "./state.js";

const COLOURS = 8;

const find = (id) => document.getElementById(id);

// How the API calls what is chosen.
const asked = (name) => (parts(name)[1] ? ["backend", name] : ["proxy", parts(name)[0]]);

function title(name) {
  if (!name) return ["All backends"];
  const [proxy, target] = parts(name);
  return target ? [target, proxy] : [proxy, "all its backends"];
}

export class Detail {
  #heat = new Resource("heatmap");
  #distribution = new Resource("distribution");
  #heatmap = new Heatmap();
  #cdf = new Cdf();
  #heatFound = null;
  #found = null;
  #changed;

  // changed: called when a person changes what is chosen here
  constructor(changed) {
    this.#changed = changed;
    find("clear").addEventListener("click", () => this.#set({ chosen: [] }));
    find("metric").addEventListener("change", ({ target }) => this.#set({ metric: target.value }));
    segments(find("heat-windows"), HEAT_WINDOWS, state.heatWindow, (heatWindow) =>
      this.#set({ heatWindow }),
    );
    for (const name of ["absolute", "tail"]) {
      find(name).checked = state[name];
      find(name).addEventListener("change", ({ target }) => {
        state[name] = target.checked;
        writeUrl();
        this.draw();
      });
    }
  }

  #set(change) {
    Object.assign(state, change);
    writeUrl();
    this.#changed();
  }

  // The latencies that there are to choose from.
  offer(metrics) {
    const select = find("metric");
    if (select.options.length !== metrics.length) {
      select.replaceChildren(
        ...metrics.map((metric) => new Option(plain(metric).replaceAll("_", " "), metric)),
      );
      select.parentElement.hidden = metrics.length < 2;
    }
    if (!metrics.includes(state.metric)) this.#set({ metric: metrics[0] });
    select.value = state.metric;
  }

  async load() {
    this.#showTitle();
    const metric = ["metric", state.metric];
    const focus = state.chosen.slice(-1).map(asked);
    try {
      const [heat, distribution] = await Promise.all([
        this.#heat.load([...focus, ["window", state.heatWindow], metric]),
        this.#distribution.load([...state.chosen.map(asked), ["window", state.window], metric]),
      ]);
      if (heat) this.#heatFound = heat;
      if (distribution) this.#found = distribution;
      if (heat || distribution) this.draw();
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      this.#heatFound = this.#found = null;
      this.#heat.forget();
      this.#distribution.forget();
      this.draw();
      find("hint").textContent = error.message.slice(0, 300);
    }
  }

  #showTitle() {
    const [name, more] = title(state.chosen.at(-1));
    find("chosen-name").replaceChildren(nameElement(name));
    if (more) find("chosen-name").append(" ", nameElement(more, "more"));
    find("clear").hidden = !state.chosen.length;
    find("hint").textContent = state.chosen.length
      ? "Ctrl-click or Space compares with others."
      : "Click a row, or press Enter, to look at it; Ctrl-click or Space compares.";
  }

  draw() {
    if (this.#heatFound) this.#heatmap.show(this.#heatFound, state.absolute);
    else this.#heatmap.clear();
    if (!this.#found) {
      this.#cdf.clear();
      find("legend").replaceChildren();
      return;
    }
    const styles = this.#styles(this.#found.series);
    this.#cdf.show(this.#found, styles, state.tail);
    find("legend").replaceChildren(
      ...this.#found.series.map((series, i) => this.#entry(series, styles[i])),
    );
  }

  // Of each series: those chosen have the colours of their lines, their proxies are dashed.
  #styles(all) {
    let others = state.chosen.length;
    return all.map(({ proxy, target, server }) => {
      const name = proxy === null ? "All backends" : target === null ? proxy : (server ?? target);
      const chosen = proxy === null ? 0 : state.chosen.indexOf(key(proxy, target ?? ""));
      return {
        name,
        dashed: chosen < 0,
        stroke: `series-${(chosen < 0 ? others++ : chosen) % COLOURS}`,
      };
    });
  }

  #entry({ proxy, target, count, p50, p99 }, { name, stroke, dashed }) {
    const made = element("span", "", "entry");
    const swatch = element("i", "", dashed ? "swatch dashed" : "swatch");
    swatch.style.setProperty("--colour", `var(--${stroke})`);
    made.append(swatch, nameElement(name));
    made.title = `${whole(count)} connections`;
    made.append(element("span", `p50 ${duration(p50)}, p99 ${duration(p99)}`, "quiet"));
    if (!dashed && proxy !== null) {
      const remove = element("button", "×");
      remove.type = "button";
      remove.ariaLabel = `Remove ${plain(name)}`;
      remove.addEventListener("click", () => {
        choose(key(proxy, target ?? ""), true);
        this.#set({});
      });
      made.append(remove);
    }
    return made;
  }
}
