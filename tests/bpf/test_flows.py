"""The flows source and its interfaces: what it attaches, beside whom, and what is left of it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from lblatency import LatencyTracker
from lblatency.errors import LatencyError
from lblatency.sources import Flows
from tests.support import bpf
from tests.support.flows import RULES, following
from tests.support.netns import BACKENDS, FAMILY, VIP, Namespace, Topology
from tests.support.packets import ACK, RST, SYN, frame
from tests.support.rig import wait_until
from tests.support.seccomp import deny_bpf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.balancer import Watched

pytestmark = pytest.mark.bpf

OURS = ["lbl_flows_in", "lbl_flows_out"]
LINK_CREATE = 28
TUNSETIFF, TUNSETLINK, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x400454CD, 1, 0x1000
ARPHRD_IEEE80211 = 801


def programs(netns: Namespace, device: str) -> list[str]:
    """The names of the programs that links have put at the device, in and out."""
    with netns.inside():
        ifindex = socket.if_nametoindex(device)
        hooks = (bpf.TCX_INGRESS, bpf.TCX_EGRESS)
        return [name for hook in hooks for name in bpf.programs_at(ifindex, hook)]


def filters(netns: Namespace, device: str) -> str:
    """The filters of the device's clsact qdisc."""
    return "".join(netns.run(f"tc filter show dev {device} {way}") for way in ("ingress", "egress"))


@contextlib.contextmanager
def connected(topology: Topology, address: str = BACKENDS[4][0]) -> Iterator[socket.socket]:
    """A connection from the client to a backend, without NAT; it ends with the block."""
    with (
        topology.listen(address, 8080) as listener,
        topology.connect(address, 8080) as client,
        listener.accept()[0] as server,
    ):
        client.sendall(b"?")
        assert server.recv(1) == b"?"
        yield client
        server.close()
        assert client.recv(1) == b""


def other_process(netns: Namespace, work: Callable[[], None]) -> int:
    """Fork a child into the namespace; it does its work, says so, and waits to be killed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            with netns.inside():
                work()
                os.write(write, b"!")
                signal.pause()
            code = 0
        os._exit(code)
    os.close(write)
    with open(read, "rb") as said:
        assert said.read(1) == b"!", "the other process failed"
    return pid


def kill(pid: int) -> None:
    """End a child, by force."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def run_source() -> Flows:
    """A source at b1, which is never closed."""
    return Flows(["b1"], backends=RULES)


KEPT: list[Flows] = []  # of a child: what it opened must live until it is killed


def test_programs_come_and_go_with_the_source(topology: Topology) -> None:
    """Both programs are there while it is open, beside those of another source."""
    with following("b1", netns=topology.balancer) as one:
        assert programs(topology.balancer, "b1") == OURS
        with following("b1", netns=topology.balancer) as other, connected(topology):
            assert len(one.opened()) == len(other.opened()) == 1
        with connected(topology):
            pass
        assert len(one.closed(2)) == 2
        assert one.source.status()["linked"]
    assert programs(topology.balancer, "b1") == []


def test_a_killed_process_leaves_nothing(topology: Topology) -> None:
    """The kernel takes the programs away with the process."""
    pid = other_process(topology.balancer, lambda: KEPT.append(run_source()))
    try:
        assert programs(topology.balancer, "b1") == OURS
    finally:
        kill(pid)
    wait_until(lambda: not programs(topology.balancer, "b1"), "the programs' end")


def test_filters_of_others_go_on(topology: Topology, attached: Watched) -> None:
    """A balancer at the same interface goes on, and both tell the same of each connection."""
    before = filters(topology.balancer, "c1")
    assert "nat_lb" in before
    with following("c1", "b1", netns=topology.balancer) as followed:
        with (
            topology.listen(BACKENDS[4][0], 8080) as listener,
            topology.connect(VIP[4], 80) as client,
            listener.accept()[0] as server,
        ):
            server.close()
            assert client.recv(1) == b""
        event, told = followed.only(), attached.only()
        assert event.target == f"{BACKENDS[4][0]}:8080"
        assert event.reason == "fin"
        assert event.created_ns >= told.created_ns  # the SYN passes the balancer, then us
        assert event.timestamp_ns <= told.timestamp_ns  # the last acknowledgement comes to us first
    assert filters(topology.balancer, "c1") == before


