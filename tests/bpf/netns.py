"""What the BPF tests stand on: network namespaces, packets made by hand, and the raw kernel API.

Everything is held by descriptors alone, so that a killed test leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import socket
import struct
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Self

from helpers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lblatency.demo.balancer import NatBalancer

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 280)
_CLONE_NEWNET = 0x40000000

MAP_LOOKUP, MAP_DELETE, MAP_NEXT_KEY, PROG_TEST_RUN = 1, 3, 4, 10

VERDICT_PASS, VERDICT_DROP = 0xFFFFFFFF, 2
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def bpf(command: int, attr: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """Make the system call; the attributes are changed in place if they are a buffer."""
    buffer = ctypes.create_string_buffer(attr, len(attr)) if isinstance(attr, bytes) else attr
    rc = int(_libc.syscall(_SYS_BPF, command, buffer, len(buffer)))
    if rc < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return rc


def map_entries(fd: int, key_bytes: int, value_bytes: int) -> dict[bytes, bytes]:
    """Read a whole hash map."""
    found: dict[bytes, bytes] = {}
    key = None
    while True:
        following = ctypes.create_string_buffer(key_bytes)
        current = ctypes.create_string_buffer(key, key_bytes) if key is not None else None
        at = ctypes.addressof(current) if current else 0
        try:
            bpf(MAP_NEXT_KEY, struct.pack("=IxxxxQQQ", fd, at, ctypes.addressof(following), 0))
        except FileNotFoundError:
            return found
        value = ctypes.create_string_buffer(value_bytes)
        places = ctypes.addressof(following), ctypes.addressof(value)
        bpf(MAP_LOOKUP, struct.pack("=IxxxxQQQ", fd, *places, 0))
        key = following.raw
        found[key] = value.raw


def run_program(fd: int, frame: bytes, repeat: int = 1) -> tuple[int, bytes, int]:
    """Hand a frame to a TC program. Returns verdict, the frame as it left, and ns per run."""
    data_in = ctypes.create_string_buffer(frame, len(frame))
    data_out = ctypes.create_string_buffer(len(frame) + 256)
    attr = ctypes.create_string_buffer(
        struct.pack(
            "=IIIIQQII",
            fd,
            0,
            len(frame),
            len(data_out),
            ctypes.addressof(data_in),
            ctypes.addressof(data_out),
            repeat,
            0,
        )
        + bytes(40),
        80,
    )
    bpf(PROG_TEST_RUN, attr)
    _, verdict, _, out_bytes, _, _, _, duration = struct.unpack("=IIIIQQII", attr.raw[:40])
    return verdict, data_out.raw[:out_bytes], duration


@dataclass(frozen=True)
class Event:
    """A struct lbl_event."""

    type: int
    reason: int
    protocol: int
    flags: int
    backend_id: int
    timestamp_ns: int
    created_ns: int
    connect_us: int
    first_byte_us: int
    closing_us: int
    port: int
    proxy_id: int
    addr: bytes

    @property
    def lifetime_ns(self) -> int:
        """How long the connection lived."""
        return self.timestamp_ns - self.created_ns


class Ring:
    """The slow obvious reader of a BPF ring buffer."""

    def __init__(self, fd: int, ring_bytes: int) -> None:
        """Map it; `ring_bytes` is its max_entries."""
        page = mmap.PAGESIZE
        self._bytes = ring_bytes
        self._consumer = mmap.mmap(fd, page)
        self._producer = mmap.mmap(fd, page + 2 * ring_bytes, prot=mmap.PROT_READ, offset=page)

    def _positions(self) -> tuple[int, int]:
        consumer = struct.unpack_from("=Q", self._consumer)[0]
        return consumer, struct.unpack_from("=Q", self._producer)[0]

    def pending(self) -> int:
        """How many events of ours are in it, unread."""
        consumer, producer = self._positions()
        return int(producer - consumer) // 64

    def read(self) -> list[Event]:
        """Take out all that is complete."""
        events = []
        consumer, producer = self._positions()
        while consumer < producer:
            at = mmap.PAGESIZE + consumer % self._bytes
            header = struct.unpack_from("=I", self._producer, at)[0]
            if header & 1 << 31:
                break
            length = header & (1 << 30) - 1
            if not header & 1 << 30:
                assert length == 56
                record = self._producer[at + 8 : at + 8 + length]
                events.append(Event(*struct.unpack("=BBBBIQQIIIHH16s", record)))
            consumer += 8 + (length + 7 & ~7)
            struct.pack_into("=Q", self._consumer, 0, consumer)
        return events

    def close(self) -> None:
        """Unmap it."""
        self._consumer.close()
        self._producer.close()


class Namespace:
    """A network namespace without a name: it ends with its last descriptor."""

    def __init__(self) -> None:
        """Make one, with its loopback up."""
        with _back_home():
            if _libc.unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.run("ip link set lo up")
        for scope in ("all", "default"):
            # Without it a new address may not be used for a second or two.
            self.run(f"sysctl -qw net.ipv6.conf.{scope}.accept_dad=0")

    @property
    def path(self) -> str:
        """What a command that `run` starts may call it."""
        return f"/proc/self/fd/{self.fd}"

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Take this thread into it; sockets made there stay there."""
        with _back_home():
            _setns(self.fd)
            yield

    def run(self, command: str, *, also: tuple[Namespace, ...] = (), stdin: str = "") -> str:
        """Run a command in it, which may name the namespaces in `also` by their path."""
        fds = [self.fd, *(other.fd for other in also)]
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", *command.split()],
            pass_fds=fds,
            input=stdin,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def socket(self, family: int, kind: int) -> socket.socket:
        """Make a socket in it."""
        with self.inside():
            made = socket.socket(family, kind)
        made.settimeout(10)
        return made

    def close(self) -> None:
        """Let it go."""
        os.close(self.fd)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def _back_home() -> Iterator[None]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        _setns(home)
        os.close(home)


