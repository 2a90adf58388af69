"""The tracker: latency histograms per backend, with the documented API."""

from __future__ import annotations

import errno
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from ._address import format_ip, format_target, parse_target
from ._ffi import check, ffi, lib
from ._numbers import doubles
from ._proxies import encode_name, proxy_table
from ._room import no_room
from ._status import backends_by_name, backends_in_full, event_counts, percentiles, status
from .backend import Backend, BackendRow, refusal
from .buckets import LIFETIME, METRICS, Bounds, Buckets, buckets_of, metric_number
from .conntrack import ConntrackMap
from .event import REASONS
from .histogram import HistogramSnapshot
from .stats import EventStream, check_room

__all__ = ["LatencyTracker"]

_ROW = struct.Struct(f"=HH16s{ffi.sizeof('struct lbl_backend_snapshot') - 20}x")
_EXPIRE_MAX_S = 100 * 365 * 86400
_DICT_VERSION = 1


def _check_expiry(seconds: float) -> int:
    """Nanoseconds."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"expire_after must be seconds or None, not {type(seconds).__name__}")
    if not 0 < seconds <= _EXPIRE_MAX_S:
        raise ValueError(
            f"expire_after must be more than 0 and at most {_EXPIRE_MAX_S} s, not {seconds!r}"
        )
    return max(1, round(seconds * 1e9))


def _bad_item(values: Any, index: int) -> ValueError:
    return ValueError(f"item {index}: {refusal(-errno.EINVAL, values[index])}")


def _is_duration(seconds: float) -> bool:
    try:
        return _first_bad(ffi.new("double[]", [seconds])) is None
    except OverflowError:  # an int that no double holds
        return False


def _first_bad(values: Any) -> int | None:
    """The index of the first double that is no duration. Called before a backend is added."""
    bad = ffi.new("size_t *")
    return int(bad[0]) if lib.lbl_durations_check(values, len(values), bad) else None


class _Start(NamedTuple):
    """What a tracker was started with, by the names of the arguments of `start()`."""

    stats_stream: frozenset[Any]  # the C streams
    conntrack_map: Any  # the C object, or NULL
    proxy_name: str
    proxies: dict[int | str, str]
    own_proxies: dict[Any, dict[int | str, str]]  # by C stream

    def unlike(self, other: _Start) -> list[str]:
        """What differs in the other, in words."""
        names = [
            name
            for name in ("stats_stream", "conntrack_map", "proxy_name", "proxies")
            if getattr(self, name) != getattr(other, name)
        ]
        both = self.stats_stream & other.stats_stream
        if any(self.own_proxies[each] != other.own_proxies[each] for each in both):
            names.append("stats_stream.proxies")
        return names


class LatencyTracker:
    """Latency histograms per backend. Any number of trackers may exist; they share no state.

    All methods may be called from several threads at once, and from signal handlers. As a context
    manager it stops at the end of the block.

    Args:
        metrics: which latencies to record, all from the creation of the connection: "lifetime" (to
            its end; required), "connect" (to the backend's SYN-ACK), "first_byte" (to the backend's
            first byte) and "active" (to the first FIN or RST). An event that does not tell a
            latency does not count in its histogram.
        buckets: upper bounds of the classic histograms, seconds, ascending: a sequence for the
            lifetime, or a mapping from metric to bounds. A last +Inf is dropped, and a bound that
            is no whole nanosecond counts as the next lower one. The default is `SHORT_BUCKETS` for
            connect and first byte, and `DEFAULT_BUCKETS` for the others.
        max_backends: how many backends to tell apart per ring, and as many recorded by hand. The
            rest share the backend "overflow", so that a flood of addresses takes limited memory.
            While the tracker runs, each reserves 3 KiB of address space per ring and metric; it
            takes memory only when it is used. `stop()` keeps what has a name, and each `start()`
            has room for as many again: who starts often, with ever new backends, needs
            `expire_after`, which covers those of earlier starts too, or `reset_histograms()`.
        expire_after: seconds after which a backend goes if nothing was recorded for it and it has
            no open connection; None for never. Its room is for others then. Only more open
            connections than `open_error` of `get_status()` keep a backend for sure.
        removed_row: whether the counts of backends that went stay visible, as the backend
            "removed". Sums over all backends then never go down.
    """

    def __init__(
        self,
        *,
        metrics: Sequence[str] = (LIFETIME,),
        buckets: Bounds | Mapping[str, Bounds] | None = None,
        max_backends: int = 100_000,
        expire_after: float | None = None,
        removed_row: bool = False,
    ) -> None:
        self._buckets: dict[str, Buckets] = buckets_of(metrics, buckets)
        if not 1 <= max_backends <= lib.LBL_BACKENDS_MAX:
            raise ValueError(
                f"max_backends must be 1 to {lib.LBL_BACKENDS_MAX}, not {max_backends!r}"
            )
        expire_ns = None if expire_after is None else _check_expiry(expire_after)
        each = ffi.new("struct lbl_buckets *[]", len(METRICS))
        for name, of_name in self._buckets.items():
            each[metric_number(name)] = of_name.ptr
        out = ffi.new("struct lbl_tracker **")
        rc = lib.lbl_tracker_new(each, max_backends, out)
        if rc == -errno.ENOMEM:
            raise no_room(max_backends, 0, 0)
        check(rc, "making a tracker")
        self._ptr: Any = ffi.gc(out[0], lib.lbl_tracker_free)
        if expire_ns is not None:
            rc = lib.lbl_tracker_expire(self._ptr, expire_ns)
            check(rc, "starting the thread that removes idle backends")
        self._names: dict[int, str] = {}
        self._nameless = {lib.LBL_OVERFLOW: self._name(0), lib.LBL_REMOVED: "removed"}
        self._removed_row = removed_row
        self._bound: dict[tuple[str, str, str], Backend] = {}
        self._max_backends = max_backends
        self._started: _Start | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state, started = "stopped", self._started
        if started is not None:
            n = len(started.stats_stream)
            state = "running" if self.running() else "copy of the parent process's"
            state += f", proxy_name={started.proxy_name!r}, {n} ring{'s' * (n > 1)}"
        return f"<LatencyTracker: {state}, metrics={self.metrics}>"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The latencies that are recorded."""
        return tuple(self._buckets)

    @property
    def ptr(self) -> Any:
        """The C tracker, which lives as long as this object."""
        return self._ptr

    @property
    def buckets(self) -> dict[str, Buckets]:
        """The bounds of each latency that is recorded."""
        return dict(self._buckets)

    # ---- start and stop ----

    def start(
        self,
        stats_stream: EventStream | Sequence[EventStream],
        conntrack_map: ConntrackMap | None,
        proxy_name: str,
        *,
        proxies: Mapping[int | str, str] | None = None,
    ) -> None:
        """Record the stream's connections from now on. Does nothing if the tracker is running.

        If it is running with other arguments, it goes on with those, and a RuntimeWarning says so.

        Args:
            stats_stream: from `stats.create_event_stream()`, or several of them.
            conntrack_map: where to find the creation time of a connection whose events do not tell
                it; None if they do. It is scanned before this call returns, and then about once
                per second until `stop()`; `ConntrackMap` says how exact lifetimes are then.
            proxy_name: the `proxy_name` label of events without a proxy id. A stream's own
                `proxies` come before this and the next.
            proxies: labels of the other events, by their proxy id (int); for events of clj-ebpf-lb,
                by the address that clients connect to (`ip:port`).

        Raises:
            MemoryError: there is no address space for `max_backends` of each ring.
        """
        given = [stats_stream] if isinstance(stats_stream, EventStream) else stats_stream
        if (
            not isinstance(given, Sequence)
            or not given
            or not all(isinstance(stream, EventStream) for stream in given)
        ):
            raise TypeError("stats_stream must come from lblatency.stats.create_event_stream()")
        if conntrack_map is not None and not isinstance(conntrack_map, ConntrackMap):
            raise TypeError("conntrack_map must be a lblatency.conntrack.ConntrackMap or None")
        if proxies is not None and not isinstance(proxies, Mapping):
            raise TypeError("proxies must be a mapping from proxy id or 'ip:port' to name")
        conntrack = ffi.NULL if conntrack_map is None else conntrack_map.ptr
        rings = [ring for stream in given for ring in stream.streams]
        own_names = [stream.proxies for stream in given for _ in stream.streams]
        table, _keep = proxy_table(proxy_name, proxies or {}, own_names)
        own = {ring: dict(names) for ring, names in zip(rings, own_names, strict=True)}
        start = _Start(frozenset(rings), conntrack, proxy_name, dict(proxies or {}), own)
        rc = lib.lbl_tracker_start(
            self._ptr,
            ffi.new("struct lbl_stream *[]", rings),
            len(rings),
            conntrack,
            table,
            len(table),
        )
        if rc == -errno.EBUSY:
            raise ValueError("stats_stream has the same ring twice; give each ring once")
        if rc == -errno.EALREADY:
            self._warn_of_other(start)
            return
        if rc == -errno.ENOMEM:
            row_bytes = lib.lbl_tracker_row_bytes(self._ptr)
            raise no_room(self._max_backends, row_bytes, len(rings))
        check_room(rc, "attaching to the event stream")
        self._started = start
        self._forget_start_if_stopped()

    def _warn_of_other(self, start: _Start) -> None:
        running = self._started or start  # another thread is about to write it, or has just stopped
        if other := start.unlike(running):
            warnings.warn(
                f"the tracker is running already, with another {' and '.join(other)}, and goes on"
                " with that; call stop() first",
                RuntimeWarning,
                stacklevel=3,
            )

    def stop(self) -> None:
        """Record the events that are still in the rings, then stop. The histograms stay."""
        lib.lbl_tracker_stop(self._ptr)
        self._forget_start_if_stopped()

    def _forget_start_if_stopped(self) -> None:
        # A signal handler or another thread may have stopped or started the tracker meanwhile.
        if not self.running():
            self._started = None

    def running(self) -> bool:
        """Whether events are being recorded; False in a child of `fork()`."""
        return bool(lib.lbl_tracker_running(self._ptr))

    @property
    def proxy_name(self) -> str | None:
        """What `start()` was given as the name of events without one; None if it is not running."""
        started = self._started
        return started.proxy_name if started else None

    # ---- recording by hand ----

    def _bind(self, proxy_name: str, target_id: str, metric: str) -> Backend:
        self._buckets_of(metric)
        ip, port = parse_target(target_id)
        name = encode_name(proxy_name)
        number = check(lib.lbl_tracker_name(self._ptr, name, len(name)), "naming a proxy")
        out = ffi.new("struct lbl_backend **")
        rc = lib.lbl_tracker_backend(self._ptr, metric_number(metric), number, ip, port, out)
        check(rc, "adding a backend")
        ptr = ffi.gc(out[0], lib.lbl_backend_free)
        backend = Backend(self._ptr, ptr, (proxy_name, target_id, metric))
        if len(self._bound) >= self._max_backends * len(self._buckets):
            self._bound.clear()  # most of them may be gone
        self._bound[proxy_name, target_id, metric] = backend
        return backend

    def backend(self, proxy_name: str, target_id: str, *, metric: str = LIFETIME) -> Backend:
        """The backend as an object. Its `observe(seconds)` is the fastest way to record."""
        try:
            return self._bound[proxy_name, target_id, metric]
        except (KeyError, TypeError):
            return self._bind(proxy_name, target_id, metric)

    def record_latency(
        self, proxy_name: str, target_id: str, latency_sec: float, *, metric: str = LIFETIME
    ) -> None:
        """Record one connection.

        Args:
            proxy_name: not empty.
            target_id: `ip:port`, IPv6 as `[addr]:port`.
            latency_sec: seconds, 0 or more; at most 2**62 ns, which is 146 years.
            metric: which of the tracker's latencies this is.

        Raises:
            TypeError: a name is not a string, or the latency is not a number.
            ValueError: an argument is not as described above.
        """
        try:
            backend = self._bound[proxy_name, target_id, metric]
        except (KeyError, TypeError):
            if not _is_duration(latency_sec):
                raise refusal(-errno.EINVAL, latency_sec) from None
            backend = self._bind(proxy_name, target_id, metric)
        backend.observe(latency_sec)

    def record_many(
        self, proxy_name: str, target_id: str, seconds: Any, *, metric: str = LIFETIME
    ) -> int:
        """Record all durations, or none if one is invalid.

        Args:
            proxy_name: not empty.
            target_id: `ip:port`.
            seconds: an array of any real type and shape, or another iterable of numbers. A
                contiguous one of doubles (`array('d')`, float64 of NumPy) is read where it is; all
                others are copied first.
            metric: which of the tracker's latencies these are.

        Returns:
            How many were recorded.

        Raises:
            TypeError: an item is not a number; the message has its index.
            ValueError: an item is no duration, see `record_latency()`; the message has its index.
        """
        values = ffi.from_buffer("double[]", doubles(seconds))
        try:
            backend = self._bound[proxy_name, target_id, metric]
        except (KeyError, TypeError):
            if (index := _first_bad(values)) is not None:
                raise _bad_item(values, index) from None
            backend = self._bind(proxy_name, target_id, metric)
        bad = ffi.new("size_t *")
        refused = lib.lbl_backend_observe_many(backend.ptr, values, len(values), bad)
        if refused == -errno.EINVAL:
            raise _bad_item(values, bad[0])
        if refused:
            raise refusal(refused, None)
        return len(values)

    def add(
        self,
        proxy_name: str,
        target_id: str,
        snapshot: HistogramSnapshot,
        *,
        metric: str = LIFETIME,
    ) -> None:
        """Add all observations of a snapshot, exactly, as if each had been recorded by hand.

        Args:
            proxy_name: not empty.
            target_id: `ip:port`.
            snapshot: of the same bounds as the tracker's histograms of `metric`.
            metric: which of the tracker's latencies these are.

        Raises:
            TypeError: `snapshot` is not a `HistogramSnapshot`.
            ValueError: it has other bounds, or more than can be counted.
        """
        if not isinstance(snapshot, HistogramSnapshot):
            raise TypeError(
                f"snapshot must be a HistogramSnapshot, not {type(snapshot).__name__};"
                " HistogramSnapshot.from_dict() makes one of a dict"
            )
        if snapshot.buckets != self._buckets_of(metric).bounds:
            raise ValueError(
                f"the snapshot has other bucket bounds than this tracker's {metric} histograms, so"
                " its counts cannot be added exactly; give both the same buckets"
            )
        snapshot.check_addable()
        snapshot.add_to(self.backend(proxy_name, target_id, metric=metric).ptr)

    # ---- reading ----

    def _buckets_of(self, metric: str) -> Buckets:
        try:
            return self._buckets[metric]
        except (KeyError, TypeError):
            raise ValueError(
                f"metric {metric!r} is not one that this tracker records: {', '.join(self.metrics)}"
            ) from None

    def _name(self, number: int) -> str:
        try:
            return self._names[number]
        except KeyError:
            size = ffi.new("size_t *")
            text = lib.lbl_tracker_name_text(self._ptr, number, size)
            return self._names.setdefault(number, bytes(ffi.buffer(text, size[0])).decode())

    def label(self, name: int, port: int) -> str:
        """The proxy's name of a row in C, also of one that is for several backends."""
        return self._name(name) if name else self._nameless[port]

    def number(self, proxy_name: str) -> int | None:
        """The number in C of a proxy's name; None if no backend ever had it."""
        encoded = encode_name(proxy_name)
        number = int(lib.lbl_tracker_find_name(self._ptr, encoded, len(encoded)))
        return None if number < 0 else number

    def _is_nameless(self, proxy_name: str, target_id: str) -> bool:
        """Whether this is a row for several backends."""
        return any(
            (proxy_name, target_id) == (name, format_target(name, 0))
            for name in self._nameless.values()
        )

    def _read(self, snapshot: Any, buckets: Buckets) -> Iterator[BackendRow]:
        slots = ffi.buffer(snapshot.slots, snapshot.n_pairs * 2) if snapshot.n_pairs else b""
        counts = ffi.buffer(snapshot.counts, snapshot.n_pairs * 8) if snapshot.n_pairs else b""
        for i in range(snapshot.n_rows):
            raw = snapshot.rows[i]
            nameless = None if raw.name else self._nameless[raw.port]
            if nameless == "removed" and not self._removed_row:
                continue
            first, end = raw.first, raw.first + raw.n
            histogram = HistogramSnapshot(
                buckets,
                bytes(slots[2 * first : 2 * end]),
                bytes(counts[8 * first : 8 * end]),
                raw.sum_lo + (raw.sum_hi << 64),
            )
            yield BackendRow(
                proxy=nameless or self._name(raw.name),
                ip=nameless or format_ip(bytes(raw.addr)),
                port=0 if nameless else raw.port,
                histogram=histogram,
                opened=raw.opened,
                open=raw.open,
                closed=dict(zip(REASONS, raw.closed, strict=True)),
                probes=raw.probes,
            )

    def show(self, page: Any, label: str | None, max_backends: int | None) -> Any:
        """Add all counts to a C `struct lbl_page`.

        Args:
            page: to what.
            label: the text of its label `tracker`; None for none.
            max_backends: how many have series of their own there; None for all.

        Returns:
            What has to live as long as the page.

        Raises:
            MemoryError: there is no memory for all counts.
        """
        text = None if label is None else ffi.from_buffer(label.encode(errors="replace"))
        bounds = [
            ffi.new("double[]", self._buckets[name].bounds) if name in self._buckets else ffi.NULL
            for name in METRICS
        ]
        shown = {
            "bounds": bounds,
            "label": ffi.NULL if text is None else text,
            "label_bytes": 0 if text is None else len(text),
            "with_removed": self._removed_row,
            "max_backends": lib.LBL_BACKENDS_MAX if max_backends is None else max_backends,
        }
        rc = lib.lbl_page_add(page, self._ptr, ffi.new("struct lbl_shown *", shown))
        if rc == -errno.ENOMEM:
            raise MemoryError("there is no memory to read all backends")
        check(rc, "reading the histograms")
        return self, text, bounds

    def bounds(self, metric: str = LIFETIME) -> tuple[float, ...]:
        """The bounds of the classic histograms of a latency, as given."""
        return self._buckets_of(metric).bounds

    def series_per_backend(self) -> int:
        """The most series that a backend can have: buckets, count and sum, reasons and open."""
        of_histograms = sum(len(each.bounds) + 3 for each in self._buckets.values())
        return of_histograms + len(REASONS) + 1

    def targets(self, snapshot: Any) -> Iterator[tuple[str, str, int]]:
        """Proxy, ip and port of each row of a C `struct lbl_snapshot`."""
        if not snapshot.n_rows:
            return
        rows = ffi.buffer(snapshot.rows, snapshot.n_rows * _ROW.size)
        for number, port, address in _ROW.iter_unpack(rows):
            if number:
                yield self._name(number), format_ip(address), port
            else:
                yield self._nameless[port], self._nameless[port], 0

    def backends(self, *, metric: str = LIFETIME) -> list[BackendRow]:
        """All backends that have any count, read at once, with their histograms of `metric`."""
        buckets = self._buckets_of(metric)
        out = ffi.new("struct lbl_snapshot **")
        rc = lib.lbl_tracker_snapshot(self._ptr, metric_number(metric), out)
        check(rc, "reading the histograms")
        snapshot = ffi.gc(out[0], lib.lbl_snapshot_free)
        return [
            row
            for row in self._read(snapshot, buckets)
            if row.opened or row.probes or row.histogram["count"] or any(row.closed.values())
        ]

    def get_histogram(
        self, proxy_name: str, target_id: str, *, metric: str = LIFETIME
    ) -> HistogramSnapshot | None:
        """The histogram of one backend; None if it has no observations."""
        buckets = self._buckets_of(metric)
        if self._is_nameless(proxy_name, target_id):
            return self.get_all_histograms(metric=metric).get((proxy_name, target_id))
        encoded = encode_name(proxy_name)
        address, port = parse_target(target_id)
        number = lib.lbl_tracker_find_name(self._ptr, encoded, len(encoded))
        if number < 0:
            return None
        out = ffi.new("struct lbl_snapshot **")
        rc = lib.lbl_tracker_snapshot_one(
            self._ptr, metric_number(metric), number, address, port, out
        )
        check(rc, "reading a histogram")
        snapshot = ffi.gc(out[0], lib.lbl_snapshot_free)
        for row in self._read(snapshot, buckets):
            return row.histogram if row.histogram["count"] else None
        return None

    def get_all_histograms(
        self, *, metric: str = LIFETIME
    ) -> dict[tuple[str, str], HistogramSnapshot]:
        """All histograms by (proxy name, `ip:port`)."""
        return {
            (row.proxy, row.target): row.histogram
            for row in self.backends(metric=metric)
            if row.histogram["count"]
        }

    def get_histograms_for_metrics(
        self, *, metric: str = LIFETIME
    ) -> dict[tuple[str, str, str], HistogramSnapshot]:
        """All histograms by (proxy name, ip, port): three strings, like the labels of a metric."""
        return {
            (row.proxy, row.ip, str(row.port)): row.histogram
            for row in self.backends(metric=metric)
            if row.histogram["count"]
        }

    def get_percentiles(
        self, proxy_name: str, target_id: str, *, metric: str = LIFETIME
    ) -> dict[str, float] | None:
        """`p50`, `p95`, `p99` and `mean` in seconds, and `count`; None without observations.

        Percentiles are as exact as `HistogramSnapshot.percentile()`; the mean is exact.
        """
        histogram = self.get_histogram(proxy_name, target_id, metric=metric)
        if histogram is None:
            return None
        return percentiles(histogram)

    def raw_stats(self) -> Any:
        """A C `struct lbl_tracker_stats`: all counts, read at one moment."""
        raw = ffi.new("struct lbl_tracker_stats *")
        check(lib.lbl_tracker_stats(self._ptr, raw), "reading the streams' counters")
        return raw

    def event_counts(self) -> dict[str, int | None]:
        """Where all events went since the tracker was made.

        At any moment `produced = received + taken + dropped + in_ring`, `received = opened + closed
        + periodic + malformed` and `closed = recorded + unmatched + rejected + ignored`. `produced`
        and `dropped` are None if a producer does not count, or if a stream of this process that the
        tracker was not started on shares its counters. Nothing but `in_ring` ever goes down.
        """
        return event_counts(self.raw_stats())

    def get_status(self) -> dict[str, Any]:
        """The state of the tracker, and its counts.

        Returns:
            `running`; `proxy_name`; `histogram_count`; `backends`, which has per (proxy name,
            `ip:port`) `count` and `mean` of the lifetime (seconds, None without observations),
            `opened`, `closed`, `open` and `reasons`; `open_error`: how far `open` may be off over
            all backends, since so many events were lost since the last start, or connections were
            open when their backend was removed, None if a producer does not count. A reset then
            starts `open` anew; `events`, see `event_counts()`; `attached` and
            `stalled_since_ns`, see `stats.StreamStats`.
        """
        rows = self.backends()
        return self._status(rows, backends_by_name(rows))

    def _status(self, rows: list[BackendRow], backends: Any) -> dict[str, Any]:
        raw = self.raw_stats()
        has_name = raw.proxy or raw.running  # name 0 is "overflow", if all others are in use
        return status(raw, self._name(raw.proxy) if has_name else None, rows, backends)

    def to_dict(self) -> dict[str, Any]:
        """The status and all histograms in a form for JSON.

        Returns:
            As `get_status()`, but `backends` is a list. Each backend has `proxy_name`, `target_id`,
            `opened`, `closed`, `open`, `reasons`, and for each latency that it has observations of,
            by metric: `percentiles`, as `get_percentiles()`, and `histograms`, as
            `HistogramSnapshot.to_dict()`. `version` is 1.
        """
        rows = {metric: self.backends(metric=metric) for metric in self.metrics}
        return {"version": _DICT_VERSION, **self._status(rows[LIFETIME], backends_in_full(rows))}

    def to_json(self) -> str:
        """`to_dict()` as a line of JSON."""
        import json  # an import of lblatency does not pay for it

        return json.dumps(self.to_dict(), allow_nan=False)

    # ---- forgetting ----

    def remove(self, proxy_name: str, target_id: str) -> bool:
        """Forget a backend, so that its series go and another one gets its room.

        If something is recorded for it later, it is new. What it had counted is in the backend
        "removed" if the tracker was made with `removed_row`.

        Returns:
            Whether there was such a backend.
        """
        encoded = encode_name(proxy_name)
        if self._is_nameless(proxy_name, target_id):
            return False
        address, port = parse_target(target_id)
        number = lib.lbl_tracker_find_name(self._ptr, encoded, len(encoded))
        if number < 0:
            return False
        rc = lib.lbl_tracker_remove(self._ptr, number, address, port)
        return bool(check(rc, "removing a backend"))

    def reset_histograms(self) -> None:
        """Set all histograms and counts per backend to 0. `event_counts()` keeps its counts.

        Backends that have no open connection are forgotten.
        """
        lib.lbl_tracker_reset(self._ptr)
