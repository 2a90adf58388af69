"""Tables in plain text, and one that redraws itself in place on a terminal."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from .compare import METRICS, PERCENTILES, BackendKey, Comparison, worst_error

__all__ = [
    "LiveTable",
    "Row",
    "backend_table",
    "comparison_table",
    "in_words",
    "milliseconds",
]

_SHOWN = ("p50", "p99")  # of three metrics, they fit into 79 columns
_GAP = " " * 2


@dataclass(frozen=True)
class Row:
    """A backend as the table shows it.

    `measured` is what `LatencyTracker.get_percentiles` gives for each metric: None before a
    connection has ended.
    """

    proxy: str
    target: str
    closed: int
    open: int
    resets: int
    measured: Mapping[str, Mapping[str, float] | None]

    @property
    def backend(self) -> BackendKey:
        """Which one it is."""
        return (self.proxy, self.target)

    def value(self, metric: str, name: str) -> float | None:
        """One of `p50`, `p95`, `p99` and `mean`, in seconds."""
        measured = self.measured[metric]
        return measured[name] if measured else None

    def count(self, metric: str) -> int:
        """How many connections that latency was measured of."""
        measured = self.measured[metric]
        return int(measured["count"]) if measured else 0


def in_words(name: str) -> str:
    """A metric's or counter's name for people to read."""
    return name.replace("_", " ")


def milliseconds(seconds: float | None) -> str:
    """Three digits, but at most three decimals: `0.084`, `4.12`, `1500`; a dash for None."""
    if seconds is None:
        return "-"
    value = seconds * 1000
    decimals = 3 if value < 0.9995 else 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}"


def _aligned(
    groups: Sequence[tuple[str, int]],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int,
    gap: str = _GAP,
) -> list[str]:
    """Lines with columns as wide as their widest cell.

    Args:
        groups: what stands above the header, and over how many columns each.
        header: a name per column.
        rows: the cells.
        left: how many columns are flush left, within the first group; the others are flush right.
        gap: between the columns of a group.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    padded = [
        [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        for cells in (header, *rows)
    ]
    titles: list[str] = []
    lines: list[list[str]] = [[] for _ in padded]
    first = 0
    for title, columns in groups:
        for line, cells in zip(lines, padded, strict=True):
            line.append(gap.join(cells[first : first + columns]))
        width = len(lines[0][-1])
        titles.append(title.rjust(width) if first else title.ljust(width))
        first += columns
    return [_GAP.join(line).rstrip() for line in (titles, *lines)]


def backend_table(rows: Sequence[Row]) -> list[str]:
    """One line per backend, below a header."""
    counts = ("backend", "closed", "resets", "open")
    cells = [
        (
            row.target,
            str(row.closed),
            str(row.resets),
            str(row.open),
            *(milliseconds(row.value(metric, name)) for metric in METRICS for name in _SHOWN),
        )
        for row in rows
    ]
    groups = [(in_words(metric), len(_SHOWN)) for metric in METRICS]
    header = (*counts, *_SHOWN * len(METRICS))
    return _aligned([("times in ms", len(counts)), *groups], header, cells, left=1)


def _compared(one: Comparison | None, clocks: Sequence[str]) -> list[str]:
    values = (one.measured, *one.truth) if one else (None,) * 3
    return [milliseconds(value) for value in values[: 1 + len(clocks)]]


def comparison_table(comparisons: Sequence[Comparison], clocks: Sequence[str]) -> list[str]:
    """What we measured and what other clocks say, a line per backend and percentile.

    The last lines tell the largest differences.

    Args:
        comparisons: in the order of the backends to be shown; dashes stand for missing ones.
        clocks: the names of what they say: the least and the most, or the least alone.
    """
    found = {(one.backend, one.percent, one.metric): one for one in comparisons}
    backends = dict.fromkeys(one.backend for one in comparisons)
    lines = [
        [
            backend[1],
            f"p{percent}",
            *(
                cell
                for metric in METRICS
                for cell in _compared(found.get((backend, percent, metric)), clocks)
            ),
        ]
        for percent in PERCENTILES
        for backend in backends
    ]
    worst = [
        [
            "largest error",
            f"p{percent}",
            *(
                cell
                for metric in METRICS
                for cell in (
                    *("" for _ in clocks),
                    milliseconds(worst_error(comparisons, metric, percent)),
                )
            ),
        ]
        for percent in PERCENTILES
    ]
    columns = ("ours", *clocks)
    groups = [(in_words(metric), len(columns)) for metric in METRICS]
    header = ("backend", "", *columns * len(METRICS))
    return _aligned([("times in ms", 2), *groups], header, [*lines, *worst], left=2, gap=" ")


class LiveTable:
    """Redraws lines in place where `output` is a terminal that can, and does nothing elsewhere.

    Where NO_COLOR is set, it is plain as well.
    """

    def __init__(self, output: TextIO) -> None:
        self._output = output
        is_plain = os.environ.get("TERM") == "dumb" or os.environ.get("NO_COLOR")
        self._is_terminal = output.isatty() and not is_plain
        self._height = 0

    def draw(self, lines: Sequence[str]) -> None:
        """Put these lines where the last ones were."""
        if not self._is_terminal:
            return
        width = shutil.get_terminal_size().columns  # a line that wraps would be two to go up
        up = f"\x1b[{self._height}F" if self._height else ""
        self._output.write(up + "".join(f"{line[:width]}\x1b[K\n" for line in lines) + "\x1b[J")
        self._output.flush()
        self._height = len(lines)

    def clear(self) -> None:
        """Take the lines away, for the final ones to be printed."""
        self.draw([])
