"""What the flows source adds to each packet that passes, and what is left of bulk throughput."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from statistics import median

import pytest

from tests.support.netns import Topology

from ..contenders import balancer, flows
from ..harness import PRODUCER, interleave, pin, same
from ..replay import Publish
from ..rings import Ring

OFF, ON = "not followed", "followed"


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> None:
    if not Ring().in_kernel:
        pytest.skip("left out: needs BPF")


@pytest.fixture(scope="module")
def hot(smoke: bool) -> Mapping[str, float]:
    """Ns per packet, by connection and direction; "empty" is a program that does nothing."""
    pin(PRODUCER)
    found = {"empty": balancer.empty_ns()}
    for name, which in balancer.CONNECTIONS.items():
        if not smoke or name == "TCP, IPv4":
            for way, ns in zip(balancer.WAYS, flows.hot(*which), strict=True):
                found[f"{name}, {way}"] = ns
    for way, ns in zip(balancer.WAYS, flows.other(4), strict=True):
        found[f"others, {way}"] = ns
    return found


@pytest.mark.parametrize("way", balancer.WAYS)
@pytest.mark.parametrize("flow", [*balancer.CONNECTIONS, "others"])
def test_hot(flow: str, way: str, hot: Mapping[str, float], publish: Publish) -> None:
    """The same packet, repeated, with warm caches."""
    name = f"{flow}, {way}"
    if name not in hot:
        pytest.skip("one flow is enough for a smoke test")
    samples = {each: [ns] for each, ns in hot.items()}
    publish("flows", "hot", name, samples, own_ns=hot[name] - hot["empty"])


@pytest.fixture(scope="module")
def live(smoke: bool) -> Mapping[str, float]:
    """Ns per packet of real traffic, from bpf_stats, less the cost of bpf_stats."""
    if smoke:
        pytest.skip("real traffic takes too long for a smoke test")
    pin(PRODUCER)
    with Topology() as topology, balancer.attached(topology, 4):
        return {
            f"{load}, {way}": ns
            for load, run in balancer.LOADS.items()
            for way, ns in zip(balancer.WAYS, flows.live(topology, run), strict=True)
        }


@pytest.mark.parametrize("way", balancer.WAYS)
@pytest.mark.parametrize("load", balancer.LOADS)
def test_live(load: str, way: str, live: Mapping[str, float], publish: Publish) -> None:
    """Real packets between namespaces; the rest of the kernel runs between them."""
    name = f"{load}, {way}"
    if not live[name]:
        pytest.skip("nothing goes that way")
    samples = {each: [ns] for each, ns in live.items() if ns}
    publish("flows", "live, TCP or UDP, IPv4", name, samples, own_ns=live[name])


@pytest.fixture(scope="module")
def bulk(smoke: bool) -> Iterator[Mapping[str, list[float]]]:
    """Ns per byte of one connection that passes, side by side with the source on and off."""
    rounds = 1 if smoke else 15
    with Topology() as topology:
        seconds = {
            name: same(partial(flows.bulk, topology, followed=name == ON)) for name in (OFF, ON)
        }
        samples = interleave(seconds, rounds, warmup=0 if smoke else 2)
        yield {
            name: [1e9 * each / flows.BULK_BYTES for each in found]
            for name, found in samples.items()
        }


@pytest.mark.parametrize("name", [OFF, ON])
def test_bulk(name: str, bulk: Mapping[str, list[float]], publish: Publish) -> None:
    """256 MiB through the host, in segments as large as the kernel makes them."""
    share = median(bulk[OFF]) / median(bulk[name])
    publish("flows", "bulk, ns per byte", name, bulk, throughput=share)
