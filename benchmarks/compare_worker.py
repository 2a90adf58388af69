"""Drain with one checkout. compare.py runs this file with the Python of that checkout.

    python compare_worker.py PRODUCER_CPU CONSUMER_CPU BACKENDS

It uses the public interface of lblatency only, so that it can measure any version. First it prints
the path of its lblatency. Each message on standard input is a number of bytes (8 bytes, native
order), then that many bytes of events. It answers how many events the drain took and in how many
ns.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from typing import BinaryIO

import lblatency
from lblatency.stats import MemoryRing, create_event_stream

EVENT_BYTES = 56
RING_BYTES = 4 << 20  # more than four batches: a quarter would wake the drain thread


def _messages(pipe: BinaryIO) -> list[bytes]:
    """The events of the next message; none at the end."""
    head = pipe.read(8)
    data = pipe.read(struct.unpack("=Q", head)[0]) if head else b""
    return [data[at : at + EVENT_BYTES] for at in range(0, len(data), EVENT_BYTES)]


def main() -> None:
    """Fill on one CPU and drain on the other, until the input ends."""
    producer, consumer, backends = map(int, sys.argv[1:])
    os.sched_setaffinity(0, {consumer})  # also of the drain thread
    ring = MemoryRing(RING_BYTES)
    stream = create_event_stream(ring)
    tracker = lblatency.LatencyTracker(max_backends=backends)
    tracker.start(stream, None, "web")
    print(lblatency.__file__, flush=True)
    while events := _messages(sys.stdin.buffer):
        os.sched_setaffinity(0, {producer})
        for event in events:
            ring.produce(event)
        os.sched_setaffinity(0, {consumer})
        start = time.perf_counter_ns()
        n = stream.drain()
        ns = time.perf_counter_ns() - start
        sys.stdout.buffer.write(struct.pack("=QQ", n, ns))
        sys.stdout.buffer.flush()
    tracker.stop()


if __name__ == "__main__":
    main()
