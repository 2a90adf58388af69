"""The balancer with real connections between a client and backends, each in a namespace."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import random
import re
import resource
import socket
import struct
import subprocess
import sys
import threading
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import pytest

from lblatency._ffi import lib
from lblatency.demo.balancer import NatBalancer
from lblatency.errors import BpfError
from tests.support import bpf
from tests.support.balancer import Watched, target, watch
from tests.support.netns import BACKENDS, FAMILY, VIP, Namespace, Topology
from tests.support.rig import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.ring import Event

pytestmark = pytest.mark.bpf

both = pytest.mark.parametrize("version", [4, 6])
RST_ON_CLOSE = struct.pack("ii", 1, 0)


class Pair:
    """A connection from the client through the balancer to a backend, and its creation time."""

    def __init__(self, topology: Topology, version: int = 4, port: int = 8080) -> None:
        """Connect; both ends are blocking sockets."""
        with topology.listen(BACKENDS[version][0], port) as server:
            self.before_ns = monotonic_ns()
            self.client = topology.connect(VIP[version], 80)
            self.connected_ns = monotonic_ns()
            self.server, _ = server.accept()
        self.server.settimeout(10)

    def exchange(self) -> None:
        """Send one byte each way."""
        self.client.sendall(b"?")
        assert self.server.recv(1) == b"?"
        self.server.sendall(b"!")
        assert self.client.recv(1) == b"!"

    def close(self) -> None:
        """Close both ends, the client's first."""
        self.client.close()
        self.server.close()

    def __enter__(self) -> Pair:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close both ends."""
        self.close()


def reset(end: socket.socket) -> None:
    """Close with a RST."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
    end.close()


def assert_ended(event: Event, pair: Pair, since_ns: int) -> None:
    """Compare an event with the client's clock: created at connect, ended after `since_ns`."""
    assert pair.before_ns <= event.created_ns <= pair.connected_ns
    assert since_ns <= event.timestamp_ns <= monotonic_ns()
    assert event.connect_us <= (pair.connected_ns - pair.before_ns) // 1000


@both
def test_megabytes_arrive_whole_both_ways(
    topology: Topology, attached: Watched, version: int
) -> None:
    """Megabytes arrive whole in both directions, in segments larger than the wire's."""
    sent = random.Random(version).randbytes(4 << 20)
    digest = hashlib.sha256(sent).digest()

    def receive(end: socket.socket, into: list[bytes]) -> None:
        got = hashlib.sha256()
        while chunk := end.recv(1 << 16):
            got.update(chunk)
        into.append(got.digest())

    def packets() -> int:
        link = json.loads(topology.balancer.run("ip -j -s link show c1"))
        return sum(int(link[0]["stats64"][way]["packets"]) for way in ("rx", "tx"))

    before = packets()
    with Pair(topology, version) as pair:
        for source, sink in ((pair.client, pair.server), (pair.server, pair.client)):
            into: list[bytes] = []
            thread = threading.Thread(target=receive, args=(sink, into))
            thread.start()
            source.sendall(sent)
            source.shutdown(socket.SHUT_WR)
            thread.join(30)
            assert into == [digest]
            for value in attached.entries().values():
                # This counts packets of the wire's size, not the larger ones of the interface.
                assert struct.unpack("=Q", value[56:64])[0] > len(sent) // 1500
    assert attached.only().reason == lib.LBL_REASON_FIN
    assert packets() - before < 2 * len(sent) // 1500, "no segmentation offload was at work"


