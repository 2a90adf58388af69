"""Reading 10,000 backends, and rendering them, while their events are drained."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import pytest

from lblatency import LatencyTracker
from lblatency._ffi import ffi as our_ffi
from lblatency._ffi import lib as our_lib
from lblatency.render import TEXT, Capture

from ..contenders.ours import DRAIN, Tracked
from ..harness import CONSUMER, PRODUCER, interleave, pin
from ..replay import Publish
from ..rings import Traffic, ffi, lib, stream_pointer

TRAFFIC = Traffic(10_000, with_ids=True, n=200_000)
BATCH = 1_000
Measured = tuple[Mapping[str, list[float]], dict[str, list[int]]]
ALONE, WATCHED, SCRAPED = "drain alone", "drain during snapshots", "drain during scrapes"


def _snapshot(tracker: LatencyTracker) -> None:
    out = our_ffi.new("struct lbl_snapshot **")
    our_lib.lbl_tracker_snapshot(tracker._ptr, our_lib.LBL_LIFETIME, out)
    our_lib.lbl_snapshot_free(out[0])


def _scrape(tracker: LatencyTracker) -> None:
    for _ in Capture(tracker).pieces(TEXT):
        pass


class Reader:
    """A thread on the producer's CPU that reads again and again, without pause."""

    def __init__(self, tracker: LatencyTracker, read: Callable[[LatencyTracker], None]) -> None:
        self._tracker = tracker
        self._read = read
        self._may, self._reading, self._ending = (threading.Event() for _ in range(3))
        self.taken = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        pin(PRODUCER)
        while self._may.wait() and not self._ending.is_set():
            self._reading.set()
            self._read(self._tracker)
            self.taken += 1

    def __enter__(self) -> None:
        self._reading.clear()
        self._may.set()
        if not self._reading.wait(timeout=60):
            raise RuntimeError("the reader's thread has ended")

    def __exit__(self, *_exc: object) -> None:
        self._may.clear()

    def close(self) -> None:
        """End the thread."""
        self._ending.set()
        self._may.set()
        self._thread.join()


def _drain(tracked: Tracked, reader: Reader | None, number: int) -> float | None:
    return tracked.drain(replace(TRAFFIC, seed=number), during=reader)


def _calls(tracked: Tracked, n: int) -> list[int]:
    """The ns of each of many small drains."""
    took = ffi.new("uint64_t[]", n)
    pin(CONSUMER)
    lib.bench_timed_each(
        tracked.ring.ptr,
        replace(TRAFFIC, n=BATCH).spec(),
        DRAIN,
        stream_pointer(tracked.stream.streams[0]),
        n,
        took,
    )
    return sorted(took)


def _longest(tracked: Tracked, readers: Mapping[str, Reader], n: int) -> dict[str, list[int]]:
    calls = {ALONE: _calls(tracked, n)}
    for name, reader in readers.items():
        with reader:
            calls[name] = _calls(tracked, n)
    return calls


@pytest.fixture(scope="module")
def measured(rounds: int, smoke: bool) -> Iterator[Measured]:
    """Ns per event, and the times of small drains."""
    tracked = Tracked(TRAFFIC, 16 << 20)
    readers = {
        WATCHED: Reader(tracked.tracker, _snapshot),
        SCRAPED: Reader(tracked.tracker, _scrape),
    }
    try:
        if not tracked.ring.in_kernel:
            pytest.skip("left out: needs BPF")
        turns = {
            name: partial(_drain, tracked, reader)
            for name, reader in [(ALONE, None), *readers.items()]
        }
        samples = interleave(turns, rounds)
        yield samples, _longest(tracked, readers, 100 if smoke else 20_000)
    finally:
        for reader in readers.values():
            reader.close()
        tracked.close()


@pytest.mark.parametrize("name", [ALONE, WATCHED, SCRAPED])
def test_snapshot(name: str, measured: Measured, publish: Publish) -> None:
    """A reader stops no drain; it only shares the memory bus."""
    samples, calls = measured
    publish(
        "snapshot",
        "10000 backends",
        name,
        samples,
        longest_ms=calls[name][-1] / 1e6,
        longest_but_1_in_1000_ms=calls[name][-1 - len(calls[name]) // 1000] / 1e6,
    )
