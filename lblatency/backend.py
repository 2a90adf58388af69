"""One backend of a tracker: bound for recording, and as a row that was read."""

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
_MOST = 2**lib.LBL_OBSERVE_LOG2 / 1e9  # seconds; 146 years


def refusal(rc: int, seconds: object) -> Exception:
    """What to raise for a duration that C did not record, by its return code."""
    if rc == -errno.ENOMEM:
        return MemoryError("no memory to record a latency in")
    return ValueError(f"latency must be seconds from 0 to {_MOST:.0f}, not {seconds!r}")


def _refuse(rc: int, seconds: object) -> NoReturn:
    raise refusal(rc, seconds)


class Backend:
    """One backend of a tracker and one of its latencies, bound once so that recording is quick.

    Attributes:
        observe: call it with seconds to record a duration; raises `ValueError` for NaN,
            infinities and negatives.
    """

    __slots__ = ("observe", "ptr")

    def __init__(self, tracker: Any, ptr: Any) -> None:
        self.ptr = ptr
        self.observe: Callable[[float], None] = bind(
            address(ptr), _TRY_OBSERVE, _OBSERVE, (tracker, ptr), _refuse
        )


class BackendRow(NamedTuple):
    """One backend at one time.

    Attributes:
        proxy: name of the proxy, or "overflow".
        ip: address as text, without brackets; "overflow" for the overflow backend.
        port: 0 for the overflow backend.
        histogram: of the latency that was asked for.
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
