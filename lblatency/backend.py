"""One backend of a tracker: an object that records, and a row of a snapshot."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from ._address import format_target
from ._ffi import address, ffi, lib
from ._observe import bind
from .histogram import HistogramSnapshot

__all__ = ["Backend", "BackendRow", "refusal"]

_TRY_OBSERVE = address(ffi.addressof(lib, "lbl_backend_try_observe"))
_OBSERVE = address(ffi.addressof(lib, "lbl_backend_observe"))
_POINTER = ffi.typeof("struct lbl_backend *")
_MOST = 2**lib.LBL_OBSERVE_LOG2 / 1e9  # seconds; 146 years


def refusal(rc: int, seconds: object) -> Exception:
    """The exception for a duration that C did not record, from its return code."""
    if rc == -errno.ENOMEM:
        return MemoryError("no memory to record a latency")
    return ValueError(f"latency must be seconds from 0 to {_MOST:.0f}, not {seconds!r}")


def _refuse(rc: int, seconds: object) -> NoReturn:
    raise refusal(rc, seconds)


class Backend:
    """One backend and one latency of a tracker, bound once so that recording is fast.

    Attributes:
        observe: records a duration in seconds; raises `ValueError` for NaN, infinities and
            negative values.
    """

    __slots__ = ("_name", "observe", "ptr")

    def __init__(self, tracker: Any, ptr: Any, name: tuple[str, str, str]) -> None:
        if not isinstance(ptr, ffi.CData) or ffi.typeof(ptr) is not _POINTER:
            raise TypeError("a Backend comes from LatencyTracker.backend()")
        self.ptr = ptr
        self._name = name  # proxy, target, metric
        self.observe: Callable[[float], None] = bind(
            address(ptr), _TRY_OBSERVE, _OBSERVE, (tracker, ptr), _refuse
        )

    def __repr__(self) -> str:
        proxy, target, metric = self._name
        return f"<Backend: proxy_name={proxy!r}, target_id={target!r}, metric={metric!r}>"


class BackendRow(NamedTuple):
    """One backend, as a snapshot found it.

    Attributes:
        proxy: name of the proxy; "overflow" for the overflow backend.
        ip: address as text, without brackets; "overflow" likewise.
        port: of the backend; 0 for the overflow backend.
        histogram: of the latency that the caller asked for.
        opened: connections that opened since the last reset, or were open then.
        open: connections that are open now, of those that were seen to open.
        closed: connections that closed, by reason, without health probes.
        probes: health probes that closed.
    """

    proxy: str
    ip: str
    port: int
    histogram: HistogramSnapshot
    opened: int
    open: int
    closed: dict[str, int]
    probes: int

    def connections(self) -> dict[str, Any]:
        """Its counts of connections, as the status has them."""
        return {
            "opened": self.opened,
            "closed": sum(self.closed.values()),
            "open": self.open,
            "reasons": self.closed,
        }

    @property
    def target(self) -> str:
        """`ip:port`."""
        return format_target(self.ip, self.port)
