"""The bytes of a scrape, made in C: for exporters, and for people with an HTTP server."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from . import _default
from ._address import split_endpoint
from ._ffi import check, ffi, lib
from ._given import Given, GivenSample
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
from .families import FAMILIES, Family
from .formats import FORMATS, OPENMETRICS, PROTOBUF, TEXT, TEXT_1, Format, negotiate
from .names import Names
from .tracker import LatencyTracker

__all__ = [
    "FORMATS",
    "OPENMETRICS",
    "PROTOBUF",
    "SCHEMA",
    "TEXT",
    "TEXT_1",
    "Capture",
    "Collects",
    "Format",
    "exposition",
    "negotiate",
]


_PIECE = 64 << 10  # bytes, at least
_MESSAGE = 4 << 20  # bytes of OTLP
SCHEMA = 3  # bounds 9 % apart, so quantiles are at most 4.3 % off


class Collects(Protocol):
    """A collector of `prometheus_client`."""

    def collect(self) -> Iterable[Any]:
        """Its metric families."""


class Capture:
    """All that a scrape shows, read once. It can be rendered in any format, by any thread.

    Args:
        trackers: whose metrics; several as a mapping from a name to each, which becomes the label
            `tracker` of its samples; None for the default tracker.
        names: what servers are called, as in `LatencyCollector`.
        sources: whose losses and failed connects to show; for one tracker only.
        more: further collectors of `prometheus_client`, whose metrics come last.
        max_series: the most series of backends. Those that would have more, which are the ones
            that came last, are added up as the backend "overflow", and
            `lblatency_backends_folded` tells how many they are; None for no limit.

    Raises:
        TypeError, ValueError: an argument is not as described above.
        MemoryError: there is no memory for all counts.
    """

    def __init__(
        self,
        trackers: LatencyTracker | Mapping[str, LatencyTracker] | None = None,
        *,
        names: Names | None = None,
        sources: Sequence[Losing] | None = None,
        more: Iterable[Collects] = (),
        max_series: int | None = None,
    ) -> None:
        if sources and isinstance(trackers, Mapping):
            raise ValueError("sources is for one tracker")
        self._trackers = _by_label(trackers)
        self._page = Page(
            self._trackers, _limits(self._trackers, max_series, with_names=names is not None)
        )
        given = Given()
        for index, family in enumerate(FAMILIES):
            samples = self._samples(family, names, sources or ())
            if samples is not None and not (family.is_of_pages and max_series is None):
                given.add(family.name, family.help, family.type, samples, index=index)
        name, sentence, labels = build()
        given.add(name, sentence, "info", [(f"{name}_info", labels, 1.0, None)])
        for collector in more:
            for metric in collector.collect():
                given.add_metric(metric)
        packed, keep = given.packed()
        self._page.keep += [packed, *keep]
        lib.lbl_page_give(self._page.ptr, packed)

    def _samples(
        self, family: Family, names: Names | None, sources: Sequence[Losing]
    ) -> Iterable[GivenSample] | None:
        """What only Python knows of a family of C's table; None if it knows nothing."""
        if family.is_of_pages:
            return self._folded(family)
        if family.is_of_names and names:
            return self._named(family, names) if family.is_per_backend else names_age(family, names)
        if family.is_of_scans:
            return self._of_scans(family, scanning(sources))
        if sources and family.is_of_sources:
            return _by_label_value(family, failed_connects(sources))
        if sources and family.name == LOST:
            return _by_label_value(family, lost(sources))
        return None

    def _of_scans(self, family: Family, scans: list[Scanning]) -> Iterable[GivenSample] | None:
        if not scans:
            return None
        if not family.is_per_backend:
            seconds = scan_interval(scans)
            return [] if seconds is None else [(family.name, {}, seconds, None)]
        ((_, tracker),) = self._trackers  # sources are for one
        return [
            (
                family.name + suffix,
                dict(zip(family.labels, (proxy, ip, str(port)), strict=True)) | le,
                float(value),
                None,
            )
            for (proxy, target), ages in open_ages(scans, tracker.proxy_name).items()
            for ip, port in [split_endpoint(target)]
            for suffix, le, value in age_values(ages)
        ]

    def _folded(self, family: Family) -> Iterator[GivenSample]:
        for i, (label, _) in enumerate(self._trackers):
            labels = {} if label is None else {"tracker": label}
            yield family.name, labels, float(self._page.folded(i)), None

    def _named(self, family: Family, names: Names) -> Iterator[GivenSample]:
        for i, (label, _) in enumerate(self._trackers):
            last = {} if label is None else {"tracker": label}
            for proxy, ip, port in self._page.targets(i):
                if found := names.find(ip, port):
                    values = (proxy, ip, str(port), *found)
                    labels = dict(zip(family.labels, values, strict=True)) | last
                    yield f"{family.name}_info", labels, 1.0, None

    def render(self, into: Format, *, schema: int = SCHEMA) -> memoryview:
        """The page in a format. Nothing is copied, and other threads go on meanwhile.

        Args:
            into: the format.
            schema: of the native histograms in protobuf, -4 (coarse) to 6 (bounds 1.1 % apart). A
                histogram that would need more than 160 buckets has a coarser one.

        Raises:
            ValueError: there is no such schema.
            MemoryError: there is no memory for it, or it would be more than 2**30 bytes.
        """
        return self._whole(self._renderer(into.number, schema, ffi.NULL))

    def pieces(self, into: Format, *, schema: int = SCHEMA) -> Iterator[bytes]:
        """The same in pieces, each of which is made when it is asked for.

        A large page takes little memory if each piece is sent or compressed before the next. A
        piece has 64 KiB or more; in protobuf it is whole families, so all histograms are one.

        Args:
            into: the format.
            schema: as in `render()`.

        Raises:
            ValueError, MemoryError: as in `render()`.
        """
        renderer = ffi.gc(self._renderer(into.number, schema, ffi.NULL), lib.lbl_render_free)
        return self._each(renderer, _PIECE)

    def _each(self, renderer: Any, least: int, *_keep: Any) -> Iterator[bytes]:
        out, n = ffi.new("const char **"), ffi.new("size_t *")
        while True:
            _check(lib.lbl_render_next(renderer, least, out, n))
            if not n[0]:
                return
            yield bytes(ffi.buffer(out[0], n[0]))

    def otlp_pieces(self, resource: Mapping[str, str], *, schema: int = SCHEMA) -> Iterator[bytes]:
        """The page as several such messages, each of which is made when it is asked for.

        Receivers limit the length of a message, often to 20 MB; these have about 4 MiB.

        Args:
            resource: as in `render_otlp()`.
            schema: as in `render()`.

        Raises:
            ValueError, MemoryError: as in `render()`.
        """
        packed, keep = _resource(resource)
        renderer = ffi.gc(self._renderer(lib.LBL_OTLP, schema, packed), lib.lbl_render_free)
        return self._each(renderer, _MESSAGE, packed, *keep)

    def render_otlp(self, resource: Mapping[str, str], *, schema: int = SCHEMA) -> memoryview:
        """The page as a message `ExportMetricsServiceRequest` of OTLP, all cumulative.

        Args:
            resource: attributes of what sends it, such as `service.name`; at most 64.
            schema: of the exponential histograms, as in `render()`.

        Raises:
            ValueError, MemoryError: as in `render()`.
        """
        packed, _keep = _resource(resource)
        return self._whole(self._renderer(lib.LBL_OTLP, schema, packed))

    def _renderer(self, number: int, schema: int, resource: Any) -> Any:
        out = ffi.new("struct lbl_render **")
        how = {"format": number, "schema": schema, "resource": resource}
        rc = lib.lbl_render_new(self._page.ptr, ffi.new("struct lbl_rendering *", how), out)
        if rc == -errno.EINVAL:
            first, last = lib.LBL_NATIVE_SCHEMA_MIN, lib.LBL_NATIVE_SCHEMA
            raise ValueError(f"schema must be between {first} and {last}, not {schema!r}")
        _check(rc)
        return out[0]

    def _whole(self, renderer: Any) -> memoryview:
        """All of it; the bytes live as long as the view."""
        out, n = ffi.new("const char **"), ffi.new("size_t *")
        rc = lib.lbl_render_next(renderer, ffi.cast("size_t", -1), out, n)
        owner = ffi.gc(out[0], lambda _: lib.lbl_render_free(renderer))
        _check(rc)
        return memoryview(ffi.buffer(owner, n[0]))


