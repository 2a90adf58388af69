"""The tracker: per-backend histograms of connection lifetimes, and the documented API on them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from ._address import format_ip, format_target, parse_target
from ._ffi import address, check, ffi, lib
from ._fork import new_lock
from ._observe import bind
from .conntrack import ConntrackMap
from .event import REASONS
from .histogram import DEFAULT_BUCKETS, Buckets, HistogramSnapshot
from .stats import EventStream, check_room

__all__ = ["Backend", "BackendRow", "LatencyTracker"]

_TRY_OBSERVE = address(ffi.addressof(lib, "lbl_backend_try_observe"))
_OBSERVE = address(ffi.addressof(lib, "lbl_backend_observe"))
_OVERFLOW = "overflow"
_MOST = 2**62 / 1e9  # seconds; 146 years
_OVERFLOW_TARGET = "overflow:0"
_EVENT_COUNTS = (
    "opened",
    "closed",
    "periodic",
    "malformed",
    "recorded",
    "unmatched",
    "rejected",
    "ignored",
    "births_evicted",
    "observed",
)


def _refusal(rc: int, seconds: object) -> Exception:
    if rc == -errno.ENOMEM:
        return MemoryError("no memory to record a latency in")
    return ValueError(f"latency must be seconds from 0 to {_MOST:.0f}, not {seconds!r}")


def _refuse(rc: int, seconds: object) -> NoReturn:
    raise _refusal(rc, seconds)


def _check_name(name: object) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"proxy name must be a string, not {type(name).__name__}")
    if not name:
        raise ValueError("proxy name must not be empty")
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"proxy name {name!r} is not valid Unicode") from None


class Backend:
    """One backend of a tracker, bound once so that recording is as quick as it can be.

    Attributes:
        observe: call it with seconds to record a duration; raises `ValueError` for NaN,
            infinities and negatives.
    """

    __slots__ = ("_ptr", "observe")

    def __init__(self, tracker: Any, ptr: Any) -> None:
        self._ptr = ptr
        self.observe: Callable[[float], None] = bind(
            address(ptr), _TRY_OBSERVE, _OBSERVE, (tracker, ptr), _refuse
        )


class BackendRow(NamedTuple):
    """One backend at one time.

    Attributes:
        proxy: name of the proxy, or "overflow".
        ip: address as text, without brackets; "overflow" for the overflow backend.
        port: 0 for the overflow backend.
        histogram: the lifetimes.
        opened: connections opened, those included that were open at a reset.
        open: connections open now, of those whose opening was seen.
        closed: connections closed by reason, health probes not included.
        probes: health probes closed.
    """

    proxy: str
    ip: str
    port: int
    histogram: HistogramSnapshot
    opened: int
    open: int
    closed: dict[str, int]
    probes: int

    @property
    def target(self) -> str:
        """`ip:port`."""
        return format_target(self.ip, self.port)


class _Flow(NamedTuple):
    """What streams have delivered to a tracker; None where a producer does not count."""

    produced: int | None
    received: int
    dropped: int | None
    in_ring: int
    corrupt: int

    def __add__(self, other: object) -> _Flow:
        if not isinstance(other, _Flow):
            return NotImplemented
        return _Flow(
            None if self.produced is None or other.produced is None
            else self.produced + other.produced,
            self.received + other.received,
            None if self.dropped is None or other.dropped is None
            else self.dropped + other.dropped,
            self.in_ring + other.in_ring,
            self.corrupt + other.corrupt,
        )  # fmt: skip


class _Attached:
    """A stream that a tracker was started on, and what it had delivered to others before."""

    def __init__(self, stream: EventStream) -> None:
        self.stream = EventStream.sharing(stream)
        before = stream.stats()
        self.received = before.received
        self.dropped = before.dropped or 0
        self.corrupt = before.corrupt

    def flow(self) -> _Flow:
        now = self.stream.stats()
        return _Flow(
            None if now.produced is None else now.produced - self.received - self.dropped,
            now.received - self.received,
            None if now.dropped is None else now.dropped - self.dropped,
            now.in_ring,
            now.corrupt - self.corrupt,
        )


class LatencyTracker:
    """Per-backend latency histograms. Any number of trackers may exist; none shares state.

    All methods may be called from several threads at once.

    Args:
        buckets: upper bounds of the classic histogram, seconds, ascending.
        max_backends: how many backends to tell apart of each ring, and as many of those recorded by
            hand; the rest share the one called "overflow", so that a flood of addresses has an end.
            6 KiB of address space each, 3 more of each ring; memory only for those that there are.

    Raises:
        MemoryError: there is not that much address space.
    """

    def __init__(
        self, *, buckets: Sequence[float] = DEFAULT_BUCKETS, max_backends: int = 100_000
    ) -> None:
        self._buckets = Buckets.of(tuple(buckets))
        if not 1 <= max_backends <= 1 << 24:
            raise ValueError(f"max_backends must be 1 to {1 << 24}, not {max_backends!r}")
        out = ffi.new("struct lbl_tracker **")
        rc = lib.lbl_tracker_new(self._buckets.ptr, max_backends, out)
        if rc == -errno.ENOMEM:
            raise MemoryError(
                f"no address space for {max_backends} backends; lower max_backends or raise the"
                " limit (ulimit -v)"
            )
        check(rc, "making a tracker")
        self._ptr: Any = ffi.gc(out[0], lib.lbl_tracker_free)
        self._lock = new_lock()
        self._attached: list[_Attached] = []
        self._past = _Flow(0, 0, 0, 0, 0)
        self._proxy_name: str | None = None
        self._names: dict[int, str] = {0: _OVERFLOW}
        self._backends: dict[tuple[str, str], Backend] = {}
        self._max_backends = max_backends

    # ---- start and stop ----

    def start(
        self,
        stats_stream: EventStream | Sequence[EventStream],
        conntrack_map: ConntrackMap | None,
        proxy_name: str,
        *,
        proxies: Mapping[int | str, str] | None = None,
    ) -> None:
        """Record the stream's connections from now on; does nothing while running.

        Args:
            stats_stream: from `stats.create_event_stream()`, or several of them.
            conntrack_map: where to look for the creation time of a connection whose events do not
                tell it; None if they do.
            proxy_name: the `proxy_name` label of events that name no proxy of their own.
            proxies: names for the others: by the events' proxy id (int), or, for 64- and 72-byte
                events, by the address that clients connect to (`ip:port`).
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
        table = self._proxy_table(proxy_name, proxies or {})
        with self._lock:
            if self._running():
                return
            self._detach()
            try:
                for stream in given:
                    self._attach(stream, conntrack_map, table)
            except BaseException:
                self._detach()
                raise
            self._proxy_name = proxy_name

    def _attach(self, stream: EventStream, conntrack: ConntrackMap | None, table: Any) -> None:
        attached = _Attached(stream)
        ptr = ffi.NULL if conntrack is None else conntrack.ptr
        self._attached.append(attached)
        for each in attached.stream.streams:
            rc = lib.lbl_tracker_attach(self._ptr, each, ptr, table, len(table))
            if rc == -errno.EBUSY:
                raise ValueError("stats_stream has the same ring twice; give each ring once")
            check_room(rc, "attaching to the event stream")

    def _proxy_table(self, proxy_name: str, proxies: Mapping[int | str, str]) -> Any:
        rows: list[dict[str, Any]] = [{"id": 0, "name": self._name_number(proxy_name)}]
        unused = iter(range(65535, 0, -1))
        for key, name in proxies.items():
            row: dict[str, Any] = {"name": self._name_number(name)}
            if isinstance(key, str):
                address, port = parse_target(key)
                row["id"] = next(number for number in unused if number not in proxies)
                row.update(has_vip=True, vip_addr=address, vip_port=port)
            elif isinstance(key, int) and 0 < key < 65536:
                row["id"] = key
            else:
                raise ValueError(f"proxy id {key!r} must be 1 to 65535, or an 'ip:port'")
            rows.append(row)
        return ffi.new("struct lbl_proxy[]", rows)

    def _name_number(self, name: str) -> int:
        encoded = _check_name(name)
        return check(lib.lbl_tracker_name(self._ptr, encoded, len(encoded)), "naming a proxy")

    def _running(self) -> bool:
        return bool(self._attached) and all(at.stream.alive for at in self._attached)

    def _detach(self) -> None:
        ended, self._attached = self._attached, []  # a signal handler may stop it meanwhile
        lib.lbl_tracker_detach(self._ptr)
        for attached in ended:
            flow = attached.flow()
            if flow.produced is not None:
                flow = flow._replace(produced=flow.produced - flow.in_ring)
            self._past += flow._replace(in_ring=0)

    def stop(self) -> None:
        """Take what is still in the rings, then record no more. Histograms stay."""
        with self._lock:
            self._detach()

    def running(self) -> bool:
        """Whether events are being recorded; False in a child of `fork()`."""
        with self._lock:
            return self._running()

    # ---- recording by hand ----

    def _backend(self, proxy_name: str, target_id: str) -> Backend:
        number = self._name_number(proxy_name)
        ip, port = parse_target(target_id)
        out = ffi.new("struct lbl_backend **")
        check(lib.lbl_tracker_backend(self._ptr, number, ip, port, out), "adding a backend")
        backend = Backend(self._ptr, ffi.gc(out[0], lib.lbl_backend_free))
        if len(self._backends) < self._max_backends:
            self._backends[proxy_name, target_id] = backend
        return backend

    def record_latency(self, proxy_name: str, target_id: str, latency_sec: float) -> None:
        """Record one connection.

        Args:
            proxy_name: not empty.
            target_id: `ip:port`, IPv6 as `[addr]:port`.
            latency_sec: seconds, 0 or more; at most 2**62 ns, which is 146 years.

        Raises:
            TypeError: a name is no string, or the latency no number.
            ValueError: a name or the latency is not as above.
        """
        try:
            backend = self._backends[proxy_name, target_id]
        except (KeyError, TypeError):
            backend = self._backend(proxy_name, target_id)
        backend.observe(latency_sec)

    def record_many(self, proxy_name: str, target_id: str, seconds: Any) -> int:
        """Record all durations of a contiguous buffer of doubles, or none if one is invalid.

        Args:
            proxy_name: not empty.
            target_id: `ip:port`.
            seconds: `array('d')`, a float64 NumPy array, or whatever else has that buffer.

        Returns:
            How many were recorded.
        """
        view = memoryview(seconds)
        if view.format != "d" or not view.c_contiguous:
            raise TypeError(
                "seconds must be a contiguous buffer of native doubles, not of format"
                f" {view.format!r}"
            )
        backend = self.backend(proxy_name, target_id)
        n = view.nbytes // 8
        doubles = ffi.from_buffer("double[]", view)
        bad = ffi.new("size_t *")
        refused = lib.lbl_backend_observe_many(backend._ptr, doubles, n, bad)
        if refused == -errno.EINVAL:
            raise ValueError(f"item {bad[0]}: {_refusal(refused, doubles[bad[0]])}")
        if refused:
            raise _refusal(refused, None)
        return n

    def backend(self, proxy_name: str, target_id: str) -> Backend:
        """The backend as an object whose `observe(seconds)` records quickest."""
        try:
            return self._backends[proxy_name, target_id]
        except (KeyError, TypeError):
            return self._backend(proxy_name, target_id)

    # ---- reading ----

    def _name(self, number: int) -> str:
        try:
            return self._names[number]
        except KeyError:
            size = ffi.new("size_t *")
            text = lib.lbl_tracker_name_text(self._ptr, number, size)
            return self._names.setdefault(number, bytes(ffi.buffer(text, size[0])).decode())

    def _read(self, snapshot: Any) -> Iterator[BackendRow]:
        slots = ffi.buffer(snapshot.slots, snapshot.n_pairs * 2) if snapshot.n_pairs else b""
        counts = ffi.buffer(snapshot.counts, snapshot.n_pairs * 8) if snapshot.n_pairs else b""
        for i in range(snapshot.n_rows):
            row = snapshot.rows[i]
            first, end = row.first, row.first + row.n
            yield BackendRow(
                proxy=self._name(row.name),
                ip=format_ip(bytes(row.addr)) if row.name else _OVERFLOW,
                port=row.port,
                histogram=HistogramSnapshot(
                    self._buckets,
                    bytes(slots[2 * first : 2 * end]),
                    bytes(counts[8 * first : 8 * end]),
                    row.sum_lo + (row.sum_hi << 64),
                ),
                opened=row.opened,
                open=row.open,
                closed=dict(zip(REASONS, row.closed, strict=True)),
                probes=row.probes,
            )

    def backends(self) -> list[BackendRow]:
        """All backends that anything is known of, in one reading."""
        out = ffi.new("struct lbl_snapshot **")
        check(lib.lbl_tracker_snapshot(self._ptr, out), "reading the histograms")
        snapshot = ffi.gc(out[0], lib.lbl_snapshot_free)
        return [
            row
            for row in self._read(snapshot)
            if row.opened or row.probes or row.histogram["count"] or any(row.closed.values())
        ]

    def get_histogram(self, proxy_name: str, target_id: str) -> HistogramSnapshot | None:
        """The histogram of one backend; None if nothing was recorded for it."""
        if (proxy_name, target_id) == (_OVERFLOW, _OVERFLOW_TARGET):
            return self.get_all_histograms().get((_OVERFLOW, _OVERFLOW_TARGET))
        encoded = _check_name(proxy_name)
        address, port = parse_target(target_id)
        number = lib.lbl_tracker_find_name(self._ptr, encoded, len(encoded))
        if number < 0:
            return None
        out = ffi.new("struct lbl_snapshot **")
        rc = lib.lbl_tracker_snapshot_one(self._ptr, number, address, port, out)
        check(rc, "reading a histogram")
        snapshot = ffi.gc(out[0], lib.lbl_snapshot_free)
        for row in self._read(snapshot):
            return row.histogram if row.histogram["count"] else None
        return None

    def get_all_histograms(self) -> dict[tuple[str, str], HistogramSnapshot]:
        """All histograms by (proxy name, `ip:port`)."""
        return {
            (row.proxy, row.target): row.histogram
            for row in self.backends()
            if row.histogram["count"]
        }

    def get_histograms_for_metrics(self) -> dict[tuple[str, str, str], HistogramSnapshot]:
        """All histograms by (proxy name, ip, port), all three strings, as metric labels are."""
        return {
            (row.proxy, row.ip, str(row.port)): row.histogram
            for row in self.backends()
            if row.histogram["count"]
        }

    def get_percentiles(self, proxy_name: str, target_id: str) -> dict[str, float] | None:
        """`p50`, `p95`, `p99` and `mean` in seconds, and `count`; None if nothing was recorded.

        Percentiles are at most 0.55 % off, the mean is exact.
        """
        histogram = self.get_histogram(proxy_name, target_id)
        if histogram is None:
            return None
        return {
            "p50": histogram.percentile(0.50),
            "p95": histogram.percentile(0.95),
            "p99": histogram.percentile(0.99),
            "mean": histogram.mean,
            "count": histogram["count"],
        }

    def event_counts(self) -> dict[str, int | None]:
        """Where all events went, since the tracker was made.

        `produced = received + dropped + in_ring` and `closed = recorded + unmatched + rejected +
        ignored`. `produced` and `dropped` are None if a producer does not count.
        """
        with self._lock:
            flow = sum((attached.flow() for attached in self._attached), start=self._past)
        stats = ffi.new("struct lbl_tracker_stats *")
        lib.lbl_tracker_stats(self._ptr, stats)
        return flow._asdict() | {name: getattr(stats, name) for name in _EVENT_COUNTS}

    def get_status(self) -> dict[str, Any]:
        """How tracking goes.

        Returns:
            `running`; `proxy_name`; `histogram_count`; `backends`: per (proxy name, `ip:port`)
            `count`, `mean` (seconds, None without observations), `opened`, `closed`, `open` and
            `reasons`; `events`: see `event_counts()`.
        """
        rows = self.backends()
        return {
            "running": self.running(),
            "proxy_name": self._proxy_name,
            "histogram_count": sum(1 for row in rows if row.histogram["count"]),
            "backends": {
                (row.proxy, row.target): {
                    "count": row.histogram["count"],
                    "mean": row.histogram.mean if row.histogram["count"] else None,
                    "opened": row.opened,
                    "closed": sum(row.closed.values()),
                    "open": row.open,
                    "reasons": row.closed,
                }
                for row in rows
            },
            "events": self.event_counts(),
        }

    def stream_stats(self) -> list[Any]:
        """The `StreamStats` of each stream that the tracker is running on."""
        with self._lock:
            return [attached.stream.stats() for attached in self._attached]

    def reset_histograms(self) -> None:
        """Forget all histograms and per-backend counts; `event_counts()` go on."""
        lib.lbl_tracker_reset(self._ptr)
