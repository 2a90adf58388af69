"""The programs of the flows source, packet by packet: every state, every form of a packet."""

from __future__ import annotations

import struct
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import pytest

from lblatency.event import NEVER
from tests.bpf.test_nat_lb_frames import fragment, odd_frames, with_extension
from tests.support import bpf
from tests.support.bpf import VERDICT_PASS
from tests.support.flows import Followed, Wire, following
from tests.support.netns import BACKENDS, CLIENT
from tests.support.packets import ACK, FIN, RST, SYN, frame
from tests.support.rig import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.bpf

both = pytest.mark.parametrize("version", [4, 6])
NOW: dict[str, Any] = {"half_open_s": 0, "closing_s": 0, "idle_s": 0, "udp_idle_s": 0}


@pytest.fixture
def followed() -> Iterator[Followed]:
    """A source whose programs get hand-made frames alone."""
    with following() as made:
        yield made


@pytest.fixture
def hasty() -> Iterator[Followed]:
    """The same; each tick ends whatever is open."""
    with following(**NOW) as made:
        yield made


def established(followed: Followed, version: int = 4) -> Wire:
    """A connection whose handshake is complete: ISNs 1000 and 5000."""
    wire = Wire(followed, version)
    wire.handshake()
    return wire


def whole(wire: Wire) -> None:
    """A connection with a byte each way that ends by FINs: ISNs 1000 and 5000."""
    wire.handshake()
    wire.sends(ACK, seq=1001, ack=5001, payload=b"?")
    wire.gets(ACK, seq=5001, ack=1002, payload=b"!")
    wire.sends(FIN | ACK, seq=1002, ack=5002)
    wire.gets(FIN | ACK, seq=5002, ack=1003)
    wire.sends(ACK, seq=1003, ack=5003)


# ---- every way to end ----


def by_fins(wire: Wire) -> None:
    """The client closes first."""
    wire.sends(FIN | ACK, seq=1001, ack=5001)
    wire.gets(FIN | ACK, seq=5001, ack=1002)
    wire.sends(ACK, seq=1002, ack=5002)


def by_fins_of_the_backend(wire: Wire) -> None:
    """The backend closes first."""
    wire.gets(FIN | ACK, seq=5001, ack=1001)
    wire.sends(FIN | ACK, seq=1001, ack=5002)
    wire.gets(ACK, seq=5002, ack=1002)


def half_closed(wire: Wire) -> None:
    """The client closes, the backend goes on sending."""
    wire.sends(FIN | ACK, seq=1001, ack=5001)
    wire.gets(ACK, seq=5001, ack=1002)
    wire.gets(ACK, seq=5001, ack=1002, payload=b"more")
    wire.sends(ACK, seq=1002, ack=5005)
    wire.gets(FIN | ACK, seq=5005, ack=1002)
    wire.sends(ACK, seq=1002, ack=5006)


def crossing(wire: Wire) -> None:
    """FINs that cross each other."""
    wire.sends(FIN | ACK, seq=1001, ack=5001)
    wire.gets(FIN | ACK, seq=5001, ack=1001)
    wire.gets(ACK, seq=5002, ack=1002)
    wire.sends(ACK, seq=1002, ack=5002)


ENDINGS: dict[str, tuple[Callable[[Wire], object], str]] = {
    "client's FIN first": (by_fins, "fin"),
    "backend's FIN first": (by_fins_of_the_backend, "fin"),
    "half-close": (half_closed, "fin"),
    "crossing FINs": (crossing, "fin"),
    "client's RST": (lambda wire: wire.sends(RST, seq=1001), "rst"),
    "backend's RST": (lambda wire: wire.gets(RST, seq=5001), "rst"),
    "reuse": (lambda wire: wire.sends(SYN, seq=9), "reused"),
}


@both
@pytest.mark.parametrize("name", ENDINGS)
def test_every_end_is_reported_once_with_its_reason(
    followed: Followed, name: str, version: int
) -> None:
    """A connection has one opened and one closed event, with backend, proxy, reason and times."""
    end, reason = ENDINGS[name]
    before = monotonic_ns()
    wire = established(followed, version)
    end(wire)
    after = monotonic_ns()
    (event,) = followed.closed()
    opened = followed.opened()[0]
    where = f"[{BACKENDS[6][0]}]:8080" if version == 6 else f"{BACKENDS[4][0]}:8080"
    assert {event.target, opened.target} == {where}
    assert (event.reason, event.protocol) == (reason, 6)
    assert event.probe == (name == "client's RST")
    names = followed.source.stream.proxies
    assert names[event.proxy_id] == names[opened.proxy_id] == ("web6" if version == 6 else "web")
    assert before <= opened.timestamp_ns == event.created_ns
    assert event.timestamp_ns <= after
    assert event.connect_us is not None
    assert 1 <= event.connect_us <= (after - before) // 1000 + 1
    if name == "reuse":
        assert len(followed.opened()) == 2
    assert followed.counts() == {}


