"""The balancer's programs, packet by packet: every state of TCP, every end of a connection."""

from __future__ import annotations

import select
import threading
from functools import partial
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import pytest

from lblatency._ffi import lib
from tests.support import bpf
from tests.support.balancer import Flow, Watched, established, target, watch
from tests.support.bpf import VERDICT_DROP, VERDICT_PASS
from tests.support.netns import VIP
from tests.support.packets import ACK, FIN, RST, SYN, frame
from tests.support.rig import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.bpf

both = pytest.mark.parametrize("version", [4, 6])
NONE_SEEN = lib.LBL_SPAN_NONE
PATIENT = {"half_open_s": 1e6, "closing_s": 1e6, "idle_s": 1e6, "udp_idle_s": 1e6}


def test_both_fins_acknowledged_end_a_connection(unattached: Watched) -> None:
    """The connection ends with the acknowledgement of the second FIN, and not before."""
    flow = established(unattached)
    flow.sends(FIN | ACK, seq=1001, ack=5001)
    flow.gets(ACK, seq=5001, ack=1002)
    flow.gets(FIN | ACK, seq=5001, ack=1002)
    assert len(unattached.poll()) == 1
    assert flow.sends(ACK, seq=1002, ack=5002) == VERDICT_PASS
    assert unattached.only().reason == lib.LBL_REASON_FIN
    assert unattached.entries() == {}


def test_the_backend_may_close_first(unattached: Watched) -> None:
    """The backend closes first; the second FIN carries the acknowledgement of the first."""
    flow = established(unattached)
    flow.gets(FIN | ACK, seq=5001, ack=1001)
    flow.sends(FIN | ACK, seq=1001, ack=5002)
    assert len(unattached.poll()) == 1
    assert flow.gets(ACK, seq=5002, ack=1002) == VERDICT_PASS
    assert unattached.only().reason == lib.LBL_REASON_FIN


def test_crossing_fins_are_each_waited_for(unattached: Watched) -> None:
    """If FINs cross each other, the connection ends with the last acknowledgement."""
    flow = established(unattached)
    flow.sends(FIN | ACK, seq=1001, ack=5001)
    flow.gets(FIN | ACK, seq=5001, ack=1001)
    flow.gets(ACK, seq=5002, ack=1002)
    assert len(unattached.poll()) == 1
    flow.sends(ACK, seq=1002, ack=5002)
    assert unattached.only().reason == lib.LBL_REASON_FIN


def test_a_fin_with_data_is_acknowledged_at_its_end(unattached: Watched) -> None:
    """An acknowledgement of data before the FIN does not count for the FIN."""
    flow = established(unattached)
    flow.gets(FIN | ACK, seq=5001, ack=1001, payload=b"last words")
    flow.sends(FIN | ACK, seq=1001, ack=5006)
    flow.gets(ACK, seq=5012, ack=1002)
    flow.sends(ACK, seq=1002, ack=5011)
    assert len(unattached.poll()) == 1
    flow.sends(ACK, seq=1002, ack=5012)
    assert unattached.only().reason == lib.LBL_REASON_FIN


def test_sequence_numbers_wrap(unattached: Watched) -> None:
    """The acknowledgement of a FIN is recognised after the wrap at 2**32."""
    flow = Flow(unattached.balancer)
    flow.handshake(0xFFFFFFFD, 0xFFFFFFFE)
    flow.sends(FIN | ACK, seq=0xFFFFFFFE, ack=0xFFFFFFFF, payload=b"over")
    flow.gets(FIN | ACK, seq=0xFFFFFFFF, ack=0xFFFFFFFE)
    flow.sends(ACK, seq=3, ack=0)
    assert len(unattached.poll()) == 1
    flow.gets(ACK, seq=0, ack=3)
    assert unattached.only().reason == lib.LBL_REASON_FIN


