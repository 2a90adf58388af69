"""How long connections through a load balancer live, per backend.

The functions of this module work on one process-wide tracker; `LatencyTracker` has the same as
methods, for any number of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import conntrack, stats
from ._version import __version__
from .backend import Backend
from .errors import BpfError, LatencyError
from .histogram import (
    DEFAULT_BUCKETS,
    REFERENCE_BUCKETS,
    SHORT_BUCKETS,
    HistogramSnapshot,
    NativeHistogram,
)
from .tracker import LatencyTracker

if TYPE_CHECKING:
    from .collector import LatencyCollector

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
    "start",
    "stats",
    "stop",
]

default_tracker = LatencyTracker()

start = default_tracker.start
stop = default_tracker.stop
running = default_tracker.running
record_latency = default_tracker.record_latency
record_many = default_tracker.record_many
get_histogram = default_tracker.get_histogram
get_all_histograms = default_tracker.get_all_histograms
get_histograms_for_metrics = default_tracker.get_histograms_for_metrics
get_percentiles = default_tracker.get_percentiles
get_status = default_tracker.get_status
reset_histograms = default_tracker.reset_histograms


def __getattr__(name: str) -> Any:
    """Import what needs prometheus_client only when it is asked for: it takes longer than we do."""
    if name == "LatencyCollector":
        from .collector import LatencyCollector

        return LatencyCollector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