@both
@pytest.mark.parametrize("where", ["before", "after"])
def test_checksums_made_in_software_are_right(
    topology: Topology, attached: Watched, version: int, where: str
) -> None:
    """Checksums are right if software computes them before or after the balancer, or not at all."""
    ends = [(topology.client, "c0"), (topology.backend, "b0")]
    if where == "after":
        ends = [(topology.balancer, "c1"), (topology.balancer, "b1")]
    with contextlib.ExitStack() as stack:
        for namespace, device in ends:
            namespace.set_offload(device, on=False)
            stack.callback(namespace.set_offload, device, on=True)
        sent = random.Random(version).randbytes(200_000)
        with Pair(topology, version) as pair:
            pair.client.sendall(sent)
            pair.client.shutdown(socket.SHUT_WR)
            assert b"".join(iter(lambda: pair.server.recv(1 << 16), b"")) == sent
            pair.server.sendall(sent)
            pair.server.close()
            assert b"".join(iter(lambda: pair.client.recv(1 << 16), b"")) == sent
        assert attached.only().reason == lib.LBL_REASON_FIN
        with (
            topology.backend.socket(FAMILY[version], socket.SOCK_DGRAM) as server,
            topology.client.socket(FAMILY[version], socket.SOCK_DGRAM) as client,
        ):
            server.bind((BACKENDS[version][0], 8080))
            client.connect((VIP[version], 80))
            client.send(b"ping")
            data, peer = server.recvfrom(100)
            server.sendto(data, peer)
            assert client.recv(100) == b"ping"


@both
def test_a_flow_of_datagrams_lasts_from_its_first_to_its_last(
    topology: Topology, attached: Watched, version: int
) -> None:
    """Datagrams are answered from the VIP; the flow lasts from its first to its last packet."""
    with (
        topology.backend.socket(FAMILY[version], socket.SOCK_DGRAM) as server,
        topology.client.socket(FAMILY[version], socket.SOCK_DGRAM) as client,
    ):
        server.bind((BACKENDS[version][0], 8080))
        client.connect((VIP[version], 80))
        before = monotonic_ns()
        for size in (1, 2, 1000, 1400):
            last = monotonic_ns()
            client.send(bytes(size))
            data, peer = server.recvfrom(2000)
            assert len(data) == size
            server.sendto(data[::-1], peer)
            assert len(client.recv(2000)) == size
        after = monotonic_ns()
        assert attached.balancer.sweep(udp_idle_s=1000) == 0
        assert attached.balancer.sweep(udp_idle_s=0) == 1
        event = attached.only()
        assert event.reason == lib.LBL_REASON_TIMEOUT
        assert event.protocol == 17
        assert before <= event.created_ns <= last <= event.timestamp_ns <= after
        assert 0 < event.first_byte_us <= event.lifetime_ns // 1000


def test_connections_are_shared_out_by_weight(topology: Topology) -> None:
    """New connections are spread by weight; a backend of weight 0 gets none."""
    with watch() as watched, contextlib.ExitStack() as stack:
        backends = [(i + 1, target(4, i), weight) for i, weight in enumerate((1, 3, 0))]
        watched.balancer.add_listener(1, VIP[4], 80, "tcp", backends)
        watched.balancer.attach("c1", topology.balancer.fd)
        for address in BACKENDS[4]:
            stack.enter_context(topology.listen(address, 8080))
        for _ in range(400):
            reset(topology.connect(VIP[4], 80))
        ids = [event.backend_id for event in watched.closed(400)]
        # Six standard deviations: 6 * sqrt(400 * 0.75 * 0.25) is 52.
        assert abs(ids.count(2) - 300) < 52
        assert ids.count(1) + ids.count(2) == 400


def test_connections_stay_where_they_are(topology: Topology, attached: Watched) -> None:
    """A change of backends moves new connections only, even if an id gets another address."""
    with Pair(topology) as old:
        attached.balancer.add_listener(4, VIP[4], 80, "tcp", [(4, target(4, 1), 1)])
        old.exchange()
        with (
            topology.listen(BACKENDS[4][1], 8080) as server,
            topology.connect(VIP[4], 80) as new,
            server.accept()[0] as accepted,
        ):
            accepted.sendall(b"new")
            assert new.recv(9) == b"new"
            old.exchange()
    addresses = {event.addr[12:] for event in attached.closed(2)}
    assert addresses == {socket.inet_aton(address) for address in BACKENDS[4][:2]}


