"""Tables in plain text, and one that redraws itself in place on a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from .compare import PERCENTILES, Comparison

__all__ = ["LiveTable", "Row", "backend_table", "comparison_table", "human_time"]


@dataclass(frozen=True)
class Row:
    """A backend as the table shows it.

    `measured` is what `LatencyTracker.get_percentiles` gives: None before a connection has ended.
    """

    proxy: str
    target: str
    label: str
    closed: int
    open: int
    resets: int
    measured: Mapping[str, float] | None

    def value(self, name: str) -> float | None:
        """One of `p50`, `p95`, `p99` and `mean`, in seconds."""
        return self.measured[name] if self.measured else None


def human_time(seconds: float | None) -> str:
    """Three digits and a unit: `4.12 ms`, `1.50 s`; a dash for None."""
    if seconds is None:
        return "-"
    value, unit = (seconds, "s") if seconds >= 0.9995 else (seconds * 1000, "ms")
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f} {unit}"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Lines with columns as wide as their widest cell; the first `left` columns flush left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in (header, *rows)
    ]


def backend_table(rows: Sequence[Row]) -> list[str]:
    """One line a backend, below a header."""
    times = ("p50", "p95", "p99", "mean")
    header = ("proxy", "backend", "behaviour", "closed", "open", *times, "resets")
    cells = [
        (
            row.proxy,
            row.target,
            row.label,
            str(row.closed),
            str(row.open),
            *(human_time(row.value(name)) for name in times),
            str(row.resets),
        )
        for row in rows
    ]
    return _aligned(header, cells, left=3)


def comparison_table(comparisons: Sequence[Comparison], clock: str) -> list[str]:
    """Measured, the other clock's and their difference, one line a backend and percentile."""
    header = ("proxy", "backend", "", "measured", clock, "error")
    cells = [
        (
            *one.backend,
            f"p{one.percent}",
            human_time(one.measured),
            human_time(one.truth),
            human_time(one.error),
        )
        for percent in PERCENTILES
        for one in comparisons
        if one.percent == percent
    ]
    return _aligned(header, cells, left=3)


class LiveTable:
    """Redraws lines in place where `output` is a terminal, and does nothing elsewhere."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._is_terminal = output.isatty()
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
