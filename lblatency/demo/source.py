"""Where the demo's events come from, and what it knows about the truth behind them."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from dataclasses import dataclass, field
from typing import ClassVar

from ..sources import Source
from .compare import BackendKey

__all__ = ["TrafficSource", "Truth"]


@dataclass
class Truth:
    """Lifetimes that were not measured by lblatency, in seconds, and connections that failed."""

    seconds: defaultdict[BackendKey, list[float]] = field(default_factory=lambda: defaultdict(list))
    lost: int = 0

    @property
    def connections(self) -> int:
        """How many connections ended as they should."""
        return sum(map(len, self.seconds.values()))


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
