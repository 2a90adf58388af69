"""A source in memory, and the command line with it (`python -m` this module)."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lblatency import sources, stats
from lblatency._rules import BackendRule, NameRule
from lblatency.errors import NotPinnedError

__all__ = ["Fake", "closed"]

TARGET = "10.0.0.1:80"


def closed(target: str = TARGET, lifetime_ns: int = 10**9, **fields: Any) -> bytes:
    """A connection that ended just now."""
    now = time.monotonic_ns()
    return stats.Event("closed", target, now, now - lifetime_ns, **fields).pack()


class Fake(sources.Source):
    """Opens a ring in memory for each name. `away` is not pinned yet, `broken` never opens."""

    options = (
        sources.Option("fake", "NAME", "a name; `away` and `broken` do not open"),
        sources.Option("count", "N", "events to begin with", is_number=True, parse=int),
        sources.BACKEND,
        sources.Option(
            "comm", "NAME[=PROXY]", "a rule", is_list=True, argument="comms", parse=NameRule.parse
        ),
    )
    opened: ClassVar[list[Fake]] = []
    away: ClassVar[set[str]] = {"away"}

    def __init__(
        self,
        fake: str,
        *,
        count: int = 0,
        backends: Sequence[BackendRule] = (),
        comms: Sequence[NameRule] = (),
    ) -> None:
        if fake in self.away:
            raise NotPinnedError(f"no BPF map is pinned at {fake}")
        if fake == "broken":
            raise ValueError("it is broken; repair it")
        self.fake, self.backends, self.comms = fake, backends, comms
        self.is_open = True
        self.ticks = 0
        self.wrong: str | None = None
        self.counts = Counter(lost=0, failed=0)
        self.ring = stats.MemoryRing(1 << 20)
        self.stream = stats.create_event_stream(self.ring)
        rules: list[BackendRule | NameRule] = [*backends, *comms]
        names = [rule.proxy for rule in rules if rule.proxy]
        self.stream.proxies = dict(enumerate(names, 1))
        for number in range(count):
            assert self.ring.produce(closed(f"10.0.0.{number % 200 + 1}:80"))
        self.opened.append(self)

    @classmethod
    def is_named(cls, *, comms: Sequence[NameRule] = (), **_rest: Any) -> bool:
        """Named by its processes."""
        return bool(comms) and all(rule.proxy for rule in comms)

    def tick(self) -> None:
        """Count."""
        self.ticks += 1

    def trouble(self) -> str | None:
        """What a test says."""
        return self.wrong

    def lost(self) -> Mapping[str, int]:
        """What a test says."""
        assert self.is_open
        return {"fake_full": self.counts["lost"]}

    def failed_connects(self) -> Mapping[str, int]:
        """What a test says."""
        assert self.is_open
        return {"refused": self.counts["failed"]}

    def close(self) -> None:
        """Note it."""
        self.is_open = False
        super().close()


if __name__ == "__main__":
    from lblatency import __main__
    from lblatency.commands import _sources

    setattr(_sources, "SOURCES", (Fake,))  # noqa: B010  # it is not the module's to give
    sys.exit(__main__.main())
