"""The balancer that most BPF tests use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support import bpf
from tests.support.balancer import Watched, target, watch
from tests.support.clang import compiled
from tests.support.filler import Filler
from tests.support.netns import VIP, Topology
from tests.support.per_cpu import PerCpu

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def topology() -> Iterator[Topology]:
    """Namespaces for a client, a balancer and backends."""
    with Topology() as made:
        yield made


@pytest.fixture
def unattached() -> Iterator[Watched]:
    """A balancer for hand-made packets: TCP and UDP port 80, one backend."""
    with watch() as watched:
        for version in (4, 6):
            for protocol in ("tcp", "udp"):
                watched.balancer.add_listener(
                    version, VIP[version], 80, protocol, [(version, target(version), 1)]
                )
        yield watched


@pytest.fixture
def attached(topology: Topology, unattached: Watched) -> Watched:
    """The same balancer, attached to the interface that faces the client."""
    unattached.balancer.attach("c1", topology.balancer.fd)
    return unattached


@pytest.fixture
def bpffs() -> Iterator[bpf.Bpffs]:
    """A BPF file system without a mount point."""
    with bpf.mounted_bpffs() as mounted:
        yield mounted


@pytest.fixture(scope="session")
def filler_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object file of filler.bpf.c."""
    return compiled("filler", tmp_path_factory.mktemp("filler"))


@pytest.fixture
def filler(filler_object: Path, bpffs: bpf.Bpffs) -> Iterator[Filler]:
    """The program, loaded again, with empty rings."""
    made = Filler.load(filler_object, bpffs)
    yield made
    made.close()


@pytest.fixture(scope="session")
def producers_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object file of producers.bpf.c, with a ring per CPU."""
    return compiled("producers", tmp_path_factory.mktemp("producers"), "-DLBL_RINGS=2")


@pytest.fixture
def per_cpu(producers_object: Path, bpffs: bpf.Bpffs) -> Iterator[PerCpu]:
    """The program, loaded again, with empty rings."""
    if len(os.sched_getaffinity(0) & {0, 1}) < 2:
        pytest.skip("needs CPUs 0 and 1")
    made = PerCpu.load(producers_object, bpffs)
    yield made
    made.close()
