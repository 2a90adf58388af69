"""The tracker as a Prometheus collector."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ._ffi import lib
from ._version import __version__
from .tracker import BackendRow, LatencyTracker

__all__ = ["LatencyCollector"]

_BACKEND = ("proxy_name", "target_ip", "target_port")


class LatencyCollector(Collector):
    """Exposes a tracker to any `prometheus_client` registry.

    Args:
        tracker: what to expose.
    """

    def __init__(self, tracker: LatencyTracker) -> None:
        self._tracker = tracker

    def describe(self) -> list[Metric]:
        """The families without samples, so that registering them reads no histogram."""
        return [*self._backend_families([]), *self._event_families({}), *self._ring_families()]

    def collect(self) -> Iterator[Metric]:
        """The families with what the tracker holds now."""
        yield from self._backend_families(self._tracker.backends())
        yield from self._event_families(self._tracker.event_counts())
        yield from self._ring_families()

    def _backend_families(self, rows: list[BackendRow]) -> list[Metric]:
        latency = HistogramMetricFamily(
            "lb_backend_latency_seconds", "Backend connection latency in seconds", labels=_BACKEND
        )
        closed = CounterMetricFamily(
            "lblatency_connections_closed",
            "Connections to a backend that ended, by reason, health probes not included",
            labels=(*_BACKEND, "reason"),
        )
        current = GaugeMetricFamily(
            "lblatency_connections_open",
            "Connections to a backend that are open, of those seen to open",
            labels=_BACKEND,
        )
        for row in rows:
            labels = (row.proxy, row.ip, str(row.port))
            histogram = row.histogram
            if histogram["count"]:
                bounds = [str(floatToGoString(bound)) for bound in histogram["buckets"]]  # type: ignore[no-untyped-call]
                buckets = list(zip(bounds, histogram["counts"], strict=True))
                buckets.append(("+Inf", histogram["count"]))
                latency.add_metric(labels, buckets, histogram["sum"])
            for reason, count in row.closed.items():
                if count:
                    closed.add_metric((*labels, reason), count)
            current.add_metric(labels, row.open)
        return [latency, closed, current]

    @staticmethod
    def _event_families(counts: dict[str, int | None]) -> list[Metric]:
        events = CounterMetricFamily(
            "lblatency_events", "Events taken off the ring buffers, by type", labels=("type",)
        )
        lost = CounterMetricFamily(
            "lblatency_events_lost",
            "Events that gave no latency although they should have, by reason",
            labels=("reason",),
        )
        outcome = CounterMetricFamily(
            "lblatency_closed_events", "Closed events by what became of them", labels=("outcome",)
        )
        for family, names in (
            (events, ("opened", "closed", "periodic", "malformed")),
            (outcome, ("recorded", "unmatched", "rejected", "ignored")),
            (lost, ("dropped", "unmatched", "rejected", "malformed", "births_evicted", "corrupt")),
        ):
            for name in names:
                if (count := counts.get(name)) is not None:
                    family.add_metric((name,), count)
        produced = CounterMetricFamily(
            "lblatency_events_produced", "Events that balancers wanted to send, by their own count"
        )
        received = CounterMetricFamily(
            "lblatency_events_received", "Records taken off the ring buffers"
        )
        for family, name in ((produced, "produced"), (received, "received")):
            if (count := counts.get(name)) is not None:
                family.add_metric((), count)
        return [events, outcome, lost, produced, received]

    def _ring_families(self) -> list[Metric]:
        rings = self._tracker.stream_stats()
        families: list[Metric] = [
            GaugeMetricFamily(f"lblatency_ring_{name}", help_text, value=value)
            for name, help_text, value in (
                ("events", "Events that wait in the ring buffers",
                 sum(ring.in_ring for ring in rings)),
                ("fill_bytes", "Bytes that wait in the ring buffers",
                 sum(ring.fill_bytes for ring in rings)),
                ("fill_max_bytes", "The most bytes that a drain has found waiting",
                 sum(ring.fill_max_bytes for ring in rings)),
                ("size_bytes", "Size of the ring buffers",
                 sum(ring.size_bytes for ring in rings)),
            )
        ]  # fmt: skip
        libbpf = lib.lbl_libbpf_version()
        build = {"version": __version__, "libbpf": f"{libbpf // 1000}.{libbpf % 1000}"}
        families.append(
            InfoMetricFamily("lblatency_build", "Version of lblatency and of libbpf", value=build)
        )
        return families
