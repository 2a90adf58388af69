"""Print benchmarks/results.json as tables, and draw ns/event against the number of backends."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from targets import ORDERS, STATES, TARGETS, Reader, Results

HERE = Path(__file__).parent
REFERENCES = {  # topic: contenders that all others of a case are divided by
    "drain, after others": ["memory floor", *ORDERS.values()],
    "drain, back to back": ["memory floor", *ORDERS.values()],
    "drain, back to back, two decades": ["memory floor", *ORDERS.values()],
    "drain, back to back, half of them opened": ["memory floor"],
    "drain thread": ["lbl_stream_drain()"],
    "python per event": ["lblatency"],
    "record": ["record_latency()", "backend().observe()"],
    "bulk": ["record_many()"],
    "ordinary": ["lblatency"],
    "snapshot": ["drain alone"],
    "import": ["bare python"],
}
COLOURS = {
    "memory floor": "#999999",
    "lblatency, ids": "#0072b2",
    "lblatency, hash": "#56b4e9",
    "C++ stack": "#d55e00",
    "Go stack": "#009e73",
}


def by_name(document: Mapping[str, Any]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    """The results by topic, case and contender."""
    infos = [each["extra_info"] for each in document["benchmarks"]]
    return {(info["topic"], info["case"], info["contender"]): info for info in infos}


# ---- tables ----


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: Iterable[list[str]]) -> str:
    """Aligned, and Markdown; the first row is the head."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def topic_table(topic: str, infos: list[Mapping[str, Any]]) -> str:
    """Every contender of every case: ns, against the references, and what else was counted."""
    references = REFERENCES.get(topic, [])
    head = ["case", "contender", "ns", *(f"÷ {name}" for name in references)]
    figures = list(dict.fromkeys(name for info in infos for name in info["figures"]))
    rows = [head + [name.replace("_", " ") for name in figures]]
    for info in infos:
        ratios = [number(info["ratios"].get(name)) for name in references]
        extra = [number(info["figures"].get(name)) for name in figures]
        rows.append([info["case"], info["contender"], number(info["ns"]), *ratios, *extra])
    return table(rows)


def value_of(reader: Reader, results: Results) -> float | None:
    """A figure; None if it was left out."""
    try:
        return reader(results)
    except KeyError:
        return None


def target_table(results: Results) -> str:
    """What was asked for, and what it is."""
    rows = [["what", "target", "measured", "met"]]
    for target in TARGETS:
        values = [value_of(reader, results) for reader in target.readers]
        rows.append(
            [
                target.text,
                target.sign + " " + " / ".join(number(limit) for limit in target.limits),
                " / ".join(number(value) for value in values),
                "yes" if target.met(values) else "no",
            ]
        )
    return table(rows)


# ---- the plot ----


def plot(results: Results, into: Path) -> None:
    """Ns an event against the number of backends, everybody a line, as PNG and SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for panel, state in zip(panels, STATES, strict=True):
        for contender, colour in COLOURS.items():
            points = sorted(
                (int(case.split()[0]), info["ns"])
                for (topic, case, name), info in results.items()
                if topic == f"drain, {state}" and name == contender
            )
            if points:
                panel.loglog(*zip(*points, strict=True), "o-", color=colour, label=contender)
        panel.set(title=f"drained {state}", xlabel="backends")
        panel.grid(visible=True, which="both", alpha=0.25)
    panels[0].set_ylabel("ns per event")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="lower center", ncols=5, frameon=False
    )
    figure.suptitle("From ring buffer to histogram: 12,000 events, 1 MiB ring")
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    for suffix in ("png", "svg"):
        figure.savefig(into / f"drain.{suffix}", dpi=120)


def main() -> None:
    """Print all there is."""
    document = json.loads((HERE / "results.json").read_text())
    results = by_name(document)
    print(f"rings: {document['machine_info']['rings']}")
    by_topic: dict[str, list[Mapping[str, Any]]] = {}
    for (topic, _, _), info in results.items():
        by_topic.setdefault(topic, []).append(info)
    for topic, infos in by_topic.items():
        print(f"\n## {topic}\n\n{topic_table(topic, infos)}")
    print(f"\n## targets\n\n{target_table(results)}")
    plot(results, HERE)


if __name__ == "__main__":
    main()