def test_lost_syns_are_part_of_the_connect_time(followed: Followed) -> None:
    """A repeated SYN keeps the creation time, a repeated SYN-ACK the connect time."""
    wire = Wire(followed)
    wire.sends(SYN, seq=1000)
    second = monotonic_ns()
    wire.sends(SYN, seq=1000)
    wire.gets(SYN | ACK, seq=5000, ack=1001)
    third = monotonic_ns()
    wire.gets(SYN | ACK, seq=5000, ack=1001)
    wire.sends(ACK, seq=1001, ack=5001)
    by_fins(wire)
    event = followed.only()
    assert event.created_ns < second
    assert event.connect_us is not None
    assert second < event.created_ns + (event.connect_us + 1) * 1000
    assert event.created_ns + event.connect_us * 1000 < third


def test_failed_connects_have_causes(hasty: Followed) -> None:
    """Refused, given up for another attempt, timed out: apart, and without a time."""
    refused, given_up = Wire(hasty), Wire(hasty, port=40001)
    refused.sends(SYN, seq=1000)
    refused.gets(RST | ACK, ack=1001)
    given_up.sends(SYN, seq=1000)
    given_up.sends(SYN, seq=77)
    assert hasty.counts() == {"refused": 1, "given_up": 1}
    hasty.source.tick()
    events = hasty.closed(3)
    assert {event.reason for event in events} == {"connect_failed"}
    assert {event.connect_us for event in events} == {NEVER}
    assert hasty.source.failed_connects() == {
        "refused": 1,
        "timed_out": 1,
        "unreachable": 0,
        "given_up": 1,
    }


@pytest.mark.parametrize("late", [ACK, FIN | ACK])
def test_what_comes_late_from_an_earlier_connection_ends_no_connect(
    followed: Followed, late: int
) -> None:
    """The backend answers a SYN for an earlier connection; the client resets that and goes on."""
    wire = Wire(followed)
    wire.sends(SYN, seq=1000)
    first = monotonic_ns()
    wire.gets(late, seq=70, ack=80, payload=b"late")
    wire.sends(RST, seq=80)
    wire.sends(SYN, seq=1000)
    wire.gets(SYN | ACK, seq=5000, ack=1001)
    wire.sends(ACK, seq=1001, ack=5001)
    by_fins(wire)
    event = followed.only()
    assert event.created_ns < first
    assert (event.reason, event.first_byte_us) == ("fin", NEVER)
    assert followed.counts() == {}


@pytest.mark.parametrize("answered", [False, True])
def test_only_the_state_decides_when_silence_ends_a_connection(answered: bool) -> None:
    """Half-open, closing, idle and UDP each have a time-out of their own."""
    states: dict[str, Callable[[Followed], object]] = {
        "half_open_s": lambda followed: Wire(followed).sends(SYN, seq=1000),
        "closing_s": lambda followed: established(followed).sends(FIN | ACK, seq=1001, ack=5001),
        "idle_s": established,
        "udp_idle_s": lambda followed: Wire(followed, tcp=False).sends(payload=b"x"),
    }
    for name, begin in states.items():
        short = {name: 0.0} if answered else dict.fromkeys(NOW.keys() - {name}, 0.0)
        limits: dict[str, Any] = {**dict.fromkeys(NOW, 1e6), **short}
        with following(**limits) as followed:
            begin(followed)
            followed.source.tick()
            if not answered:
                assert len(followed.poll()) == 1
                continue
            event = followed.only()
            assert event.reason == ("connect_failed" if name == "half_open_s" else "timeout")


