"""Where the demo's events come from, and what it knows about the truth behind them."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from dataclasses import dataclass, field
from typing import ClassVar

from ..sources import Source
from .compare import METRICS, BackendKey
from .plan import Backend

__all__ = ["TrafficSource", "Truth"]


@dataclass
class Truth:
    """Latencies that were not measured by lblatency, and how many connections failed."""

    seconds: dict[str, defaultdict[BackendKey, list[float]]] = field(
        default_factory=lambda: {metric: defaultdict(list) for metric in METRICS}
    )
    lost: int = 0

    def add(self, backend: Backend, *, lifetime: float, connect: float, first_byte: float) -> None:
        """Add a connection that ended as it should; seconds."""
        key = (backend.proxy.name, backend.target)
        self.seconds["lifetime"][key].append(lifetime)
        self.seconds["connect"][key].append(connect)
        self.seconds["first_byte"][key].append(first_byte)

    @property
    def connections(self) -> int:
        """How many connections ended as they should."""
        return sum(map(len, self.seconds["lifetime"].values()))


class TrafficSource(Source):
    """A source that makes its connections itself: real ones, or simulated ones."""

    name: ClassVar[str]

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
