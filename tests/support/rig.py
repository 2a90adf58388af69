"""A tracker on a ring in memory, its events, and waiting without sleeping."""

from __future__ import annotations

import os
import signal
import struct
import time
import traceback
import warnings
from typing import TYPE_CHECKING, Any

from lblatency import LatencyTracker, stats

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = "10.0.0.1:80"
SECOND = 10**9


def wait_until(
    condition: Callable[[], Any], what: str | Callable[[], str], timeout: float = 20
) -> Any:
    """Return the first true value of `condition`, or fail and say that `what` is missing."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() >= deadline:
            missing = what if isinstance(what, str) else what()
            raise AssertionError(f"waited {timeout} s in vain: {missing}")
        time.sleep(0.001)
    return value


def in_child(check: Callable[[], object], timeout: float = 20) -> None:
    """Fork and check in the child; fail if the check fails or the child never ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks in threads
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            check()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    ended: list[int] = []

    def has_ended() -> bool:
        found, status = os.waitpid(pid, os.WNOHANG)
        ended.append(status)
        return found == pid

    try:
        wait_until(has_ended, "the child to end: a lock was held over the fork?", timeout)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    assert ended[-1] == 0


def closed(lifetime_ns: int, target: str = TARGET, **fields: Any) -> bytes:
    """A closed event of a connection with this lifetime."""
    return stats.Event("closed", target, SECOND + lifetime_ns, SECOND, **fields).pack()


def ip4(text: str) -> int:
    """A dotted address as a number."""
    a, b, c, d = map(int, text.split("."))
    return a << 24 | b << 16 | c << 8 | d


def foreign64(
    kind: int,
    timestamp_ns: int,
    client: tuple[str, int] = ("192.0.2.7", 40000),
    vip: tuple[str, int] = ("198.51.100.1", 443),
    target: tuple[str, int] = ("10.0.0.1", 80),
) -> bytes:
    """A 64-byte event: packed, big-endian."""
    return struct.pack(
        ">B3xQIIHHIHxxQQQQ",
        kind, timestamp_ns, ip4(client[0]), ip4(vip[0]), client[1], vip[1],
        ip4(target[0]), target[1], 1, 2, 3, 4,
    )  # fmt: skip


def foreign72(
    kind: int,
    timestamp_ns: int,
    client: tuple[str, int] = ("192.0.2.7", 40000),
    vip: tuple[str, int] = ("198.51.100.1", 443),
    target: tuple[str, int] = ("10.0.0.1", 80),
) -> bytes:
    """A 72-byte event: the same struct unpacked, native-endian."""
    return struct.pack(
        "=B7xQIIHHIH6xQQQQ",
        kind, timestamp_ns, ip4(client[0]), ip4(vip[0]), client[1], vip[1],
        ip4(target[0]), target[1], 1, 2, 3, 4,
    )  # fmt: skip


class Rig:
    """A ring in memory and a tracker that is running on it."""

    def __init__(
        self,
        size: int = 1 << 16,
        proxies: dict[int | str, str] | None = None,
        **tracker: Any,
    ) -> None:
        self.ring = stats.MemoryRing(size)
        self.stream = stats.create_event_stream(self.ring)
        self.tracker = LatencyTracker(**tracker)
        self.tracker.start(self.stream, None, "web", proxies=proxies)

    def send(self, *records: bytes) -> None:
        """Produce records without a drop, and drain them."""
        for record in records:
            if not self.ring.produce(record):
                self.stream.drain()
                assert self.ring.produce(record)
        self.stream.drain()

    def counts(self, *names: str) -> dict[str, int | None]:
        """The event counts that are not 0, or those with these names."""
        counts = self.tracker.event_counts()
        if names:
            return {name: counts[name] for name in names}
        return {name: count for name, count in counts.items() if count}


def assert_accounted(tracker: LatencyTracker) -> dict[str, int]:
    """Check the three sums of the loss accounting; returns the counts."""
    n = {name: count for name, count in tracker.event_counts().items() if count is not None}
    assert n["produced"] == n["received"] + n["taken"] + n["dropped"] + n["in_ring"], n
    assert n["received"] == n["opened"] + n["closed"] + n["periodic"] + n["malformed"], n
    assert n["closed"] == n["recorded"] + n["unmatched"] + n["rejected"] + n["ignored"], n
    return n
