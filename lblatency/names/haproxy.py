"""The servers of HAProxy, by its stats socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress

from .._address import split_endpoint
from ..errors import LatencyError
from ._bounded import ask
from .base import Reader, Row, printable

__all__ = ["HAProxy"]

_COMMAND = b"show servers state\n"
_COLUMNS = ("be_name", "srv_name", "srv_addr", "srv_port")


class HAProxy(Reader):
    """`show servers state` of a stats socket: what is true now, also after DNS or `set server`.

    Args:
        place: the path of the socket, or its `ip:port`.
    """

    option = "haproxy"
    metavar = "SOCKET"
    help = "HAProxy's stats socket, by its path or ip:port"

    def __init__(self, place: str) -> None:
        self.place = place

    def read(self, deadline: float) -> Iterator[Row]:
        """All servers that have an address."""
        with self._connected(deadline) as connected:
            answer = ask(connected, _COMMAND, deadline)
        return self._rows(answer.decode(errors="replace"))

    def _connected(self, deadline: float) -> socket.socket:
        is_path = "/" in self.place
        connected = socket.socket(socket.AF_UNIX) if is_path else None
        timeout = max(0.001, deadline - time.monotonic())
        try:
            if connected is None:
                return socket.create_connection(split_endpoint(self.place), timeout)
            connected.settimeout(timeout)
            connected.connect(self.place)
        except OSError as error:
            if connected is not None:
                connected.close()
            raise LatencyError(f"no HAProxy answers there: {error.strerror or error}") from None
        return connected

    def _rows(self, answer: str) -> Iterator[Row]:
        lines = answer.splitlines()
        header = lines[1].split()[1:] if len(lines) > 1 and lines[1].startswith("# ") else []
        if not set(_COLUMNS) <= set(header):
            said = printable(lines[0]) if lines else "nothing"
            raise LatencyError(
                f"it answers {said!r} and not the state of its servers; give it `level operator`"
            )
        columns = [header.index(name) for name in _COLUMNS]
        for line in lines[2:]:
            fields = line.split(" ")
            # A server without an address yet has `-`; one behind a Unix socket, too.
            with suppress(ValueError, IndexError):
                backend, server, ip, port = (fields[column] for column in columns)
                yield Row.of(ip, int(port), backend, server)