@both
@pytest.mark.parametrize("first", ["client", "server"])
def test_a_connection_lives_until_both_ends_have_closed(
    topology: Topology, attached: Watched, version: int, first: str
) -> None:
    """A connection closed by either side first lives until the other has closed too."""
    with Pair(topology, version) as pair:
        pair.exchange()
        answered_ns = monotonic_ns()
        ends = [pair.client, pair.server]
        if first == "server":
            ends.reverse()
        ends[0].close()
        assert ends[1].recv(1) == b""
        assert attached.opened() == attached.events
        since_ns = monotonic_ns()
        ends[1].close()
        event = attached.only()
    assert event.reason == lib.LBL_REASON_FIN
    assert_ended(event, pair, since_ns)
    assert 0 < event.connect_us < event.first_byte_us < (answered_ns - pair.before_ns) // 1000
    assert event.closing_us <= (event.timestamp_ns - answered_ns) // 1000 + 1
    assert attached.entries() == {}


def test_a_half_closed_connection_lives_on(topology: Topology, attached: Watched) -> None:
    """The connection lives while a client that has sent its FIN still receives."""
    with Pair(topology) as pair:
        pair.client.shutdown(socket.SHUT_WR)
        assert pair.server.recv(1) == b""
        shut_ns = monotonic_ns()
        wait_until(lambda: monotonic_ns() > shut_ns + 50_000_000, "50 ms")
        pair.server.sendall(b"still here")
        assert pair.client.recv(99) == b"still here"
        since_ns = monotonic_ns()
        pair.server.close()
        event = attached.only()
    assert event.reason == lib.LBL_REASON_FIN
    assert_ended(event, pair, since_ns)
    assert event.closing_us > 50_000
    assert event.first_byte_us > 50_000


@both
@pytest.mark.parametrize("by", ["client", "server"])
def test_a_reset_by_either_end_ends_the_connection(
    topology: Topology, attached: Watched, version: int, by: str
) -> None:
    """A reset by either side ends the connection at once."""
    with Pair(topology, version) as pair:
        pair.exchange()
        since_ns = monotonic_ns()
        reset(getattr(pair, by))
        event = attached.only()
    assert event.reason == lib.LBL_REASON_RST
    assert not event.flags & lib.LBL_FLAG_PROBE
    assert_ended(event, pair, since_ns)
    assert attached.entries() == {}


@both
def test_a_refused_connection_has_failed(
    topology: Topology, attached: Watched, version: int
) -> None:
    """A connection to a closed port counts as failed, and the client gets the reset."""
    with pytest.raises(ConnectionRefusedError):
        topology.connect(VIP[version], 80)
    event = attached.only()
    assert event.reason == lib.LBL_REASON_CONNECT_FAILED
    assert event.connect_us == lib.LBL_SPAN_NONE


def test_a_health_check_is_told_apart(topology: Topology, attached: Watched) -> None:
    """A connection that is reset without a byte is marked as a health check."""
    with Pair(topology) as pair:
        reset(pair.client)
        event = attached.only()
    assert event.reason == lib.LBL_REASON_RST
    assert event.flags & lib.LBL_FLAG_PROBE


@contextlib.contextmanager
def losing(namespace: Namespace, hook: str, what: str) -> Iterator[None]:
    """Lose packets in a host."""
    chain = f"type filter hook {hook} priority 0\n{what} drop\n"
    namespace.run("nft -f -", stdin=f"table inet loss {{\nchain it {{\n{chain}}}\n}}\n")
    try:
        yield
    finally:
        namespace.run("nft delete table inet loss")


def test_a_lost_syn_counts(topology: Topology, attached: Watched) -> None:
    """The first SYN is the creation, even if it is lost; the second creates nothing."""
    every_other_syn = "tcp flags & (syn|ack) == syn numgen inc mod 2 == 0"
    with losing(topology.balancer, "forward", every_other_syn), Pair(topology) as pair:
        syn_by_ns = pair.before_ns + 500_000_000
        pair.exchange()
        reset(pair.client)
        event = attached.only()
    assert pair.before_ns <= event.created_ns < syn_by_ns
    assert 900_000 < event.connect_us <= (pair.connected_ns - pair.before_ns) // 1000


