"""A Prometheus collector for trackers. It walks over C's table of metric families."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ._known import LOST, Losing, build, failed_connects, lost, names_age
from .backend import BackendRow
from .buckets import LIFETIME
from .families import FAMILIES, Family
from .histogram import HistogramSnapshot
from .names import Name, Names
from .tracker import LatencyTracker

__all__ = ["LatencyCollector", "Losing"]

_CLASSES = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "info": InfoMetricFamily,
}
_SUFFIXES = ("", "_total", "_info", "_bucket", "_count", "_sum", "_created")
_LIFETIME = next(each for each in FAMILIES if each.type == "histogram" and each.metric == LIFETIME)
_BUILD = build()[0]
_NAME, _TRACKER = "backend_name", "tracker"  # labels that only some collectors have


class LatencyCollector(Collector):
    """Exports a tracker, or several, to any `prometheus_client` registry.

    In a child of `fork()`, a tracker of the parent is a copy until it starts by itself: it exports
    `lblatency_running 0`, nothing of the rings that the parent reads, and what was recorded by
    hand.

    Args:
        tracker: whose metrics to export; several as a mapping from a name to each, which becomes
            the label `tracker` of its samples.
        name: another name for the histogram of lifetimes, `lb_backend_latency_seconds`.
        labels: other names for the labels `proxy_name`, `target_ip`, `target_port`, `backend_name`
            and `tracker`, by these.
        const_labels: further labels of every sample, with their values.
        backend_names: what to call the backends, by target (`ip:port`), as the label
            `backend_name`: a mapping, or a function that is called in each scrape. A backend
            without a name, or with None, has the label with no text, which is as if it had none.
            This puts a name of the caller's own on every series; `names` is for a join.
        names: what the servers are called. It exports `lb_backend_info`, with the labels `backend`
            and `server`, for each backend that has a name, and leaves all other series alone; and
            how old the names are.
        sources: whose losses and failed connects to export, summed up; for one tracker only.

    Raises:
        TypeError: an argument is of another type.
        ValueError: a name is not one that `prometheus_client` allows, or is in use.
    """

    def __init__(
        self,
        tracker: LatencyTracker | Mapping[str, LatencyTracker],
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        const_labels: Mapping[str, object] | None = None,
        backend_names: Mapping[str, str] | Callable[[str], str | None] | None = None,
        names: Names | None = None,
        sources: Sequence[Losing] | None = None,
    ) -> None:
        self._name = _LIFETIME.name if name is None else name
        self._name_of = backend_names.get if isinstance(backend_names, Mapping) else backend_names
        if not (self._name_of is None or callable(self._name_of)):
            raise TypeError("backend_names must be a mapping from 'ip:port' to name, or a function")
        if not (names is None or isinstance(names, Names)):
            raise TypeError("names must be a lblatency.names.Names or None")
        self._servers = names
        self._const = {label: str(value) for label, value in (const_labels or {}).items()}
        values = tuple(self._const.values())
        if sources and not isinstance(tracker, LatencyTracker):
            raise ValueError("sources is for one tracker; make a collector for each tracker")
        self._sources = sources or ()
        self._trackers = [((*own, *values), each) for own, each in _by_labels(tracker)]
        at_backend = (*_LIFETIME.labels, *([_NAME] if self._name_of else []))
        at_end = () if isinstance(tracker, LatencyTracker) else (_TRACKER,)
        renamed = _renamed((*at_backend, *at_end), labels or {})
        self._backend_labels = renamed[: len(at_backend)]
        self._last_labels = (*renamed[len(at_backend) :], *self._const)
        self._check_names()

    def describe(self) -> list[Metric]:
        """The families without samples, so that registering the collector reads no histogram."""
        return [*(self._new(family) for family in self._families()), self._build()]

    def collect(self) -> Iterator[Metric]:
        """The families with the trackers' current values."""
        metrics = [(family, self._new(family)) for family in self._families()]
        for last, tracker in self._trackers:
            self._add_tracker(metrics, tracker, last)
        for family, metric in metrics:
            if self._servers and family.is_of_names and not family.is_per_backend:
                for _, labels, age, _ in names_age(family, self._servers):
                    metric.add_metric((*labels.values(), *self._const.values()), age)
            yield metric
        yield self._build()

    def _families(self) -> Iterator[Family]:
        """All families, except histograms of latencies that no tracker records."""
        recorded = {metric for _, tracker in self._trackers for metric in tracker.metrics}
        for family in self._possible():
            if family.type != "histogram" or family.metric in recorded:
                yield family

    def _possible(self) -> Iterator[Family]:
        """All families, except those of names, or of sources, if there are none; and of limits."""
        for family in FAMILIES:
            if (
                not family.is_of_pages
                and (self._servers or not family.is_of_names)
                and (self._sources or not family.is_of_sources)
            ):
                yield family

    def _labels(self, family: Family) -> tuple[str, ...]:
        if not family.is_per_backend:
            last = self._const if family.is_of_names else self._last_labels
            return (*family.labels, *last)
        own = family.labels[len(_LIFETIME.labels) :]
        return (*self._backend_labels, *own, *self._last_labels)

    def _new(self, family: Family) -> Any:
        name = self._name if family is _LIFETIME else family.name
        metric = _CLASSES[family.type](name, family.help, labels=self._labels(family))
        metric.unit = family.unit if name.endswith(family.unit) else ""
        return metric

    def _check_names(self) -> None:
        of_build = (*self._const, "version", "libbpf")
        for labels in (*map(self._labels, self._possible()), of_build):
            for label in labels:
                _check_name(self._name, label)
                if labels.count(label) > 1:
                    raise ValueError(f"label {label!r} would come twice, as in {labels}")
        others = [each.name for each in self._possible() if each is not _LIFETIME] + [_BUILD]
        taken = {other + suffix for other in others for suffix in _SUFFIXES}
        if taken & {self._name + suffix for suffix in _SUFFIXES}:
            raise ValueError(f"name {self._name!r} clashes with another metric of this collector")

    def _add_tracker(
        self, metrics: list[tuple[Family, Any]], tracker: LatencyTracker, last: tuple[str, ...]
    ) -> None:
        stats = tracker.raw_stats()
        metrics = [each for each in metrics if each[0].in_copy or not stats.is_copy]
        for name in tracker.metrics:
            for row, raw in tracker.read_backends(name, with_copies=False):
                labels: tuple[str, ...] = (row.proxy, row.ip, str(row.port))
                if self._name_of:
                    found = self._name_of(row.target)
                    labels += ("" if found is None else str(found),)
                _add_backend(metrics, name, row, raw, labels, last)
                if self._servers and name == LIFETIME:
                    _add_name(metrics, self._servers.find(row.ip, row.port), labels, last)
        for family, metric in metrics:
            if not family.is_per_backend:
                _add_samples(metric, family, (), last, stats, is_counted=stats.events.counted)
        self._add_sources(metrics, last)

    def _add_sources(self, metrics: list[tuple[Family, Any]], last: tuple[str, ...]) -> None:
        all_lost, failed = lost(self._sources), failed_connects(self._sources)
        for family, metric in metrics:
            counts = failed if family.is_of_sources else all_lost if family.name == LOST else {}
            for reason, count in counts.items():
                metric.add_metric((reason, *last), count)

    def _build(self) -> Metric:
        name, sentence, labels = build()
        return InfoMetricFamily(name, sentence, value={**labels, **self._const})


