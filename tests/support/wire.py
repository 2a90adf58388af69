"""When the kernel saw the packets of connections at an interface: the clock of the wire."""

from __future__ import annotations

import math
import socket
import struct
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lblatency._address import format_target
from lblatency._closing import Closing
from lblatency.demo.kernel_clock import stamp_arrivals, stamp_of

if TYPE_CHECKING:
    from tests.support.netns import Namespace

_SO_RCVBUFFORCE = 33  # not named by Python
_ALL = 3  # ETH_P_ALL
_IPV6 = 0x86DD
_ROOM = 1 << 26
_FIN_SYN_RST, _SYN, _ACK = 0b111, 0b10, 0b10000
_HEADERS = 128  # bytes of a packet that are looked at


@dataclass
class Handshake:
    """A connection's first packets, by the time at which the kernel took them, ns."""

    syn_ns: int
    answered_ns: int = 0
    first_byte_ns: float = math.inf


class Wire(Closing):
    """Notes the packets of all TCP connections that pass an interface."""

    def __init__(self, namespace: Namespace, device: str) -> None:
        """Listen to it."""
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        stamp_arrivals(self._socket)
        self._socket.bind((device, _ALL))
        self._socket.setblocking(False)

    def handshakes(self) -> dict[str, list[Handshake]]:
        """The connections to each server, in the order of their SYNs."""
        found: dict[str, list[Handshake]] = defaultdict(list)
        by_ports: dict[tuple[str, int], Handshake] = {}
        while True:
            try:
                packet, messages, _, _ = self._socket.recvmsg(_HEADERS, 64)
            except BlockingIOError:
                return found
            self._note(packet, stamp_of(messages), found, by_ports)

    @staticmethod
    def _note(
        packet: bytes,
        ns: int,
        found: dict[str, list[Handshake]],
        by_ports: dict[tuple[str, int], Handshake],
    ) -> None:
        (kind,) = struct.unpack_from("!H", packet, 12)
        if kind == _IPV6:
            family, source, at = socket.AF_INET6, 22, 54
            (total,) = struct.unpack_from("!H", packet, 18)
            protocol = packet[20]
        else:
            family, source, at = socket.AF_INET, 26, 34
            total = struct.unpack_from("!H", packet, 16)[0] - 20
            protocol = packet[23]
        if protocol != socket.IPPROTO_TCP:
            return
        length = 16 if family == socket.AF_INET6 else 4
        near, far = (
            socket.inet_ntop(family, packet[first : first + length])
            for first in (source, source + length)
        )
        near_port, far_port = struct.unpack_from("!HH", packet, at)
        payload, flags = total - (packet[at + 12] >> 4) * 4, packet[at + 13]
        if flags & (_FIN_SYN_RST | _ACK) == _SYN:
            key = format_target(far, far_port), near_port
            if key not in by_ports:  # else it is a retransmit
                by_ports[key] = Handshake(ns)
                found[key[0]].append(by_ports[key])
            return
        connection = by_ports.get((format_target(near, near_port), far_port))
        if connection is None:
            return
        if flags & _SYN:
            connection.answered_ns = connection.answered_ns or ns
        if payload:
            connection.first_byte_ns = min(connection.first_byte_ns, ns)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
