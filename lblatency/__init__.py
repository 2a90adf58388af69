"""How long connections through a load balancer live, per backend.

The functions of this module work on one tracker per process. `LatencyTracker` makes further ones,
with the same functions as methods.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import conntrack, stats
from ._version import __version__
from .backend import Backend
from .buckets import DEFAULT_BUCKETS, REFERENCE_BUCKETS, SHORT_BUCKETS
from .errors import BpfError, LatencyError
from .histogram import HistogramSnapshot, NativeHistogram
from .tracker import LatencyTracker

__all__ = [
    "DEFAULT_BUCKETS",
    "REFERENCE_BUCKETS",
    "SHORT_BUCKETS",
    "Backend",
    "BpfError",
    "HistogramSnapshot",
    "LatencyCollector",
    "LatencyError",
    "LatencyTracker",
    "NativeHistogram",
    "__version__",
    "add",
    "conntrack",
    "default_tracker",
    "get_all_histograms",
    "get_histogram",
    "get_histograms_for_metrics",
    "get_percentiles",
    "get_status",
    "record_latency",
    "record_many",
    "reset_histograms",
    "running",
    "sources",
    "start",
    "stats",
    "stop",
    "to_dict",
    "to_json",
]

if TYPE_CHECKING:
    from . import sources
    from .collector import LatencyCollector

    default_tracker = LatencyTracker()
    start = default_tracker.start
    stop = default_tracker.stop
    running = default_tracker.running
    record_latency = default_tracker.record_latency
    record_many = default_tracker.record_many
    add = default_tracker.add
    get_histogram = default_tracker.get_histogram
    get_all_histograms = default_tracker.get_all_histograms
    get_histograms_for_metrics = default_tracker.get_histograms_for_metrics
    get_percentiles = default_tracker.get_percentiles
    get_status = default_tracker.get_status
    to_dict = default_tracker.to_dict
    to_json = default_tracker.to_json
    reset_histograms = default_tracker.reset_histograms


def __getattr__(name: str) -> Any:
    """Make on first use what an import should not pay for.

    The default tracker takes memory. The collector imports prometheus_client, which takes longer
    than the rest of this package.
    """
    if name == "sources":
        return import_module(".sources", __name__)
    if name == "LatencyCollector":
        from .collector import LatencyCollector

        return LatencyCollector
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    ours = globals()
    tracker = ours.get("default_tracker")
    if tracker is None:  # setdefault: two threads that come here at once get the same one
        tracker = ours.setdefault("default_tracker", LatencyTracker())
    if name == "default_tracker":
        return tracker
    return ours.setdefault(name, getattr(tracker, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