def _by_labels(
    tracker: LatencyTracker | Mapping[str, LatencyTracker],
) -> list[tuple[tuple[str, ...], LatencyTracker]]:
    """Each tracker with the value of its label, if it has one."""
    if isinstance(tracker, LatencyTracker):
        return [((), tracker)]
    if isinstance(tracker, Mapping) and all(
        isinstance(name, str) and isinstance(each, LatencyTracker) for name, each in tracker.items()
    ):
        return [((name,), each) for name, each in tracker.items()]
    raise TypeError("tracker must be a LatencyTracker, or a mapping from a name to each of several")


def _renamed(known: tuple[str, ...], names: Mapping[str, str]) -> tuple[str, ...]:
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"labels has {unknown[0]!r}, which is not among {', '.join(known)}")
    return tuple(names.get(label, label) for label in known)


def _check_name(name: str, label: str) -> None:
    """Let `prometheus_client` decide, which makes a histogram of that name with that label."""
    for what, text in (("metric", name), ("label", label)):
        if not isinstance(text, str):
            raise TypeError(f"a {what}'s name must be a string, not {text!r}")
        if not text:
            raise ValueError(f"a {what}'s name must not be empty")
    try:
        Histogram(name, "", [label], registry=None)
    except ValueError as error:
        raise ValueError(f"metric {name!r} with label {label!r} is not allowed: {error}") from None


def _add_backend(
    metrics: list[tuple[Family, Any]],
    name: str,
    row: BackendRow,
    raw: Any,
    labels: tuple[str, ...],
    last: tuple[str, ...],
) -> None:
    """Add the samples of one backend and one latency; the lifetime brings the counts too."""
    for family, metric in metrics:
        if family.type == "histogram":
            if family.metric == name and row.histogram["count"]:
                values = (*labels, *last)
                metric.add_metric(values, _buckets(row.histogram), row.histogram["sum"])
        elif family.is_per_backend and name == LIFETIME:
            _add_samples(metric, family, labels, last, raw, is_counted=True)


def _add_name(
    metrics: list[tuple[Family, Any]],
    name: Name | None,
    labels: tuple[str, ...],
    last: tuple[str, ...],
) -> None:
    for family, metric in metrics:
        if name and family.is_of_names and family.is_per_backend:
            metric.add_metric((*labels, *name, *last), {})


def _add_samples(
    metric: Any,
    family: Family,
    labels: tuple[str, ...],
    last: tuple[str, ...],
    raw: Any,
    *,
    is_counted: bool,
) -> None:
    for sample in family.samples:
        if sample.of_producers and not is_counted:
            continue
        value = sample.value(raw)
        own = () if sample.label_value is None else (sample.label_value,)
        if value or not family.is_sparse:
            metric.add_metric((*labels, *own, *last), value)


def _buckets(histogram: HistogramSnapshot) -> list[tuple[str, int]]:
    bounds = [str(floatToGoString(bound)) for bound in histogram["buckets"]]  # type: ignore[no-untyped-call]
    return [*zip(bounds, histogram["counts"], strict=True), ("+Inf", histogram["count"])]
