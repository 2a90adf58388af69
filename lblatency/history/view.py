"""What the API says, as dicts for JSON; docs/api-v1.md has their fields."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from .._ffi import lib
from .._version import __version__
from ..buckets import LIFETIME
from ..families import FAMILIES
from ..histogram import HistogramSnapshot
from ..names import Names
from ..tracker import LatencyTracker
from .history import FINE_S, LONGEST_S, History, Selection, Window

__all__ = ["HEAT_WINDOWS", "WINDOWS", "LocalView", "View", "parse_backend", "parse_window"]

VERSION = 1
START = "start"
WINDOWS: tuple[int | str, ...] = (60, 300, FINE_S, START)
HEAT_WINDOWS: tuple[int | str, ...] = (60, 300, FINE_S, LONGEST_S)
_SERIES_MAX = 16
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
_LOST = next(family for family in FAMILIES if family.name == "lblatency_events_lost")
_IN_SHARE = {"unmatched", "rejected"}  # they have no lifetime, and count in the share already
_EVENTS = (
    "produced",
    "received",
    "taken",
    "dropped",
    "in_ring",
    "opened",
    "closed",
    "periodic",
    "malformed",
    "recorded",
    "unmatched",
    "rejected",
    "ignored",
)
SourceState = Mapping[str, Any]


class View(Protocol):
    """The API, wherever it is."""

    def status(self) -> dict[str, Any]:
        """As `/api/v1/status`."""

    def backends(self, window: int | str) -> dict[str, Any]:
        """As `/api/v1/backends`."""

    def heatmap(self, selection: Selection, window: int, metric: str = LIFETIME) -> dict[str, Any]:
        """As `/api/v1/heatmap`."""

    def distribution(
        self, selections: Sequence[Selection], window: int | str, metric: str = LIFETIME
    ) -> dict[str, Any]:
        """As `/api/v1/distribution`."""


def parse_window(text: str, allowed: Sequence[int | str] = WINDOWS) -> int | str:
    """One of the allowed windows.

    Raises:
        ValueError: it is none of them.
    """
    for window in allowed:
        if text == str(window):
            return window
    raise ValueError(f"window {text!r} must be one of {', '.join(map(str, allowed))}")


def parse_backend(text: str) -> Selection:
    """`PROXY/IP:PORT`. A proxy's name may have a slash, a target has none.

    Raises:
        ValueError: it is not of that form.
    """
    proxy, slash, target = text.rpartition("/")
    if not (slash and proxy and target):
        raise ValueError(f"backend {text!r} is not of the form PROXY/IP:PORT")
    return Selection(proxy, target)


def _seconds(window: int | str) -> float | None:
    return None if window == START else float(window)


def _value(x: float) -> float | None:
    """Without NaN, which JSON does not have."""
    return None if math.isnan(x) else x


def _values(numbers: Iterable[float]) -> list[float | None]:
    return [None if x != x else x for x in numbers]  # NaN is not itself


def _digits(x: float) -> float | None:
    return None if math.isnan(x) else float(f"{x:.3g}")


class LocalView:
    """A tracker of this process, with its history.

    Args:
        tracker: what is recorded.
        history: of that tracker.
        sources: says how each source is, as in the API's status.
        names: what servers are called.
        started: Unix time; now, by default.
    """

    def __init__(
        self,
        tracker: LatencyTracker,
        history: History,
        *,
        sources: Callable[[], Sequence[SourceState]] = tuple,
        names: Names | None = None,
        started: float | None = None,
    ) -> None:
        self.history = history
        self._tracker = tracker
        self._sources = sources
        self._names = names
        self._started = time.time() if started is None else started

    def status(self) -> dict[str, Any]:
        """The state of everything: small, and always of now."""
        sources = [dict(each) for each in self._sources()]
        events = self._tracker.event_counts()
        return {
            "version": VERSION,
            "software": __version__,
            "now": time.time(),
            "started": self._started,
            "running": self._tracker.running(),
            "metrics": list(self.history.metrics),
            "windows": list(WINDOWS),
            "coverage": self._coverage(sources),
            "events": {name: events[name] for name in _EVENTS},
            "sources": sources,
            "names": self._names.status() if self._names else [],
            "history": self.history.info(),
        }

    def _coverage(self, sources: Sequence[SourceState]) -> dict[str, Any]:
        raw = self._tracker.raw_stats()
        outcomes, is_counted = raw.outcomes, bool(raw.events.counted)
        lost_by: dict[str, int | None] = {
            str(sample.label_value): sample.value(raw)
            if is_counted or not sample.of_producers
            else None
            for sample in _LOST.samples
        }
        for source in sources:
            for reason, count in source["lost"].items():
                lost_by[reason] = (lost_by.get(reason) or 0) + count
        closed = outcomes.closed - outcomes.ignored
        return {
            "closed": closed,
            "recorded": outcomes.recorded,
            "share": outcomes.recorded / closed if closed else None,
            "lost": sum(count or 0 for name, count in lost_by.items() if name not in _IN_SHARE),
            "lost_by": lost_by,
            "counted": is_counted,
            "open_error": raw.open_error if is_counted else None,
        }

    def _server(self, ip: str, port: int) -> str | None:
        found = self._names.find(ip, port) if self._names else None
        return "/".join(found) if found else None

    def backends(self, window: int | str) -> dict[str, Any]:
        """The table of all backends."""
        found = self.history.overview(_seconds(window))
        columns = found.columns
        proxies = sorted(set(found.proxy))
        number = {name: i for i, name in enumerate(proxies)}
        table: dict[str, list[Any]] = {
            "proxy": [number[name] for name in found.proxy],
            "target": found.target,
        }
        if self._names and self._names.status():
            table["server"] = [
                self._server(ip, port) for ip, port in zip(found.ip, found.port, strict=True)
            ]
        table |= {
            "closed_per_s": columns["closed_rate"],
            "opened_per_s": columns["opened_rate"],
            "open": columns["open"],
            "count": columns["count"],
            **{name: _values(columns[name]) for name in ("p50", "p95", "p99")},
            **{
                f"{metric}_p95": _values(numbers)
                for metric, numbers in found.p95_of.items()
                if metric != LIFETIME
            },
            "resets": columns["resets"],
            "failed_connects": columns["failed"],
            "change": _values(columns["change"]),
            "change_in": found.change_in,
        }
        order = sorted(range(len(found.proxy)), key=table["proxy"].__getitem__)  # it is stable
        return {
            "version": VERSION,
            "window": window,
            **_covered(found.since, found.until),
            "metrics": list(self.history.metrics),
            "proxies": proxies,
            "left_out": found.left_out,
            "rows": len(order),
            "columns": {name: [column[i] for i in order] for name, column in table.items()},
        }

    def heatmap(self, selection: Selection, window: int, metric: str = LIFETIME) -> dict[str, Any]:
        """Counts by time and latency, without the rows above and below all counts."""
        heat = self.history.heat(selection, window, metric)
        used = [row for counts in heat.counts for row, count in enumerate(counts) if count]
        rows = range(min(used), max(used) + 1) if used else range(0)
        return {
            "version": VERSION,
            "metric": metric,
            "proxy": selection.proxy,
            "target": selection.target,
            "window": window,
            "since": heat.began[0] if heat.began else None,
            "until": heat.ended[-1] if heat.ended else None,
            "schema": lib.LBL_COARSE_SCHEMA,
            "upper": [lib.lbl_coarse_upper(row) for row in rows],
            "columns": {
                "end": heat.ended,
                "seconds": [
                    round(end - begin, 3) for begin, end in zip(heat.began, heat.ended, strict=True)
                ],
                "total": [sum(counts) for counts in heat.counts],
                "p50": [_digits(x) for x in heat.p50],
                "p99": [_digits(x) for x in heat.p99],
                "counts": [counts[rows.start : rows.stop] for counts in heat.counts],
            },
        }

    def distribution(
        self, selections: Sequence[Selection], window: int | str, metric: str = LIFETIME
    ) -> dict[str, Any]:
        """The distributions of the selected, and of the proxies of those that are backends."""
        if len(selections) > _SERIES_MAX:
            raise ValueError(f"at most {_SERIES_MAX} backends can be compared at once")
        proxies = [Selection(each.proxy) for each in selections if each.target is not None]
        wanted = list(dict.fromkeys([*(selections or [Selection()]), *proxies]))
        found = [self.history.window(each, _seconds(window), metric) for each in wanted]
        return {
            "version": VERSION,
            "metric": metric,
            "window": window,
            **_covered(found[0].since, found[0].until),
            "bounds": list(found[0].histogram.buckets),
            "series": [self._series(*pair) for pair in zip(wanted, found, strict=True)],
        }

    def _series(self, selection: Selection, window: Window) -> dict[str, Any]:
        server = None
        if selection.target is not None:
            ip, _, port = selection.target.rpartition(":")
            server = self._server(ip.strip("[]"), int(port))
        return {
            "proxy": selection.proxy,
            "target": selection.target,
            "server": server,
            **_summary(window.histogram),
        }


def _covered(since: float | None, until: float | None) -> dict[str, float | None]:
    seconds = 0.0 if since is None or until is None else round(until - since, 3)
    return {"since": since, "until": until, "seconds": seconds}


def _summary(histogram: HistogramSnapshot) -> dict[str, Any]:
    form = histogram.to_dict()
    percentiles = histogram.percentiles(tuple(_QUANTILES.values()))
    return {
        "count": histogram.count,
        "sum_ns": form["sum_ns"],
        "mean": _value(histogram.mean),
        **{name: _digits(x) for name, x in zip(_QUANTILES, percentiles, strict=True)},
        "upper": [None if ns is None else ns / 1e9 for ns, _ in form["slots"]],
        "counts": [count for _, count in form["slots"]],
    }
