"""What a report is about: histograms of backends, of proxies and of all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._ffi import lib
from ..buckets import METRICS, Buckets
from ..errors import LatencyError
from ..histogram import HistogramSnapshot
from ..history import Selection, View

__all__ = ["Reading", "Series", "difference", "load", "observe"]

_VERSION = 1  # of a snapshot's file, which is that of `LatencyTracker.to_json()`
_BUSIEST = 10  # backends that a report has, unless it is told which
_PROXIES = 16  # the API takes as many at once
_FILE_MAX = 1 << 30  # bytes

Histograms = dict[str, HistogramSnapshot]


@dataclass(frozen=True)
class Series:
    """A backend, a proxy (without a target), or all backends (without either).

    Attributes:
        selection: which.
        histograms: by metric.
        server: what the backend is called.
    """

    selection: Selection
    histograms: Histograms
    server: str | None = None


@dataclass(frozen=True)
class Reading:
    """Series that were read at once: all backends, the proxies, then single backends.

    Attributes:
        title: where they are from.
        series: those.
        facts: lines about them.
    """

    title: str
    series: list[Series]
    facts: tuple[str, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """The latencies that any of them has."""
        return [
            metric for metric in METRICS if any(metric in each.histograms for each in self.series)
        ]

    def to_dict(self) -> dict[str, Any]:
        """A form for a file, which `load()` reads."""
        return {
            "version": _VERSION,
            "backends": [
                {
                    "proxy_name": each.selection.proxy,
                    "target_id": each.selection.target,
                    "histograms": {
                        metric: histogram.to_dict() for metric, histogram in each.histograms.items()
                    },
                }
                for each in self.series
            ],
        }


# ---- an exporter ----


def observe(view: View, title: str, window: int | str, chosen: Sequence[Selection] = ()) -> Reading:
    """Ask an exporter for a window, of the chosen backends or of the busiest ones."""
    status, table = view.status(), view.backends(window)
    proxies = _busiest_proxies(table)
    wanted = [Selection(), *(chosen or [*proxies, *_busiest(table)])]
    found: dict[Selection, Series] = {}
    for metric in status["metrics"]:
        for start in range(0, len(wanted), _PROXIES):
            asked = wanted[start : start + _PROXIES]
            for part in ([asked[0]], asked[1:]) if start == 0 else (asked,):
                if part:
                    _add(found, view.distribution(part, window, metric), metric)
    order = sorted(found, key=lambda each: (each.target is not None, each.proxy is not None))
    coverage = status["coverage"]
    share = coverage["share"]
    facts = (
        f"{table['seconds']:.0f} s, {table['rows']:,} backends",
        "no connection has closed yet"
        if share is None
        else f"{int(share * 10000) / 100:.6g} % of closed connections have a lifetime;"
        f" {coverage['lost']:,} lost",
    )
    return Reading(title, [found[each] for each in order], facts)


def _busiest_proxies(table: Mapping[str, Any]) -> list[Selection]:
    counts: Counter[str] = Counter()
    columns = table["columns"]
    for proxy, count in zip(columns["proxy"], columns["count"], strict=True):
        counts[table["proxies"][proxy]] += count
    return [Selection(name) for name, _ in counts.most_common(_PROXIES)]


def _busiest(table: Mapping[str, Any]) -> list[Selection]:
    columns = table["columns"]
    order = sorted(range(table["rows"]), key=columns["count"].__getitem__, reverse=True)
    return [
        Selection(table["proxies"][columns["proxy"][i]], columns["target"][i])
        for i in order[:_BUSIEST]
    ]


def _add(found: dict[Selection, Series], answer: Mapping[str, Any], metric: str) -> None:
    try:
        buckets = Buckets.of(answer["bounds"])
        for each in answer["series"]:
            selection = Selection(each["proxy"], each["target"])
            series = found.setdefault(selection, Series(selection, {}, each["server"]))
            series.histograms[metric] = _histogram(each, buckets)
    except (LookupError, TypeError, ValueError) as error:
        raise LatencyError(f"the exporter's answer is not of version 1: {error!r}") from None


def _histogram(series: Mapping[str, Any], buckets: Buckets) -> HistogramSnapshot:
    slots = [
        [None if upper is None else _last_ns(upper, buckets), count]
        for upper, count in zip(series["upper"], series["counts"], strict=True)
    ]
    return HistogramSnapshot.from_dict(
        {
            "version": 1,
            "buckets": list(buckets.bounds),
            "slots": slots,
            "sum_ns": series["sum_ns"],
        }
    )


def _last_ns(upper: float, buckets: Buckets) -> int:
    """The last ns of the slot that ends there; a double has not all ns of 104 days and more."""
    ns = round(upper * 1e9)
    return int(
        lib.lbl_buckets_upper(buckets.ptr, lib.lbl_buckets_slot(buckets.ptr, ns - ns // 2**50))
    )


# ---- files ----


def load(path: str, chosen: Sequence[Selection] = ()) -> Reading:
    """Read a file that `LatencyTracker.to_json()` or a report made.

    Raises:
        LatencyError: it cannot be read, or is of another form.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _FILE_MAX:
            raise LatencyError(f"{path} is larger than a snapshot can be")
        data = json.loads(file.read_bytes())
        series = list(_saved(data))
    except OSError as error:
        raise LatencyError(f"cannot read {path}: {error.strerror}") from None
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, ValueError) else "it is of another form"
        raise LatencyError(
            f"{path} is no snapshot as LatencyTracker.to_json() writes it: {why}"
        ) from None
    return Reading(file.name, _with_sums(series, chosen))