def test_a_forgotten_connection_is_reset(topology: Topology, attached: Watched) -> None:
    """A client whose connection the balancer has dropped gets a reset when it next sends."""
    with Pair(topology) as pair:
        pair.exchange()
        assert attached.balancer.sweep(idle_s=0) == 1
        event = attached.only()
        assert event.reason == lib.LBL_REASON_TIMEOUT
        assert pair.before_ns <= event.created_ns <= event.timestamp_ns <= monotonic_ns()
        pair.client.sendall(b"hello?")
        with pytest.raises(ConnectionResetError):
            pair.client.recv(1)
        assert attached.balancer.counters()["stray"] == 1


def test_a_reused_source_port_is_a_new_connection(topology: Topology, attached: Watched) -> None:
    """A client that reuses its port after an unseen reset opens a new connection."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(topology.listen(BACKENDS[4][0], 8080))
        first = topology.connect(VIP[4], 80, 33333)
        stack.enter_context(server.accept()[0])
        with losing(topology.client, "output", "tcp flags & rst == rst"):
            reset(first)
        since_ns = monotonic_ns()
        # The backend, which has it open still, answers with an acknowledgement and is reset by
        # the client, whose second SYN then succeeds: three connections for the balancer.
        second = stack.enter_context(topology.connect(VIP[4], 80, 33333))
        accepted = stack.enter_context(server.accept()[0])
        second.sendall(b"again")
        assert accepted.recv(9) == b"again"
        reset(second)
        reused, failed, last = attached.closed(3)
    assert reused.reason == lib.LBL_REASON_REUSED
    assert reused.created_ns <= reused.timestamp_ns <= since_ns <= failed.created_ns
    assert failed.reason == lib.LBL_REASON_CONNECT_FAILED
    assert last.reason == lib.LBL_REASON_RST
    assert [event.created_ns for event in attached.opened()] == [
        event.created_ns for event in (reused, failed, last)
    ]


def test_a_thousand_connections_end_once_each(topology: Topology, attached: Watched) -> None:
    """Of a thousand connections that close in any order, each has one event; none is lost."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    before_ns = monotonic_ns()
    pairs = []
    with contextlib.ExitStack() as stack, topology.listen(BACKENDS[4][0], 8080) as server:
        for _ in range(1000):
            client = stack.enter_context(topology.connect(VIP[4], 80))
            pairs.append((client, stack.enter_context(server.accept()[0])))
        assert len(attached.entries()) == 1000
        opened_ns = monotonic_ns()
        ends: list[Callable[[socket.socket], None]] = [socket.socket.close, reset]
        shuffled = random.Random(1)
        shuffled.shuffle(pairs)
        for pair in pairs:
            first, second = shuffled.sample(pair, 2)
            shuffled.choice(ends)(first)
            second.close()
        closed = attached.closed(1000)
    assert len(attached.opened()) == 1000
    created = {event.created_ns for event in attached.opened()}
    assert created == {event.created_ns for event in closed}
    assert len(created) == 1000
    assert all(before_ns <= event.created_ns <= opened_ns for event in closed)
    assert all(opened_ns <= event.timestamp_ns <= monotonic_ns() for event in closed)
    assert {event.reason for event in closed} == {lib.LBL_REASON_FIN, lib.LBL_REASON_RST}
    assert attached.balancer.counters()["produced"] == 2000
    assert attached.entries() == {}
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_closing_detaches(topology: Topology) -> None:
    """A closed balancer leaves no program on the interface, and can be closed again."""

    def filters() -> str:
        return "".join(
            topology.balancer.run(f"tc filter show dev c1 {way}") for way in ("ingress", "egress")
        )

    balancer = NatBalancer()
    balancer.attach("c1", topology.balancer.fd)
    assert filters().count("nat_lb_") >= 2
    balancer.close()
    assert "nat_lb_" not in filters()
    balancer.close()
    with pytest.raises(ValueError, match="closed"):
        balancer.counters()


