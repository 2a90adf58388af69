"""The socket source with a real HAProxy, compared with the clocks of clients and servers."""

from __future__ import annotations

import contextlib
import json
from time import monotonic_ns
from typing import TYPE_CHECKING

import pytest

from lblatency import LatencyTracker
from lblatency.sources import Sockets
from tests.support.nat import dropping
from tests.support.netns import BACKENDS, Topology
from tests.support.proxies import Proxy, haproxy
from tests.support.rig import assert_accounted, wait_until
from tests.support.sockets import watch
from tests.support.through import (
    ENDS,
    HALF_CLOSED,
    HAPROXY,
    HOLDS_MS,
    PORTS,
    PROXY,
    SLOTS,
    Pair,
    Slot,
    Window,
    all_slots,
    compare,
    ended,
    run_connection,
    run_ends,
    run_http,
    run_slots,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.bpf


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


@pytest.fixture
def proxy(topology: Topology, tmp_path: Path) -> Iterator[Proxy]:
    """HAProxy in TCP mode."""
    with haproxy(HAPROXY, tmp_path, topology.balancer, len(PORTS) * SLOTS) as made:
        yield made


def test_every_connection_has_its_lifetime_and_reason(proxy: Proxy, slots: list[Slot]) -> None:
    """2,000 connections with holds around the bounds, ended in each way, none missed."""
    with watch(comms=[proxy.comm]) as seen:
        truths = run_ends(slots, 48, list((ENDS | HALF_CLOSED).values()))
        print(compare(truths, seen.closed(48 * len(slots))))


@pytest.mark.parametrize("requests", [1, 3])
def test_http_connections_are_those_that_the_backend_has(
    topology: Topology, slots: list[Slot], tmp_path: Path, requests: int
) -> None:
    """In HTTP mode, a connection lasts for one request, or for those that keep it alive."""
    keep = "httpclose" if requests == 1 else "http-keep-alive\n    http-reuse never"
    config = HAPROXY.replace("    bind", f"    mode http\n    option {keep}\n    bind")
    with (
        haproxy(config, tmp_path, topology.balancer, len(slots)) as proxy,
        watch(comms=[proxy.comm]) as seen,
    ):
        truths = run_slots(
            slots,
            lambda number, slot: [
                run_http(slot, requests, HOLDS_MS[n % len(HOLDS_MS)])
                for n in range(number, number + 48)
            ],
        )
        print(compare(truths, seen.closed(48 * len(slots))))


def test_health_checks_are_probes(topology: Topology, tmp_path: Path) -> None:
    """Checks of a backend that has connections, too, are counted apart."""
    config = f"""listen checked
    bind {PROXY}:24000
    server s {BACKENDS[4][0]}:24000 check inter 200ms"""
    topology.backend.run(
        "nft -f -",
        stdin="""table ip counted { counter syns {}
        chain in {
            type filter hook input priority 0
            tcp dport 24000 tcp flags syn / syn,ack counter name syns
        }; }""",
    )

    def syns() -> int:
        listed = json.loads(topology.backend.run("nft -j list counters"))["nftables"]
        (packets,) = [each["counter"]["packets"] for each in listed if "counter" in each]
        return int(packets)

    slot = Slot(topology, BACKENDS[4][0], 24000)
    with (
        contextlib.closing(slot),
        Sockets(backends=[slot.target]) as source,
        LatencyTracker() as tracker,
    ):
        tracker.start(source.stream, None, "edge")
        with haproxy(config, tmp_path, topology.balancer, 1):
            for n in range(15):
                run_connection(slot, ENDS["server closes"], 1, answers=True)
                wait_until(lambda n=n: syns() > n + n // 3, "a probe")  # type: ignore[misc]
            before = syns()
            wait_until(lambda: syns() > before, "a probe, after which there is none for a while")
        source.stream.drain()
        (row,) = tracker.backends()
        assert (row.probes, row.histogram.count, row.open) == (syns() - 15, 15, 0)
        assert row.probes >= 5
    topology.backend.run("nft delete table ip counted")


def test_failed_connects_are_those_of_the_log(
    topology: Topology, slots: list[Slot], tmp_path: Path
) -> None:
    """Refused and redispatched connects, and those that HAProxy gave up, as its log counts them."""
    live, dead, away = slots[0], f"{BACKENDS[4][0]}:9", f"{BACKENDS[4][2]}:24200"
    config = f"""listen mixed
    bind {PROXY}:20000
    balance roundrobin
    option redispatch 1
    retries 1
    server dead {dead}
    server live {live.target}
listen away
    bind {PROXY}:24200
    timeout connect 100ms
    server away {away}"""
    topology.backend.run(
        "nft -f -",
        stdin=f"""table ip away {{ chain in {{
            type filter hook input priority 0
            ip daddr {BACKENDS[4][2]} tcp dport 24200 drop
        }}; }}""",
    )
    with (
        haproxy(config, tmp_path, topology.balancer, 2) as proxy,
        watch(comms=[proxy.comm]) as seen,
    ):
        truths = [run_connection(live, ENDS["server closes"], 0, answers=True) for _ in range(40)]
        for _ in range(5):
            with topology.connect(PROXY, 24200) as client:
                ended(client)
        wait_until(lambda: len(proxy.log()) == 45, "the log")
        redispatched = sum(" +1 " in line for line in proxy.log())
        given_up = sum(line.endswith(" sC") for line in proxy.log())
        events = seen.closed(45 + redispatched)
        failed = [event for event in events if event.reason == "connect_failed"]
        counts = {cause: n for cause, n in seen.source.failed_connects().items() if n}
    topology.backend.run("nft delete table ip away")
    assert redispatched
    assert given_up == 5
    assert counts == {"refused": redispatched, "given_up": given_up}
    assert [event.target for event in failed].count(dead) == redispatched
    assert [event.target for event in failed].count(away) == given_up
    compare({live.target: truths}, [event for event in events if event not in failed])


def test_connects_that_nobody_answers_are_those_of_the_log(
    topology: Topology, tmp_path: Path
) -> None:
    """Each try is given up by HAProxy's time-out or timed out by the kernel, which is sooner."""
    patient, hasty = f"{BACKENDS[4][2]}:24300", f"{BACKENDS[4][2]}:24301"
    config = f"""listen patient
    bind {PROXY}:24300
    retries 1
    server s {patient}
listen hasty
    bind {PROXY}:24301
    timeout connect 200ms
    retries 2
    server s {hasty}"""
    for setting in ("tcp_syn_retries=1", "tcp_syn_linear_timeouts=4"):
        topology.balancer.run(f"sysctl -qw net.ipv4.{setting}")
    with (
        dropping(topology.backend, "tcp dport 24300-24301"),
        haproxy(config, tmp_path, topology.balancer, 2) as proxy,
        watch(comms=[proxy.comm]) as seen,
    ):
        clients = [topology.connect(PROXY, port) for port in (24300, 24301) for _ in range(5)]
        wait_until(lambda: len(proxy.log()) == len(clients), "the log")
        for client in clients:
            client.close()
        log = [line.split() for line in proxy.log()]
        attempts = {
            name: sum(1 + int(retries) for where, retries, _ in log if where == f"{name}/s")
            for name in ("patient", "hasty")
        }
        failed = seen.closed(sum(attempts.values()))
        counts = {cause: n for cause, n in seen.source.failed_connects().items() if n}
    topology.balancer.run("sysctl -qw net.ipv4.tcp_syn_retries=6")
    assert attempts == {"patient": 10, "hasty": 15}, log
    assert counts == {"timed_out": attempts["patient"], "given_up": attempts["hasty"]}
    assert {event.reason for event in failed} == {"connect_failed"}
    assert [event.target for event in failed].count(patient) == attempts["patient"]
    for event in failed:
        assert event.created_ns is not None
        least_s = 2 if event.target == patient else 0.2
        assert event.timestamp_ns - event.created_ns > least_s * 0.98e9


def test_lost_syns_are_part_of_the_connect_time(
    proxy: Proxy, slots: list[Slot], topology: Topology
) -> None:
    """A SYN that is lost costs 1 s, and two cost 3 s; both are in connect time and lifetime."""
    topology.balancer.run("sysctl -qw net.ipv4.tcp_syn_linear_timeouts=0")
    rules = "\n".join(
        f"tcp dport {20000 + n} tcp flags syn / syn,ack numgen inc mod {lost + 1} < {lost} drop"
        for n, lost in enumerate([1, 1, 1, 2, 2])
    )
    topology.backend.run(
        "nft -f -",
        stdin=f"table ip lossy {{ chain in {{ type filter hook input priority 0\n{rules}\n}}; }}",
    )
    with watch(comms=[proxy.comm]) as seen:
        truths = run_slots(
            slots[:5],
            lambda _number, slot: [run_connection(slot, ENDS["server closes"], 1, answers=True)],
        )
        events = seen.closed(5)
    topology.backend.run("nft delete table ip lossy")
    compare(truths, events)
    for n, lost in enumerate([1, 1, 1, 2, 2]):
        (event,) = [event for event in events if event.target == slots[n].target]
        assert event.connect_us is not None
        least = {1: 1_000_000, 2: 3_000_000}[lost]
        assert least - 20_000 <= event.connect_us < least + 500_000


def test_a_killed_proxy_ends_its_connections(
    topology: Topology, slots: list[Slot], tmp_path: Path
) -> None:
    """60 connections that are open when the proxy is killed end then."""
    with (
        haproxy(HAPROXY, tmp_path, topology.balancer, len(slots)) as proxy,
        watch(comms=[proxy.comm]) as seen,
    ):
        pairs = [slot.open() for slot in (slots * 2)[:60]]
        for pair in pairs:
            pair.exchange()
        began = monotonic_ns()
        proxy.kill()
        for pair in pairs:
            pair.truth.reasons = (ended(pair.server),)
            pair.close()
            pair.truth.ended = Window(began, monotonic_ns())
        truths = {
            slot.target: [pair.truth for pair in pairs if pair.truth.target == slot.target]
            for slot in slots
        }
        compare(truths, seen.closed(60))


def test_connections_older_than_the_source(proxy: Proxy, slots: list[Slot]) -> None:
    """100 that are open at the start count as open until they end, without a lifetime."""
    pairs = [slot.open() for slot in (slots * 3)[:100]]
    with Sockets(comms=[proxy.comm]) as source, LatencyTracker() as tracker:
        tracker.start(source.stream, None, "edge")
        assert source.status()["open_at_start"] == 100
        source.stream.drain()
        assert sum(row.open for row in tracker.backends()) == 100
        truths = run_ends(slots, 2, list(ENDS.values()))
        for pair in pairs:
            ENDS["server closes"](pair)
            pair.close()
        wait_until(lambda: not sum(row.open for row in tracker.backends()), "the ends")
        counts = assert_accounted(tracker)
        recorded = sum(map(len, truths.values()))
        assert (counts["unmatched"], counts["recorded"]) == (100, recorded)
        assert sum(row.histogram.count for row in tracker.backends()) == recorded


def test_a_burst_is_counted_exactly(proxy: Proxy, slots: list[Slot]) -> None:
    """5,000 short connections, as fast as the machine makes them."""
    with watch(comms=[proxy.comm]) as seen:
        truths = run_slots(
            slots,
            lambda _number, slot: [
                run_connection(slot, ENDS["server closes"], 0, answers=True) for _ in range(120)
            ],
        )
        print(compare(truths, seen.closed(120 * len(slots))))


def test_two_thousand_open_at_once(proxy: Proxy, slots: list[Slot]) -> None:
    """All are open together, and each has its own lifetime in the end."""
    pairs: dict[str, list[Pair]] = {}
    with watch(comms=[proxy.comm]) as seen:
        for slot in slots:
            pairs[slot.target] = [slot.open() for _ in range(48)]
        count = 48 * len(slots)
        wait_until(lambda: len(seen.opened()) == count, "all open")
        for each in pairs.values():
            for pair in each:
                pair.exchange()
                pair.truth.ended = ENDS["client closes"](pair)
                pair.close()
        truths = {target: [pair.truth for pair in each] for target, each in pairs.items()}
        print(compare(truths, seen.closed(count)))
