"""Connect time and first byte of the socket source against the packets of a real HAProxy."""

from __future__ import annotations

import math
from statistics import quantiles
from typing import TYPE_CHECKING

import pytest

from tests.support.netns import Topology
from tests.support.proxies import haproxy
from tests.support.sockets import created_ns, first_byte_ns, watch
from tests.support.through import ENDS, HAPROXY, PORTS, SLOTS, all_slots, by_target, run_ends
from tests.support.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

pytestmark = pytest.mark.bpf

EACH = 48
HALF_US, MOST_US = 100, 1000  # by which half of the times, and all but a hundredth, may be wrong


def check(what: str, errors_us: Iterable[float]) -> None:
    """Hold errors against what is allowed."""
    cuts = quantiles(map(abs, errors_us), n=100)
    print(f"{what}: p50 {cuts[49]:.0f} us, p99 {cuts[98]:.0f} us")
    assert cuts[49] <= HALF_US
    assert cuts[98] <= MOST_US


def test_connect_and_first_byte_are_those_of_the_packets(tmp_path: Path) -> None:
    """From SYN to SYN-ACK, and to the first payload, as the kernel stamps them at the cable."""
    with (
        Topology() as topology,
        all_slots(topology) as slots,
        haproxy(HAPROXY, tmp_path, topology.balancer, len(PORTS) * SLOTS) as proxy,
        Wire(topology.balancer, "b1") as wire,
        watch(comms=[proxy.comm]) as seen,
    ):
        run_ends(slots, EACH, list(ENDS.values()))
        events = by_target(seen.closed(EACH * len(slots)))
        packets = wire.handshakes()
    connect, first_byte = [], []
    for target, expected in packets.items():
        for event, packet in zip(events.pop(target), expected, strict=True):
            assert event.connect_us is not None
            connect.append(event.connect_us - (packet.answered_ns - packet.syn_ns) / 1000)
            assert (event.first_byte_us == math.inf) == (packet.first_byte_ns == math.inf)
            if packet.first_byte_ns != math.inf:
                spent_ns = first_byte_ns(event) - created_ns(event)
                first_byte.append((spent_ns - (packet.first_byte_ns - packet.syn_ns)) / 1000)
    assert not events
    check("connect", connect)
    check("first byte", first_byte)
