"""The time that the BPF side adds to a packet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from statistics import median

import pytest

from tests.support.netns import Topology

from ..contenders import balancer
from ..harness import PRODUCER, interleave, pin, same
from ..replay import Publish
from ..rings import Ring, lib

REPEAT = 4_000
EMPTY = "the same program without the call"
CLOSED = "lbl_conn_closed()"
STAMPED = "lbl_conn_closed(), the time being known"
PROGRAMS = {
    EMPTY: lib.BENCH_PACKET,
    CLOSED: lib.BENCH_PACKET_CLOSED,
    STAMPED: lib.BENCH_PACKET_CLOSED_STAMPED,
}


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> None:
    if not Ring().in_kernel:
        pytest.skip("left out: needs BPF")
    pin(PRODUCER)


def _run(ring: Ring, program: int) -> float:
    ns = lib.bench_packet(ring.ptr, program, REPEAT)
    lib.bench_ring_read(ring.ptr)
    return float(ns)


@pytest.fixture(scope="module")
def producing(rounds: int) -> Mapping[str, list[float]]:
    """Ns per packet, from the kernel's own loop around the program."""
    ring = Ring(16 << 20)
    return interleave(
        {name: same(partial(_run, ring, program)) for name, program in PROGRAMS.items()}, rounds
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_producer(name: str, producing: Mapping[str, list[float]], publish: Publish) -> None:
    """A TC program that reports a connection for every packet."""
    own = median(producing[name]) - median(producing[EMPTY])
    publish("kernel", "TC program", name, producing, own_ns=own)


# ---- the balancer ----


@pytest.fixture(scope="module")
def hot(smoke: bool) -> Mapping[str, float]:
    """Ns per packet, by flow and direction; "empty" is a program that does nothing."""
    found = {"empty": balancer.empty_ns()}
    for flow, which in balancer.CONNECTIONS.items():
        if smoke and flow != "TCP, IPv4":
            continue
        for way, ns in zip(balancer.WAYS, balancer.hot(*which), strict=True):
            found[f"{flow}, {way}"] = ns
    return found


@pytest.mark.parametrize("way", balancer.WAYS)
@pytest.mark.parametrize("flow", balancer.CONNECTIONS)
def test_balancer_hot(flow: str, way: str, hot: Mapping[str, float], publish: Publish) -> None:
    """The same packet of an established flow, repeated, with warm caches."""
    name = f"{flow}, {way}"
    if name not in hot:
        pytest.skip("one flow is enough for a smoke test")
    samples = {each: [ns] for each, ns in hot.items()}
    publish("nat_lb", "hot", name, samples, own_ns=hot[name] - hot["empty"])


@pytest.fixture(scope="module")
def live(smoke: bool) -> Iterator[Mapping[str, float]]:
    """Ns per packet of real traffic, from bpf_stats, less the cost of bpf_stats."""
    if smoke:
        pytest.skip("real traffic takes too long for a smoke test")
    with Topology() as topology:
        yield {
            f"{load}, {way}": ns
            for load, run in balancer.LOADS.items()
            for way, ns in zip(balancer.WAYS, balancer.live(topology, 4, run), strict=True)
        }


@pytest.mark.parametrize("way", balancer.WAYS)
@pytest.mark.parametrize("load", balancer.LOADS)
def test_balancer_live(load: str, way: str, live: Mapping[str, float], publish: Publish) -> None:
    """Real packets between namespaces; the rest of the kernel runs between them."""
    name = f"{load}, {way}"
    if not live[name]:
        pytest.skip("nothing goes that way")
    samples = {each: [ns] for each, ns in live.items() if ns}
    publish("nat_lb", "live, TCP or UDP, IPv4", name, samples, own_ns=live[name])
