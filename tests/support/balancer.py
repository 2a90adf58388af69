"""The loaded balancer with its events, and connections of hand-made frames."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from lblatency.demo.balancer import NatBalancer
from tests.support import bpf
from tests.support.netns import BACKENDS, CLIENT, VIP
from tests.support.packets import ACK, SYN, frame, target_of
from tests.support.rig import wait_until
from tests.support.ring import Event, Ring

if TYPE_CHECKING:
    from collections.abc import Iterator

RING_BYTES = 1 << 20


class Watched:
    """A balancer whose events are read and kept."""

    def __init__(self, balancer: NatBalancer, ring_bytes: int) -> None:
        """Watch a balancer with a ring of this size."""
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
        """Wait for `count` closed events; returns all closed events."""
        found = wait_until(
            lambda: (
                (got := [event for event in self.poll() if event.type == 2])[count - 1 :] and got
            ),
            f"{count} closed events",
        )
        assert len(found) == count
        return list(found)

    def only(self) -> Event:
        """Wait for the closed event of the only connection."""
        (event,) = self.closed()
        assert len(self.opened()) == 1
        return event

    def entries(self) -> dict[bytes, bytes]:
        """The conntrack map's contents."""
        return bpf.entries(self.balancer.conntrack_fd, 40, 128)

    def balance(self) -> tuple[int, int]:
        """How many events were produced, and how many are accounted for."""
        counters = self.balancer.counters()
        pending = self.ring.pending()
        return counters["produced"], len(self.events) + counters["dropped"] + pending


@contextmanager
def watch(*, ring_bytes: int = RING_BYTES, max_connections: int = 4096) -> Iterator[Watched]:
    """Load a balancer; at the end, every event must be accounted for."""
    with NatBalancer(ring_bytes=ring_bytes, max_connections=max_connections) as balancer:
        watched = Watched(balancer, ring_bytes)
        with closing(watched.ring):
            yield watched
            produced, accounted = watched.balance()
            assert produced == accounted


def target(version: int, which: int = 0, port: int = 8080) -> str:
    """A backend in the form that the balancer takes."""
    address = BACKENDS[version][which]
    return f"[{address}]:{port}" if version == 6 else f"{address}:{port}"


class Flow:
    """A connection of hand-made frames that the balancer's programs get one by one."""

    def __init__(
        self, balancer: NatBalancer, version: int = 4, *, port: int = 40000, tcp: bool = True
    ) -> None:
        """A connection from the client's `port` to port 80 of the VIP."""
        self.ingress, self.egress = balancer.ingress_fd, balancer.egress_fd
        self.client = (CLIENT[version], port)
        self.vip = (VIP[version], 80)
        self.tcp = tcp
        self.backend = ("", 0)

    def sends(self, flags: int | None = None, **rest: Any) -> int:
        """The client sends a frame. Check every byte of the result; returns the verdict."""
        sent = frame(self.client, self.vip, flags=flags, **rest)
        verdict, out, _ = bpf.run_on_frame(self.ingress, sent)
        if out != sent:
            self.backend = target_of(out)
            assert out == frame(self.client, self.backend, flags=flags, **rest)
        return verdict

    def gets(self, flags: int | None = None, **rest: Any) -> int:
        """The backend sends a frame. Check every byte of the result; returns the verdict."""
        sent = frame(self.backend, self.client, flags=flags, **rest)
        verdict, out, _ = bpf.run_on_frame(self.egress, sent)
        if out != sent:
            assert out == frame(self.vip, self.client, flags=flags, **rest)
        return verdict

    def handshake(self, isn: int = 1000, backend_isn: int = 5000) -> None:
        """Send SYN, SYN-ACK and ACK."""
        self.sends(SYN, seq=isn)
        self.gets(SYN | ACK, seq=backend_isn, ack=isn + 1)
        self.sends(ACK, seq=isn + 1, ack=backend_isn + 1)


def established(watched: Watched, version: int = 4) -> Flow:
    """A flow whose handshake is complete: ISNs 1000 and 5000."""
    flow = Flow(watched.balancer, version)
    flow.handshake()
    return flow
