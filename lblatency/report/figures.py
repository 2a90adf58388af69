"""The numbers of a report: rows of percentiles, and points of a distribution."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from unicodedata import combining, east_asian_width

from .._plot import readable
from ..histogram import HistogramSnapshot
from ..history import Selection
from ..names.base import printable
from .readings import Reading, Series

__all__ = ["HEAD", "label", "percentile_points", "points", "rows", "text"]

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
HEAD = ("", "count", "mean", *_QUANTILES, "max")


def label(series: Series) -> str:
    """What a series is called."""
    if series.selection == Selection():
        return "all"
    name = printable(str(series.selection))
    return f"{name} ({printable(series.server)})" if series.server else name


def _time(seconds: float) -> str:
    return "-" if math.isnan(seconds) else readable(seconds)


def _row(name: str, histogram: HistogramSnapshot) -> list[str]:
    percentiles = histogram.percentiles([*_QUANTILES.values(), 1.0])
    return [
        name,
        f"{histogram.count:,}",
        _time(histogram.mean),
        *(_time(each) for each in percentiles),
    ]


def rows(readings: Sequence[Reading], metric: str) -> Iterator[list[str]]:
    """A row per series with observations; of two readings, those of a series are adjacent."""
    found = [{each.selection: each for each in reading.series} for reading in readings]
    for selection in dict.fromkeys(each for series in found for each in series):
        for reading, series in zip(readings, found, strict=True):
            each = series.get(selection)
            if each and metric in each.histograms and each.histograms[metric].count:
                own = f": {printable(reading.title)}" if len(readings) > 1 else ""
                yield _row(label(each) + own, each.histograms[metric])


def points(histogram: HistogramSnapshot) -> tuple[list[float], list[float]]:
    """The steps of the cumulative distribution: seconds, and shares from 0 to 1."""
    seconds: list[float] = []
    shares: list[float] = []
    seen = 0
    for ns, count in histogram.to_dict()["slots"]:
        seen += count
        seconds.append(2.0**24 if ns is None else max(ns, 1) / 1e9)
        shares.append(seen / histogram.count)
    return seconds, shares


def percentile_points(histogram: HistogramSnapshot) -> tuple[list[float], list[float]]:
    """The steps of the percentiles: one of how many connections takes longer, and seconds.

    Each value holds from the point before to its own. The longest is one of all.
    """
    seconds, shares = points(histogram)
    odds = [1 / (1 - share) if share < 1 else float(histogram.count) for share in shares]
    return [1.0, *odds], [seconds[0], *seconds]


def text(readings: Sequence[Reading]) -> Iterator[str]:
    """The report as lines."""
    for reading in readings:
        yield "; ".join([printable(reading.title), *map(printable, reading.facts)])
    for metric in dict.fromkeys(metric for reading in readings for metric in reading.metrics):
        table = [list(HEAD), *rows(readings, metric)]
        table[0][0] = metric.upper()
        widths = [max(_width(row[i]) for row in table) for i in range(len(HEAD))]
        yield ""
        for name, *numbers in table:
            cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
            yield "  ".join([name + " " * (widths[0] - _width(name)), *cells])


def _width(name: str) -> int:
    """In cells of a terminal."""
    return sum(
        0 if combining(each) else 1 + (east_asian_width(each) in ("F", "W")) for each in name
    )
