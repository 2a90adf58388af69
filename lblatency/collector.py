"""A Prometheus collector for trackers. It walks over C's table of metric families."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from prometheus_client import Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    Sample,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ._address import format_target, split_endpoint
from ._known import (
    LOST,
    Losing,
    Scanning,
    age_values,
    build,
    failed_connects,
    lost,
    names_age,
    open_ages,
    scan_interval,
    scanning,
)
from ._page import Page
from .buckets import LIFETIME
from .families import FAMILIES, Family
from .families import Sample as FamilySample
from .names import Names
from .tracker import LatencyTracker

__all__ = ["LatencyCollector", "Losing", "Scanning"]

_CLASSES = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "gaugehistogram": GaugeHistogramMetricFamily,
    "info": InfoMetricFamily,
}
_SUFFIX = {"counter": "_total", "info": "_info"}  # of the samples
_SUFFIXES = ("", "_total", "_info", "_bucket", "_count", "_sum", "_created", "_gcount", "_gsum")
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
        sources: whose losses and failed connects to export, summed up, and of those that scan, the
            ages of open connections; for one tracker only.

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
        if sources and not isinstance(tracker, LatencyTracker):
            raise ValueError("sources is for one tracker; make a collector for each tracker")
        self._sources = sources or ()
        self._scanning = scanning(self._sources)
        at_backend = (*_LIFETIME.labels, *([_NAME] if self._name_of else []))
        at_end = () if isinstance(tracker, LatencyTracker) else (_TRACKER,)
        renamed = _renamed((*at_backend, *at_end), labels or {})
        self._backend_labels = renamed[: len(at_backend)]
        self._last_labels = (*renamed[len(at_backend) :], *self._const)
        own = renamed[len(at_backend) :]
        self._trackers = [
            ({**dict(zip(own, values, strict=True)), **self._const}, each)
            for values, each in _by_labels(tracker)
        ]
        self._check_names()

    def describe(self) -> list[Metric]:
        """The families without samples, so that registering the collector reads no histogram."""
        return [*(self._new(family) for family in self._families()), self._build()]

    def collect(self) -> Iterator[Metric]:
        """The families with the trackers' values of this moment.

        Samples of backends are made while somebody reads them, since there may be so many.
        """
        trackers = [(None, tracker) for _, tracker in self._trackers]
        page = Page(trackers, [None] * len(trackers))
        for family in self._families():
            metric = self._new(family)
            make = partial(self._samples, page, family, metric.name)
            metric.samples = _Samples(make) if family.is_per_backend else [*make()]
            yield metric
        yield self._build()

    def _samples(self, page: Page, family: Family, name: str) -> Iterator[Sample]:
        if family.is_of_names and not family.is_per_backend and self._servers:
            for _, labels, age, _ in names_age(family, self._servers):
                yield Sample(name, {**labels, **self._const}, age)
            return
        for i, (last, _) in enumerate(self._trackers):
            if not family.in_copy and page.stats(i).is_copy:
                continue
            if family.type == "histogram":
                yield from self._histograms(page, i, family, name, last)
            elif family.is_of_names:
                yield from self._names(page, i, name, last)
            elif family.is_of_scans:
                yield from self._of_scans(self._trackers[i][1], family, name, last)
            elif family.is_per_backend:
                yield from self._of_backends(page, i, family, name, last)
            else:
                yield from self._of_tracker(page, i, family, name, last)

    def _backends(
        self, page: Page, i: int, metric: str, last: Mapping[str, str]
    ) -> Iterator[dict[str, str]]:
        """The labels of each backend."""
        for proxy, ip, port in page.targets(i, metric):
            yield self._of_target(proxy, ip, port, last)

    def _of_target(self, proxy: str, ip: str, port: int, last: Mapping[str, str]) -> dict[str, str]:
        """The labels of a backend."""
        values: tuple[str, ...] = (proxy, ip, str(port))
        if self._name_of:
            found = self._name_of(format_target(ip, port))
            values += ("" if found is None else str(found),)
        return {**dict(zip(self._backend_labels, values, strict=True)), **last}

    def _histograms(
        self, page: Page, i: int, family: Family, name: str, last: Mapping[str, str]
    ) -> Iterator[Sample]:
        """Buckets, count and sum of each backend that has observations."""
        tracker = self._trackers[i][1]
        if family.metric not in tracker.metrics:
            return
        bounds = (*tracker.bounds(family.metric), math.inf)
        les = [str(floatToGoString(bound)) for bound in bounds]  # type: ignore[no-untyped-call]
        counts, sums = page.classic(i, family.metric)
        bucket, end = f"{name}_bucket", 0
        for labels, total in zip(self._backends(page, i, family.metric, last), sums, strict=True):
            start, end = end, end + len(les)
            if not counts[end - 1]:
                continue
            for le, count in zip(les, counts[start:end], strict=True):
                yield Sample(bucket, {"le": le, **labels}, count)
            yield Sample(f"{name}_count", {**labels}, count)
            yield Sample(f"{name}_sum", labels, total)

    def _of_backends(
        self, page: Page, i: int, family: Family, name: str, last: Mapping[str, str]
    ) -> Iterator[Sample]:
        full_name = name + _SUFFIX.get(family.type, "")
        columns = [
            (_own_label(family, each), values)
            for each in family.samples
            if any(values := page.values(i, each)) or not family.is_sparse
        ]
        for place, labels in enumerate(self._backends(page, i, LIFETIME, last)):
            for own, values in columns:
                if values[place] or not family.is_sparse:
                    yield Sample(full_name, {**labels, **own}, values[place])

    def _of_tracker(
        self, page: Page, i: int, family: Family, name: str, last: Mapping[str, str]
    ) -> Iterator[Sample]:
        full_name = name + _SUFFIX.get(family.type, "")
        stats = page.stats(i)
        for each in family.samples:
            if stats.events.counted or not each.of_producers:
                yield Sample(full_name, {**_own_label(family, each), **last}, each.value(stats))
        counts: Mapping[str, int] = {}
        if family.is_of_sources:
            counts = failed_connects(self._sources)
        elif family.name == LOST:
            counts = lost(self._sources)
        for value, count in counts.items():
            yield Sample(full_name, {family.labels[-1]: value, **last}, count)

    def _of_scans(
        self, tracker: LatencyTracker, family: Family, name: str, last: Mapping[str, str]
    ) -> Iterator[Sample]:
        if not family.is_per_backend:
            if (seconds := scan_interval(self._scanning)) is not None:
                yield Sample(name, dict(last), seconds)
            return
        for (proxy, target), ages in open_ages(self._scanning, tracker.proxy_name).items():
            labels = self._of_target(proxy, *split_endpoint(target), last)
            for suffix, le, value in age_values(ages):
                yield Sample(name + suffix, {**labels, **le}, value)

    def _names(self, page: Page, i: int, name: str, last: Mapping[str, str]) -> Iterator[Sample]:
        backends = self._backends(page, i, LIFETIME, last)
        for (_, ip, port), labels in zip(page.targets(i), backends, strict=True):
            found = self._servers.find(ip, port) if self._servers else None
            if found:
                yield Sample(f"{name}_info", {**labels, **found._asdict()}, 1)

    def _families(self) -> Iterator[Family]:
        """All families, except histograms of latencies that no tracker records."""
        recorded = {metric for _, tracker in self._trackers for metric in tracker.metrics}
        for family in self._possible():
            if family.type != "histogram" or family.metric in recorded:
                yield family

    def _possible(self) -> Iterator[Family]:
        """All families, except those that nobody given here knows of, and that of limits."""
        for family in FAMILIES:
            if (
                not family.is_of_pages
                and (self._servers or not family.is_of_names)
                and (self._sources or not family.is_of_sources)
                and (self._scanning or not family.is_of_scans)
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


def _own_label(family: Family, sample: FamilySample) -> dict[str, str]:
    return {} if sample.label_value is None else {family.labels[-1]: sample.label_value}


class _Samples(Sequence[Sample]):
    """Samples that are made anew each time that somebody reads them, and not kept."""

    def __init__(self, make: Callable[[], Iterator[Sample]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Sample]:
        return self._make()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, place: Any) -> Any:
        return list(self)[place]