def test_attaching_again_replaces(topology: Topology, attached: Watched) -> None:
    """A new balancer on the interface replaces the programs of a killed one."""
    with watch() as successor:
        successor.balancer.add_listener(1, VIP[4], 80, "tcp", [(1, target(4), 1)])
        successor.balancer.attach("c1", topology.balancer.fd)
        with Pair(topology) as pair:
            pair.exchange()
        successor.only()
    assert attached.poll() == []


def test_attach_stays_at_home(topology: Topology) -> None:
    """Attaching in another namespace leaves the thread in its own, also after a failure."""
    home = os.stat("/proc/thread-self/ns/net").st_ino
    with NatBalancer() as balancer:
        balancer.attach("c1", topology.balancer.fd)
        assert os.stat("/proc/thread-self/ns/net").st_ino == home
        with pytest.raises(BpfError, match="c9") as caught:
            balancer.attach("c9", topology.balancer.fd)
        assert caught.value.errno == errno.ENODEV
        assert os.stat("/proc/thread-self/ns/net").st_ino == home
        with topology.balancer.inside():
            balancer.attach("b1")


def test_a_balancer_survives_its_interface() -> None:
    """It is no error if the interface disappears with its namespace."""
    namespace = Namespace()
    namespace.run("ip link add c0 type veth peer name c1")
    with NatBalancer() as balancer:
        balancer.attach("c0", namespace.fd)
        namespace.run("ip link del c0")
        namespace.close()
        balancer.detach()


def test_pins_last_as_long_as_the_balancer(bpffs: bpf.Bpffs) -> None:
    """The public maps can be opened by path while the balancer runs, and not after."""
    mounted, path = bpffs
    names = ["lbl_conntrack", "lbl_counters", "lbl_events"]
    with NatBalancer() as balancer:
        balancer.pin(f"{path}/lb")
        assert sorted(os.listdir(f"{path}/lb")) == names
        with NatBalancer() as other:
            with pytest.raises(BpfError, match="pin in") as caught:
                other.pin(f"{path}/lb")
            assert caught.value.errno == errno.EEXIST
            assert sorted(os.listdir(f"{path}/lb")) == names
            os.unlink(f"{path}/lb/lbl_events")
            os.unlink(f"{path}/lb/lbl_counters")
            with pytest.raises(BpfError, match="pin in"):
                other.pin(f"{path}/lb")
            assert os.listdir(f"{path}/lb") == ["lbl_conntrack"], "a part of the pins stayed"
            other.pin(f"{path}/other")
            assert sorted(os.listdir(f"{path}/other")) == names
            with pytest.raises(BpfError, match="pin in") as caught:
                other.pin(f"{path}/third")
            assert caught.value.errno == errno.EBUSY
    assert os.listdir(f"{path}/lb") == os.listdir(f"{path}/other") == []
    assert os.fstat(mounted)


def test_pinning_elsewhere_is_explained(tmp_path: os.PathLike[str]) -> None:
    """A directory of another file system is an error that says what it must be."""
    with NatBalancer() as balancer, pytest.raises(BpfError, match="BPF file system") as caught:
        balancer.pin(os.path.join(tmp_path, "lb"))
    assert caught.value.errno == errno.EINVAL


