"""A simulated producer: the same backends, with times drawn at random and no network at all."""

from __future__ import annotations

import heapq
import random
import time
from dataclasses import dataclass, field
from typing import Any

from ..event import Event
from ..stats import MemoryRing, create_event_stream
from .compare import exactly
from .plan import CONNECTIONS_PER_SECOND, PROXIES, Backend, backends_of
from .source import TrafficSource, Truth

__all__ = ["SimulatedSource"]

_RING_BYTES = 1 << 20
_CONNECT_S = (0.00003, 0.0003, 0.00006)  # least, most, most likely


@dataclass(order=True, frozen=True)
class _Connection:
    """A connection, ordered by its end."""

    closed_ns: int
    created_ns: int
    backend: Backend = field(compare=False)
    connect_s: float = field(compare=False)
    first_byte_s: float = field(compare=False)
    resets: bool = field(compare=False)


class SimulatedSource(TrafficSource):
    """Writes events into a ring in memory as time goes by, and remembers every time it drew."""

    name = "simulated"

    def __init__(self, duration: float) -> None:
        self._ring = MemoryRing(_RING_BYTES)
        self.stream = create_event_stream(self._ring)
        self.stream.proxies = {proxy.number: proxy.name for proxy in PROXIES}
        self._duration_ns = int(duration * 1e9)
        self._next_ns = self._stop_ns = 0
        self._open: list[_Connection] = []
        self._truth = Truth()

    def start(self) -> None:
        """Draw connections from now on."""
        self._next_ns = time.monotonic_ns()
        self._stop_ns = self._next_ns + self._duration_ns

    def tick(self) -> None:
        """Produce the events that are due by now, in the order of their times."""
        now = time.monotonic_ns()
        while self._next_ns <= min(now, self._stop_ns):
            self._close_due(self._next_ns)
            self._open_one(self._next_ns)
            self._next_ns += int(random.expovariate(CONNECTIONS_PER_SECOND) * 1e9)
        self._close_due(now)

    def _open_one(self, created_ns: int) -> None:
        (proxy,) = random.choices(PROXIES, [proxy.share for proxy in PROXIES])
        candidates = backends_of(proxy)
        (backend,) = random.choices(candidates, [backend.weight for backend in candidates])
        connect_s = random.triangular(*_CONNECT_S)
        service = backend.draw()
        opened = _Connection(
            closed_ns=created_ns + int((connect_s + service.end_s) * 1e9),
            created_ns=created_ns,
            backend=backend,
            connect_s=connect_s,
            first_byte_s=connect_s + service.answer_s,
            resets=service.resets,
        )
        heapq.heappush(self._open, opened)
        self._produce("opened", opened, timestamp_ns=created_ns)

    def _close_due(self, now: int) -> None:
        while self._open and self._open[0].closed_ns <= now:
            ended = heapq.heappop(self._open)
            self._produce(
                "closed",
                ended,
                timestamp_ns=ended.closed_ns,
                reason="rst" if ended.resets else "fin",
                connect_us=ended.connect_s * 1e6,
                first_byte_us=ended.first_byte_s * 1e6,
            )
            self._truth.add(
                ended.backend,
                lifetime=exactly((ended.closed_ns - ended.created_ns) / 1e9),
                connect=exactly(ended.connect_s),
                first_byte=exactly(ended.first_byte_s),
                resets=ended.resets,
            )

    def _produce(self, kind: str, connection: _Connection, **rest: Any) -> None:
        backend = connection.backend
        event = Event(
            type=kind,
            target=backend.target,
            created_ns=connection.created_ns,
            proxy_id=backend.proxy.number,
            backend_id=backend.number,
            **rest,
        )
        self._ring.produce(event.pack())

    def finish(self) -> None:
        """Draw no more connections."""
        self._stop_ns = 0

    def finished(self) -> bool:
        """Whether the time is up and every connection has ended."""
        return time.monotonic_ns() > self._stop_ns and not self._open

    def truth(self) -> Truth:
        """Every time as it was drawn."""
        return self._truth
