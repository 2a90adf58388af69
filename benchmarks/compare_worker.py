"""The drain of one checkout: compare.py runs this file with that checkout's Python.

    python compare_worker.py PRODUCER_CPU CONSUMER_CPU BACKENDS

It uses lblatency's public interface only, so that any version can be measured. First it prints
where its lblatency is. Then each message on standard input is a number of bytes (8, native order)
and so many bytes of events; the answer is how many events the drain took, and in how many ns.
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
RING_BYTES = 4 << 20  # batches are less than a quarter: who fills that wakes the drain thread


def _messages(pipe: BinaryIO) -> list[bytes]:
    """The next message's events; none at the end."""
    head = pipe.read(8)
    data = pipe.read(struct.unpack("=Q", head)[0]) if head else b""
    return [data[at : at + EVENT_BYTES] for at in range(0, len(data), EVENT_BYTES)]


def main() -> None:
    """Fill on one CPU, drain on the other, until there is no more."""
    producer, consumer, backends = map(int, sys.argv[1:])
    os.sched_setaffinity(0, {consumer})  # the drain thread's, too
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