def test_the_text_of_libbpf_is_ours_only_during_our_calls(tmp_path: os.PathLike[str]) -> None:
    """Our error has libbpf's text about our call; other texts go where they went before."""
    libbpf = ctypes.CDLL("libbpf.so.1")
    libbpf.libbpf_set_print.restype = libbpf.bpf_object__open_file.restype = ctypes.c_void_p
    heard: list[bytes] = []

    def listen(_level: int, text: bytes, _args: int | None) -> int:
        heard.append(text)
        return 0

    print_fn = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    listener = print_fn(listen)
    before = libbpf.libbpf_set_print(listener)
    try:
        with NatBalancer() as balancer, pytest.raises(BpfError, match="is not on BPF FS"):
            balancer.pin(os.path.join(tmp_path, "lb"))
        assert heard == []
        assert not libbpf.bpf_object__open_file(b"/nowhere", None)
        assert heard
    finally:
        assert (
            libbpf.libbpf_set_print(ctypes.c_void_p(before))
            == ctypes.cast(listener, ctypes.c_void_p).value
        )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1, VIP[4], 80, "sctp", []), 'protocol \'sctp\' is neither "tcp" nor "udp"'),
        ((1, VIP[4], 0, "tcp", []), "port 0 is not between 1 and 65535"),
        ((1, "nowhere", 80, "tcp", []), "'nowhere' is not an IP address"),
        ((65536, VIP[4], 80, "tcp", []), "proxy_id 65536 is not between 0 and 65535"),
        ((1, VIP[4], 80, "tcp", [(0, target(4), 1)]), "backend id 0 is not between 1 and 4095"),
        ((1, VIP[4], 80, "tcp", [(4096, target(4), 1)]), "backend id 4096 is not between 1 and"),
        ((1, VIP[4], 80, "tcp", [(1, target(6), 1)]), "is not of the address family of 10.9.0.1"),
        ((1, VIP[4], 80, "tcp", [(1, target(4), -1)]), "weight -1 is not between 0 and"),
        ((1, VIP[4], 80, "tcp", [(1, "10.2.0.2", 1)]), "'10.2.0.2' has no port"),
        ((1, VIP[6], 80, "tcp", [(1, "fd02::2:80", 1)]), "'fd02::2:80' has no valid address"),
        ((1, VIP[4], 80, "tcp", [(1, "10.2.0.2:0", 1)]), "port 0 is not between 1 and 65535"),
    ],
)
def test_bad_listeners_are_refused(
    unattached: Watched, arguments: tuple[Any, ...], text: str
) -> None:
    """A bad listener is a ValueError that says why, before any system call."""
    with pytest.raises(ValueError, match=re.escape(text)):
        unattached.balancer.add_listener(*arguments)


def test_the_configuration_has_limits() -> None:
    """64 listeners and 256 backends per listener are accepted, and no more."""
    many = [(i, f"10.2.{i // 256}.{i % 256}:80", 1) for i in range(1, 258)]
    with NatBalancer() as balancer:
        balancer.add_listener(1, VIP[4], 1, "tcp", many[:256])
        with pytest.raises(BpfError) as caught:
            balancer.add_listener(1, VIP[4], 1, "tcp", many)
        assert caught.value.errno == errno.E2BIG
        for port in range(1, 65):
            balancer.add_listener(1, VIP[4], port, "tcp", many[:1])
        with pytest.raises(BpfError) as caught:
            balancer.add_listener(1, VIP[4], 65, "tcp", many[:1])
        assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("sizes", [{"ring_bytes": 5000}, {"ring_bytes": 0}, {"max_connections": 0}])
def test_impossible_sizes_are_refused(sizes: dict[str, int]) -> None:
    """A size that the kernel cannot make is a ValueError."""
    with pytest.raises(ValueError, match=next(iter(sizes))):
        NatBalancer(**sizes)


def test_who_may_not_load_is_told_what_is_needed() -> None:
    """In one line, without libbpf's guesses at the cause; nothing is printed."""
    script = "from lblatency.demo.balancer import NatBalancer; NatBalancer()"
    caps = "-bpf,-perfmon,-net_admin,-sys_admin"
    command = ["setpriv", f"--bounding-set={caps}", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True)
    last = done.stderr.split("lblatency.errors.BpfError: ")[-1]
    assert last.startswith("load the NAT balancer: Operation not permitted; needs CAP_BPF")
    assert "libbpf: " not in done.stderr
