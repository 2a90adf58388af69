"""How long connections through a load balancer live, per backend.

The functions of this module work on one tracker per process. `LatencyTracker` makes further ones,
with the same functions as methods.
"""

from __future__ import annotations

from ._version import __version__

TYPE_CHECKING = False

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
    "NotPinnedError",
    "__version__",
    "add",
    "conntrack",
    "default_tracker",
    "exposition",
    "get_all_histograms",
    "get_histogram",
    "get_histograms_for_metrics",
    "get_percentiles",
    "get_status",
    "names",
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
    from typing import Any

    from . import conntrack, names, sources, stats
    from .backend import Backend
    from .buckets import DEFAULT_BUCKETS, REFERENCE_BUCKETS, SHORT_BUCKETS
    from .collector import LatencyCollector
    from .errors import BpfError, LatencyError, NotPinnedError
    from .histogram import HistogramSnapshot, NativeHistogram
    from .render import exposition
    from .tracker import LatencyTracker

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

_MODULES = ("conntrack", "names", "sources", "stats")
_HOMES = {
    "Backend": "backend",
    "BpfError": "errors",
    "DEFAULT_BUCKETS": "buckets",
    "HistogramSnapshot": "histogram",
    "LatencyCollector": "collector",
    "LatencyError": "errors",
    "LatencyTracker": "tracker",
    "NativeHistogram": "histogram",
    "NotPinnedError": "errors",
    "REFERENCE_BUCKETS": "buckets",
    "SHORT_BUCKETS": "buckets",
    "exposition": "render",
}


def __getattr__(name: str) -> Any:
    """Make on first use what an import should not pay for; what is left is the tracker's.

    The command can be interrupted before anything slow is imported, the default tracker takes
    memory, and the collector imports prometheus_client.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    ours = globals()
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        return ours.setdefault(name, getattr(import_module(f".{_HOMES[name]}", __name__), name))
    tracker = ours.setdefault("default_tracker", import_module("._default", __name__).tracker())
    if name == "default_tracker":
        return tracker
    return ours.setdefault(name, getattr(tracker, name))


def __dir__() -> list[str]:
    """The public names, whether they were used yet or not."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
