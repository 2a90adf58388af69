"""The base of all sources, and how a source declares its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .._closing import Closing
from ..stats import EventStream

__all__ = ["Option", "Source"]


@dataclass(frozen=True)
class Option:
    """A keyword argument of a source. Front ends make their own from it: `--ring` is `ring=`.

    Attributes:
        name: of the keyword argument.
        metavar: what its value is, in a word for the help.
        help: what it is for.
        is_list: whether it may be given several times.
    """

    name: str
    metavar: str
    help: str
    is_list: bool = False


class Source(Closing):
    """Something that produces events into rings.

    A subclass is a file in this folder and a line in its `__init__.py`. Its constructor takes its
    options by keyword, and opens the stream.

    Attributes:
        options: of the constructor. A front end opens the source if its first option is given.
        capabilities: what the process must have to open the source. `lblatency check` tells.
        stream: pass it to `LatencyTracker.start()`, or call its `subscribe()`.
    """

    options: ClassVar[tuple[Option, ...]]
    capabilities: ClassVar[tuple[str, ...]] = ()
    stream: EventStream

    def tick(self) -> None:
        """Do the source's regular work. Call it about once per second."""

    def status(self) -> Mapping[str, Any]:
        """The state of the source for people, as names and plain values."""
        return self.stream.stats()._asdict()

    def lost(self) -> Mapping[str, int]:
        """How many events were lost before they came to the stream, by reason, since it opened.

        No count goes down. The names of all reasons are there from the start.
        """
        return {}

    def failed_connects(self) -> Mapping[str, int]:
        """How many connections never came about, by cause, in the same way."""
        return {}

    def close(self) -> None:
        """Release the kernel's objects. Trackers keep the stream until they stop."""
        self.stream.close()
