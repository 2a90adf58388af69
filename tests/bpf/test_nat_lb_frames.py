"""The balancer's programs, packet by packet: every output byte, every state of TCP."""

from __future__ import annotations

import select
import struct
import threading
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lblatency._ffi import lib
from tests.support import bpf
from tests.support.balancer import Flow, Watched, target, watch
from tests.support.bpf import VERDICT_DROP, VERDICT_PASS
from tests.support.netns import BACKENDS, VIP
from tests.support.packets import ACK, FIN, PSH, RST, SYN, frame
from tests.support.rig import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.bpf

both = pytest.mark.parametrize("version", [4, 6])
NONE_SEEN = lib.LBL_SPAN_NONE
PATIENT = {"half_open_s": 1e6, "closing_s": 1e6, "idle_s": 1e6, "udp_idle_s": 1e6}


def established(watched: Watched, version: int = 4) -> Flow:
    """A flow whose handshake is complete: ISNs 1000 and 5000."""
    flow = Flow(watched.balancer, version)
    flow.handshake()
    return flow


@both
def test_packets_are_translated_both_ways(unattached: Watched, version: int) -> None:
    """The client's packets reach the backend, replies come from the VIP, checksums are right."""
    flow = established(unattached, version)
    assert flow.backend == (BACKENDS[version][0], 8080)
    assert flow.sends(ACK | PSH, seq=1001, ack=5001, payload=b"odd") == VERDICT_PASS
    assert flow.gets(ACK | PSH, seq=5001, ack=1004, payload=b"reply") == VERDICT_PASS


@both
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_checksum_is_that_of_a_packet_made_afresh(
    unattached: Watched, version: int, data: st.DataObject
) -> None:
    """For any packet, the checksum after translation equals that of a new packet."""
    port = data.draw(st.integers(1, 65535))
    payload = data.draw(st.binary(max_size=200))
    tcp = Flow(unattached.balancer, version, port=port)
    tcp.handshake(data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(0, 2**32 - 1)))
    assert tcp.sends(ACK, payload=payload) == tcp.gets(ACK, payload=payload) == VERDICT_PASS
    udp = Flow(unattached.balancer, version, port=port, tcp=False)
    assert udp.sends(payload=payload) == udp.gets(payload=payload) == VERDICT_PASS
    assert udp.backend == tcp.backend == (BACKENDS[version][0], 8080)


@both
def test_udp_checksum_never_becomes_zero(unattached: Watched, version: int) -> None:
    """A checksum of 0 is sent as 0xffff, since 0 means that there is none."""
    flow = Flow(unattached.balancer, version, tcp=False)
    flow.sends(payload=b"\0\0")
    at = 14 + (20 if version == 4 else 40) + 6
    aim = frame(flow.client, flow.backend, payload=b"\0\0")[at : at + 2]
    assert frame(flow.client, flow.backend, payload=aim)[at : at + 2] == b"\xff\xff"
    assert flow.sends(payload=aim) == VERDICT_PASS


def test_udp_without_checksum_stays_so(unattached: Watched) -> None:
    """A zero checksum of UDP over IPv4 is not touched."""
    flow = Flow(unattached.balancer, tcp=False)
    assert flow.sends(payload=b"x", udp_checksum=False) == VERDICT_PASS
    assert flow.backend == (BACKENDS[4][0], 8080)
    assert flow.gets(payload=b"x", udp_checksum=False) == VERDICT_PASS


def test_ip_options_are_skipped(unattached: Watched) -> None:
    """The longest IPv4 header is translated like the shortest."""
    options = bytes([1]) * 40
    flow = Flow(unattached.balancer)
    assert flow.sends(SYN, seq=1, ip_options=options) == VERDICT_PASS
    assert flow.backend == (BACKENDS[4][0], 8080)
    assert flow.gets(SYN | ACK, seq=1, ack=2, ip_options=options) == VERDICT_PASS


def test_padding_is_no_payload(unattached: Watched) -> None:
    """Ethernet's padding of short frames does not count as data."""
    flow = established(unattached)
    flow.sends(ACK, seq=1001, ack=5001, padding=bytes(6))
    flow.gets(ACK, seq=5001, ack=1001, padding=bytes(6))
    flow.sends(RST, seq=1001, padding=bytes(6))
    event = unattached.only()
    assert event.flags & lib.LBL_FLAG_PROBE
    assert event.first_byte_us == NONE_SEEN


def fragment(data: bytes, bits: int) -> bytes:
    """Set the fragment field of an IPv4 frame. Its checksum is wrong then; nothing checks it."""
    return data[:20] + struct.pack("!H", bits) + data[22:]


def with_extension(data: bytes, kind: int) -> bytes:
    """Put an IPv6 extension header of eight bytes before the frame's L4 header."""
    length = struct.pack("!H", len(data) - 54 + 8)
    extension = bytes([data[20], 0, 1, 4, 0, 0, 0, 0])
    return data[:18] + length + bytes([kind]) + data[21:54] + extension + data[54:]


