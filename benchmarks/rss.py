"""Fill a tracker in a process of its own and print what memory it took, as JSON.

    python rss.py BACKENDS OBSERVATIONS OCTAVE OCTAVES

Lifetimes are from 2^OCTAVE ns to 2^(OCTAVE + OCTAVES).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from rings import RING_EVENTS, Tracked, Traffic


def rss() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def fill(tracked: Tracked, traffic: Traffic, events: int) -> None:
    """As time goes by, with a scrape every now and then."""
    for first in range(0, events, RING_EVENTS):
        part = Traffic(
            traffic.backends, octave=traffic.octave, octaves=traffic.octaves, first=first
        )
        tracked.ring.fill(part, for_stream=True)
        tracked.stream.drain()
        if first % (20 * RING_EVENTS) == 0:
            tracked.tracker.get_histogram("web", "10.0.0.0:8080")


def main() -> None:
    """Print bytes a backend, and all of them."""
    backends, observations, octave, octaves = (int(argument) for argument in sys.argv[1:])
    traffic = Traffic(backends, octave=octave, octaves=octaves)
    empty = rss()
    tracked = Tracked(traffic, known=False)
    fill(tracked, traffic, backends * observations)
    tracked.tracker.get_histogram("web", "10.0.0.0:8080")
    taken = rss() - empty
    print(json.dumps({"kib_a_backend": taken / backends / 1024, "mib": taken / (1 << 20)}))
    tracked.close()


if __name__ == "__main__":
    main()
