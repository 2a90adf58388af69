"""The base of all sources, and how a source declares its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .._closing import Closing
from .._rules import BackendRule
from ..stats import EventStream

__all__ = ["BACKEND", "KEEP_PINS", "PIN", "Option", "Source"]


@dataclass(frozen=True)
class Option:
    """What a source can be told. Front ends make flags and keys of it: `--ring`, `ring = "x"`.

    Attributes:
        name: of the flag, with `_` for `-`.
        metavar: what its value is, in a word for the help; "" for a switch, which has no value.
        help: what it is for.
        is_list: whether it may be given several times.
        if_bare: the text that the flag alone stands for; None if it needs a value.
        is_number: whether a file has a number there, not text.
        argument: the keyword argument of the constructor; "" if it is called like the option.
        parse: makes the value of the argument from text; raises `ValueError` in one line.
    """

    name: str
    metavar: str
    help: str
    is_list: bool = False
    is_number: bool = False
    if_bare: str | None = None
    argument: str = ""
    parse: Callable[[str], Any] = str

    @property
    def keyword(self) -> str:
        """The name of the constructor's argument."""
        return self.argument or self.name


BACKEND = Option(
    "backend",
    "ADDR[/LEN]:PORT[-PORT][=PROXY]",
    "take connections to these backends, and name their proxy; may be given again",
    is_list=True,
    argument="backends",
    parse=BackendRule.parse,
)
PIN = Option(
    "pin",
    "DIR",
    "a directory in a BPF file system, where connections are followed while no agent runs",
)
KEEP_PINS = Option(
    "keep_pins",
    "",
    "leave the pins there at the end, too, for the next agent; removing the directory ends them",
)


class Source(Closing):
    """Something that produces events into rings.

    A subclass is a file in this folder and a line in its `__init__.py`. Its constructor takes its
    options by keyword, and opens the stream.

    Attributes:
        options: what front ends can say. They open the source if its first option is given: once
            if that is a list or a switch, else once for each value. A first option that is a
            switch is no argument of the constructor; any other switch is one, False by default.
        capabilities: what the process must have to open the source. `lblatency check` tells.
        keeps: those of them that `tick()` needs, too; `lblatency serve` gives up the others.
        stream: pass it to `LatencyTracker.start()`, or call its `subscribe()`.
    """

    options: ClassVar[tuple[Option, ...]]
    capabilities: ClassVar[tuple[str, ...]] = ()
    keeps: ClassVar[tuple[str, ...]] = ()
    stream: EventStream

    @classmethod
    def is_named(cls, **_arguments: Any) -> bool:
        """Whether all events of a source with these arguments tell a proxy that has a name.

        If not, the front end must be told a name for the others.
        """
        return False

    @classmethod
    def try_out(cls) -> None:
        """Open and close it in a way that does no harm, or try what opening it takes.

        Raises:
            LatencyError: it would not open here.
        """

    def takes(self) -> str | None:
        """Which connections it takes, in one line for people; None if its options say it all."""
        return None

    def tick(self) -> None:
        """Do the source's regular work. Call it about once per second."""

    def trouble(self) -> str | None:
        """What kept it from its work when it was done last, in one line; None if nothing did."""
        return None

    def status(self) -> Mapping[str, Any]:
        """The state of the source for people, as names and plain values."""
        return self.stream.stats()._asdict()

    def lost(self) -> Mapping[str, int]:
        """How many events were lost before they came to the stream, by reason, since it opened.

        No count goes down. The names of all reasons are there from the start; none of them is one
        of `lblatency_events_lost_total` already.
        """
        return {}

    def failed_connects(self) -> Mapping[str, int]:
        """How many connections never came about, by cause, in the same way."""
        return {}

    def close(self) -> None:
        """Release the kernel's objects. Trackers keep the stream until they stop."""
        self.stream.close()
