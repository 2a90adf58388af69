"""A ring has one consumer, in whatever namespaces it and others are, and however it ends."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from lblatency import BpfError, LatencyTracker, stats
from tests.support import bpf
from tests.support.rig import assert_accounted, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.filler import Filler

pytestmark = pytest.mark.bpf

HOLDER = """
import os, sys
from lblatency import stats
stream = stats.create_event_stream(int(sys.argv[1]))
print("held", flush=True)
if input() == "exec":
    os.execl("/bin/sh", "sh", "-c", "echo executed; cat")
if "close" in sys.argv:
    stream.close()
    print("closed", flush=True)
    input()
"""
ALONE = ["unshare", "--net", "--pid", "--fork", "--kill-child"]  # also in namespaces of its own
PLACES = {"here": [], "net": ["unshare", "--net"], "net and pid": ALONE}
CLAIM = 1024  # where a claim is in the consumer page: the owner's number, its pid, its namespace


@pytest.fixture
def ring() -> Iterator[int]:
    """An empty ring of one page."""
    fd = bpf.create_map(bpf.RINGBUF, 0, 0, 4096)
    yield fd
    os.close(fd)


@contextmanager
def holder(ring: int, prefix: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Another process that has claimed the ring."""
    command = [*prefix, sys.executable, "-c", HOLDER, str(ring), "close"]
    with subprocess.Popen(
        command, pass_fds=[ring], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def say(process: subprocess.Popen[str], line: str) -> None:
    """Write a line to a process."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def refusal(ring: int) -> str:
    """Why the ring cannot be opened."""
    with pytest.raises(BpfError, match="consumes it already") as caught:
        stats.create_event_stream(ring)
    assert caught.value.errno == 16
    return str(caught.value)


def page_of(ring: int) -> mmap.mmap:
    """The consumer page, as any program sees it that may consume."""
    return mmap.mmap(ring, mmap.PAGESIZE)


def pinned_page(path: str) -> mmap.mmap:
    """The consumer page of a pinned ring."""
    ring = bpf.open_pinned(path)
    try:
        return page_of(ring)  # which has an fd of its own
    finally:
        os.close(ring)


# ---- who holds it ----


@pytest.mark.parametrize("place", PLACES)
def test_a_second_consumer_is_refused_wherever_it_is(ring: int, place: str) -> None:
    """The error names the process, and says if its number is of another namespace."""
    with holder(ring, PLACES[place]) as process:
        pid = "1 of another pid namespace" if "pid" in place else process.pid
        assert f"process {pid} consumes it already; stop that process" in refusal(ring)


@pytest.mark.parametrize("place", PLACES)
def test_we_are_refused_there_too(ring: int, place: str) -> None:
    """A holder in the first namespaces is seen from all others."""
    with stats.create_event_stream(ring):
        other = subprocess.run(
            [*PLACES[place], sys.executable, "-c", HOLDER, str(ring)],
            pass_fds=[ring], capture_output=True, text=True,
        )  # fmt: skip
    assert "consumes it already" in other.stderr
    assert (f"process {os.getpid()} consumes" in other.stderr) == ("pid" not in place)


def test_a_socket_of_any_user_is_no_claim(ring: int) -> None:
    """Names that anybody can take lock nobody out."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as squatter:
        squatter.bind(f"\0lblatency/ring/{bpf.map_id(ring)}")
        stats.create_event_stream(ring).close()


# ---- how it ends ----


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_holder_frees_the_ring(ring: int, place: str) -> None:
    """The kernel frees it with SIGKILL, before anybody can learn of the death."""
    for _ in range(3):
        with holder(ring, PLACES[place]) as process:
            refusal(ring)
            process.send_signal(signal.SIGKILL)
            process.wait()
            if place == "net and pid":  # --kill-child: the kernel kills it after unshare
                wait_until(lambda: owner(ring) & 0x3FFFFFFF == 0, "the holder to end")
            stats.create_event_stream(ring).close()


def owner(ring: int) -> int:
    """The futex word of the claim."""
    with page_of(ring) as page:
        return int(struct.unpack_from("=I", page, CLAIM)[0])


def test_exec_frees_the_ring(ring: int) -> None:
    """A program that takes the holder's place is not the holder."""
    with holder(ring, []) as process:
        refusal(ring)
        say(process, "exec")
        assert process.stdout is not None
        assert process.stdout.readline() == "executed\n"
        stats.create_event_stream(ring).close()


def test_closing_frees_the_ring(ring: int) -> None:
    """The holder lives on."""
    with holder(ring, []) as process:
        say(process, "")
        assert process.stdout is not None
        assert process.stdout.readline() == "closed\n"
        stats.create_event_stream(ring).close()
        assert owner(ring) == 0


# ---- hostile pages ----


@pytest.mark.parametrize("pid", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("word", [1, 0x3FFFFFFF, 0x80000001, 2**32 - 1])
def test_whoever_may_consume_may_also_claim(ring: int, word: int, pid: int) -> None:
    """A claim that is no thread's is believed; nothing worse comes of it."""
    with page_of(ring) as page:
        struct.pack_into("=IIQ", page, CLAIM, word, pid, 2**64 - 1)
        whose = f"process {pid} of another pid namespace" if pid else "another process"
        assert f"{whose} consumes it already" in refusal(ring)
        struct.pack_into("=I", page, CLAIM, word & 0xC0000000)  # OWNER_DIED and others: nobody's
        stats.create_event_stream(ring).close()


def test_a_stolen_claim_is_not_given_back(ring: int) -> None:
    """Once another has it, the first one's end does not free it, and frees all else of its own."""
    first = stats.create_event_stream(ring)
    with page_of(ring) as page:
        struct.pack_into("=I", page, CLAIM, 0)
        second = stats.create_event_stream(ring)
        first.close()
        refusal(ring)
        struct.pack_into("=I", page, CLAIM, 0x12345)
        second.close()
        assert owner(ring) == 0x12345


# ---- the position ----


def test_a_position_that_was_set_back(filler: Filler) -> None:
    """Nothing comes twice, and the sums hold."""
    path = f"{filler.at}/maps/lbl_events"
    tracker = LatencyTracker()
    with stats.create_event_stream(path) as stream, pinned_page(path) as page:
        tracker.start(stream, None, "web")
        filler.fill(0, 100)
        stream.drain()
        struct.pack_into("=Q", page, 0, 64)
        filler.fill(100, 10)
        stream.drain()
        now = stream.stats()
        tracker.stop()
    assert (now.produced, now.received, now.taken, now.moved) == (110, 110, 0, 1)
    counts = assert_accounted(tracker)
    assert (counts["recorded"], counts["moved"], counts["taken"]) == (110, 1, 0)


@pytest.mark.parametrize("odd", [0, 1, 3])
def test_what_another_program_took_is_counted(filler: Filler, odd: int) -> None:
    """Records of all sizes, without discarded ones; if all were counted, the sum holds."""
    path = f"{filler.at}/maps/lbl_events"
    tracker = LatencyTracker()
    with stats.create_event_stream(path) as stream, pinned_page(path) as page:
        filler.fill(0, 30, odd)
        before = stream.stats()
        filler.fill(30, 20, odd)
        struct.pack_into("=Q", page, 0, before.fill_bytes)
        tracker.start(stream, None, "web")
        filler.fill(50, 5, odd)
        tracker.stop()
        now = stream.stats()
    assert (now.taken, now.moved) == (before.in_ring, 1)
    assert tracker.event_counts()["recorded"] == 25
    if not odd:
        assert now.produced == now.received + now.taken == 55
        assert_accounted(tracker)


@pytest.mark.parametrize("odd", [0, 3])
def test_a_stream_begins_with_a_record(filler: Filler, odd: int) -> None:
    """What the kernel notes in each header tells a position within one: all is skipped then."""
    path = f"{filler.at}/maps/lbl_events"
    with pinned_page(path) as page, stats.create_event_stream(path) as stream:
        filler.fill(0, 100, odd)
        fill, waiting = stream.stats().fill_bytes, stream.stats().in_ring
    lost = 0
    for at in range(0, fill, 8):
        with pinned_page(path) as page:
            struct.pack_into("=Q", page, 0, at)
            with stats.create_event_stream(path) as stream:
                now = stream.stats()
        assert now.corrupt == (now.fill_bytes == 0)
        assert now.fill_bytes in (0, fill - at)
        lost += now.corrupt
    discarded = len(range(0, 100, odd)) if odd else 0
    assert fill // 8 - lost == waiting + discarded
    with stats.create_event_stream(path) as stream, stream.subscribe(100) as events:
        filler.fill(100, 5)
        stream.drain()
        assert len([events.get(0) for _ in range(5)]) == 5
