"""Print results.csv as tables, and draw ns per event against the number of backends."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .limits import LIMITS, ORDERS, STATES, Reader
from .results import Result, Results, read

PLOT = Path(__file__).parent / "drain.svg"
FLOORS = ["memory floor", "counting floor"]
REFERENCES = {  # topic: the contenders that all others of a case are compared with
    "drain, after others": [*FLOORS, *ORDERS.values()],
    "drain, back to back": [*FLOORS, *ORDERS.values()],
    "drain, back to back, two decades": [*FLOORS, *ORDERS.values()],
    "drain, back to back, half of them opened": ["memory floor"],
    "latencies": ["lifetime alone"],
    "drain thread": ["lbl_stream_drain()"],
    "python per event": ["lblatency"],
    "record": ["record_latency()", "backend().observe()"],
    "bulk": ["record_many()"],
    "ordinary": ["lblatency"],
    "snapshot": ["drain alone"],
    "scrape": ["lblatency serve"],
    "import": ["bare python"],
    "page": ["3 backends"],
}
COLOURS = {
    "memory floor": "#bbbbbb",
    "counting floor": "#777777",
    "lblatency, ids": "#0072b2",
    "lblatency, hash": "#56b4e9",
    "C++ stack": "#d55e00",
    "Go stack": "#009e73",
}


# ---- tables ----


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: Iterable[list[str]]) -> str:
    """An aligned Markdown table; the first row is the header."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def topic_table(topic: str, results: Results) -> str:
    """Every contender of every case: its ns, ratios to the references, other figures."""
    references = REFERENCES.get(topic, [])
    ours = [each for each in results if each.topic == topic]
    figures = list(dict.fromkeys(name for each in ours for name in each.figures))
    head = ["case", "contender", "ns", *(f"÷ {name}" for name in references)]
    rows = [head + [name.replace("_", " ") for name in figures]]
    for each in ours:
        ratios = [number(ratio(each, other, results)) for other in references]
        extra = [number(each.figures.get(name)) for name in figures]
        rows.append([each.case, each.contender, number(each.ns), *ratios, *extra])
    return table(rows)


def ratio(result: Result, other: str, results: Results) -> float | None:
    """Its time over that of another contender; None if that was not measured."""
    return value_of(
        lambda results: results.ratio(result.topic, result.case, result.contender, other), results
    )


def value_of(reader: Reader, results: Results) -> float | None:
    """A figure; None if it was not measured."""
    try:
        return reader(results)
    except KeyError:
        return None


def limit_table(results: Results) -> str:
    """The table of limits, and whether the figures keep them."""
    rows = [["what", "limit", "measured", "kept"]]
    for limit in LIMITS:
        values = [value_of(reader, results) for reader in limit.readers]
        rows.append(
            [
                limit.text,
                limit.sign + " " + " / ".join(number(each) for each in limit.limits),
                " / ".join(number(value) for value in values),
                "yes" if limit.kept(values) else "no",
            ]
        )
    return table(rows)


# ---- the plot ----


def plot(results: Results) -> None:
    """Draw ns per event against the number of backends. Equal figures give an equal file."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "drain"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for panel, state in zip(panels, STATES, strict=True):
        for contender, colour in COLOURS.items():
            points = sorted(
                (int(each.case.split()[0]), each.ns)
                for each in results
                if each.topic == f"drain, {state}" and each.contender == contender
            )
            if points:
                panel.loglog(*zip(*points, strict=True), "o-", color=colour, label=contender)
        panel.set(title=f"drained {state}", xlabel="backends")
        panel.grid(visible=True, which="both", alpha=0.25)
    panels[0].set_ylabel("ns per event")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="lower center", ncols=6, frameon=False
    )
    figure.suptitle("From ring buffer to histogram: 12,000 events, 1 MiB ring")
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    """Print all tables and draw the plot."""
    results = read()
    for topic in dict.fromkeys(each.topic for each in results):
        print(f"\n## {topic}\n\n{topic_table(topic, results)}")
    print(f"\n## regression limits\n\n{limit_table(results)}")
    plot(results)


if __name__ == "__main__":
    main()