def test_older_kernels_get_filters_which_a_successor_replaces(topology: Topology) -> None:
    """Where there are no links: a killed process's filters stay, recognisable, until the next."""
    router = topology.balancer

    def without_links() -> None:
        deny_bpf(LINK_CREATE, errno.EINVAL)  # as kernels before 6.6
        KEPT.append(run_source())
        assert not KEPT[0].status()["linked"]

    def successor() -> None:
        without_links()
        KEPT[0].close()

    try:
        kill(other_process(router, without_links))
        left = filters(router, "b1")
        assert all(f"{name}:[" in left for name in OURS)
        pid = other_process(router, without_links)
        assert filters(router, "b1").count("lbl_flows") == left.count("lbl_flows")
        kill(pid)
        kill(other_process(router, successor))
        assert "lbl_flows" not in filters(router, "b1")
    finally:
        router.run("tc qdisc del dev b1 clsact")


def test_interfaces_that_come_later_are_followed() -> None:
    """A pattern attaches to what is there, and at a tick to what has come instead."""
    netns = Namespace()
    try:
        netns.run("ip link add pod0 type veth peer name far0")
        with following("pod*", netns=netns) as followed:
            assert followed.source.status()["followed"] == 1
            netns.run("ip link add pod1 type veth peer name far1")
            followed.source.tick()
            assert followed.source.status()["followed"] == 2
            assert programs(netns, "pod1") == OURS
            assert programs(netns, "far1") == []
            netns.run("ip link del pod0")
            netns.run("ip link add pod0 type veth peer name far0")
            followed.source.tick()
            assert followed.source.status()["followed"] == 2
            assert programs(netns, "pod0") == OURS
        assert programs(netns, "pod0") == programs(netns, "pod1") == []
    finally:
        netns.close()


def test_an_interface_that_goes_is_told_until_it_is_back() -> None:
    """One that a pattern names may be away; one that is named itself may not."""
    netns = Namespace()
    try:
        netns.run("ip link add one type veth peer name far")
        with following("lo", "one", "pod*", netns=netns) as followed:
            assert followed.source.trouble() is None
            netns.run("ip link del one")
            followed.source.tick()
            assert followed.source.trouble() == "of the interfaces lo, one, 1 are not there"
            netns.run("ip link add one type veth peer name far")
            followed.source.tick()
            assert followed.source.trouble() is None
    finally:
        netns.close()


@contextlib.contextmanager
def tunnel(netns: Namespace, kind: int | None = None) -> Iterator[int]:
    """The descriptor of the far end of tun0; `kind` is what the device claims to be."""
    with netns.inside():
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", b"tun0", IFF_TUN | IFF_NO_PI))
        if kind is not None:
            fcntl.ioctl(tun, TUNSETLINK, kind)
        netns.run("ip link set tun0 up")
        yield tun
    finally:
        os.close(tun)


@pytest.mark.parametrize("version", [4, 6])
def test_packets_of_a_tunnel_begin_with_ip(version: int) -> None:
    """A connection is seen in a device without Ethernet headers, both ways."""
    netns = Namespace()
    web, address = BACKENDS[version][0], "10.2.0.1/24" if version == 4 else "fd02::1/64 nodad"
    try:
        with tunnel(netns) as tun, following("tun0", netns=netns) as followed:
            netns.run(f"ip addr add {address} dev tun0")
            with netns.socket(FAMILY[version], socket.SOCK_STREAM) as out:
                out.setblocking(False)
                out.connect_ex((web, 8080))
                wait_until(followed.opened, "the SYN")
                client = out.getsockname()[:2]
                os.write(tun, frame((web, 8080), client, flags=RST | ACK, ack=1)[14:])
                assert followed.only().reason == "connect_failed"
            assert followed.counts() == {"refused": 1}
    finally:
        netns.close()


def test_other_devices_are_refused() -> None:
    """A device whose packets begin otherwise is refused by name, and left out of a pattern."""
    netns = Namespace()
    try:
        with tunnel(netns, kind=ARPHRD_IEEE80211), netns.inside():
            with pytest.raises(LatencyError, match="tun0 is neither"):
                Flows(["lo", "tun0"], backends=RULES)
            assert programs(netns, "lo") == []
            with Flows(["tu*"], backends=RULES) as source:
                assert source.status()["followed"] == 0
    finally:
        netns.close()


