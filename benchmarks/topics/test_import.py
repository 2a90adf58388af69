"""The time that `import lblatency` adds to the start of a program."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from statistics import median

import pytest

from ..harness import CONSUMER, interleave, pin, same
from ..replay import Publish

BARE, OURS, PROMETHEUS = "bare python", "import lblatency", "import prometheus_client"
CODE = {BARE: "pass", OURS: OURS, PROMETHEUS: PROMETHEUS}


def _start(code: str) -> float:
    start = time.perf_counter_ns()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter_ns() - start


@pytest.fixture(scope="module")
def samples(rounds: int) -> Mapping[str, list[float]]:
    """The ns of all contenders, from start to end."""
    pin(CONSUMER)
    return interleave({name: same(partial(_start, code)) for name, code in CODE.items()}, rounds)


@pytest.mark.parametrize("name", CODE)
def test_import(name: str, samples: Mapping[str, list[float]], publish: Publish) -> None:
    """The time from start to end of an interpreter, with files cached."""
    over = (median(samples[name]) - median(samples[BARE])) / 1e6
    publish("import", "an interpreter's life", name, samples, ms_over_bare=over)
