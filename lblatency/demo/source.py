"""Where the demo's events come from, and what it knows about the truth behind them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Protocol

from ..stats import EventStream
from .compare import BackendKey

__all__ = ["Source", "Truth"]


@dataclass
class Truth:
    """Lifetimes that were not measured by lblatency, in seconds, and connections that failed."""

    seconds: defaultdict[BackendKey, list[float]] = field(default_factory=lambda: defaultdict(list))
    lost: int = 0

    @property
    def connections(self) -> int:
        """How many connections ended as they should."""
        return sum(map(len, self.seconds.values()))


class Source(Protocol):
    """Connections through a load balancer: real ones, or simulated ones."""

    name: str
    stream: EventStream

    def start(self) -> None:
        """Open connections from now on."""

    def tick(self) -> None:
        """Do what has to be done now and then."""

    def finish(self) -> None:
        """Open no more connections."""

    def finished(self) -> bool:
        """Whether all connections have ended."""

    def truth(self) -> Truth:
        """What the measured values are to be compared with, once finished."""

    def close(self) -> None:
        """Take everything down."""
