"""What a source is, and how it says what it can be opened with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .._closing import Closing
from ..stats import EventStream

__all__ = ["Option", "Source"]


@dataclass(frozen=True)
class Option:
    """An argument of a source, from which every front end makes its own: `--ring` is `ring=`.

    Attributes:
        name: the keyword argument of the source.
        metavar: what its value is, in a word for the help.
        help: what it is for.
        is_list: whether it may be given several times.
    """

    name: str
    metavar: str
    help: str
    is_list: bool = False


class Source(Closing):
    """Something that produces events into a ring, and what has to be done for it meanwhile.

    A subclass is a file of this folder and a line in its `__init__.py`. Its constructor takes its
    options by keyword, and opens the stream.

    Attributes:
        options: of the constructor; whoever gives the first one wants this source.
        stream: for `LatencyTracker.start()` and for `subscribe()`.
    """

    options: ClassVar[tuple[Option, ...]]
    stream: EventStream

    def tick(self) -> None:
        """Do what has to be done now and then; to be called about once per second."""

    def status(self) -> Mapping[str, Any]:
        """How it goes, for people: names to plain values."""
        return self.stream.stats()._asdict()

    def close(self) -> None:
        """Let go of the kernel's objects. Trackers keep the stream until they stop."""
        self.stream.close()
