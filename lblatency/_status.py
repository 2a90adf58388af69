"""What a tracker says of itself: where its events went, and its backends in words and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ._ffi import ffi
from .backend import BackendRow
from .histogram import HistogramSnapshot
from .stats import stream_stats

__all__ = ["backends_by_name", "backends_in_full", "event_counts", "percentiles", "status"]

_OUTCOMES = tuple(name for name, _ in ffi.typeof("struct lbl_outcomes").fields)


def event_counts(raw: Any) -> dict[str, int | None]:
    """The counts in a C `struct lbl_tracker_stats`."""
    events = stream_stats(raw.events)
    return {
        "produced": events.produced,
        "received": events.received,
        "dropped": events.dropped,
        "in_ring": events.in_ring,
        "taken": events.taken,
        "moved": events.moved,
        "replaced": events.replaced,
        "corrupt": events.corrupt,
    } | {name: getattr(raw.outcomes, name) for name in _OUTCOMES}


def percentiles(histogram: HistogramSnapshot) -> dict[str, float]:
    """The usual three, the mean and the count."""
    p50, p95, p99 = histogram.percentiles((0.50, 0.95, 0.99))
    return {"p50": p50, "p95": p95, "p99": p99, "mean": histogram.mean, "count": histogram.count}


def backends_by_name(rows: Iterable[BackendRow]) -> dict[tuple[str, str], dict[str, Any]]:
    """Count and mean of the lifetime, and the connections, by (proxy name, target)."""
    return {
        (row.proxy, row.target): {
            "count": row.histogram.count,
            "mean": row.histogram.mean if row.histogram.count else None,
            **row.connections(),
        }
        for row in rows
    }


def backends_in_full(by_metric: Mapping[str, Iterable[BackendRow]]) -> list[dict[str, Any]]:
    """The connections, and percentiles and histograms of each latency, in a form for JSON."""
    backends: dict[tuple[str, str], dict[str, Any]] = {}
    for metric, rows in by_metric.items():
        for row in rows:
            named = {"proxy_name": row.proxy, "target_id": row.target}
            backend = backends.setdefault(
                (row.proxy, row.target),
                named | row.connections() | {"percentiles": {}, "histograms": {}},
            )
            if row.histogram.count:
                backend["percentiles"][metric] = percentiles(row.histogram)
                backend["histograms"][metric] = row.histogram.to_dict()
    return list(backends.values())


def status(
    raw: Any, proxy_name: str | None, rows: Iterable[BackendRow], backends: Any
) -> dict[str, Any]:
    """The state in a C `struct lbl_tracker_stats`, with the backends in the form that is given."""
    return {
        "running": bool(raw.running),
        "proxy_name": proxy_name,
        "histogram_count": sum(1 for row in rows if row.histogram.count),
        "backends": backends,
        "open_error": raw.open_error if raw.events.counted else None,
        "events": event_counts(raw),
        "attached": bool(raw.events.attached),
        "stalled_since_ns": raw.events.stalled_since_ns,
    }
