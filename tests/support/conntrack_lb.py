"""A stand-in for the documented balancer: a conntrack map, and no events.

Each packet overwrites the creation time in the value of the CPU that handles it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.support.conntrack import Table

BACKEND = "10.0.0.1"


class Lived(NamedTuple):
    """A connection that has ended: when its first packet came, and its last one, in ns."""

    began_ns: tuple[int, int]  # at the earliest, at the latest
    ended_ns: tuple[int, int]

    @property
    def most_ns(self) -> int:
        """The longest lifetime that it may have had."""
        return self.ended_ns[1] - self.began_ns[0]

    @property
    def least_ns(self) -> int:
        """The shortest one."""
        return self.ended_ns[0] - self.began_ns[1]


class Balancer:
    """Connections by number, each at a backend port of its own, so that events tell them apart."""

    def __init__(self, table: Table, *, moves: bool = True) -> None:
        self.table, self.moves = table, moves
        self.cpus = table.cpus if table.per_cpu else 1
        self._open: dict[int, tuple[tuple[int, int], list[list[int]]]] = {}

    def packet(self, port: int) -> None:
        """A client's packet; the first one begins the connection."""
        before = time.monotonic_ns()
        is_new = port not in self._open
        _, rows = self._open.setdefault(port, ((0, 0), [[0] * 6 for _ in range(self.cpus)]))
        count = sum(row[2] for row in rows)
        row = rows[count % self.cpus]
        if self.moves or is_new:
            row[0] = before
        row[1] = before
        row[2] += 1
        row[4] += 100
        self.table.put(self._client(port), (BACKEND, port), per_cpu=[tuple(row) for row in rows])
        if is_new:
            self._open[port] = (before, time.monotonic_ns()), rows

    def end(self, port: int) -> Lived:
        """The connection ends, and its entry is deleted at once."""
        began, _ = self._open.pop(port)
        before = time.monotonic_ns()
        self.table.delete(self._client(port), (BACKEND, port))
        return Lived(began, (before, time.monotonic_ns()))

    @staticmethod
    def _client(port: int) -> tuple[str, int]:
        return ("192.0.2.7", port)