def test_a_repeated_fin_changes_nothing(unattached: Watched) -> None:
    """A repeated FIN neither ends the connection nor restarts the closing time."""
    flow = established(unattached)
    first = monotonic_ns()
    flow.sends(FIN | ACK, seq=1001, ack=5001)
    middle = monotonic_ns()
    flow.sends(FIN | ACK, seq=1001, ack=5001)
    flow.gets(FIN | ACK, seq=5001, ack=1002)
    flow.sends(FIN | ACK, seq=1001, ack=5001)
    assert len(unattached.poll()) == 1
    flow.sends(ACK, seq=1002, ack=5002)
    event = unattached.only()
    closing_from = event.timestamp_ns - event.closing_us * 1000
    assert first - 1000 <= closing_from <= middle + 1000


def test_a_rst_before_the_syn_ack_is_a_failed_connect(unattached: Watched) -> None:
    """A refusal has no connect time and no first byte."""
    flow = Flow(unattached.balancer)
    flow.sends(SYN, seq=1000)
    assert flow.gets(RST | ACK, ack=1001) == VERDICT_PASS
    event = unattached.only()
    assert event.reason == lib.LBL_REASON_CONNECT_FAILED
    assert (event.connect_us, event.first_byte_us) == (NONE_SEEN, NONE_SEEN)
    assert unattached.entries() == {}


def spans(watched: Watched) -> tuple[str, str, str]:
    """The short times of the only closed event, in words."""
    (event,) = watched.closed()
    words = {0: "not measured", NONE_SEEN: "never"}
    times = event.connect_us, event.first_byte_us, event.closing_us
    return tuple(words.get(us, "measured") for us in times)  # type: ignore[return-value]


def by_fins(flow: Flow) -> None:
    """End an established connection that got no data."""
    flow.sends(FIN | ACK, seq=1001, ack=5001)
    flow.gets(FIN | ACK, seq=5001, ack=1002)
    flow.sends(ACK, seq=1002, ack=5002)


