"""The memory of a tracker with 10,000 backends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..replay import Publish

ROOT = Path(__file__).parents[2]
BACKENDS, OBSERVATIONS = 10_000, 500
ALL = "every counter there can be, carried"
CASES = {
    "two decades of lifetimes": (BACKENDS, OBSERVATIONS, 24, 7),  # 17 ms to 2.1 s
    "16 us to 17 s": (BACKENDS, OBSERVATIONS, 14, 20),
    "1 us to 208 days": (BACKENDS, OBSERVATIONS, 10, 44),
    ALL: (BACKENDS // 10,),
}


@pytest.mark.parametrize("contender", CASES)
def test_memory(contender: str, smoke: bool, publish: Publish) -> None:
    """Resident memory over that of the same process before it had a backend."""
    backends, *lifetimes = CASES[contender]
    arguments = [backends // 10 if smoke else backends, *lifetimes]
    start = time.perf_counter_ns()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.contenders.rss", *map(str, arguments)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    took = time.perf_counter_ns() - start
    publish(
        "memory", f"{backends} backends", contender, {contender: [took]}, **json.loads(done.stdout)
    )