def exposition(
    trackers: LatencyTracker | Mapping[str, LatencyTracker] | None = None,
    accept: str | None = None,
    *,
    names: Names | None = None,
    sources: Sequence[Losing] | None = None,
    more: Iterable[Collects] = (),
    max_series: int | None = None,
    schema: int = SCHEMA,
) -> tuple[bytes, str]:
    """What to answer to a scrape, by an HTTP server of one's own.

    Args:
        trackers: whose metrics; several as a mapping from a name to each, which becomes the label
            `tracker` of its samples; None for the default tracker.
        accept: the request's `Accept` header, which says in which format; None if it has none.
        names: what servers are called, as in `LatencyCollector`.
        sources: whose losses and failed connects to show; for one tracker only.
        more: further collectors of `prometheus_client`, whose metrics come last.
        max_series: the most series of backends, as in `Capture`; None for no limit.
        schema: of the native histograms, if the answer is in protobuf: -4 (coarse) to 6 (fine).

    Returns:
        The body, and its `Content-Type`.

    Raises:
        TypeError, ValueError: an argument is not as described above.
        MemoryError: there is no memory for all counts, or for a body of more than 2**30 bytes.
    """
    into = negotiate(accept)
    capture = Capture(trackers, names=names, sources=sources, more=more, max_series=max_series)
    return b"".join(capture.pieces(into, schema=schema)), into.content_type


