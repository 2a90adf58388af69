"""When the kernel of a client saw the packets of its connections, which does not wait for Python.

A process learns of a packet when it is scheduled, on a busy machine milliseconds later. Its network
stack notes the time as it takes the packet in, and tells it on request.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable

__all__ = ["handshake_s", "receive", "stamp_arrivals", "stamp_of"]

_SO_TIMESTAMPNS = 35  # not named by Python 3.11; also the type of the control message
_TIMESPEC = struct.Struct("@ll")
_ROOM = socket.CMSG_SPACE(_TIMESPEC.size)
_RTT_AT = 68  # tcpi_rtt of struct tcp_info
_RTT = struct.Struct("=I")


def stamp_arrivals(connection: socket.socket) -> None:
    """Have the kernel stamp what the socket receives.

    Stamping goes on in the whole host while any socket asks for it, and begins a moment after the
    first one has.
    """
    connection.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def stamp_of(messages: Iterable[tuple[int, int, bytes]]) -> int:
    """When something arrived, by its control messages, in the nanoseconds of `time.time_ns()`.

    What the kernel did not stamp has arrived now.
    """
    for level, kind, stamp in messages:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, ns = _TIMESPEC.unpack(stamp)
            return int(seconds * 10**9 + ns)
    return time.time_ns()


def receive(connection: socket.socket) -> tuple[bytes, int]:
    """What has arrived, and when, as `stamp_of()` tells it; raises as recv() does."""
    received, messages, _, _ = connection.recvmsg(64, _ROOM)
    return received, stamp_of(messages)


def handshake_s(connection: socket.socket) -> float:
    """From SYN to SYN-ACK, seconds, of a connected socket that has sent nothing yet.

    This is TCP's own first round trip time, in whole microseconds.
    """
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT_AT + _RTT.size)
    (microseconds,) = _RTT.unpack_from(info, _RTT_AT)
    return float(microseconds) / 1e6
