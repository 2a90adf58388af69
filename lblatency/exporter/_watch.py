"""Deadlines of connections: for a request's head, and for what is written to be taken."""

from __future__ import annotations

import array
import fcntl
import struct
import termios
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    import socket

__all__ = ["HEAD_S", "WRITE_S", "Watch", "cut"]

HEAD_S = 30.0
WRITE_S = 10.0


def cut(transport: asyncio.Transport) -> None:
    """End a connection, and let the kernel forget what it still has for the client."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Watch:
    """Looks at a connection about once per second, and says when it must end.

    Args:
        now: the loop's time.
        head_s: how long the first request's head may take; from then on aiohttp limits idleness.
    """

    def __init__(self, now: float, head_s: float) -> None:
        self.has_begun = False  # a request has come
        self._head_until = now + head_s
        self._pending = (0, 0)
        self._pending_since = now

    def is_overdue(self, now: float, transport: asyncio.Transport) -> bool:
        """Whether it waits in vain for a head, or for the client to take what was written."""
        if not self.has_begun and now >= self._head_until:
            return True
        pending = (transport.get_write_buffer_size(), _unacknowledged(transport))
        if pending != self._pending or not any(pending):
            self._pending, self._pending_since = pending, now
        return now >= self._pending_since + WRITE_S


def _unacknowledged(transport: asyncio.Transport) -> int:
    """How many bytes the kernel has for the client."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    found = array.array("i", [0])
    try:
        if sock is not None:
            fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, found)
    except (OSError, ValueError):  # it is being closed
        return 0
    return found[0]
