"""The balancer, loaded, and an eye on its events."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from helpers import wait_until
from netns import BACKENDS, Event, Ring

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lblatency.demo.balancer import NatBalancer

RING_BYTES = 1 << 20


class Watched:
    """A balancer whose events are read and kept, and none of which may get lost unseen."""

    def __init__(self, balancer: NatBalancer, ring_bytes: int) -> None:
        """Watch a balancer with a ring of that size."""
        self.balancer = balancer
        self.ring = Ring(balancer.ring_fd, ring_bytes)
        self.events: list[Event] = []

    def poll(self) -> list[Event]:
        """All events so far."""
        self.events += self.ring.read()
        return self.events

    def opened(self) -> list[Event]:
        """All opened events so far."""
        return [event for event in self.poll() if event.type == 1]

    def closed(self, count: int = 1) -> list[Event]:
        """All closed events, as soon as there are `count`."""
        found = wait_until(
            lambda: (
                (got := [event for event in self.poll() if event.type == 2])[count - 1 :] and got
            ),
            f"{count} closed events",
        )
        assert len(found) == count
        return list(found)

    def only(self) -> Event:
        """The closed event of the only connection, once it is there."""
        (event,) = self.closed()
        assert len(self.opened()) == 1
        return event

    def balance(self) -> tuple[int, int]:
        """Events produced, and those accounted for."""
        counters = self.balancer.counters()
        pending = self.ring.pending()
        return counters["produced"], len(self.events) + counters["dropped"] + pending


@contextmanager
def watch(*, ring_bytes: int = RING_BYTES, max_connections: int = 4096) -> Iterator[Watched]:
    """Load a balancer; at the end, every event must be accounted for."""
    from lblatency.demo.balancer import NatBalancer

    with NatBalancer(ring_bytes=ring_bytes, max_connections=max_connections) as balancer:
        watched = Watched(balancer, ring_bytes)
        with closing(watched.ring):
            yield watched
            produced, accounted = watched.balance()
            assert produced == accounted


def target(version: int, which: int = 0, port: int = 8080) -> str:
    """A backend as the balancer wants it written."""
    address = BACKENDS[version][which]
    return f"[{address}]:{port}" if version == 6 else f"{address}:{port}"
