"""The history of a tracker's counters, which C keeps."""

from __future__ import annotations

import errno
import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._address import format_ip, format_target, parse_target
from .._ffi import check, ffi, lib
from ..buckets import LIFETIME, METRICS, metric_number
from ..errors import LatencyError
from ..histogram import HistogramSnapshot
from ..tracker import LatencyTracker

__all__ = [
    "FINE_S",
    "INTERVAL_S",
    "LONGEST_S",
    "Heat",
    "History",
    "Overview",
    "Selection",
    "UnknownBackendError",
    "Window",
]

INTERVAL_S = 5.0
"""How long to wait between samples."""
FINE_S: int = lib.LBL_FINE_S
"""The longest window that tells percentiles exactly."""
LONGEST_S: int = lib.LBL_COARSE_S
"""The longest window of a heat map."""
_BYTES_MAX = 96 << 20
_TARGETS_MAX = 4 * lib.LBL_HISTORY_BACKENDS  # texts of addresses that are remembered
_CHANGES = {
    lib.LBL_CHANGE_NONE: None,
    lib.LBL_CHANGE_LIFETIME: "lifetime",
    lib.LBL_CHANGE_RATE: "rate",
}


class UnknownBackendError(LatencyError, LookupError):
    """The history has no such backend or proxy."""


class Selection(NamedTuple):
    """Of which backends: all, those of a proxy, or one of them."""

    proxy: str | None = None
    target: str | None = None

    def __str__(self) -> str:
        if self.proxy is None:
            return "all backends"
        return self.proxy if self.target is None else f"{self.proxy}/{self.target}"


@dataclass(frozen=True)
class Window:
    """What happened between two samples, summed over the selected backends.

    Attributes:
        since: Unix time in seconds; None if nothing is covered yet, as is `until`.
        until: likewise.
        histogram: of the latency that was asked for.
    """

    since: float | None
    until: float | None
    histogram: HistogramSnapshot


@dataclass(frozen=True)
class Heat:
    """Counts by time and latency; each list has an item per column.

    Attributes:
        began: Unix time in seconds.
        ended: likewise.
        p50: seconds; NaN without observations.
        p99: likewise.
        counts: of each column, per coarse row.
    """

    began: list[float]
    ended: list[float]
    p50: list[float]
    p99: list[float]
    counts: list[list[int]]


@dataclass(frozen=True)
class Overview:
    """All backends in a window. Each list has an item per backend; those of a proxy are adjacent.

    Attributes:
        since: Unix time in seconds; None if nothing is covered yet, as is `until`.
        until: likewise.
        left_out: how many backends had no room in the history.
        proxy: names.
        ip: addresses; "overflow" for the overflow backend.
        port: of the backends.
        target: `ip:port`.
        columns: numbers by the names of the fields of C's `struct lbl_overview`.
        p95_of: seconds, by metric.
        change_in: "lifetime", "rate" or None.
    """

    since: float | None
    until: float | None
    left_out: int
    proxy: list[str]
    ip: list[str]
    port: list[int]
    target: list[str]
    columns: dict[str, list[Any]]
    p95_of: dict[str, list[float]]
    change_in: list[str | None]


_NUMBERS = (
    "open",
    "count",
    "resets",
    "failed",
    "closed_rate",
    "opened_rate",
    "p50",
    "p95",
    "p99",
    "change",
)


