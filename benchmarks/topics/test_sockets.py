"""What the socket source adds to a connection, and to everybody else's."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from statistics import median

import pytest

from ..contenders import sockets
from ..harness import interleave, same
from ..replay import Publish
from ..rings import Ring

WITHOUT, TAKEN, OTHER = "no source", "taken by the source", "left alone by the source"


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> None:
    if not Ring().in_kernel:
        pytest.skip("left out: needs BPF")


@pytest.fixture(scope="module")
def loopback(smoke: bool, rounds: int) -> Mapping[str, list[float]]:
    """Ns per loopback connection."""
    with sockets.loopback(200 if smoke else 3_000) as (connections, comm):
        names = {WITHOUT: None, TAKEN: comm, OTHER: "nobody"}
        return interleave(
            {case: same(partial(connections.ns, name)) for case, name in names.items()}, rounds
        )


@pytest.mark.parametrize("name", [WITHOUT, TAKEN, OTHER])
def test_loopback(name: str, loopback: Mapping[str, list[float]], publish: Publish) -> None:
    """Connect, a byte each way, and a reset, within one process."""
    own = median(loopback[name]) - median(loopback[WITHOUT])
    publish("sockets", "loopback connection", name, loopback, own_ns=own)


@pytest.fixture(scope="module")
def proxied(smoke: bool, rounds: int) -> Mapping[str, list[float]]:
    """Ns per connection through HAProxy."""
    if not shutil.which("haproxy"):
        pytest.skip("left out: needs haproxy")
    with sockets.proxied(200 if smoke else 2_000) as connections:
        cases = {WITHOUT: False, TAKEN: True}
        return interleave(
            {
                case: same(partial(connections.ns, with_source))
                for case, with_source in cases.items()
            },
            rounds,
        )


@pytest.mark.parametrize("name", [WITHOUT, TAKEN])
def test_haproxy(name: str, proxied: Mapping[str, list[float]], publish: Publish) -> None:
    """The same through HAProxy, which opens a connection for each."""
    own = median(proxied[name]) - median(proxied[WITHOUT])
    publish("sockets", "connection through HAProxy", name, proxied, own_ns=own)


@pytest.fixture(scope="module")
def hits(smoke: bool) -> Mapping[str, Mapping[str, list[float]]]:
    """Ns per run of each program, for connections that are taken and others."""
    with sockets.loopback(200 if smoke else 5_000) as (connections, comm):
        found = {TAKEN: connections.ns_per_hit(comm), OTHER: connections.ns_per_hit("nobody")}
    return {
        case: {name: [ns] for name, ns in by_program.items()} for case, by_program in found.items()
    }


@pytest.mark.parametrize("program", sockets.PROGRAMS)
@pytest.mark.parametrize("case", [TAKEN, OTHER])
def test_hit(
    case: str, program: str, hits: Mapping[str, Mapping[str, list[float]]], publish: Publish
) -> None:
    """A run of a program, by the kernel's statistics, which cost some 30 ns of it."""
    publish("sockets", f"hit of a connection {case}", program, hits[case])
