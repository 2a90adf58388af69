"""The socket source with a real nginx, compared with the clocks of clients and servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.netns import Topology
from tests.support.proxies import nginx
from tests.support.sockets import watch
from tests.support.through import (
    ENDS,
    HALF_CLOSED,
    HOLDS_MS,
    PORTS,
    PROXY,
    SERVER,
    SLOTS,
    Slot,
    all_slots,
    compare,
    ended,
    run_ends,
    run_http,
    run_slots,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.bpf

_PER_SLOT = 48


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    """Namespaces of clients, of the proxy, and of the servers."""
    with Topology() as made:
        yield made


@pytest.fixture
def slots(topology: Topology) -> Iterator[list[Slot]]:
    """The backends of all families."""
    with all_slots(topology) as made:
        yield made


def stream(half_close: bool) -> str:
    """The configuration of a proxy in TCP mode."""
    servers = "\n".join(
        f"server {{ listen {PROXY}:{first}-{first + SLOTS - 1};"
        f" proxy_pass {SERVER[family]}:$server_port; }}"
        for family, first in PORTS.items()
    )
    return f"""stream {{
    proxy_half_close {"on" if half_close else "off"};
    {servers}
}}"""


def http(keeps_alive: bool) -> str:
    """The configuration of a proxy in HTTP mode, with a pool for each backend."""
    keep = 'proxy_http_version 1.1; proxy_set_header Connection "";' if keeps_alive else ""
    servers = "\n".join(
        f"""upstream u{port} {{ server {SERVER[family]}:{port}; {"keepalive 4;" * keeps_alive} }}
        server {{ listen {PROXY}:{port}; location / {{ proxy_pass http://u{port}; {keep} }} }}"""
        for family, first in PORTS.items()
        for port in range(first, first + SLOTS)
    )
    return f"http {{ access_log off; {servers} }}"


@pytest.mark.parametrize("half_close", [False, True])
def test_every_connection_has_its_lifetime_and_reason(
    topology: Topology, slots: list[Slot], tmp_path: Path, half_close: bool
) -> None:
    """2,000 connections with holds around the bounds, ended in each way, none missed."""
    ends = ENDS | HALF_CLOSED if half_close else ENDS
    with (
        nginx(stream(half_close), tmp_path, topology.balancer, len(slots)) as proxy,
        watch(comms=[proxy.comm]) as seen,
    ):
        truths = run_ends(slots, _PER_SLOT, list(ends.values()))
        print(compare(truths, seen.closed(_PER_SLOT * len(slots))))


@pytest.mark.parametrize("requests", [1, 3])
def test_http_connections_are_those_that_the_backend_has(
    topology: Topology, slots: list[Slot], tmp_path: Path, requests: int
) -> None:
    """In HTTP mode, a connection lasts for one request, or for those that keep it alive."""
    with (
        nginx(http(requests > 1), tmp_path, topology.balancer, len(slots)) as proxy,
        watch(comms=[proxy.comm]) as seen,
    ):
        truths = run_slots(
            slots,
            lambda number, slot: [
                run_http(slot, requests, HOLDS_MS[n % len(HOLDS_MS)])
                for n in range(number, number + _PER_SLOT)
            ],
        )
        print(compare(truths, seen.closed(_PER_SLOT * len(slots))))


def test_refused_connects_are_those_of_the_log(topology: Topology, tmp_path: Path) -> None:
    """Each attempt of nginx that its log calls refused is a failed connect, and no lifetime."""
    dead = [f"server {SERVER[family]}:9 max_fails=0;" for family in ("ipv4", "ipv6")]
    config = f"""stream {{
    upstream dead {{ {dead[0]} {dead[1]} }}
    server {{ listen {PROXY}:20000; proxy_pass dead; }}
}}"""
    with (
        nginx(config, tmp_path, topology.balancer, 1) as proxy,
        watch(comms=[proxy.comm]) as seen,
    ):
        for _ in range(10):
            with topology.connect(PROXY, 20000) as client:
                ended(client)
        events = seen.closed(20)
        refused = [line for line in proxy.log() if "Connection refused" in line]
        assert len(refused) == 20
        assert {event.reason for event in events} == {"connect_failed"}
        for target in (f"{SERVER[family]}:9" for family in ("ipv4", "ipv6")):
            assert sum(event.target == target for event in events) == sum(
                target in line for line in refused
            )
        assert seen.source.failed_connects()["refused"] == 20