def _saved(data: Any) -> Iterable[Series]:
    if not isinstance(data, dict) or data.get("version") != _VERSION:
        raise ValueError(f"it is not of version {_VERSION}")
    for each in data["backends"]:
        selection = Selection(each["proxy_name"], each["target_id"])
        if not all(part is None or isinstance(part, str) for part in selection):
            raise ValueError("a proxy's name or a target is no text")
        histograms = {
            metric: HistogramSnapshot.from_dict(form) for metric, form in each["histograms"].items()
        }
        if unknown := [metric for metric in histograms if metric not in METRICS]:
            raise ValueError(f"metric {unknown[0]!r} must be one of {', '.join(METRICS)}")
        yield Series(selection, histograms)


def _with_sums(series: Sequence[Series], chosen: Sequence[Selection]) -> list[Series]:
    """The sums of all and of each proxy, if they are not there, then the backends."""
    given = {each.selection: each for each in series}
    backends = [each for each in series if each.selection.target is not None]
    sums: dict[Selection, Histograms] = {}
    for each in backends:
        for whole in (Selection(), Selection(each.selection.proxy)):
            if whole not in given:
                _merge(sums.setdefault(whole, {}), each.histograms)
    wholes = {selection: Series(selection, found) for selection, found in sums.items()}
    wholes |= {of: each for of, each in given.items() if of.target is None}
    proxies = sorted((of for of in wholes if of.proxy is not None), key=lambda of: of.proxy or "")
    if chosen:
        if unknown := [each for each in chosen if each not in given and each not in wholes]:
            raise ValueError(f"it has no {unknown[0]}")
        named = {each.proxy for each in chosen}
        proxies = [each for each in proxies if each.proxy in named]
        backends = [given[each] for each in chosen if each.target is not None]
    else:
        backends = sorted(backends, key=_total, reverse=True)[:_BUSIEST]
    first = [wholes[Selection()]] if Selection() in wholes else []
    return [*first, *(wholes[each] for each in proxies), *backends]


def _merge(into: Histograms, histograms: Histograms) -> None:
    for metric, histogram in histograms.items():
        into[metric] = into[metric] + histogram if metric in into else histogram


def _total(series: Series) -> int:
    return sum(histogram.count for histogram in series.histograms.values())


def difference(later: Reading, earlier: Reading) -> Reading:
    """What happened between two snapshots of one tracker, exactly.

    Raises:
        LatencyError: a count went down, so that they are of two trackers, or in the other order, or
            a reset lies between them.
    """
    before = {each.selection: each.histograms for each in earlier.series}
    series = []
    for each in later.series:
        old = before.get(each.selection, {})
        try:
            new = {
                metric: histogram - old[metric] if metric in old else histogram
                for metric, histogram in each.histograms.items()
            }
        except ValueError as error:
            raise LatencyError(
                f"{later.title} is no later snapshot than {earlier.title}, or there was a reset"
                f" between them: {each.selection}: {error}"
            ) from None
        series.append(Series(each.selection, new, each.server))
    return Reading(f"{later.title} since {earlier.title}", series)
