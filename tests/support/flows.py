"""The flows source with its events, and connections of hand-made frames."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lblatency.sources import Flows
from tests.support import bpf
from tests.support.bpf import VERDICT_PASS
from tests.support.netns import BACKENDS, CLIENT, Namespace
from tests.support.packets import ACK, SYN, frame, icmp
from tests.support.rig import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lblatency.stats import Event, Subscription

    Change = Callable[[bytes], bytes]

RULES = ("10.2.0.0/24:8080=web", "[fd02::]/64:8080=web6")


class Followed:
    """A source whose events are kept."""

    def __init__(self, source: Flows, events: Subscription) -> None:
        """Keep the events of a source."""
        self.source = source
        self._subscription = events
        self.events: list[Event] = []

    def poll(self) -> list[Event]:
        """All events so far."""
        self.source.stream.drain()
        while (event := self._subscription.get(timeout=0)) is not None:
            self.events.append(event)
        return self.events

    def opened(self) -> list[Event]:
        """All opened events so far."""
        return [event for event in self.poll() if event.type == "opened"]

    def closed(self, count: int = 1) -> list[Event]:
        """Wait for `count` closed events; returns all of them."""

        def found() -> list[Event] | None:
            ended = [event for event in self.poll() if event.type == "closed"]
            return ended if len(ended) >= count else None

        ended = wait_until(found, lambda: f"{count} closed events: {self.events}")
        assert len(ended) == count, [event for event in ended if event.reason != "fin"]
        return list(ended)

    def only(self) -> Event:
        """Wait for the closed event of the only connection."""
        (event,) = self.closed()
        assert len(self.opened()) == 1
        return event

    def counts(self) -> dict[str, int]:
        """The counters that are not 0."""
        status = self.source.status()
        counts = {name: status[name] for name in ("ignored", "stray")}
        counts |= {**self.source.failed_connects(), **self.source.lost()}
        return {name: count for name, count in counts.items() if count}


@functools.cache
def _quiet() -> Namespace:
    """A namespace without traffic."""
    return Namespace()


@contextmanager
def following(
    *interfaces: str, netns: Namespace | None = None, **options: Any
) -> Iterator[Followed]:
    """Open a source, by default on an interface without traffic. Every event is accounted for."""
    with (netns or _quiet()).inside():
        source = Flows(interfaces or ["lo"], **{"backends": RULES, **options})
    with source, source.stream.subscribe(maxsize=200_000) as events:
        followed = Followed(source, events)
        yield followed
        followed.poll()
        counts = source.stream.stats()
        assert counts.produced == counts.received == len(followed.events)
        assert counts.dropped == 0


def untouched(frame: bytes) -> bytes:
    """The frame as it is."""
    return frame


class Wire:
    """A connection of hand-made frames that the source's programs get one by one.

    Args:
        hooks: which programs see the client's frames, and which the backend's: 0 in, 1 out.
        change: applied to each frame before.
    """

    def __init__(
        self,
        followed: Followed,
        version: int = 4,
        *,
        port: int = 40000,
        tcp: bool = True,
        backend: tuple[str, int] | None = None,
        hooks: tuple[tuple[int, ...], tuple[int, ...]] = ((1,), (0,)),
        change: Change = untouched,
    ) -> None:
        """A connection from the client's `port` to a backend."""
        self.programs = followed.source.program_fds
        self.client = (CLIENT[version], port)
        self.backend = backend or (BACKENDS[version][0], 8080)
        self.tcp = tcp
        self.hooks = hooks
        self.change = change

    def _pass(self, sent: bytes, hooks: tuple[int, ...]) -> None:
        for hook in hooks:
            verdict, out, _ = bpf.run_on_frame(self.programs[hook], self.change(sent))
            assert (verdict, out) == (VERDICT_PASS, self.change(sent))

    def sends(self, flags: int | None = None, **rest: Any) -> None:
        """The client sends a frame; it must pass unchanged."""
        self._pass(frame(self.client, self.backend, flags=flags, **rest), self.hooks[0])

    def gets(self, flags: int | None = None, **rest: Any) -> None:
        """The backend sends a frame; it must pass unchanged."""
        self._pass(frame(self.backend, self.client, flags=flags, **rest), self.hooks[1])

    def gets_icmp(self, kind: int, code: int, *, quoting: bytes | None = None, **sent: Any) -> None:
        """A router sends an ICMP error. It quotes the first bytes of what the client has sent."""
        if quoting is None:
            whole = frame(self.client, self.backend, **{"flags": SYN, "seq": 1000, **sent})
            quoting = whole[14 : 14 + (28 if whole[12:14] == b"\x08\x00" else 48)]
        router = "10.2.0.1" if "." in self.client[0] else "fd02::1"
        self._pass(icmp(router, self.client[0], quoting, kind=kind, code=code), self.hooks[1])

    def handshake(self, isn: int = 1000, backend_isn: int = 5000) -> None:
        """Send SYN, SYN-ACK and ACK."""
        self.sends(SYN, seq=isn)
        self.gets(SYN | ACK, seq=backend_isn, ack=isn + 1)
        self.sends(ACK, seq=isn + 1, ack=backend_isn + 1)