CLIENT = {4: "10.1.0.2", 6: "fd01::2"}
VIP = {4: "10.9.0.1", 6: "fd09::1"}
BACKENDS = {4: ["10.2.0.2", "10.2.0.3", "10.2.0.4"], 6: ["fd02::2", "fd02::3", "fd02::4"]}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


class Topology:
    """A client, a balancer and one host that has the addresses of all backends.

    client c0 (10.1.0.2, fd01::2) - c1 balancer b1 - b0 backends (10.2.0.2-4, fd02::2-4)
    """

    def __init__(self) -> None:
        """Make the namespaces, the two cables between them, addresses and routes."""
        self.client, self.balancer, self.backend = Namespace(), Namespace(), Namespace()
        ends = (self.client, self.backend)
        path = self.balancer.path
        self.client.run(
            f"ip link add c0 type veth peer name c1 netns {path}", also=(self.balancer,)
        )
        self.backend.run(
            f"ip link add b0 type veth peer name b1 netns {path}", also=(self.balancer,)
        )
        self.balancer.run("sysctl -qw net.ipv4.ip_forward=1")
        self.balancer.run("sysctl -qw net.ipv6.conf.all.forwarding=1")
        self._batch(
            self.balancer,
            "addr add 10.1.0.1/24 dev c1",
            "addr add fd01::1/64 dev c1 nodad",
            "addr add 10.2.0.1/24 dev b1",
            "addr add fd02::1/64 dev b1 nodad",
            "addr add 10.9.0.1/32 dev lo",
            "addr add fd09::1/128 dev lo nodad",
            "link set c1 up",
            "link set b1 up",
        )
        self._batch(
            ends[0],
            "addr add 10.1.0.2/24 dev c0",
            "addr add fd01::2/64 dev c0 nodad",
            "link set c0 up",
            "route add default via 10.1.0.1",
            "-6 route add default via fd01::1",
        )
        self._batch(
            ends[1],
            *(f"addr add {address}/24 dev b0" for address in BACKENDS[4]),
            *(f"addr add {address}/64 dev b0 nodad" for address in BACKENDS[6]),
            "link set b0 up",
            "route add default via 10.2.0.1",
            "-6 route add default via fd02::1",
        )
        wait_until(self._up, "the cables' carrier")

    @staticmethod
    def _batch(namespace: Namespace, *commands: str) -> None:
        for command in commands:
            namespace.run(f"ip {command}")

    def _up(self) -> bool:
        links = self.balancer.run("ip -o link show up")
        return links.count("LOWER_UP") == 3

    def listen(self, address: str, port: int, backlog: int = 1024) -> socket.socket:
        """Open a TCP listener among the backends."""
        server = self.backend.socket(_family(address), socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(backlog)
        return server

    def connect(self, address: str, port: int, source_port: int = 0) -> socket.socket:
        """Open a TCP connection from the client."""
        made = self.client.socket(_family(address), socket.SOCK_STREAM)
        try:
            if source_port:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind(("", source_port))
            made.connect((address, port))
        except BaseException:
            made.close()
            raise
        return made

    def close(self) -> None:
        """Let everything go."""
        for namespace in (self.client, self.balancer, self.backend):
            namespace.close()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let everything go."""
        self.close()


def _family(address: str) -> int:
    return FAMILY[ip_address(address).version]


def checksum(data: bytes) -> int:
    """The Internet checksum, written the slow obvious way."""
    if len(data) % 2:
        data += b"\0"
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ip_header(source: str, target: str, protocol: int, l4_bytes: int, options: bytes) -> bytes:
    src, dst = ip_address(source), ip_address(target)
    if src.version == 6:
        return struct.pack("!IHBB", 6 << 28, l4_bytes, protocol, 64) + src.packed + dst.packed
    length = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH", 0x40 | length // 4, 0, length + l4_bytes, 7, 0x4000, 64, protocol, 0
    )
    head += src.packed + dst.packed + options
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:]


def frame(
    source: tuple[str, int],
    target: tuple[str, int],
    *,
    flags: int | None = None,
    seq: int = 0,
    ack: int = 0,
    payload: bytes = b"",
    ip_options: bytes = b"",
    udp_checksum: bool = True,
    padding: bytes = b"",
) -> bytes:
    """Make an Ethernet frame with right checksums: TCP if it has `flags`, otherwise UDP."""
    if flags is None:
        protocol, at = 17, 6
        l4 = struct.pack("!HHHH", source[1], target[1], 8 + len(payload), 0)
    else:
        protocol, at = 6, 16
        numbers = seq & 0xFFFFFFFF, ack & 0xFFFFFFFF
        l4 = struct.pack("!HHIIBBHHH", source[1], target[1], *numbers, 5 << 4, flags, 512, 0, 0)
    l4 += payload
    ip = _ip_header(source[0], target[0], protocol, len(l4), ip_options)
    if flags is not None or udp_checksum:
        pseudo = ip_address(source[0]).packed + ip_address(target[0]).packed
        pseudo += struct.pack("!II", len(l4), protocol)
        found = checksum(pseudo + l4)
        if flags is None and not found:
            found = 0xFFFF
        l4 = l4[:at] + found.to_bytes(2, "big") + l4[at + 2 :]
    ethertype = 0x0800 if ip_address(source[0]).version == 4 else 0x86DD
    return bytes(12) + struct.pack("!H", ethertype) + ip + l4 + padding


class Flow:
    """A connection of frames made by hand, to hand to the balancer's programs one by one."""

    def __init__(
        self, balancer: NatBalancer, version: int = 4, *, port: int = 40000, tcp: bool = True
    ) -> None:
        """From the client's `port` to port 80 of the VIP."""
        self.programs = balancer.ingress_fd, balancer.egress_fd
        self.client = (CLIENT[version], port)
        self.vip = (VIP[version], 80)
        self.tcp = tcp
        self.backend = ("", 0)

    def sends(self, flags: int | None = None, **rest: Any) -> int:
        """The client sends; returns the verdict, having checked every byte of what came out."""
        sent = frame(self.client, self.vip, flags=flags, **rest)
        verdict, out, _ = run_program(self.programs[0], sent)
        if out != sent:
            self.backend = _target(out)
            assert out == frame(self.client, self.backend, flags=flags, **rest)
        return verdict

    def gets(self, flags: int | None = None, **rest: Any) -> int:
        """The backend sends; returns the verdict, having checked every byte of what came out."""
        sent = frame(self.backend, self.client, flags=flags, **rest)
        verdict, out, _ = run_program(self.programs[1], sent)
        if out != sent:
            assert out == frame(self.vip, self.client, flags=flags, **rest)
        return verdict

    def handshake(self, isn: int = 1000, backend_isn: int = 5000) -> None:
        """SYN, SYN-ACK, ACK."""
        self.sends(SYN, seq=isn)
        self.gets(SYN | ACK, seq=backend_isn, ack=isn + 1)
        self.sends(ACK, seq=isn + 1, ack=backend_isn + 1)


def _target(data: bytes) -> tuple[str, int]:
    """Where a frame goes."""
    if data[12:14] == b"\x08\x00":
        header = (data[14] & 15) * 4
        where = ip_address(data[30:34])
    else:
        header = 40
        where = ip_address(data[38:54])
    return str(where), int.from_bytes(data[14 + header + 2 : 14 + header + 4], "big")
