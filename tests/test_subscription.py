"""Subscriptions in every kind of loop: threads, select, asyncio and gevent."""

from __future__ import annotations

import asyncio
import math
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from fractions import Fraction
from typing import Any

import pytest

from lblatency import stats
from tests.support.rig import SECOND, Rig, closed, in_child, wait_until


def lifetimes(events: list[stats.Event]) -> list[int]:
    """The lifetimes of events in ns, in the order of the events."""
    return [event.timestamp_ns - SECOND for event in events]


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine; fail if it never ends."""
    asyncio.run(asyncio.wait_for(coroutine, 20))


def is_readable(subscription: stats.Subscription, timeout: float = 0) -> bool:
    """Whether select() finds it readable within `timeout` seconds."""
    return bool(select.select([subscription], [], [], timeout)[0])


# ---- the fd ----


def test_the_fd_is_readable_while_events_wait() -> None:
    """select() takes a subscription as it is, and finds it readable until it is empty."""
    rig = Rig()
    with rig.stream.subscribe() as subscription:
        assert not is_readable(subscription)
        rig.send(closed(1), closed(2))
        assert is_readable(subscription)
        assert subscription.get(timeout=0) is not None
        assert is_readable(subscription)
        assert subscription.get(timeout=0) is not None
        assert not is_readable(subscription)
        rig.ring.produce(closed(3))
        assert is_readable(subscription, 20)
        assert subscription.fileno() == subscription.fileno()


def test_closing_makes_the_fd_readable_and_keeps_it() -> None:
    """Whoever waits for the fd wakes; the number is not reused while the object lives."""
    rig = Rig()
    subscription = rig.stream.subscribe()
    fd = subscription.fileno()
    woken: list[bool] = []
    thread = threading.Thread(
        target=lambda s: woken.append(is_readable(s, 20)), args=[subscription]
    )
    thread.start()
    assert not subscription.closed
    subscription.close()
    thread.join(20)
    del thread
    assert woken == [True]
    assert subscription.closed
    assert is_readable(subscription)
    assert subscription.fileno() == fd
    del subscription
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_child_does_not_take_its_parents_signals() -> None:
    """After a fork, emptying the child's copy leaves the parent's fd readable."""
    rig = Rig()
    with rig.stream.subscribe() as subscription:
        rig.send(closed(1))
        assert is_readable(subscription)

        def child() -> None:
            assert is_readable(subscription)
            assert subscription.get(timeout=0) is not None
            assert not is_readable(subscription)
            subscription.close()
            assert is_readable(subscription)

        in_child(child)
        assert is_readable(subscription)
        assert subscription.get(timeout=0) is not None
        assert not is_readable(subscription)


# ---- asyncio ----


def test_async_for_gets_every_event_until_the_end() -> None:
    """Events from before and during the loop come in order; closing ends the loop."""
    rig = Rig()
    subscription = rig.stream.subscribe()
    got: list[stats.Event] = []

    async def main() -> None:
        rig.send(*(closed(i) for i in range(100)))
        async for event in subscription:
            got.append(event)
            if len(got) == 100:
                rig.ring.produce(closed(100))  # the drain thread finds it
            if len(got) == 101:
                subscription.close()

    run(main())
    assert lifetimes(got) == list(range(101))


def test_tasks_share_a_subscription() -> None:
    """Several tasks wait for one queue; each event comes to one of them."""
    rig = Rig()
    subscription = rig.stream.subscribe()
    got: list[stats.Event] = []

    async def follow() -> None:
        async for event in subscription:
            got.append(event)
            if len(got) == 300:
                subscription.close()

    async def main() -> None:
        tasks = [asyncio.create_task(follow()) for _ in range(3)]
        await asyncio.sleep(0)  # all of them wait
        rig.send(*(closed(i) for i in range(300)))
        await asyncio.gather(*tasks)

    run(main())
    assert sorted(lifetimes(got)) == list(range(300))


@pytest.mark.parametrize("by", ["task", "thread"])
def test_a_waiting_task_ends_when_another_closes(by: str) -> None:
    """Closing wakes a task that waits for an event, from its own thread or from another."""
    rig = Rig()
    subscription = rig.stream.subscribe()
    got: list[stats.Event] = []

    async def follow() -> None:
        async for event in subscription:
            got.append(event)

    async def main() -> None:
        task = asyncio.create_task(follow())
        await asyncio.sleep(0)
        if by == "task":
            subscription.close()
        else:
            await asyncio.to_thread(subscription.close)
        await task

    run(main())
    assert got == []


def test_a_cancelled_task_leaves_nothing_behind() -> None:
    """Cancelling a waiting task loses no event and leaks no fd."""
    rig = Rig()
    subscription = rig.stream.subscribe()
    subscription.fileno()

    async def follow() -> None:
        async for _ in subscription:
            pass

    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            task = asyncio.create_task(follow())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(os.listdir("/proc/self/fd")) == before + 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert len(os.listdir("/proc/self/fd")) == before
        rig.send(closed(7))
        async for event in subscription:
            assert lifetimes([event]) == [7]
            break

    run(main())


def test_a_flood_lets_other_tasks_run() -> None:
    """A task with more events than it can take is cancelled like any other."""
    rig = Rig()
    subscription = rig.stream.subscribe(maxsize=2)
    rig.send(closed(1))

    async def follow() -> None:
        async for _ in subscription:
            rig.send(closed(1))

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(follow(), 0.01)

    run(main())
    assert not subscription.closed


# ---- gevent ----

GREENLETS = """
import gevent, gevent.select
from lblatency import stats

ring = stats.MemoryRing(1 << 16)
subscription = stats.create_event_stream(ring).subscribe()
got = []

