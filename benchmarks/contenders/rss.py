"""Fill a tracker in its own process and print the memory that it took, as JSON.

    python -m benchmarks.contenders.rss BACKENDS OBSERVATIONS OCTAVE OCTAVES
    python -m benchmarks.contenders.rss BACKENDS

Lifetimes are from 2^OCTAVE ns to 2^(OCTAVE + OCTAVES). Without these
arguments, every counter grows beyond its first byte: no backend takes more memory.
"""

from __future__ import annotations

import json
import os
import sys
from array import array
from pathlib import Path

from lblatency import LatencyTracker

from ..rings import RING_EVENTS, Traffic
from .ours import Tracked


def rss() -> int:
    """The resident memory of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def fill(tracked: Tracked, traffic: Traffic, events: int) -> None:
    """Fill as time goes by, with a scrape now and then."""
    for first in range(0, events, RING_EVENTS):
        part = Traffic(
            traffic.backends, octave=traffic.octave, octaves=traffic.octaves, first=first
        )
        tracked.ring.fill(part, for_stream=True)
        tracked.stream.drain()
        if first % (20 * RING_EVENTS) == 0:
            tracked.tracker.get_histogram("web", "10.0.0.0:8080")


def report(taken: int, backends: int) -> None:
    """Print KiB per backend, and MiB of all of them."""
    print(json.dumps({"kib_per_backend": taken / backends / 1024, "mib": taken / (1 << 20)}))


def fill_all(backends: int) -> None:
    """Record 257 times a value in each slot, by hand, since that is the fastest."""
    seconds = array("d", (2.0 ** (step / 64) for step in range(-20 * 64, 24 * 64 + 2)))
    tracker = LatencyTracker()
    empty = rss()
    for backend in range(backends):
        for _ in range(257):
            tracker.record_many("web", f"10.0.{backend >> 8}.{backend & 255}:80", seconds)
    report(rss() - empty, backends)


def main() -> None:
    """Fill as the arguments say, and print the memory."""
    backends, *rest = (int(argument) for argument in sys.argv[1:])
    if not rest:
        fill_all(backends)
        return
    observations, octave, octaves = rest
    traffic = Traffic(backends, octave=octave, octaves=octaves)
    empty = rss()
    tracked = Tracked(traffic, known=False)
    fill(tracked, traffic, backends * observations)
    tracked.tracker.get_histogram("web", "10.0.0.0:8080")
    report(rss() - empty, backends)
    tracked.close()


if __name__ == "__main__":
    main()
