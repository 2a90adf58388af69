"""A reader of BPF ring buffers, slow and obvious."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass


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
        """The connection's lifetime."""
        return self.timestamp_ns - self.created_ns


class Ring:
    """Reads a BPF ring buffer in the slow obvious way."""

    def __init__(self, fd: int, ring_bytes: int) -> None:
        """Map the ring; `ring_bytes` is its max_entries."""
        page = mmap.PAGESIZE
        self._bytes = ring_bytes
        self._consumer = mmap.mmap(fd, page)
        self._producer = mmap.mmap(fd, page + 2 * ring_bytes, prot=mmap.PROT_READ, offset=page)

    def _positions(self) -> tuple[int, int]:
        consumer = struct.unpack_from("=Q", self._consumer)[0]
        return consumer, struct.unpack_from("=Q", self._producer)[0]

    def pending(self) -> int:
        """How many unread events of ours are in the ring."""
        consumer, producer = self._positions()
        return int(producer - consumer) // 64

    def consumed(self) -> int:
        """How many events of ours have left the ring."""
        return self._positions()[0] // 64

    def peek(self) -> Event:
        """The first unread event, which stays unread."""
        at = mmap.PAGESIZE + self._positions()[0] % self._bytes + 8
        return Event(*struct.unpack("=BBBBIQQIIIHH16s", self._producer[at : at + 56]))

    def read(self) -> list[Event]:
        """Consume all complete records."""
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
        """Unmap the ring."""
        self._consumer.close()
        self._producer.close()