def follow():
    while not subscription.closed:
        gevent.select.select([subscription], [], [])
        while (event := subscription.get(timeout=0)) is not None:
            got.append(event.timestamp_ns)

def produce():
    for i in range(1, 101):
        assert ring.produce(stats.Event("closed", "10.0.0.1:80", i).pack())
        gevent.sleep(0)
    while len(got) < 100:
        gevent.sleep(0.001)
    subscription.close()

gevent.joinall([gevent.spawn(follow), gevent.spawn(produce)], timeout=20, raise_error=True)
print(got == list(range(1, 101)), subscription.closed)
"""


def test_a_greenlet_waits_for_events() -> None:
    """The select() of gevent lets other greenlets run meanwhile, and sees the end."""
    ran = subprocess.run([sys.executable, "-c", GREENLETS], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("True True\n", "")


# ---- get() ----


@pytest.mark.parametrize(
    "timeout", [math.inf, 1e300, 10**400, 2**63, Fraction(10**30), None], ids=lambda n: str(n)[:9]
)
def test_a_long_wait_ends_with_an_event_or_the_end(timeout: float) -> None:
    """However long it may wait, it returns the next event, and None when it is closed."""
    ring = stats.MemoryRing(4096)
    subscription = stats.create_event_stream(ring).subscribe()
    got: list[stats.Event | None] = []

    def wait_twice() -> None:
        got.append(subscription.get(timeout))
        got.append(subscription.get(timeout))

    thread = threading.Thread(target=wait_twice, daemon=True)
    thread.start()
    ring.produce(closed(1))
    wait_until(lambda: got, "the event")
    subscription.close()
    thread.join(20)
    assert not thread.is_alive()
    assert [event and event.timestamp_ns for event in got] == [SECOND + 1, None]


@pytest.mark.parametrize(
    "timeout", [-math.inf, -(10**400), -1e300, -0.0, False], ids=lambda n: str(n)[:9]
)
def test_a_negative_wait_does_not_wait(timeout: float) -> None:
    """It takes what is there."""
    rig = Rig()
    with rig.stream.subscribe() as subscription:
        assert subscription.get(timeout) is None
        rig.send(closed(1))
        assert subscription.get(timeout) is not None


def test_it_waits_as_long_as_it_says() -> None:
    """A wait of 0.3 s, which C does in several parts, is not shorter."""
    subscription = stats.create_event_stream(stats.MemoryRing(4096)).subscribe()
    start = time.monotonic()
    assert subscription.get(0.3) is None
    assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize(
    ("timeout", "error"), [(math.nan, ValueError), ("1", TypeError), ([], TypeError)]
)
def test_a_timeout_is_seconds(timeout: Any, error: type[Exception]) -> None:
    """NaN is a ValueError, and what is no number a TypeError, before any wait."""
    subscription = stats.create_event_stream(stats.MemoryRing(4096)).subscribe()
    with pytest.raises(error, match="timeout must be seconds or None, not"):
        subscription.get(timeout)


# ---- subscribe() ----


@pytest.mark.parametrize("maxsize", [2**31, 2**32, 2**33, 10**30, -(2**33)])
def test_a_queue_has_a_limit(maxsize: int) -> None:
    """A size beyond it is a ValueError, not an OverflowError."""
    with pytest.raises(ValueError, match="maxsize must be at least 1 and at most 2147483647"):
        stats.create_event_stream(stats.MemoryRing(4096)).subscribe(maxsize)


@pytest.mark.parametrize("maxsize", [1.0, "10", None])
def test_a_size_is_an_integer(maxsize: Any) -> None:
    """Anything else is a TypeError."""
    with pytest.raises(TypeError, match="integer"):
        stats.create_event_stream(stats.MemoryRing(4096)).subscribe(maxsize)


def test_a_queue_without_memory_is_a_memory_error() -> None:
    """The error says how to need less."""
    code = """
import lblatency.stats as stats
stream = stats.create_event_stream(stats.MemoryRing(4096))
try:
    stream.subscribe(2**31 - 1)
except MemoryError as error:
    print(error)
"""
    ran = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -v 4000000; exec "$0" -c "$1"', sys.executable, code],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.stdout == "no memory for a queue of 2147483647 events; lower maxsize\n", ran.stderr


# ---- close() ----


def test_close_from_many_threads_at_once() -> None:
    """All of them return, and the stream has its place back."""
    rig = Rig()
    for _ in range(50):
        subscription = rig.stream.subscribe()
        threads = [threading.Thread(target=subscription.close) for _ in range(4)]
        for thread in threads:
            thread.start()
        rig.send(closed(1))
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    again = [rig.stream.subscribe() for _ in range(31)]  # the tracker has the 32nd place
    assert rig.counts("recorded") == {"recorded": 50}
    assert len(again) == 31


# ---- reprs ----


def test_reprs_tell_the_state() -> None:
    """A ring, a stream and a subscription say what they are, in every state."""
    rig = Rig()
    assert repr(rig.ring) == "MemoryRing(size=65536)"
    assert repr(rig.stream) == "<EventStream: 1 ring>"
    subscription = rig.stream.subscribe(maxsize=2)
    rig.send(closed(1), closed(2), closed(3))
    assert repr(subscription) == "<Subscription: 2 events waiting, maxsize=2, dropped=1>"

    def child() -> None:
        assert repr(rig.stream) == "<EventStream: 1 ring of the parent process>"

    in_child(child)
    subscription.close()
    assert repr(subscription) == "<Subscription: closed, maxsize=2, dropped=1>"
    rig.stream.close()
    assert repr(rig.stream) == "<EventStream: closed>"
    rings: list[Callable[[], stats.MemoryRing]] = [stats.MemoryRing] * 2
    two = stats.EventStream([make().ptr for make in rings])
    assert repr(two) == "<EventStream: 2 rings>"
