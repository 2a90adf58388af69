"""The balancer that most BPF tests use."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

import pytest
from netns import VIP, Topology
from watched import Watched, target, watch

if TYPE_CHECKING:
    from collections.abc import Iterator


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
