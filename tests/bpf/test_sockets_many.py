"""The socket source with 50,000 connections that are open at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import ExitStack, closing, contextmanager
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from lblatency import LatencyTracker
from lblatency.sources import Sockets
from tests.support.netns import Namespace
from tests.support.rig import assert_accounted, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.bpf

PROCESSES, EACH = 6, 8334  # a process may have 20,000 descriptors, two of them a connection
# Opens connections to itself, tells that, and closes them when it is told to: each side half first.
WORKER = """
import gc, resource, socket, sys
name, address, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
open("/proc/self/comm", "w").write(name)
resource.setrlimit(resource.RLIMIT_NOFILE, (2 * count + 100,) * 2)
gc.disable()
listener = socket.create_server((address, 8000))
pairs = []
for _ in range(count):
    client = socket.create_connection((address, 8000))
    pairs.append((client, listener.accept()[0]))
print("open", flush=True)
sys.stdin.readline()
for n, pair in enumerate(pairs):
    for end in pair[:: 1 if n % 2 else -1]:
        end.close()
print("closed", flush=True)
"""


@contextmanager
def looking(source: Sockets) -> Iterator[None]:
    """Let the source look for ends that were not seen, all the time."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            source.tick()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_fifty_thousand_open_connections_are_all_there_until_they_end() -> None:
    """None ends early, each is closed once, and has its lifetime unless no program saw its end."""
    name, total = f"many-{os.getpid()}", PROCESSES * EACH
    with (
        closing(Namespace()) as namespace,
        Sockets(comms=[name]) as source,
        LatencyTracker() as tracker,
        looking(source),
        ExitStack() as stack,
    ):
        tracker.start(source.stream, None, "edge")
        workers = []
        began = monotonic()
        for n in range(1, PROCESSES + 1):
            with namespace.inside():
                command = [sys.executable, "-c", WORKER, name, f"127.0.0.{n}", str(EACH)]
                worker = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            stack.callback(worker.kill)
            workers.append(stack.enter_context(worker))
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "open\n"
        opened = monotonic()
        source.stream.drain()
        rows = tracker.backends()
        assert [row.open for row in rows] == [EACH] * PROCESSES
        assert not sum(row.histogram.count for row in rows)
        for worker in workers:
            assert worker.stdin is not None
            print(file=worker.stdin, flush=True)
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "closed\n"
        wait_until(
            lambda: not sum(row.open for row in tracker.backends()),
            lambda: "the ends of " + namespace.run("ss -Htanoe exclude time-wait"),
        )
        counts, lost = assert_accounted(tracker), dict(source.lost())
        # The kernel tells an end in 100,000 or so to no program.
        unseen = lost.pop("unseen_ends")
        assert unseen <= 3
        assert (counts["opened"], counts["closed"], counts["dropped"]) == (total, total, 0)
        assert (counts["recorded"], counts["unmatched"]) == (total - unseen, unseen)
        assert set(lost.values()) == {0}
        for row in tracker.backends():
            assert row.closed["fin"] == row.histogram.count == EACH - row.closed["unknown"]
            longest = row.histogram.sum / row.histogram.count
            assert longest <= monotonic() - began
        took = f"{opened - began:.1f} s, closed in {monotonic() - opened:.1f} s"
        print(f"{total} opened in {took}; {unseen} ends not seen")
