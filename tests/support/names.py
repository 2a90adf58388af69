"""What the tests of servers' names share."""

from __future__ import annotations

import time

from lblatency.names import Row

ESCAPES = "\x1b[2Ja\x07\r\x9b31m\u202eb\x00"


def soon(seconds: float = 5) -> float:
    """A deadline."""
    return time.monotonic() + seconds


def row(name: str, ip: str = "10.0.0.1", port: int = 80, source: str | None = None) -> Row:
    """A row of the server `backend/server`."""
    backend, _, server = name.partition("/")
    return Row.of(ip, port, backend, server, source)