def _resource(attributes: Mapping[str, str]) -> tuple[Any, list[Any]]:
    """A resource for C, and what has to live as long as it."""
    if len(attributes) > lib.LBL_RESOURCE_MAX:
        raise ValueError(
            f"a resource can have {lib.LBL_RESOURCE_MAX} attributes, not {len(attributes)}"
        )
    given = Given()
    given.add_attributes(attributes)
    return given.packed()


def _limits(
    trackers: Sequence[tuple[str | None, LatencyTracker]],
    max_series: int | None,
    *,
    with_names: bool,
) -> list[int | None]:
    """How many backends of each tracker can have series; the trackers share the limit alike."""
    if max_series is None:
        return [None] * len(trackers)
    if max_series < 0:
        raise ValueError(f"max_series must be 0 or more, or None, not {max_series!r}")
    return [
        max_series // len(trackers) // (tracker.series_per_backend() + with_names)
        for _, tracker in trackers
    ]


def _check(rc: int) -> None:
    if rc == -errno.ENOMEM:
        raise MemoryError("there is no memory for all metrics; watch fewer backends")
    check(rc, "reading the metrics")


def _by_label(
    trackers: LatencyTracker | Mapping[str, LatencyTracker] | None,
) -> list[tuple[str | None, LatencyTracker]]:
    if trackers is None:
        return [(None, _default.tracker())]
    if isinstance(trackers, LatencyTracker):
        return [(None, trackers)]
    if isinstance(trackers, Mapping) and all(
        isinstance(name, str) and isinstance(each, LatencyTracker)
        for name, each in trackers.items()
    ):
        return list(trackers.items())
    raise TypeError(
        "trackers must be a LatencyTracker, or a mapping from a name to each of several"
    )


def _by_label_value(family: Family, counts: Counter[str]) -> Iterator[GivenSample]:
    (label,) = family.labels
    for value, count in counts.items():
        yield f"{family.name}_total", {label: value}, float(count), None
