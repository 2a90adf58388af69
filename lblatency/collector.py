"""A Prometheus collector for a tracker. It walks over C's table of metric families."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
from .backend import BackendRow
from .families import FAMILIES, Family
from .histogram import LIFETIME, HistogramSnapshot
from .tracker import LatencyTracker

__all__ = ["LatencyCollector"]

_CLASSES = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


class LatencyCollector(Collector):
    """Exports a tracker to any `prometheus_client` registry.

    Args:
        tracker: whose metrics to export.
    """

    def __init__(self, tracker: LatencyTracker) -> None:
        self._tracker = tracker

    def describe(self) -> list[Metric]:
        """The families without samples, so that registering the collector reads no histogram."""
        return [*(_new(family) for family in self._families()), _build()]

    def collect(self) -> Iterator[Metric]:
        """The families with the tracker's current values."""
        stats = self._tracker.raw_stats()
        metrics = [(family, _new(family)) for family in self._families()]
        for name in self._tracker.metrics:
            for row, raw in self._tracker.read_backends(name):
                _add_backend(metrics, name, row, raw)
        for family, metric in metrics:
            if not family.is_per_backend:
                _add_samples(metric, family, (), stats, is_counted=stats.events.counted)
            yield metric
        yield _build()

    def _families(self) -> Iterator[Family]:
        """All families, except histograms of latencies that the tracker does not record."""
        for family in FAMILIES:
            if family.type != "histogram" or family.metric in self._tracker.metrics:
                yield family


def _new(family: Family) -> Any:
    return _CLASSES[family.type](family.name, family.help, labels=family.labels)


def _add_backend(metrics: list[tuple[Family, Any]], name: str, row: BackendRow, raw: Any) -> None:
    """Add the samples of one backend and one latency; the lifetime brings the counts too."""
    labels = (row.proxy, row.ip, str(row.port))
    for family, metric in metrics:
        if family.type == "histogram":
            if family.metric == name and row.histogram["count"]:
                metric.add_metric(labels, _buckets(row.histogram), row.histogram["sum"])
        elif family.is_per_backend and name == LIFETIME:
            _add_samples(metric, family, labels, raw, is_counted=True)


def _add_samples(
    metric: Any, family: Family, labels: tuple[str, ...], raw: Any, *, is_counted: bool
) -> None:
    for sample in family.samples:
        if sample.of_producers and not is_counted:
            continue
        value = sample.value(raw)
        own = () if sample.label_value is None else (sample.label_value,)
        if value or not family.is_sparse:
            metric.add_metric((*labels, *own), value)


def _buckets(histogram: HistogramSnapshot) -> list[tuple[str, int]]:
    bounds = [str(floatToGoString(bound)) for bound in histogram["buckets"]]  # type: ignore[no-untyped-call]
    return [*zip(bounds, histogram["counts"], strict=True), ("+Inf", histogram["count"])]


def _build() -> Metric:
    libbpf = lib.lbl_libbpf_version()
    return InfoMetricFamily(
        "lblatency_build",
        "Version of lblatency and of libbpf",
        value={"version": __version__, "libbpf": f"{libbpf // 1000}.{libbpf % 1000}"},
    )
