"""Measure contenders on fixed CPUs, in turn, and again if something disturbed them."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TypeVar

_CPUS = sorted(os.sched_getaffinity(0))
PRODUCER, CONSUMER = _CPUS[0], _CPUS[-1]
TRIES = 20

Key = TypeVar("Key", bound=Hashable)
Sample = TypeVar("Sample")


def pin(cpu: int) -> None:
    """Run the calling thread, and the threads that it starts, on this CPU."""
    os.sched_setaffinity(0, {cpu})


def unpin() -> None:
    """Let the calling thread, and what it starts, run on any CPU again."""
    os.sched_setaffinity(0, _CPUS)


def interleave(
    contenders: Mapping[Key, Callable[[int], Sample | None]], rounds: int, warmup: int = 2
) -> dict[Key, list[Sample]]:
    """Give each contender a turn in every round, in an order that changes.

    Args:
        contenders: functions that measure once, given the round's number; they return None if
            the measurement was disturbed and must be repeated.
        rounds: how many rounds count.
        warmup: how many rounds before these do not count.

    Returns:
        The measurements of each contender, one per round.
    """
    order = list(contenders)
    samples: dict[Key, list[Sample]] = {key: [] for key in order}
    gc.collect()
    gc.disable()
    try:
        for number in range(warmup + rounds):
            random.Random(number).shuffle(order)
            for key in order:
                sample = _undisturbed(key, contenders[key], number)
                if number >= warmup:
                    samples[key].append(sample)
    finally:
        gc.enable()
    return samples


def _undisturbed(key: Hashable, run: Callable[[int], Sample | None], number: int) -> Sample:
    for _ in range(TRIES):
        sample = run(number)
        if sample is not None:
            return sample
        time.sleep(0.2)  # by then a drain thread that came between is back to its idle pace
    raise RuntimeError(f"{key}: disturbed {TRIES} times in a row")


def same(run: Callable[[], Sample]) -> Callable[[int], Sample]:
    """Make a turn that is the same in every round."""
    return lambda _number: run()


def threads(name: str) -> set[int]:
    """The threads of this process that have this name."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(task.name) for task in tasks if (task / "comm").read_text().strip() == name}


def cpu_ns(thread: int) -> int:
    """The CPU-time clock of a thread of this process (see clock_getcpuclockid)."""
    return time.clock_gettime_ns((~thread << 3) | 6)
