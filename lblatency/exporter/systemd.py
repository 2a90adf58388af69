"""What systemd and its services tell each other: sockets that are passed, and how far we are."""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing, suppress

from ..errors import LatencyError

__all__ = ["notify", "notify_reloading", "passed_sockets"]

_FIRST_FD = 3  # SD_LISTEN_FDS_START
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def passed_sockets() -> list[socket.socket]:
    """The sockets that were passed to this process; its children do not get them.

    Raises:
        LatencyError: one of them does not listen for streams.
    """
    pid, count, _ = (os.environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    return [_passed(fd) for fd in range(_FIRST_FD, _FIRST_FD + int(count))]


def _passed(fd: int) -> socket.socket:
    try:
        found = socket.socket(fileno=fd)
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        why = f"descriptor {fd} of LISTEN_FDS is no socket: {error.strerror}"
        raise LatencyError(why) from None
    if not listens:
        raise LatencyError(
            f"descriptor {fd} of LISTEN_FDS does not listen; use ListenStream= and Accept=no"
        )
    found.set_inheritable(False)
    return found


def notify(*lines: str) -> None:
    """Tell systemd, or whoever listens at NOTIFY_SOCKET; if nobody does, nothing happens."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if place[:1] not in ("/", "@"):
        return
    address = "\0" + place[1:] if place.startswith("@") else place
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock, suppress(OSError):
        sock.setblocking(False)
        sock.sendto("\n".join(lines).encode(), address)


def notify_reloading() -> None:
    """Tell that a reload began; `notify("READY=1")` ends it."""
    now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify("RELOADING=1", f"MONOTONIC_USEC={now_us}")
