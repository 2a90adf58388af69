"""Conntrack maps of any kind and key format, which tests fill."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

from tests.support import bpf
from tests.support.rig import SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = {
    "hash": bpf.HASH,
    "LRU hash": bpf.LRU_HASH,
    "per-CPU hash": bpf.PERCPU_HASH,
    "LRU per-CPU hash": bpf.LRU_PERCPU_HASH,
}
PER_CPU = {bpf.PERCPU_HASH, bpf.LRU_PERCPU_HASH}
VALUE_BYTES = 128
VIP = ("198.51.100.1", 443)  # of the events that rig.py makes
CREATED = 5 * SECOND
NUMBERS = (CREATED, 7 * SECOND, 10, 20, 3000, 4000)


def address(text: str, unified: bool) -> bytes:
    """An address in the form of the key: IPv4 alone, or after 12 zero bytes."""
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return bytes(12 if unified else 0) + socket.inet_pton(socket.AF_INET, text)


def key(client: tuple[str, int], backend: tuple[str, int], protocol: int, unified: bool) -> bytes:
    """A key of 16 or 40 bytes."""
    return (
        address(client[0], unified)
        + address(backend[0], unified)
        + struct.pack(">HHB3x", client[1], backend[1], protocol)
    )


def value(numbers: tuple[int, ...], unified: bool, vip: tuple[str, int] | None) -> bytes:
    """The value of one CPU: the VIP, another address, the six numbers, and junk at the end."""
    half = 20 if unified else 8
    told = address(vip[0], unified) + struct.pack(">H", vip[1]) if vip else b""
    numbered = told.ljust(half, b"\0") + b"\xee" * half + struct.pack("=6Q", *numbers)
    return numbered + b"\xdd" * (VALUE_BYTES - len(numbered))


class Table:
    """A conntrack map of any kind and key format, which the test fills."""

    def __init__(self, kind: int, unified: bool, entries: int = 1000) -> None:
        self.per_cpu, self.unified = kind in PER_CPU, unified
        self.fd = bpf.create_map(kind, 40 if unified else 16, VALUE_BYTES, entries)
        self.cpus = bpf.possible_cpus()

    def put(
        self,
        client: tuple[str, int] = ("192.0.2.7", 40000),
        backend: tuple[str, int] = ("10.0.0.1", 80),
        protocol: int = 6,
        per_cpu: Sequence[tuple[int, ...]] = (NUMBERS,),
        vip: tuple[str, int] | None = VIP,
    ) -> None:
        """Put an entry; `per_cpu` has the numbers of the first CPUs, the others are 0."""
        values = b"".join(value(numbers, self.unified, vip) for numbers in per_cpu)
        if self.per_cpu:
            values = values.ljust(VALUE_BYTES * self.cpus, b"\0")[: VALUE_BYTES * self.cpus]
        bpf.update(self.fd, key(client, backend, protocol, self.unified), values)

    def delete(
        self,
        client: tuple[str, int] = ("192.0.2.7", 40000),
        backend: tuple[str, int] = ("10.0.0.1", 80),
        protocol: int = 6,
    ) -> None:
        """Delete an entry."""
        bpf.delete(self.fd, key(client, backend, protocol, self.unified))

    def close(self) -> None:
        """Close the map."""
        os.close(self.fd)
