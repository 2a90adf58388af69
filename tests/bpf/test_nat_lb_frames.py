"""The balancer's programs, packet by packet: every output byte."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from time import monotonic_ns
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lblatency._ffi import lib
from tests.support import bpf
from tests.support.balancer import Flow, Watched, established
from tests.support.bpf import VERDICT_PASS
from tests.support.netns import BACKENDS, VIP
from tests.support.packets import ACK, FIN, PSH, RST, SYN, frame

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.bpf

both = pytest.mark.parametrize("version", [4, 6])
NONE_SEEN = lib.LBL_SPAN_NONE


@both
def test_packets_are_translated_both_ways(unattached: Watched, version: int) -> None:
    """The client's packets reach the backend, replies come from the VIP, checksums are right."""
    flow = established(unattached, version)
    assert flow.backend == (BACKENDS[version][0], 8080)
    assert flow.sends(ACK | PSH, seq=1001, ack=5001, payload=b"odd") == VERDICT_PASS
    assert flow.gets(ACK | PSH, seq=5001, ack=1004, payload=b"reply") == VERDICT_PASS


@both
@settings(
    suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture]
)
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
