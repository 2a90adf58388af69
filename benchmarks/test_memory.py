"""What a tracker with 10,000 backends occupies."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import Publish

BACKENDS, OBSERVATIONS = 10_000, 500
LIFETIMES = {
    "two decades of lifetimes": (24, 7),  # 17 ms to 2.1 s
    "16 us to 17 s": (14, 20),
    "1 us to 208 days": (10, 44),
}


@pytest.mark.parametrize("lifetimes", LIFETIMES)
def test_memory(lifetimes: str, smoke: bool, publish: Publish) -> None:
    """Resident memory over that of the same process before it made a tracker."""
    octave, octaves = LIFETIMES[lifetimes]
    arguments = [BACKENDS // 10 if smoke else BACKENDS, OBSERVATIONS, octave, octaves]
    script = Path(__file__).parent / "rss.py"
    start = time.perf_counter_ns()
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)], check=True, capture_output=True, text=True
    )
    took = time.perf_counter_ns() - start
    publish("memory", "10000 backends", lifetimes, {lifetimes: [took]}, **json.loads(done.stdout))
