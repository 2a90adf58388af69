"""Starts, stops and reads under kernel traffic and a storm of signals.

This is a program, so that it can also run with a sanitized extension. Its arguments are the path of
a bpffs with the program and maps of filler.bpf.c, and how many starts to make.
"""

from __future__ import annotations

import itertools
import os
import signal
import struct
import sys
import threading
from typing import TYPE_CHECKING

from lblatency import LatencyTracker, stats
from lblatency.demo.namespace import die_with_parent
from tests.support import bpf
from tests.support.rig import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

PERIOD_S = 0.001
BURST = 200


class SignalledError(Exception):
    """The signal handler raises this anywhere in the main thread."""


def produce(program: int) -> int:
    """Fork a producer of kernel events, which its parent kills; returns its pid."""
    pid = os.fork()
    if pid == 0:
        die_with_parent()
    while pid == 0:
        for first in range(0, 1 << 30, BURST):
            bpf.run(program, struct.pack("=III", first, BURST, 0))
    return pid


class Storm:
    """Two trackers and a subscriber on one stream, and the signal handler."""

    def __init__(self, ring: str) -> None:
        self.stream = stats.create_event_stream(ring)
        self.trackers = [LatencyTracker(metrics=("lifetime", "connect")), LatencyTracker()]
        self.subscription = self.stream.subscribe(100)
        self.popped = 0
        self.failures: list[str] = []
        self.done: dict[str, int] = {}
        self._is_over = False
        self._may_raise = False
        self._actions: Iterator[Callable[[], None]] = itertools.cycle(
            [self.interrupt, self.start, self.stop, self.fork, self.make, self.read]
        )

    def check(self, when: str) -> None:
        """Check the three sums of each tracker, from one reading per tracker."""
        for number, tracker in enumerate(self.trackers):
            n = {name: count or 0 for name, count in tracker.event_counts().items()}
            sums = (
                n["received"] + n["dropped"] + n["in_ring"] - n["produced"],
                n["opened"] + n["closed"] + n["periodic"] + n["malformed"] - n["received"],
                n["recorded"] + n["unmatched"] + n["rejected"] + n["ignored"] - n["closed"],
            )
            if any(sums):
                self.failures.append(f"{when}: tracker {number} is off by {sums}: {n}")

    def start(self) -> None:
        """Start the trackers, which may be running already."""
        for tracker in self.trackers:
            tracker.start(self.stream, None, "web")

    def stop(self) -> None:
        """Stop the second tracker, which may not be running."""
        self.trackers[1].stop()

    def interrupt(self) -> None:
        """Raise out of the call that is under way."""
        if self._may_raise:  # else it would leave the loop
            self._may_raise = False
            raise SignalledError

    def fork(self) -> None:
        """Fork. The sums in the child must add up; the parent's trackers go on."""
        pid = os.fork()
        if pid == 0:
            self.failures.clear()
            self.check("in a child")
            for failure in self.failures:
                print(failure, flush=True)
            os._exit(bool(self.failures))
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            self.failures.append("a child found something wrong")

    def make(self) -> None:
        """Make a tracker, start it and stop it."""
        tracker = LatencyTracker(max_backends=100)
        tracker.start(self.stream, None, "web")
        tracker.stop()

    def read(self) -> None:
        """Read everything."""
        self.check("in a handler")
        self.trackers[0].get_status()

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Do the next action. The next signal comes a period after its end, however slow it is."""
        try:
            action = next(self._actions)
            self.done[action.__name__] = self.done.get(action.__name__, 0) + 1
            action()
        finally:
            if not self._is_over:
                signal.setitimer(signal.ITIMER_REAL, PERIOD_S)

    def pop(self) -> None:
        """Read events, in the subscriber's thread."""
        for _ in self.subscription:
            self.popped += 1

    def run(self, rounds: int, producer: int) -> None:
        """Start and stop `rounds` times, while the producer sends and signals arrive."""
        reader = threading.Thread(target=self.pop)
        reader.start()
        signal.signal(signal.SIGALRM, self.handle)
        signal.setitimer(signal.ITIMER_REAL, PERIOD_S)
        for _ in range(rounds):
            try:
                self._may_raise = True
                self.trackers[0].start(self.stream, None, "web")
                self.check("after a start")
                self.trackers[0].stop()
                self.check("after a stop")
                self._may_raise = False
            except SignalledError:
                pass
        self._is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.check("under traffic")
        os.kill(producer, signal.SIGKILL)
        os.waitpid(producer, 0)
        try:
            self.finish()
        finally:
            self.subscription.close()
            reader.join()

    def finish(self) -> None:
        """Stop everything and check that all sums are exact."""
        for tracker in self.trackers:
            tracker.stop()
        self.check("at the end")
        self.stream.drain()
        total = self.stream.stats()
        if total.produced != total.received + (total.dropped or 0) + total.in_ring:
            self.failures.append(f"the stream's sum is open: {total}")
        wait_until(
            lambda: self.popped + self.subscription.dropped == total.received,
            f"the subscriber has {total.received} events",
        )
        print(f"{self.done}, {total}")


def main(path: str, rounds: int) -> int:
    """Run the storm; returns the exit code."""
    producer = produce(bpf.open_pinned(f"{path}/programs/fill"))
    storm = Storm(f"{path}/maps/lbl_events")
    storm.run(rounds, producer)
    for failure in storm.failures[:20]:
        print(failure)
    return bool(storm.failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