ENDINGS: dict[str, tuple[Callable[[Flow], object], tuple[str, str, str]]] = {
    "FINs, no answer": (by_fins, ("measured", "never", "measured")),
    "reset": (lambda flow: flow.gets(RST, seq=5001), ("measured", "never", "measured")),
    "answer, then reset": (
        lambda flow: (flow.gets(ACK, seq=5001, payload=b"x"), flow.gets(RST, seq=5002)),
        ("measured", "measured", "measured"),
    ),
    "silence": (lambda _: None, ("measured", "never", "never")),
    "answer, then silence": (
        lambda flow: flow.gets(ACK, seq=5001, payload=b"x"),
        ("measured", "measured", "never"),
    ),
    "FIN, then silence": (
        lambda flow: flow.sends(FIN | ACK, seq=1001, ack=5001),
        ("measured", "never", "measured"),
    ),
    "another connection": (lambda flow: flow.sends(SYN, seq=9), ("measured", "never", "never")),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_short_times_of_tcp(unattached: Watched, name: str) -> None:
    """Each short time of a close is a time or never; an opened event has none."""
    end, expected = ENDINGS[name]
    flow = established(unattached)
    (opened,) = unattached.poll()
    assert (opened.connect_us, opened.first_byte_us, opened.closing_us) == (0, 0, 0)
    end(flow)
    if "silence" in name:
        unattached.balancer.sweep(**dict.fromkeys(PATIENT, 0))
    assert spans(unattached) == expected


@pytest.mark.parametrize("answers", [False, True])
def test_short_times_of_a_syn_that_nobody_answers(unattached: Watched, answers: bool) -> None:
    """The SYN-ACK never comes, or the acknowledgement of it never comes."""
    flow = Flow(unattached.balancer)
    flow.sends(SYN, seq=1000)
    if answers:
        flow.gets(SYN | ACK, seq=5000, ack=1001)
    unattached.balancer.sweep(**dict.fromkeys(PATIENT, 0))
    assert spans(unattached) == ("measured" if answers else "never", "never", "never")


@pytest.mark.parametrize("answers", [False, True])
def test_short_times_of_udp(unattached: Watched, answers: bool) -> None:
    """For UDP, only the first byte is measured."""
    flow = Flow(unattached.balancer, tcp=False)
    flow.sends(payload=b"x")
    if answers:
        flow.gets(payload=b"y")
    unattached.balancer.sweep(**dict.fromkeys(PATIENT, 0))
    first_byte = "measured" if answers else "never"
    assert spans(unattached) == ("not measured", first_byte, "not measured")


@pytest.mark.parametrize("data_by", ["client", "backend", "nobody"])
@pytest.mark.parametrize("rst_by", ["client", "backend"])
def test_only_a_clients_reset_without_data_is_a_probe(
    unattached: Watched, rst_by: str, data_by: str
) -> None:
    """Only a client's reset of a connection without any data is a probe."""
    flow = established(unattached)
    if data_by == "client":
        flow.sends(ACK, seq=1001, ack=5001, payload=b"x")
    if data_by == "backend":
        flow.gets(ACK, seq=5001, ack=1001, payload=b"x")
    (flow.sends if rst_by == "client" else flow.gets)(RST, seq=1001)
    event = unattached.only()
    assert event.reason == lib.LBL_REASON_RST
    probe = (rst_by, data_by) == ("client", "nobody")
    assert bool(event.flags & lib.LBL_FLAG_PROBE) == probe


def test_a_repeated_syn_keeps_the_creation_time(unattached: Watched) -> None:
    """The first SYN creates the connection; the second is only forwarded to its backend."""
    flow = Flow(unattached.balancer)
    flow.sends(SYN, seq=1000)
    (opened,) = unattached.poll()
    backend = flow.backend
    assert flow.sends(SYN, seq=1000) == VERDICT_PASS
    assert flow.backend == backend
    flow.gets(SYN | ACK, seq=5000, ack=1001)
    flow.gets(SYN | ACK, seq=5000, ack=1001)
    flow.sends(RST, seq=1001)
    assert unattached.only().created_ns == opened.created_ns
    assert len(unattached.events) == 2


def test_a_new_isn_is_a_new_connection(unattached: Watched) -> None:
    """A reused tuple ends the old connection at that connection's last packet."""
    flow = established(unattached)
    flow.sends(FIN | ACK, seq=1001, ack=5001)
    last = monotonic_ns()
    assert flow.sends(SYN, seq=99000) == VERDICT_PASS
    first_opened, reused, opened = unattached.poll()
    assert reused.reason == lib.LBL_REASON_REUSED
    assert reused.created_ns == first_opened.created_ns <= reused.timestamp_ns <= last
    assert opened.type == lib.LBL_OPENED
    assert opened.created_ns >= last
    flow.gets(SYN | ACK, seq=7000, ack=99001)
    flow.gets(RST, seq=7001)
    event = unattached.closed(2)[1]
    assert (event.reason, event.created_ns) == (lib.LBL_REASON_RST, opened.created_ns)


def half_open(watched: Watched) -> None:
    """Send a SYN."""
    Flow(watched.balancer).sends(SYN, seq=1000)


def half_shaken(watched: Watched) -> None:
    """Omit the last acknowledgement, as if the SYN-ACK were lost."""
    flow = Flow(watched.balancer)
    flow.sends(SYN, seq=1000)
    flow.gets(SYN | ACK, seq=5000, ack=1001)
    flow.sends(SYN, seq=1000)


def half_closed(watched: Watched) -> None:
    """Send one FIN."""
    established(watched).sends(FIN | ACK, seq=1001, ack=5001)


def datagrams(watched: Watched) -> None:
    """Send a datagram each way."""
    flow = Flow(watched.balancer, tcp=False)
    flow.sends(payload=b"x")
    flow.gets(payload=b"y")


@pytest.mark.parametrize(
    ("setup", "timeout", "reason"),
    [
        (half_open, "half_open_s", lib.LBL_REASON_CONNECT_FAILED),
        (half_shaken, "half_open_s", lib.LBL_REASON_CONNECT_FAILED),
        (half_closed, "closing_s", lib.LBL_REASON_TIMEOUT),
        (established, "idle_s", lib.LBL_REASON_TIMEOUT),
        (datagrams, "udp_idle_s", lib.LBL_REASON_TIMEOUT),
    ],
)
def test_each_kind_of_silence_has_its_own_timeout(
    unattached: Watched, setup: Callable[[Watched], object], timeout: str, reason: int
) -> None:
    """Each state has its own timeout, and the connection ends at its last packet."""
    setup(unattached)
    last = monotonic_ns()
    others = {name: 0 for name in PATIENT if name != timeout}
    assert unattached.balancer.sweep(**{**others, timeout: 1e6}) == 0
    assert len(unattached.entries()) == 1
    assert unattached.balancer.sweep(**{**PATIENT, timeout: 0}) == 1
    assert unattached.entries() == {}
    event = unattached.only()
    assert event.reason == reason
    assert event.created_ns <= event.timestamp_ns <= last
    assert unattached.balancer.sweep(**dict.fromkeys(PATIENT, 0)) == 0


def test_one_sweep_closes_all(unattached: Watched) -> None:
    """One sweep closes all connections, each exactly once."""
    for port in range(1000, 2000):
        Flow(unattached.balancer, port=port).sends(SYN, seq=1)
    assert unattached.balancer.sweep(**{**PATIENT, "half_open_s": 0}) == 1000
    assert len(unattached.closed(1000)) == 1000
    assert unattached.entries() == {}


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_sweep_refuses_nonsense(unattached: Watched, seconds: float) -> None:
    """A timeout that is not a duration is an error, and nothing is closed."""
    established(unattached)
    with pytest.raises(OSError, match="sweep"):
        unattached.balancer.sweep(idle_s=seconds)
    assert len(unattached.entries()) == 1


def test_a_full_map_refuses_and_counts() -> None:
    """If the map is full, a new connection is dropped and counted; the others go on."""
    with watch(max_connections=8) as watched:
        watched.balancer.add_listener(1, VIP[4], 80, "tcp", [(1, target(4), 1)])
        flows = [Flow(watched.balancer, port=port) for port in range(1, 10)]
        assert [flow.sends(SYN, seq=1) for flow in flows] == [VERDICT_PASS] * 8 + [VERDICT_DROP]
        assert watched.balancer.counters()["conntrack_full"] == 1
        assert len(watched.opened()) == 8
        assert flows[0].gets(RST | ACK, ack=2) == VERDICT_PASS
        assert flows[8].sends(SYN, seq=1) == VERDICT_PASS
        assert len(watched.opened()) == 9


def test_what_a_full_ring_drops_is_counted() -> None:
    """Events without room in the ring count as dropped; the connections go on."""
    with watch(ring_bytes=4096) as watched:
        watched.balancer.add_listener(1, VIP[4], 80, "tcp", [(1, target(4), 1)])
        for port in range(1, 101):
            assert Flow(watched.balancer, port=port).sends(SYN, seq=1) == VERDICT_PASS
        counters = watched.balancer.counters()
        assert counters["produced"] == 100
        assert 0 < counters["dropped"] == 100 - watched.ring.pending()
        assert len(watched.poll()) == 100 - counters["dropped"]


def test_a_deleted_entry_is_no_leak() -> None:
    """If someone else deletes an entry, the next sweep removes the rest of the connection."""
    with watch(max_connections=4) as watched:
        watched.balancer.add_listener(1, VIP[4], 80, "tcp", [(1, target(4), 1)])
        for port in range(1, 21):
            flow = Flow(watched.balancer, port=port)
            assert flow.sends(SYN, seq=1) == VERDICT_PASS
            (key,) = watched.entries()
            bpf.delete(watched.balancer.conntrack_fd, key)
            assert watched.balancer.sweep(**PATIENT) == 0
            assert flow.sends(ACK, seq=2, ack=2) == VERDICT_PASS
        assert watched.balancer.counters()["stray"] == 20


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """Run each call in a thread, all started together; returns their results."""
    barrier = threading.Barrier(len(jobs))
    returned: list[Any] = []

    def run(job: Callable[[], Any]) -> None:
        barrier.wait()
        returned.append(job())

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return returned


@pytest.mark.parametrize("kinds", [(SYN, SYN), (SYN, RST), (SYN, SYN, RST)])
def test_racing_packets_open_and_close_once(kinds: tuple[int, ...]) -> None:
    """Packets of one tuple race each other; each opened connection closes once."""
    with watch(ring_bytes=1 << 25) as watched:
        # The VIP is its own backend, so that a repeated packet still goes to the VIP.
        watched.balancer.add_listener(1, VIP[4], 80, "tcp", [(1, f"{VIP[4]}:80", 1)])
        flow = Flow(watched.balancer)
        frames = [
            frame(flow.client, flow.vip, flags=flags, seq=isn) for isn, flags in enumerate(kinds)
        ]
        jobs = [partial(bpf.run_on_frame, flow.ingress, sent, 30_000) for sent in frames]
        wait_until(
            lambda: at_once(*jobs) and len(watched.opened()) > 100, "the threads to meet each other"
        )
        # The tuple is free again without a sweep.
        for flags in (RST, SYN):
            sent = frame(flow.client, flow.vip, flags=flags, seq=99)
            assert bpf.run_on_frame(flow.ingress, sent)[0] == VERDICT_PASS
        watched.balancer.sweep(**dict.fromkeys(PATIENT, 0))
        assert watched.entries() == {}
        assert watched.balancer.counters()["dropped"] == 0
        opened = len(watched.opened())
        watched.closed(opened)


def test_two_sweeps_close_each_connection_once() -> None:
    """Two sweeps at once report each connection once."""
    many = 20_000
    with watch(ring_bytes=1 << 22, max_connections=many) as watched:
        watched.balancer.add_listener(1, VIP[4], 80, "udp", [(1, target(4), 1)])
        flow = Flow(watched.balancer, tcp=False)
        for port in range(1, many + 1):
            bpf.run_on_frame(flow.ingress, frame((flow.client[0], port), flow.vip))
        sweep = partial(watched.balancer.sweep, **dict.fromkeys(PATIENT, 0))
        assert sum(at_once(sweep, sweep)) == many
        assert len(watched.closed(many)) == len(watched.opened())


def test_a_reader_is_woken_at_a_quarter() -> None:
    """A reader is woken when the ring is a quarter full, for any size of ring."""
    with watch(ring_bytes=4096) as watched, select.epoll() as epoll:
        watched.balancer.add_listener(1, VIP[4], 80, "tcp", [(1, target(4), 1)])
        epoll.register(watched.balancer.ring_fd, select.EPOLLIN)
        woken: list[object] = []
        sleeper = threading.Thread(target=lambda: woken.append(epoll.poll(10)))
        sleeper.start()
        task = Path(f"/proc/self/task/{sleeper.native_id}/wchan")
        wait_until(lambda: "poll" in task.read_text(), "the reader to sleep")
        for port in range(1, 16):
            Flow(watched.balancer, port=port).sends(SYN, seq=1)
        assert not woken
        Flow(watched.balancer, port=16).sends(SYN, seq=1)
        sleeper.join(5)
        assert not sleeper.is_alive()
        assert len(watched.poll()) == 16


def test_a_connection_without_backend_is_counted() -> None:
    """A listener refuses and counts, if all its backends have weight 0."""
    with watch() as watched:
        watched.balancer.add_listener(1, VIP[4], 80, "tcp", [(1, target(4), 0)])
        assert Flow(watched.balancer).sends(SYN, seq=1) == VERDICT_DROP
        assert watched.balancer.counters()["no_backend"] == 1
        assert watched.poll() == []


def test_one_port_to_two_vips_reaches_two_backends() -> None:
    """Two connections that would have one tuple at a backend go to two backends."""
    with watch() as watched:
        backends = [(1, target(4, 0), 1), (2, target(4, 1), 1)]
        watched.balancer.add_listener(1, VIP[4], 80, "tcp", backends)
        watched.balancer.add_listener(2, VIP[4], 81, "tcp", backends)
        refused = 0
        for port in range(1000, 1100):
            first, second = (Flow(watched.balancer, port=port) for _ in range(2))
            second.vip = (VIP[4], 81)
            assert first.sends(SYN, seq=1) == VERDICT_PASS
            if second.sends(SYN, seq=2) == VERDICT_DROP:
                refused += 1
                continue
            assert first.backend != second.backend
            # Each reply comes from its own VIP: gets() checks every byte.
            assert first.gets(SYN | ACK, seq=1, ack=2) == VERDICT_PASS
            assert second.gets(SYN | ACK, seq=1, ack=3) == VERDICT_PASS
        # Four random tries each: one in sixteen finds no other backend.
        assert refused < 25
        assert watched.balancer.counters()["no_backend"] == refused
        assert len(watched.opened()) == 200 - refused
