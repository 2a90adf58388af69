"""One event of a connection: decoded, or packed as a producer sends it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ._address import format_endpoint, parse_target
from ._ffi import ffi, lib

__all__ = ["NEVER", "REASONS", "TYPES", "Event", "decode"]


def _words(enum: str, prefix: str) -> dict[int, str]:
    """The constants with this prefix of an enum of lbl_abi.h, as words."""
    return {
        number: name.removeprefix(prefix).lower()
        for number, name in sorted(ffi.typeof(f"enum {enum}").elements.items())
        if name.startswith(prefix)
    }


_TYPES = _words("lbl_event_type", "LBL_")
_TYPE_NUMBERS = {name: number for number, name in _TYPES.items()}
TYPES = tuple(_TYPE_NUMBERS)
REASONS = tuple(_words("lbl_reason", "LBL_REASON_").values())
NEVER = math.inf
"""A short time whose end never came. It compares as longer than any time."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event, decoded.

    The three short times are whole microseconds, at least 1. They are `None` if they were not
    measured, and `NEVER` (`math.inf`) if their end never came: the backend did not answer, or sent
    no byte, or the connection ended without FIN or RST.

    Attributes:
        type: "opened", "closed" or "periodic".
        target: the backend, `ip:port`.
        timestamp_ns: when it happened, CLOCK_MONOTONIC.
        created_ns: when the connection was created; 0 = not told.
        reason: why the connection closed; "unknown" for other types.
        protocol: 6 TCP, 17 UDP, 0 = not told.
        probe: whether the connection is a health check.
        proxy_id: the listener; 0 = the stream's own proxy name.
        backend_id: the producer's index of the backend; 0 = none.
        connect_us: from creation to the backend's SYN-ACK.
        first_byte_us: from creation to the backend's first byte.
        closing_us: from the first FIN or RST to the end.
        client: `ip:port`, if the event's format has it.
        vip: the address that the client connected to, likewise.
    """

    type: str
    target: str
    timestamp_ns: int
    created_ns: int = 0
    reason: str = "unknown"
    protocol: int = 6
    probe: bool = False
    proxy_id: int = 0
    backend_id: int = 0
    connect_us: float | None = None
    first_byte_us: float | None = None
    closing_us: float | None = None
    client: str | None = None
    vip: str | None = None

    def pack(self) -> bytes:
        """The 56 bytes that a producer sends; they have no place for `client` and `vip`.

        Short times are packed as `lbl_span_us()` packs them: 0 becomes 1, and a time that is too
        long becomes the longest.

        Raises:
            ValueError: the format cannot hold the value of a field.
        """
        if self.type not in _TYPE_NUMBERS:
            raise ValueError(f"type {self.type!r} must be one of {', '.join(TYPES)}")
        if self.reason not in REASONS:
            raise ValueError(f"reason {self.reason!r} must be one of {', '.join(REASONS)}")
        address, port = parse_target(self.target)
        fields = {
            "type": _TYPE_NUMBERS[self.type],
            "reason": REASONS.index(self.reason),
            "protocol": self.protocol,
            "flags": (lib.LBL_FLAG_PROBE if self.probe else 0)
            | (0 if self.target.startswith("[") else lib.LBL_FLAG_IPV4),
            "backend_id": self.backend_id,
            "timestamp_ns": self.timestamp_ns,
            "created_ns": self.created_ns,
            "connect_us": _pack_span(self.connect_us),
            "first_byte_us": _pack_span(self.first_byte_us),
            "closing_us": _pack_span(self.closing_us),
            "port": port,
            "proxy_id": self.proxy_id,
            "addr": address,
        }
        try:
            event = ffi.new("struct lbl_event *", fields)
        except OverflowError as error:
            raise ValueError(f"a field of the event is out of range: {error}") from None
        return bytes(ffi.buffer(event))


def _pack_span(us: float | None) -> int:
    if us is None:
        return 0
    if us == NEVER:
        return int(lib.LBL_SPAN_NONE)
    if not us >= 0:
        raise ValueError(f"a short time must be None, NEVER, or 0 or more, not {us!r}")
    return int(min(max(us, 1), lib.LBL_SPAN_NONE - 1))


def _span(us: int) -> float | None:
    if us == lib.LBL_SPAN_NONE:
        return NEVER
    return us or None


def decode(seen: Any) -> Event:
    """The event in a `struct lbl_decoded_event`."""
    event = seen.event
    return Event(
        type=_TYPES[event.type],
        target=format_endpoint(event.addr, event.port),
        timestamp_ns=event.timestamp_ns,
        created_ns=event.created_ns,
        reason=REASONS[event.reason],
        protocol=event.protocol,
        probe=bool(event.flags & lib.LBL_FLAG_PROBE),
        proxy_id=event.proxy_id,
        backend_id=event.backend_id,
        connect_us=_span(event.connect_us),
        first_byte_us=_span(event.first_byte_us),
        closing_us=_span(event.closing_us),
        client=format_endpoint(seen.client_addr, seen.client_port) if seen.has_client else None,
        vip=format_endpoint(seen.vip_addr, seen.vip_port) if seen.has_client else None,
    )
