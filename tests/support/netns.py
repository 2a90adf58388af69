"""Network namespaces, and the topology of a client, a balancer and its backends.

They are held by descriptors alone, so that a killed test leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

from lblatency._closing import Closing
from tests.support.rig import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17


class Namespace:
    """A network namespace without a name. It ends with its last descriptor."""

    def __init__(self) -> None:
        """Make a namespace with its loopback up."""
        with _back_home():
            if _libc.unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.run("ip link set lo up")
        for scope in ("all", "default"):
            # Without it, a new address is unusable for a second or two.
            self.run(f"sysctl -qw net.ipv6.conf.{scope}.accept_dad=0")

    @property
    def path(self) -> str:
        """The path of the namespace, for commands that `run` starts."""
        return f"/proc/self/fd/{self.fd}"

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Move this thread into the namespace; sockets that it opens there stay there."""
        with entered(self.fd):
            yield

    def run(self, command: str, *, also: tuple[Namespace, ...] = (), stdin: str = "") -> str:
        """Run a command in the namespace; it may name the namespaces in `also` by path."""
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
        """Make a socket in the namespace."""
        with self.inside():
            made = socket.socket(family, kind)
        made.settimeout(10)
        return made

    def set_offload(self, device: str, *, on: bool) -> None:
        """Switch the transmit checksum offload of a device, and with it segmentation."""
        value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STXCSUM, on), 8)
        request = struct.pack("16sQ16x", device.encode(), ctypes.addressof(value))
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCETHTOOL, request)

    def close(self) -> None:
        """Close the namespace."""
        os.close(self.fd)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def entered(fd: int) -> Iterator[None]:
    """Move this thread into the network namespace behind the descriptor."""
    with _back_home():
        _setns(fd)
        yield


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


class Topology(Closing):
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
        """Close all namespaces."""
        for namespace in (self.client, self.balancer, self.backend):
            namespace.close()


def _family(address: str) -> int:
    return FAMILY[ip_address(address).version]
