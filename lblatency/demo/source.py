"""Where the demo's events come from, and what it knows about the truth behind them."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from ..sources import Source
from .compare import METRICS, BackendKey, Range
from .plan import Backend

__all__ = ["TrafficSource", "Truth"]


@dataclass
class Truth:
    """What lblatency did not measure: latencies, resets, and how many connections failed."""

    latencies: dict[str, defaultdict[BackendKey, list[Range]]] = field(
        default_factory=lambda: {metric: defaultdict(list) for metric in METRICS}
    )
    resets: Counter[BackendKey] = field(default_factory=Counter)
    lost: int = 0

    def add(
        self, backend: Backend, *, lifetime: Range, connect: Range, first_byte: Range, resets: bool
    ) -> None:
        """Add a connection that ended as it should."""
        key = (backend.proxy.name, backend.target)
        self.latencies["lifetime"][key].append(lifetime)
        self.latencies["connect"][key].append(connect)
        self.latencies["first_byte"][key].append(first_byte)
        self.resets[key] += resets

    def connections(self, backend: BackendKey) -> int:
        """How many of a backend ended as they should."""
        return len(self.latencies["lifetime"][backend])

    @property
    def all_connections(self) -> int:
        """How many ended as they should."""
        return sum(map(len, self.latencies["lifetime"].values()))


class TrafficSource(Source):
    """A source that makes its connections itself: real ones, or simulated ones."""

    name: str

    @abstractmethod
    def start(self) -> None:
        """Open connections from now on."""

    @abstractmethod
    def finish(self) -> None:
        """Open no more connections."""

    @abstractmethod
    def finished(self) -> bool:
        """Whether all connections have ended."""

    @abstractmethod
    def truth(self) -> Truth:
        """What the measured values are to be compared with, once finished."""