@both
def test_a_udp_connection_lasts_from_its_first_to_its_last_datagram(
    hasty: Followed, version: int
) -> None:
    """Its closed event has the time of the last datagram, whenever that is known to be the last."""
    wire = Wire(hasty, version, tcp=False)
    before = monotonic_ns()
    wire.sends(payload=b"1")
    first = monotonic_ns()
    wire.gets(payload=b"2")
    last = monotonic_ns()
    wire.sends(payload=b"3")
    after = monotonic_ns()
    hasty.source.tick()
    event = hasty.only()
    assert before <= event.created_ns <= first
    assert last <= event.timestamp_ns <= after
    assert (event.reason, event.protocol, event.connect_us) == ("timeout", 17, None)
    assert event.first_byte_us is not None
    assert 1 <= event.first_byte_us <= (last - before) // 1000 + 1


# ---- where packets come by ----

HOOKS = {
    "facing the backends": ((1,), (0,)),
    "facing the clients": ((0,), (1,)),
    "in only": ((0,), (0,)),
    "out only": ((1,), (1,)),
    "in and then out": ((0, 1), (0, 1)),
}


@both
@pytest.mark.parametrize("name", HOOKS)
def test_any_hook_may_see_any_packet_any_number_of_times(
    followed: Followed, name: str, version: int
) -> None:
    """Which program sees a packet, and how often, makes no difference."""
    wire = Wire(followed, version, hooks=HOOKS[name])
    whole(wire)
    event = followed.only()
    assert (event.reason, event.probe) == ("fin", False)
    assert None not in (event.connect_us, event.first_byte_us, event.closing_us)
    assert event.first_byte_us != NEVER
    assert followed.counts() == {}


def test_older_connections_are_no_connections(followed: Followed) -> None:
    """What has begun before the start makes no event; its FINs and RSTs are counted as strays."""
    wire = Wire(followed)
    wire.sends(ACK, seq=1, ack=1, payload=b"x")
    wire.gets(ACK, seq=1, ack=1, payload=b"x")
    wire.gets(SYN | ACK, seq=1, ack=1)
    assert followed.counts() == {}
    wire.sends(FIN | ACK, seq=1, ack=1)
    wire.gets(RST, seq=1)
    wire.sends(SYN | FIN, seq=1)
    assert followed.counts() == {"stray": 3}
    assert followed.poll() == []


def test_other_traffic_is_not_followed(followed: Followed) -> None:
    """Other ports, other addresses, a backend's own connections, ARP and ICMP: nothing."""
    web, client = (BACKENDS[4][0], 8080), (CLIENT[4], 40000)
    four = frame(client, web, flags=SYN, seq=1)
    others = [
        frame(client, (web[0], 8081), flags=SYN, seq=1),
        frame(client, ("10.3.0.1", 8080), flags=SYN, seq=1),
        frame(client, (web[0], 8081), flags=FIN, seq=1),
        frame(client, (web[0], 53)),
        frame(web, client, flags=SYN, seq=1),
        frame(web, client),
        four[:12] + b"\x08\x06" + four[14:],
        four[:23] + b"\x01" + four[24:],
    ]
    for sent in others:
        for program in followed.source.program_fds:
            assert bpf.run_on_frame(program, sent)[:2] == (VERDICT_PASS, sent)
    assert followed.poll() == []
    assert followed.counts() == {}


# ---- forms of packets ----


def tagged(*ethertypes: int) -> Callable[[bytes], bytes]:
    """Put VLAN tags into a frame."""

    def change(data: bytes) -> bytes:
        tags = b"".join(struct.pack("!HH", each, 7) for each in ethertypes)
        return data[:12] + tags + data[12:]

    return change


def extended(*kinds: int) -> Callable[[bytes], bytes]:
    """Put IPv6 extension headers of eight bytes into a frame, the first kind first."""

    def change(data: bytes) -> bytes:
        for kind in reversed(kinds):
            data = with_extension(data, kind)
            if kind == 44:
                data = data[:56] + bytes(2) + data[58:]
        return data

    return change