def odd_frames() -> dict[str, bytes]:
    """Frames to a listener that must be neither balanced nor changed."""
    four = frame(("10.1.0.2", 40000), (VIP[4], 80), flags=SYN, seq=1)
    six = frame(("fd01::2", 40000), (VIP[6], 80), flags=SYN, seq=1)
    return {
        "first fragment": fragment(four, 0x2000),
        "later fragment": fragment(four, 0x00B9),
        "hop-by-hop": with_extension(six, 0),
        "destination options": with_extension(six, 60),
        "IPv6 fragment": with_extension(six, 44),
        "TCP cut off": four[:16] + struct.pack("!H", 30) + four[18:44],
        "TCP header longer than packet": four[:46] + b"\xf0" + four[47:],
        "TCP header too short": four[:46] + b"\x40" + four[47:],
        "total length beyond the frame": four[:16] + struct.pack("!H", 1000) + four[18:],
        "IPv4 header too short": four[:14] + b"\x44" + four[15:],
        "only an IPv4 header": four[:34],
        "only an IPv6 header": six[:54],
        "IPv6 TCP cut off": six[:18] + struct.pack("!H", 12) + six[20:66],
    }


@pytest.mark.parametrize("name", odd_frames())
def test_unsupported_passes_untouched(unattached: Watched, name: str) -> None:
    """An unsupported packet passes unchanged, is counted, and makes no event."""
    flow = Flow(unattached.balancer)
    sent = odd_frames()[name]
    for program in (flow.ingress, flow.egress):
        assert bpf.run_on_frame(program, sent)[:2] == (VERDICT_PASS, sent)
    assert unattached.balancer.counters()["ignored"] == 2
    assert unattached.poll() == []
    assert unattached.entries() == {}


def test_other_traffic_is_left_alone(unattached: Watched) -> None:
    """Packets to another port or address, ARP and ICMP pass unchanged and uncounted."""
    flow = Flow(unattached.balancer)
    four = frame(("10.1.0.2", 40000), (VIP[4], 80), flags=SYN, seq=1)
    others = [
        frame(("10.1.0.2", 40000), (VIP[4], 81), flags=SYN, seq=1),
        frame(("10.1.0.2", 40000), ("10.9.0.2", 80), flags=SYN, seq=1),
        four[:12] + b"\x08\x06" + four[14:],
        four[:23] + b"\x01" + four[24:],
        b"\x02" + four[1:],  # to another host's MAC address
    ]
    for sent in others:
        for program in (flow.ingress, flow.egress):
            assert bpf.run_on_frame(program, sent)[:2] == (VERDICT_PASS, sent)
    assert not any(unattached.balancer.counters().values())


def test_a_stray_segment_passes_untouched(unattached: Watched) -> None:
    """A segment of an unknown connection passes to the host, which resets it."""
    flow = Flow(unattached.balancer)
    for flags in (ACK, SYN | ACK, RST, FIN | ACK, SYN | FIN):
        assert flow.sends(flags, seq=1, ack=1) == VERDICT_PASS
        assert flow.backend == ("", 0)
    assert unattached.balancer.counters()["stray"] == 5
    assert unattached.poll() == []


@both
def test_an_entry_has_the_tuple_after_nat(unattached: Watched, version: int) -> None:
    """The key of an entry is the tuple after NAT; its value begins like lbl_ct_value."""
    before = monotonic_ns()
    flow = established(unattached, version)
    flow.gets(ACK, seq=5001, ack=1001, payload=b"x" * 10)
    after = monotonic_ns()
    ((key, value),) = unattached.entries().items()

    def packed(address: str) -> bytes:
        return ip_address(address).packed.rjust(16, b"\0")

    ports = struct.pack("!HHBxxx", 40000, 8080, 6)
    assert key == packed(flow.client[0]) + packed(flow.backend[0]) + ports
    assert value[:18] == packed(VIP[version]) + struct.pack("!H", 80)
    assert value[20:38] == packed(flow.backend[0]) + struct.pack("!H", 8080)
    created, seen, *counts = struct.unpack("=QQQQQQ", value[40:88])
    assert before <= created <= seen <= after
    header = 40 if version == 4 else 60
    assert counts == [2, 2, 2 * header, 2 * header + 10]


@both
def test_events_name_backend_listener_and_times(unattached: Watched, version: int) -> None:
    """Both events have the backend, the listener and the times, as in lbl_abi.h."""
    before = monotonic_ns()
    flow = established(unattached, version)
    flow.gets(ACK, seq=5001, ack=1001, payload=b"x")
    flow.gets(RST, seq=5002)
    after = monotonic_ns()
    opened, closed = unattached.poll()
    for event in (opened, closed):
        mapped = BACKENDS[version][0] if version == 6 else "::ffff:" + BACKENDS[version][0]
        assert event.addr == ip_address(mapped).packed
        assert (event.protocol, event.port) == (6, 8080)
        assert event.backend_id == event.proxy_id == version
        assert event.flags == (lib.LBL_FLAG_IPV4 if version == 4 else 0)
        assert before <= event.created_ns <= event.timestamp_ns <= after
    assert opened.timestamp_ns == opened.created_ns == closed.created_ns
    assert closed.connect_us <= closed.first_byte_us <= closed.lifetime_ns // 1000
    assert closed.reason == lib.LBL_REASON_RST


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
