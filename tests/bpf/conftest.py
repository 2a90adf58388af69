"""Where BPF tests may run, and the balancer that most of them use."""

from __future__ import annotations

import ctypes
import os
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from netns import BACKENDS, VIP, Event, Ring, Topology, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lblatency.demo.balancer import NatBalancer

REQUIRE = os.environ.get("LBLATENCY_REQUIRE_BPF") == "1"
RING_BYTES = 1 << 20


def _why_not() -> str | None:
    """Say why the kernel would refuse, or None."""
    if os.geteuid():
        return "needs root"
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        return "the kernel has no BTF"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run, unless it has to."""
    reason = _why_not()
    if reason and not REQUIRE:
        for item in items:
            if item.get_closest_marker("bpf"):
                item.add_marker(pytest.mark.skip(reason=reason))


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


@pytest.fixture(scope="session")
def topology() -> Iterator[Topology]:
    """Namespaces for a client, a balancer and backends."""
    with Topology() as made:
        yield made


@pytest.fixture
def unattached() -> Iterator[Watched]:
    """A balancer for packets made by hand: TCP and UDP port 80, one backend."""
    with watch() as watched:
        for version in (4, 6):
            for protocol in ("tcp", "udp"):
                watched.balancer.add_listener(
                    version, VIP[version], 80, protocol, [(version, target(version), 1)]
                )
        yield watched


@pytest.fixture
def attached(topology: Topology, unattached: Watched) -> Watched:
    """The same, facing the client."""
    unattached.balancer.attach("c1", topology.balancer.fd)
    return unattached


@pytest.fixture
def bpffs() -> Iterator[tuple[int, str]]:
    """A BPF file system mounted nowhere: a descriptor of it, and the path that this gives."""
    libc = ctypes.CDLL(None, use_errno=True)
    context = libc.syscall(430, b"bpf", 1)  # fsopen, close-on-exec
    assert context >= 0, os.strerror(ctypes.get_errno())
    try:
        assert libc.syscall(431, context, 6, None, None, 0) == 0, "fsconfig(CREATE)"
        mounted = libc.syscall(432, context, 1, 0)  # fsmount, close-on-exec
        assert mounted >= 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(context)
    yield mounted, f"/proc/self/fd/{mounted}"
    os.close(mounted)
