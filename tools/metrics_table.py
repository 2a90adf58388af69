"""Write C's table of metric families into README.md, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Metric

from lblatency import LatencyCollector, LatencyTracker
from lblatency.buckets import METRICS
from lblatency.families import FAMILIES, Family

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- metrics: begin -->\n", "<!-- metrics: end -->\n"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _row(name: str, kind: str, labels: Iterator[str], text: str) -> str:
    suffix = {"counter": "_total", "info": "_info"}.get(kind, "")
    return _line(f"`{name}{suffix}`", kind, ", ".join(labels), text)


def _labels(family: Family) -> Iterator[str]:
    values = [sample.label_value for sample in family.samples if sample.label_value]
    for label in family.labels:
        has_values = values and label == family.labels[-1]
        yield f"`{label}`" + (f" ({', '.join(values)})" if has_values else "")


def _added(metric: Metric) -> Iterator[str]:
    return (f"`{label}`" for sample in metric.samples for label in sample.labels)


def table() -> str:
    """All families that a collector can export: those of C, and its own ones."""
    names = {family.name for family in FAMILIES}
    described = LatencyCollector(LatencyTracker(metrics=METRICS)).describe()
    return "".join(
        [
            _line("metric", "type", "labels", "meaning"),
            _line("---", "---", "---", "---"),
            *(_row(each.name, each.type, _labels(each), each.help) for each in FAMILIES),
            *(
                _row(each.name, each.type, _added(each), each.documentation)
                for each in described
                if each.name not in names
            ),
        ]
    )


def updated(readme: str) -> str:
    """The text of README.md with the table between the marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md has no lines {BEGIN!r} and {END!r}")
    return f"{before}{begin}\n{table()}\n{end}{after}"


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
