"""The connections of a balancer that has a conntrack map, but sends no events."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._address import format_endpoint, parse_ip
from .._ffi import check, ffi, lib
from .._layout import layout_of
from .._maps import MapSpec, map_fd, pin_path
from .._rules import BackendRule
from ..buckets import DEFAULT_BUCKETS
from ..errors import LatencyError
from ..stats import MemoryRing, create_event_stream
from .base import BACKEND, Option, Source

__all__ = ["OpenAges", "Scan"]

_RING_LEAST, _RING_MOST = 1 << 20, 1 << 26  # bytes; the latter has room for a million events
_INTERVAL_LEAST, _INTERVAL_MOST = 0.01, 3600
_IPV4_PREFIX = 96  # of v4-mapped addresses


@dataclass(frozen=True, slots=True)
class OpenAges:
    """The open connections of a backend, and how old they are, as a histogram.

    Attributes:
        open: connections.
        buckets: upper bounds in seconds.
        counts: connections up to each bound, cumulative.
        sum: of the ages, in seconds.
        count: connections whose age is known. One that is older than the scans counts by the
            creation time that was seen first.
    """

    open: int
    buckets: tuple[float, ...]
    counts: list[int]
    sum: float
    count: int

    def __add__(self, other: OpenAges) -> OpenAges:
        """Those of both, with the same buckets."""
        return OpenAges(
            self.open + other.open,
            self.buckets,
            [one + two for one, two in zip(self.counts, other.counts, strict=True)],
            self.sum + other.sum,
            self.count + other.count,
        )


def _seconds(interval: float | str) -> float:
    try:
        seconds = float(interval)
    except ValueError:
        raise ValueError(f"interval {interval!r} is not a number of seconds") from None
    if not _INTERVAL_LEAST <= seconds <= _INTERVAL_MOST:  # false for NaN, too
        raise ValueError(
            f"interval {interval!r} is not between {_INTERVAL_LEAST} and {_INTERVAL_MOST} seconds"
        )
    return seconds


def _ring_bytes(max_entries: int) -> int:
    """Room for what a first look at a full map finds, before anybody takes it."""
    wanted: int = max_entries * lib.LBL_EVENT_STRIDE
    return min(max(1 << wanted.bit_length(), _RING_LEAST), _RING_MOST)


def _precedence(rule: BackendRule) -> tuple[int, int]:
    """The longest prefix first, then the fewest ports."""
    prefix = rule.network.prefixlen + (_IPV4_PREFIX if rule.network.version == 4 else 0)
    return -prefix, rule.last_port - rule.first_port


def _rows(rules: Sequence[BackendRule], proxies: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "addr": parse_ip(str(rule.network.network_address)),
            "prefix": -_precedence(rule)[0],
            "first_port": rule.first_port,
            "last_port": rule.last_port,
            "proxy_id": 0 if rule.proxy is None else proxies[rule.proxy],
        }
        for rule in sorted(rules, key=_precedence)
    ]


class Scan(Source):
    """The connections in a balancer's conntrack map, as they appear in it and vanish from it.

    The map is listed every `interval` seconds; if a listing costs more than 5 % of a CPU, less
    often. An opened event is made of an entry that appears, a closed event of one that vanishes.
    This is how exact a lifetime is then, where "an interval" is the time between two scans:

    - It ends between the last scan that found the entry and the first that did not; we say in the
      middle. So it is off by up to half an interval, either way.
    - If the balancer deletes entries only after they were idle for 10 seconds or more, as most that
      vanish show, it ends with its last packet, exactly. The reason is then "timeout".
    - It begins at the creation time, exactly, if the balancer writes that once. If later packets
      overwrite it, the earliest one that was seen still lies between two scans; we say in the
      middle of what is possible. So it is off by up to half an interval.
    - So it is off by up to an interval in all, and by less on the average.
    - Connections that are older than the source are counted as open, and `unmatched` as they end.
    - A connection that begins and ends between two scans is not seen. One that takes the same
      client port to the same backend is told apart if it has fewer packets or bytes than the entry
      had at the last scan, or if creation times stay; otherwise both may count as one.

    Args:
        scan: the map: fd, pin path, id (digits in a string) or name. A hash, plain or per-CPU, LRU
            or not; the values of all CPUs are combined.
        layout: of keys and values, such as "client=key+0 backend=key+4 client_port=key+8
            backend_port=key+10 protocol=key+12 created=value+16 last_seen=value+24". By default,
            one of those that `bpf/include/lbl_abi.h` defines, by its size, else as the names in the
            map's type information (BTF) say.
        interval: seconds between scans.
        backends: rules, or texts as `BackendRule.parse()` takes them: other backends do not count.
            Of several that match, the one with the longest prefix counts, then the one with the
            fewest ports.

    Raises:
        BpfError: there is no such map, or the kernel refuses access to it.
        LatencyError: it is a map of another kind, or its layout is not known.
        ValueError: the layout, the interval or a rule is malformed, or does not fit the map.
    """

    options = (
        Option("scan", "PATH|ID|NAME", "a balancer's conntrack map, if it sends no events"),
        Option(
            "layout",
            "FIELD=key|value+OFFSET,...",
            "where its keys and values have what (default: a documented layout, or from BTF)",
        ),
        Option(
            "interval",
            "SECONDS",
            "from a scan to the next; no lifetime is off by more (default: 1)",
            is_number=True,
            parse=_seconds,
        ),
        BACKEND,
    )

    @classmethod
    def is_named(cls, *, backends: Sequence[BackendRule] = (), **_arguments: Any) -> bool:
        """Whether each rule names its proxy."""
        return bool(backends) and all(rule.proxy is not None for rule in backends)

    @classmethod
    def try_out(cls) -> None:
        """Ask the kernel for a pin that does not exist."""
        check(lib.lbl_probe(lib.LBL_PROBE_PINS), "opening pins")

    def __init__(
        self,
        scan: MapSpec,
        *,
        layout: str | None = None,
        interval: float | str = 1.0,
        backends: Sequence[BackendRule | str] = (),
    ) -> None:
        self._scan: Any = None
        self._spec, self._described = scan, layout
        self._interval = _seconds(interval)
        rules = [BackendRule.parse(each) if isinstance(each, str) else each for each in backends]
        names = dict.fromkeys(rule.proxy for rule in rules if rule.proxy is not None)
        numbers = {name: number for number, name in enumerate(names, 1)}
        self._rules = ffi.new("struct lbl_scan_rule[]", _rows(rules, numbers))
        self._lost = dict.fromkeys(("scan_full", "scan_ambiguous"), 0)  # by maps that were replaced
        self._refused: str | None = None
        self._failing: str | None = None
        with map_fd(scan) as fd:
            sizes = ffi.new("struct lbl_map_sizes *")
            check(lib.lbl_map_sizes(fd, sizes), "reading the map's sizes")
            self._ring = MemoryRing(_ring_bytes(sizes.max_entries))
            self._open(fd)
        self.stream = create_event_stream(self._ring)
        self.stream.proxies = {number: name for name, number in numbers.items()}

    def _open(self, fd: int) -> None:
        """Scan this map from now on, in place of another one."""
        layout, in_words = layout_of(fd, self._described)
        ring, interval_ns = self._ring.ptr, int(self._interval * 1e9)
        out = ffi.new("struct lbl_scan **")
        rc = lib.lbl_scan_open(fd, layout, ring, self._rules, len(self._rules), interval_ns, out)
        if rc == -errno.EINVAL:
            raise LatencyError(
                f"map {self._spec} is no conntrack map: it must be a hash, plain or per-CPU, with"
                " keys of up to 512 bytes and values of up to 4096"
            )
        check(rc, f"scanning the conntrack map {self._spec}")
        self._end()
        self._scan, self._layout = ffi.gc(out[0], lib.lbl_scan_close), in_words
        self._map_id = lib.lbl_map_id(fd)
        self._failures = 0

    def _end(self) -> None:
        """End the scans of a map, and what was open in it."""
        if self._scan is not None:
            self._lost = dict(self.lost())
            ffi.release(self._scan)
            self._scan = None

    @property
    def _ptr(self) -> Any:
        if self._scan is None:
            raise ValueError("the source is closed")
        return self._scan

    def _stats(self) -> Any:
        raw = ffi.new("struct lbl_scan_stats *")
        lib.lbl_scan_stats(self._ptr, raw)
        return raw

    def tick(self) -> None:
        """Take up the map that a balancer which restarted has pinned in the place of ours.

        Connections of the old map end with the reason "evicted" and are `unmatched`. If the new one
        cannot be scanned, the old one still is, and `trouble()` says why.
        """
        if self._scan is None:
            return
        self._refused = self._take_up()
        of_map = self._stats().of_map
        is_failing, self._failures = of_map.failures > self._failures, of_map.failures
        self._failing = (
            f"scanning the conntrack map {self._spec}: {os.strerror(of_map.error)}"
            if is_failing
            else None
        )

    def _take_up(self) -> str | None:
        """Scan the map that is pinned now; returns why it cannot be."""
        if pin_path(self._spec) is None:
            return None
        try:
            with map_fd(self._spec) as fd:
                if lib.lbl_map_id(fd) != self._map_id:
                    self._open(fd)
        except (LatencyError, ValueError) as error:
            return str(error)
        return None

    def trouble(self) -> str | None:
        """Why the map that is pinned now is not scanned, or why the last scans failed."""
        return self._refused or self._failing

    def scan(self) -> int:
        """Scan the map now, as a thread does every `interval` seconds; returns how many entries.

        Raises:
            BpfError: the kernel does not let us list the map.
        """
        return check(lib.lbl_scan_now(self._ptr), "scanning the conntrack map")

    def ages(
        self, buckets: Sequence[float] = DEFAULT_BUCKETS
    ) -> dict[tuple[str | None, str], OpenAges]:
        """How many connections are open, and since when, as the last scan found them.

        Args:
            buckets: upper bounds in seconds, ascending.

        Returns:
            By the proxy's name that a rule gave, or None, and `ip:port`. If there are thousands of
            backends, those beyond are together at `[::]:0`.
        """
        bounds = ffi.new("uint64_t[]", [round(each * 1e9) for each in buckets])
        found = ffi.new("struct lbl_ages *")
        check(lib.lbl_scan_ages(self._ptr, bounds, len(buckets), found), "counting connections")
        ages = ffi.gc(found, lib.lbl_ages_free)
        return {
            (self.stream.proxies.get(row.proxy_id), format_endpoint(row.addr, row.port)): OpenAges(
                row.open,
                tuple(buckets),
                _cumulative(ages.counts, i * (len(buckets) + 1), len(buckets)),
                row.seconds,
                row.aged,
            )
            for i, row in enumerate(ages.rows[0 : ages.n])
        }

    def scan_interval(self) -> float:
        """Seconds from a scan to the next, at most, by which a lifetime may be off."""
        return float(self._stats().of_map.span_ns / 1e9 or self._interval)

    def status(self) -> Mapping[str, Any]:
        """Where the events are, and what the scans found.

        Returns:
            What `EventStream.stats()` has, and: `layout` of the map; `interval` and `error`,
            seconds from a scan to the next, and by which a lifetime may be off; `scans` that found
            all connections; `failures`, of which `scan_error` is the last one's text or None, or
            why the map that is pinned now is not scanned;
            connections that are `open`; of those that vanished, how many had `timed_out`, and were
            `older` than the source and of unknown age; whether creation times `move`.
        """
        raw = self._stats()
        of_map = raw.of_map
        return {
            **super().status(),
            "layout": self._layout,
            "interval": of_map.interval_ns / 1e9 or self._interval,
            "error": self.scan_interval(),
            "scans": of_map.scans,
            "failures": of_map.failures,
            "scan_error": self._refused or (os.strerror(of_map.error) if of_map.error else None),
            "open": raw.open,
            "timed_out": raw.timed_out,
            "older": raw.older,
            "move": bool(of_map.moved),
        }

    def lost(self) -> Mapping[str, int]:
        """Looks at connections beyond a million, and at a second entry of the same connection."""
        of_map = self._stats().of_map
        return {
            "scan_full": self._lost["scan_full"] + of_map.forgotten,
            "scan_ambiguous": self._lost["scan_ambiguous"] + of_map.doubled,
        }

    def close(self) -> None:
        """Stop scanning, and end what is open: with the reason "evicted", and `unmatched`.

        Trackers keep the stream until they stop.
        """
        if self._scan is not None:
            self._end()
            super().close()


def _cumulative(counts: Any, first: int, n: int) -> list[int]:
    sums: list[int] = []
    for i in range(first, first + n):
        sums.append(int(counts[i]) + (sums[-1] if sums else 0))
    return sums