FORMS: dict[str, tuple[int, Callable[[bytes], bytes], bool]] = {
    "802.1Q": (4, tagged(0x8100), True),
    "802.1Q, IPv6": (6, tagged(0x8100), True),
    "802.1ad": (4, tagged(0x88A8, 0x8100), True),
    "802.1ad, IPv6": (6, tagged(0x88A8, 0x8100), True),
    "three tags": (4, tagged(0x88A8, 0x8100, 0x8100), False),
    "hop-by-hop": (6, extended(0), True),
    "routing": (6, extended(43), True),
    "destination options": (6, extended(60), True),
    "authentication": (6, extended(51), True),
    "atomic fragment": (6, extended(44), True),
    "three of them, tagged": (6, lambda data: tagged(0x8100)(extended(0, 43, 60)(data)), True),
    "five of them": (6, extended(0, 60, 43, 60, 60), False),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("tcp", [True, False])
def test_what_stands_between_the_headers(hasty: Followed, name: str, tcp: bool) -> None:
    """VLAN tags and extension headers are stepped over; too many of them are counted."""
    version, change, is_seen = FORMS[name]
    wire = Wire(hasty, version, tcp=tcp, change=change)
    if tcp:
        whole(wire)
    else:
        wire.sends(payload=b"?")
        wire.gets(payload=b"!")
        hasty.source.tick()
    if not is_seen:
        assert hasty.counts() == {"ignored": 8 if tcp else 2}
        assert hasty.poll() == []
        return
    event = hasty.only()
    assert event.reason == ("fin" if tcp else "timeout")
    assert event.first_byte_us not in (None, NEVER)
    assert hasty.counts() == {}


def ip6_fragment(data: bytes, bits: int) -> bytes:
    """Make the frame an IPv6 fragment with this offset field."""
    data = with_extension(data, 44)
    return data[:56] + struct.pack("!H", bits) + data[58:]


@both
@pytest.mark.parametrize("tcp", [True, False])
@pytest.mark.parametrize("at", [0, 1, 185, 0x1FFE])
def test_a_datagram_in_fragments_is_seen_by_its_first(
    hasty: Followed, at: int, tcp: bool, version: int
) -> None:
    """Later fragments, and TCP in fragments, are counted instead; `at` is in units of 8 bytes."""
    bits = 0x2000 | at if version == 4 else at << 3 | 1
    change = fragment if version == 4 else ip6_fragment
    wire = Wire(hasty, version, tcp=tcp, change=lambda data: change(data, bits))
    wire.sends(SYN if tcp else None, payload=b"x" * 64)
    hasty.source.tick()
    if not at and not tcp:
        assert hasty.only().protocol == 17
        assert hasty.counts() == {}
    else:
        assert hasty.poll() == []
        assert hasty.counts() == {"ignored": 1}


MALFORMED = [
    name
    for name in odd_frames()
    if "fragment" not in name.lower() and name not in ("hop-by-hop", "destination options")
]


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_packets_are_counted(followed: Followed, name: str) -> None:
    """A malformed packet passes unchanged, is counted, and makes no event."""
    sent = odd_frames()[name]
    for program in followed.source.program_fds:
        assert bpf.run_on_frame(program, sent)[:2] == (VERDICT_PASS, sent)
    assert followed.poll() == []
    assert followed.counts() == {"ignored": 2}


# ---- ICMP ----

UNREACHABLE = {4: 3, 6: 1}  # the kinds of messages
IP_BYTES = {4: 20, 6: 40}
CODES = {4: [code for code in range(16) if code != 4], 6: list(range(8))}


@both
def test_icmp_tells_why_the_connects_that_it_quotes_fail(hasty: Followed, version: int) -> None:
    """Whatever says that the destination is unreachable; and what comes then is new."""
    wires = {code: Wire(hasty, version, port=40000 + code) for code in CODES[version]}
    other = Wire(hasty, version, port=39999)
    for wire in (other, *wires.values()):
        wire.sends(SYN, seq=1000)
    before = monotonic_ns()
    for code, wire in wires.items():
        wire.gets_icmp(UNREACHABLE[version], code)
    after = monotonic_ns()
    hasty.source.tick()
    events = hasty.closed(len(wires) + 1)
    assert {(each.reason, each.connect_us) for each in events} == {("connect_failed", NEVER)}
    times = [each.timestamp_ns for each in events if each.timestamp_ns >= before]
    assert len(times) == len(wires)
    assert max(times) <= after
    assert hasty.counts() == {"unreachable": len(wires), "timed_out": 1}
    wire.gets_icmp(UNREACHABLE[version], 1)
    wire.handshake()
    by_fins(wire)
    assert hasty.closed(len(wires) + 2)[-1].reason == "fin"
    assert hasty.counts() == {"unreachable": len(wires), "timed_out": 1}


def test_a_client_may_try_on(hasty: Followed) -> None:
    """It is one connection, which is answered in the end, or is not, or is begun anew."""
    answered, silent, anew = (Wire(hasty, port=40000 + each) for each in range(3))
    for wire in (answered, silent, anew):
        wire.sends(SYN, seq=1000)
        wire.gets_icmp(3, 0)
    first = monotonic_ns()
    anew.sends(SYN, seq=77)
    assert hasty.counts() == {"unreachable": 1}
    answered.sends(SYN, seq=1000)
    silent.sends(SYN, seq=1000)
    answered.gets(SYN | ACK, seq=5000, ack=1001)
    answered.sends(ACK, seq=1001, ack=5001)
    by_fins(answered)
    event = hasty.closed(2)[1]
    assert event.reason == "fin"
    assert event.created_ns < first
    hasty.source.tick()
    hasty.closed(4)
    assert hasty.counts() == {"unreachable": 1, "timed_out": 2}


def test_an_unreachable_backend_is_no_matter_of_a_minute(followed: Followed) -> None:
    """The connect fails when the client's next SYN would be overdue: 3.5 s after the first."""
    wire = Wire(followed)
    wire.sends(SYN, seq=1000)
    before = monotonic_ns()
    wire.gets_icmp(3, 1)
    ticks = [monotonic_ns()]

    def ended() -> bool:
        ticks.append(monotonic_ns())
        followed.source.tick()
        return len(followed.poll()) == 2

    wait_until(ended, "the connect's end")
    event = followed.only()
    assert before <= event.timestamp_ns <= ticks[0]
    assert ticks[-2] - ticks[0] < 3_510_000_000
    assert monotonic_ns() - before > 3_500_000_000
    assert followed.counts() == {"unreachable": 1}


@both
def test_icmp_is_seen_at_any_hook(hasty: Followed, version: int) -> None:
    """With tags, too."""
    ways = [(hooks, tags) for hooks in HOOKS.values() for tags in ((), (0x8100,), (0x88A8, 0x8100))]
    for number, (hooks, tags) in enumerate(ways):
        wire = Wire(hasty, version, port=40000 + number, hooks=hooks, change=tagged(*tags))
        wire.sends(SYN, seq=1000)
        wire.gets_icmp(UNREACHABLE[version], 1)
    hasty.source.tick()
    assert {event.reason for event in hasty.closed(len(ways))} == {"connect_failed"}
    assert hasty.counts() == {"unreachable": len(ways)}


def quote(version: int, **changed: Any) -> bytes:
    """What an ICMP error quotes of the SYN of a connection, changed."""
    sent = {"flags": SYN, "seq": 1000, **changed}
    where = sent.pop("source", (CLIENT[version], 40000)), sent.pop("target", None)
    whole = frame(where[0], where[1] or (BACKENDS[version][0], 8080), **sent)
    return whole[14:]


def patched(version: int, at: int, value: bytes) -> bytes:
    """The quote with other bytes at an offset of its IP header, or behind it."""
    data = quote(version)
    return data[:at] + value + data[at + len(value) :]


def harmless(version: int) -> dict[str, tuple[int, int, bytes]]:
    """ICMP errors that end no connect: their kind, code and quote."""
    kind, long = UNREACHABLE[version], IP_BYTES[version]
    web = BACKENDS[version][0]
    quotes = {
        "another sequence number": quote(version, seq=1001),
        "another port": quote(version, source=(CLIENT[version], 40001)),
        "another port of the backend": quote(version, target=(web, 8081)),
        "another client": quote(version, source=(web, 40000)),
        "another backend": quote(version, target=(BACKENDS[version][1], 8080)),
        "a reply": quote(version, source=(web, 8080), target=(CLIENT[version], 40000)),
        "a datagram": quote(version, flags=None, payload=bytes(100)),
        "nothing": b"",
        "no ports": quote(version)[:long],
        "half a sequence number": quote(version)[: long + 6],
        "another version": patched(version, 0, b"\x55" if version == 4 else b"\x40"),
    }
    if version == 4:
        quotes["a header too short"] = patched(4, 0, b"\x44")
        quotes["a later fragment"] = patched(4, 6, b"\x00\xb9")
        quotes["another version's packet"] = quote(6)
    else:
        quotes["another version's packet"] = quote(4)
    found = {name: (kind, 1, data) for name, data in quotes.items()}
    other = [*range(3), *range(4, 256)] if version == 4 else [0, *range(2, 256)]
    found.update({f"kind {each}": (each, 0, quote(version)) for each in other})
    if version == 4:
        found["fragmentation needed"] = (3, 4, quote(4))
    return found


@both
def test_other_icmp_is_no_cause(hasty: Followed, version: int) -> None:
    """All kinds but one, and quotes that are of no connect, wrong, or cut off."""
    wire = Wire(hasty, version)
    wire.sends(SYN, seq=1000)
    for kind, code, quoting in harmless(version).values():
        wire.gets_icmp(kind, code, quoting=quoting)
    hasty.source.tick()
    assert hasty.only().reason == "connect_failed"
    assert hasty.counts() == {"timed_out": 1}


@both
@pytest.mark.parametrize("answers", range(3))
def test_icmp_has_no_say_about_what_is_answered(version: int, answers: int) -> None:
    """Neither the SYN-ACK nor what follows is undone, whatever is quoted."""
    with following(half_open_s=0) as followed:
        wire = Wire(followed, version)
        wire.sends(SYN, seq=1000)
        wire.gets(SYN | ACK, seq=5000, ack=1001)
        if answers > 0:
            wire.sends(ACK, seq=1001, ack=5001)
        if answers > 1:
            wire.sends(ACK, seq=1001, ack=5001, payload=b"x")
        for seq in (1000, 1001, 1002):
            wire.gets_icmp(UNREACHABLE[version], 1, seq=seq)
        followed.source.tick()
        wire.gets(RST, seq=5001)
        assert followed.only().reason == ("rst" if answers else "connect_failed")
        assert followed.counts() == ({} if answers else {"timed_out": 1, "stray": 1})


@both
def test_icmp_ends_no_datagrams(hasty: Followed, version: int) -> None:
    """A connection of UDP ends by silence."""
    wire = Wire(hasty, version, tcp=False)
    wire.sends(payload=b"?")
    wire.gets_icmp(UNREACHABLE[version], 3, quoting=quote(version, flags=None, payload=b"?"))
    assert len(hasty.poll()) == 1
    hasty.source.tick()
    assert hasty.only().reason == "timeout"
    assert hasty.counts() == {}


# ---- rules ----


def test_the_longest_prefix_and_the_fewest_ports_name_the_proxy() -> None:
    """A rule for fewer addresses comes first, then one for fewer ports; all of them apply."""
    rules = (
        "0.0.0.0/0:1-65535=rest",
        "10.2.0.0/16:8000-8999=wide",
        "10.2.0.2:8080-8081=host",
        "10.2.0.0/16:8443=tls",
        "10.2.0.0/16:8400-8499",
    )
    expected = {
        ("10.2.0.2", 8080): "host",
        ("10.2.0.2", 8081): "host",
        ("10.2.0.2", 8082): "wide",
        ("10.2.0.2", 80): "rest",
        ("10.2.0.3", 8080): "wide",
        ("10.2.0.3", 8443): "tls",
        ("10.2.0.3", 8444): None,
        ("10.2.0.3", 9000): "rest",
        ("203.0.113.9", 1): "rest",
    }
    with following(backends=rules) as followed:
        for backend in expected:
            Wire(followed, backend=backend).sends(SYN, seq=1)
        Wire(followed, 6).sends(SYN, seq=1)  # 0.0.0.0/0 has no IPv6
        names = followed.source.stream.proxies
        assert [names.get(event.proxy_id) for event in followed.opened()] == [*expected.values()]


def test_all_of_ipv6_has_no_ipv4() -> None:
    """The rule ::/0 is for IPv6 only."""
    with following(backends=["[::]/0:1-65535"]) as followed:
        Wire(followed, 4).sends(SYN, seq=1)
        Wire(followed, 6).sends(SYN, seq=1)
        assert [event.target for event in followed.opened()] == [f"[{BACKENDS[6][0]}]:8080"]


def test_what_does_not_fit_is_counted() -> None:
    """Connections beyond max_connections are lost, and counted; there is room again later."""
    with following(max_connections=2) as followed:
        for port in range(40000, 40005):
            Wire(followed, port=port).sends(SYN, seq=1)
        assert followed.source.lost() == {"flows_full": 3}
        Wire(followed, port=40000).gets(RST | ACK, ack=2)
        Wire(followed, port=40009).sends(SYN, seq=1)
        assert len(followed.opened()) == 3
        assert followed.source.lost() == {"flows_full": 3}