class History:
    """Samples of a tracker's counters: what happened between them, in limited memory.

    Call `sample()` every few seconds. The last quarter of an hour is kept as exact as the tracker
    counts, and hours before it in columns of a minute, as far as memory allows. All methods may be
    called from several threads at once, but not in a child of `fork()`.

    Args:
        tracker: what to sample.
        bytes_max: memory to take at most; if much happens, the history is shorter for it.
        interval_s: how long whoever calls `sample()` waits between calls.
    """

    def __init__(
        self,
        tracker: LatencyTracker,
        *,
        bytes_max: int = _BYTES_MAX,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self.interval_s = interval_s
        self._tracker = tracker
        self._buckets = tracker.buckets
        each = ffi.new("struct lbl_buckets *[]", len(METRICS))
        for metric, buckets in self._buckets.items():
            each[metric_number(metric)] = buckets.ptr
        out = ffi.new("struct lbl_history **")
        rc = lib.lbl_history_new(each, bytes_max, time.monotonic_ns(), out)
        if rc == -errno.EINVAL:
            raise ValueError(f"bytes_max must be {lib.LBL_HISTORY_BYTES_MIN} or more")
        check(rc, "making a history")
        self._ptr = ffi.gc(out[0], lib.lbl_history_free)
        self._offset_ns = 0  # from the monotonic clock to Unix time, at the last sample
        self._texts: dict[bytes, tuple[str, int, str]] = {}
        self.samples = 0

    @property
    def metrics(self) -> tuple[str, ...]:
        """The latencies that it has."""
        return tuple(self._buckets)

    def sample(self, now_ns: int | None = None) -> None:
        """Take a sample.

        Args:
            now_ns: by `time.monotonic_ns()`; for tests, which make their own time.
        """
        now = time.monotonic_ns() if now_ns is None else now_ns
        check(lib.lbl_history_sample(self._ptr, self._tracker.ptr, now), "sampling the histograms")
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self.samples += 1

    def info(self) -> dict[str, Any]:
        """What it has, as `history` in the API's status."""
        raw = ffi.new("struct lbl_history_info *")
        lib.lbl_history_info(self._ptr, raw)
        return {
            "sampled": self._unix(raw.sampled_ns),
            "interval_s": self.interval_s,
            "covers_s": raw.covered_ns / 1e9,
            "fine_columns": raw.fine,
            "coarse_columns": raw.coarse,
            "backends": raw.backends,
            "left_out": raw.left_out,
            "bytes": raw.bytes,
            "bytes_max": raw.bytes_max,
        }

    def overview(self, window_s: float | None) -> Overview:
        """All backends in the last seconds, at most `FINE_S`; None for all time."""
        out = ffi.new("struct lbl_overview **")
        rc = lib.lbl_history_overview(self._ptr, _window_ns(window_s), out)
        check(rc, "reading the history")
        raw = ffi.gc(out[0], lib.lbl_overview_free)
        n = raw.n
        names, ports = _list(raw.name, n), _list(raw.port, n)
        addresses = bytes(ffi.buffer(raw.addr, 16 * n)) if n else b""
        labels = {
            pair: self._tracker.label(*pair)
            for pair in {
                (name, 0 if name else port) for name, port in zip(names, ports, strict=True)
            }
        }
        texts = [
            self._text(name, port, addresses[16 * i : 16 * i + 16])
            for i, (name, port) in enumerate(zip(names, ports, strict=True))
        ]
        return Overview(
            since=self._unix(raw.since_ns),
            until=self._unix(raw.until_ns),
            left_out=raw.left_out,
            proxy=[
                labels[name, 0 if name else port] for name, port in zip(names, ports, strict=True)
            ],
            ip=[text[0] for text in texts],
            port=[text[1] for text in texts],
            target=[text[2] for text in texts],
            columns={name: _list(getattr(raw, name), n) for name in _NUMBERS},
            p95_of={
                metric: _list(raw.p95_of[metric_number(metric)], n) for metric in self._buckets
            },
            change_in=[_CHANGES[change] for change in _list(raw.change_in, n)],
        )

    def window(
        self, selection: Selection, window_s: float | None, metric: str = LIFETIME
    ) -> Window:
        """The sum over the selected backends in the last seconds, at most `FINE_S`.

        Raises:
            UnknownBackendError: the history has no such backend or proxy.
        """
        out = ffi.new("struct lbl_window **")
        rc = lib.lbl_history_window(
            self._ptr, metric_number(metric), self._select(selection), _window_ns(window_s), out
        )
        self._check(rc, selection, metric)
        raw = ffi.gc(out[0], lib.lbl_window_free)
        histogram = HistogramSnapshot(
            self._buckets[metric],
            bytes(ffi.buffer(raw.slots, 2 * raw.n)),
            bytes(ffi.buffer(raw.counts, 8 * raw.n)),
            raw.sum_lo + (raw.sum_hi << 64),
        )
        return Window(self._unix(raw.since_ns), self._unix(raw.until_ns), histogram)

    def heat(self, selection: Selection, window_s: float, metric: str = LIFETIME) -> Heat:
        """Counts by time and latency in the last seconds, at most `LONGEST_S`.

        Raises:
            UnknownBackendError: the history has no such backend or proxy.
        """
        out = ffi.new("struct lbl_heat **")
        rc = lib.lbl_history_heat(
            self._ptr, metric_number(metric), self._select(selection), _window_ns(window_s), out
        )
        self._check(rc, selection, metric)
        raw = ffi.gc(out[0], lib.lbl_heat_free)
        rows = lib.LBL_COARSE_ROWS
        counts = _list(raw.counts, raw.n * rows)
        return Heat(
            began=[self._unix(ns) or 0.0 for ns in _list(raw.began_ns, raw.n)],
            ended=[self._unix(ns) or 0.0 for ns in _list(raw.ended_ns, raw.n)],
            p50=_list(raw.p50, raw.n),
            p99=_list(raw.p99, raw.n),
            counts=[counts[i * rows : i * rows + rows] for i in range(raw.n)],
        )

    def _check(self, rc: int, selection: Selection, metric: str) -> None:
        if rc == -errno.ENOENT:
            raise UnknownBackendError(f"there is no {selection}")
        if rc == -errno.EINVAL and metric not in self._buckets:
            raise ValueError(
                f"metric {metric!r} is not one that is recorded: {', '.join(self._buckets)}"
            )
        check(rc, "reading the history")

    def _select(self, selection: Selection) -> Any:
        raw = ffi.new("struct lbl_selection *")
        if selection.proxy is None:
            return raw
        raw.which = lib.LBL_SELECT_PROXY
        unknown = UnknownBackendError(f"there is no {selection}")
        if selection.proxy != self._tracker.label(0, lib.LBL_OVERFLOW):
            number = self._tracker.number(selection.proxy) if selection.proxy else None
            if number is None:
                raise unknown
            raw.name = number
            if selection.target is not None:
                raw.which = lib.LBL_SELECT_BACKEND
                raw.addr, raw.port = parse_target(selection.target)
        return raw

    def _unix(self, ns: int) -> float | None:
        return round((ns + self._offset_ns) / 1e9, 3) if ns else None

    def _text(self, name: int, port: int, address: bytes) -> tuple[str, int, str]:
        """Address, port and target; those of the overflow backend are words."""
        if not name:
            word = self._tracker.label(name, port)
            return word, 0, format_target(word, 0)
        key = address + port.to_bytes(2)
        if (text := self._texts.get(key)) is None:
            if len(self._texts) >= _TARGETS_MAX:
                self._texts.clear()
            ip = format_ip(address)
            text = self._texts[key] = ip, port, format_target(ip, port)
        return text


def _list(array: Any, n: int) -> list[Any]:
    return ffi.unpack(array, n) if n else []


def _window_ns(seconds: float | None) -> int:
    if seconds is None:
        return 0
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f"a window must be more than 0 seconds, not {seconds!r}")
    return max(1, round(seconds * 1e9))