BAD: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "no interface": (ValueError, "at least one interface", {"interfaces": []}),
    "a string": (ValueError, "in a list", {"interfaces": "eth0"}),
    "unknown": (LatencyError, "there is no interface nope0; `ip link`", {"interfaces": ["nope0"]}),
    "too long": (ValueError, "not the name of an interface", {"interfaces": ["a" * 16]}),
    "empty name": (ValueError, "not the name of an interface", {"interfaces": [""]}),
    "null": (ValueError, "not the name of an interface", {"interfaces": ["a\0b"]}),
    "path": (ValueError, "not the name of an interface", {"interfaces": ["../lo"]}),
    "no backend": (ValueError, "name the backends", {"backends": []}),
    "bad rule": (ValueError, "is not of the form", {"backends": ["10.0.0.1"]}),
    "no room": (ValueError, "max_connections 0", {"max_connections": 0}),
    "too much room": (ValueError, "max_connections", {"max_connections": 1 << 25}),
    "NaN": (ValueError, "idle_s nan", {"idle_s": float("nan")}),
    "negative": (ValueError, "udp_idle_s -1", {"udp_idle_s": -1}),
    "too many ranges": (
        ValueError,
        "at most 32",
        {"backends": [f"10.0.0.1:{port}" for port in range(1, 34)]},
    ),
    "too many networks": (
        ValueError,
        "4097 networks",
        {"backends": [f"10.0.{i // 256}.{i % 256}:80" for i in range(4097)]},
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused_in_one_line(topology: Topology, name: str) -> None:
    """Bad arguments give one line, and leave nothing attached."""
    kind, text, arguments = BAD[name]
    with topology.client.inside(), pytest.raises(kind, match=text) as caught:
        Flows(**{"interfaces": ["lo"], "backends": RULES, **arguments})
    assert "\n" not in str(caught.value)
    assert programs(topology.client, "lo") == []


def test_a_closed_source_says_so(topology: Topology) -> None:
    """Closing again has no effect; anything else says that it is closed."""
    with topology.client.inside():
        source = Flows(["lo"], backends=RULES)
    source.close()
    source.close()
    for use in (source.tick, source.lost, source.status, source.failed_connects):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_more_than_a_ring_may_be_open_and_end_at_once() -> None:
    """70,000 are open, none ends early; all end in one tick, and none of the events is dropped."""
    count = 70_000
    netns = Namespace()
    sent = bytearray(frame(("10.0.0.0", 0), (BACKENDS[4][0], 8080)))
    try:
        with (
            following("lo", netns=netns, udp_idle_s=1e6) as patient,
            following("lo", netns=netns, udp_idle_s=0) as hasty,
            netns.inside(),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out,
        ):
            out.bind(("lo", 0))
            for number in range(count):
                sent[28:30] = struct.pack("!H", number // 50_000)
                sent[34:36] = struct.pack("!H", number % 50_000 + 1)
                out.send(sent)
            for followed in (patient, hasty):
                followed.source.tick()
                followed.poll()
            assert len(patient.events) == count
            assert len(hasty.closed(count)) == len(hasty.opened()) == count
            assert patient.counts() == hasty.counts() == {}
    finally:
        netns.close()


def test_a_tracker_has_latencies_under_the_rules_names(topology: Topology) -> None:
    """What passes ends up in the histogram of its backend, under the proxy's name."""
    tracker = LatencyTracker()
    with topology.balancer.inside():
        source = Flows(["b1"], backends=["10.2.0.2:8080=web", "10.2.0.0/24:8080"])
    with source:
        tracker.start(source.stream, None, "rest")
        with connected(topology):
            pass
        with connected(topology, BACKENDS[4][1]):
            pass
        source.stream.drain()
        tracker.stop()
    for proxy, target in (("web", "10.2.0.2:8080"), ("rest", "10.2.0.3:8080")):
        histogram = tracker.get_histogram(proxy, target)
        assert histogram is not None
        assert histogram.count == 1


def test_a_tag_that_the_device_takes_off_is_no_matter(topology: Topology) -> None:
    """Tagged frames on a real wire: the kernel moves the outer tag out of the frame as it comes."""
    web, client = (BACKENDS[4][0], 8080), ("10.1.0.2", 40000)

    def tagged(data: bytes) -> bytes:
        return b"\xff" * 12 + struct.pack("!HHHH", 0x88A8, 5, 0x8100, 7) + data[12:]

    def wire(netns: Namespace, device: str) -> socket.socket:
        with netns.inside():
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        made.bind((device, 0))
        return made

    with (
        following("b1", netns=topology.balancer) as followed,
        wire(topology.balancer, "b1") as out,
        wire(topology.backend, "b0") as back,
    ):
        out.send(tagged(frame(client, web, flags=SYN, seq=1000)))
        wait_until(followed.opened, "the SYN")
        back.send(tagged(frame(web, client, flags=RST | ACK, ack=1001)))
        assert followed.only().reason == "connect_failed"
        assert followed.counts() == {"refused": 1}
