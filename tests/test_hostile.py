"""What callers can pass: wrong types and values are told, and C never reads beyond a buffer."""

from __future__ import annotations

import copy
import ctypes
import math
import mmap
import pickle
import socket
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lblatency
from lblatency import HistogramSnapshot, LatencyError, LatencyTracker, stats
from lblatency.buckets import DEFAULT_BUCKETS, Buckets
from tests.support.rig import SECOND, TARGET, closed

BUCKETS = Buckets.of(DEFAULT_BUCKETS)
HUGE = 10**400


def u16(*values: int) -> bytes:
    """Slots as C has them."""
    return bytes(array("H", values))


def u64(*values: int) -> bytes:
    """Counts as C has them."""
    return bytes(array("Q", values))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((BUCKETS, b"", b"", -1), ValueError, "sum_ns"),
        ((BUCKETS, b"", b"", 2**126), ValueError, "sum_ns"),
        ((BUCKETS, b"", b"", HUGE), ValueError, "sum_ns"),
        ((BUCKETS, b"", b"", 0.0), TypeError, "sum_ns must be an int, not float"),
        ((BUCKETS, b"", b"", "0"), TypeError, "sum_ns must be an int, not str"),
        ((BUCKETS, b"", b"", None), TypeError, "sum_ns"),
        ((DEFAULT_BUCKETS, b"", b"", 0), TypeError, "Buckets, not tuple"),
        ((None, b"", b"", 0), TypeError, "Buckets, not NoneType"),
        ((BUCKETS, 4, 16, 0), TypeError, "bytes, not int"),
        ((BUCKETS, "ab", "abcdefgh", 0), TypeError, "bytes, not str"),
        ((BUCKETS, bytearray(u16(1)), bytearray(u64(1)), 0), TypeError, "bytearray"),
        ((BUCKETS, array("H", [1]), array("Q", [1]), 0), TypeError, "array"),
        ((BUCKETS, b"a", u64(1), 0), ValueError, "1 and 8 bytes"),
        ((BUCKETS, b"abc", u64(1), 0), ValueError, "3 and 8 bytes"),
        ((BUCKETS, u16(1, 2), u64(1), 0), ValueError, "4 and 8 bytes"),
        ((BUCKETS, u16(1), u64(1, 2), 0), ValueError, "2 and 16 bytes"),
        ((BUCKETS, b"", u64(1), 0), ValueError, "0 and 8 bytes"),
        ((BUCKETS, u16(1), b"", 0), ValueError, "2 and 0 bytes"),
        ((BUCKETS, u16(1), b"1234567", 0), ValueError, "2 and 7 bytes"),
        ((BUCKETS, u16(65535), u64(1), 0), ValueError, "ascending"),
        ((BUCKETS, u16(3000), u64(1), 0), ValueError, "ascending"),
        ((BUCKETS, u16(2, 1), u64(1, 1), 0), ValueError, "ascending"),
        ((BUCKETS, u16(1, 1), u64(1, 1), 0), ValueError, "ascending"),
        ((BUCKETS, u16(1), u64(0), 0), ValueError, "must not be 0"),
        ((BUCKETS, u16(1, 2), u64(2**63, 2**63), 0), ValueError, "2\\*\\*64"),
        ((BUCKETS, u16(1, 2, 3), u64(2**64 - 1, 1, 1), 0), ValueError, "2\\*\\*64"),
    ],
)
def test_raw_memory_of_a_snapshot_is_checked(arguments: Any, error: Any, text: str) -> None:
    """A snapshot takes only pairs that a histogram with its bounds can have."""
    with pytest.raises(error, match=text):
        HistogramSnapshot(*arguments)


def test_each_slot_that_exists_is_taken_and_the_next_is_not() -> None:
    """The number of slots depends on the bounds: a slot of the one is beyond the other's last."""
    few = Buckets.of(())
    n = 44 * 64 + 2
    HistogramSnapshot(few, u16(n - 1), u64(1), 0)
    with pytest.raises(ValueError, match="ascending and exist"):
        HistogramSnapshot(few, u16(n), u64(1), 0)
    HistogramSnapshot(BUCKETS, u16(n), u64(1), 0)


def test_the_largest_counts_are_exact() -> None:
    """2**64 - 1 observations count; one more is refused, also as a sum of two snapshots."""
    most = HistogramSnapshot(BUCKETS, u16(1, 2), u64(2**64 - 2, 1), 2**126 - 1)
    assert most["count"] == 2**64 - 1
    assert most["counts"] == (2**64 - 1,) * len(DEFAULT_BUCKETS)
    assert pickle.loads(pickle.dumps(most)) == most
    one = HistogramSnapshot(BUCKETS, u16(2), u64(1), 0)
    for other in (one, HistogramSnapshot(BUCKETS, u16(9), u64(1), 0), most):
        with pytest.raises(ValueError, match="2\\*\\*64"):
            most.merge(other)
    with pytest.raises(ValueError, match="sum_ns"):
        one.merge(HistogramSnapshot(BUCKETS, u16(1), u64(1), 2**126 - 1)).merge(
            HistogramSnapshot(BUCKETS, u16(1), u64(1), 1)
        )


def test_a_pickle_that_lies_is_refused() -> None:
    """Unpickling checks what it reads; a changed pickle raises ValueError."""
    snapshot = HistogramSnapshot(BUCKETS, u16(5, 7), u64(1, 2), 3)
    rebuild, (state,) = snapshot.__reduce__()
    assert rebuild(state) == copy.deepcopy(snapshot) == snapshot
    for lie in (
        {"slots": [[1, 1]]},
        {"slots": [[None, 2**64]]},
        {"slots": [[None, 1], [None, 1]]},
        {"slots": state["slots"][::-1]},
        {"slots": [[10**30, 1]]},
        {"sum_ns": -1},
        {"sum_ns": 2**126},
        {"buckets": [1, 1]},
        {"version": 2},
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            rebuild(state | lie)


# ---- records ----


class Liar(bytes):
    """Bytes that claim to be more."""

    def __len__(self) -> int:
        return 1 << 20


def _ring() -> tuple[stats.MemoryRing, stats.EventStream]:
    ring = stats.MemoryRing(1 << 16)
    return ring, stats.create_event_stream(ring)


def test_a_record_has_the_bytes_of_its_buffer() -> None:
    """`len()` is not asked: it counts items, or lies."""
    event = closed(SECOND)
    wide = array("Q", event)
    assert len(wide) == len(event) // 8
    records: tuple[Any, ...] = (
        Liar(event),
        wide,
        array("H", event),
        bytearray(event),
        memoryview(event),
        memoryview(event).cast("B", (7, 8)),
        (ctypes.c_uint64 * 7).from_buffer_copy(event),
        memoryview(b"x" + event)[1:],
    )
    for record in records:
        ring, stream = _ring()
        tracker = LatencyTracker(max_backends=10)
        tracker.start(stream, None, "web")
        assert ring.produce(record)
        stream.drain()
        assert tracker.event_counts()["recorded"] == 1
        tracker.stop()


@pytest.mark.parametrize("record", ["text", 5, None, [1], object(), memoryview(bytes(112))[::2]])
def test_what_is_no_record_is_a_type_error(record: Any) -> None:
    """Without a contiguous buffer there is nothing to append."""
    ring, stream = _ring()
    with pytest.raises(TypeError):
        ring.produce(record)
    assert stream.stats().produced == 0


def test_a_record_that_can_never_fit_is_a_value_error() -> None:
    """Also one whose length does not fit into 32 bits, though the rest of it would fit."""
    ring, stream = _ring()
    with pytest.raises(ValueError, match="65536 bytes can never fit"):
        ring.produce(bytes(1 << 16))
    with mmap.mmap(-1, 2**32 + 56) as huge, pytest.raises(ValueError, match="4294967352 bytes"):
        ring.produce(huge)  # type: ignore[arg-type]
    assert stream.stats().produced == 0


# ---- every public call that takes buffers or numbers into C ----

CALLS: dict[str, Callable[[Any], Any]] = {
    "max_backends": lambda value: LatencyTracker(max_backends=value),
    "metrics": lambda value: LatencyTracker(metrics=value),
    "buckets": lambda value: LatencyTracker(buckets=value),
    "bound": lambda value: LatencyTracker(buckets=[value, value]),
    "proxies": lambda value: _start(proxies={value: "web"}),
    "proxy id": lambda value: _start(proxies=value),
    "proxy_name": lambda value: LatencyTracker(max_backends=1).backend(value, TARGET),
    "target_id": lambda value: LatencyTracker(max_backends=1).backend("web", value),
    "metric": lambda value: LatencyTracker(max_backends=1).backend("web", TARGET, metric=value),
    "Backend": lambda value: lblatency.Backend(None, value, ("web", TARGET, "lifetime")),
    "add": lambda value: LatencyTracker(max_backends=1).add("web", TARGET, value),
    "ring size": lambda value: stats.MemoryRing(value),
    "stream": lambda value: stats.create_event_stream(value),
    "counters": lambda value: stats.create_event_stream(2**31 - 1, counters=value),
    "streams": lambda value: stats.EventStream([value]).drain(),
    "maxsize": lambda value: _ring()[1].subscribe(value),
    "conntrack": lambda value: lblatency.conntrack.ConntrackMap(value),
    "client": lambda value: _closed_map().get(value, TARGET),
    "protocol": lambda value: _closed_map().get(TARGET, TARGET, value),
    "percentile": lambda value: _snapshot().percentile(value),
    "percentiles": lambda value: _snapshot().percentiles([value]),
    "native": lambda value: _snapshot().native(value),
    "merge": lambda value: _snapshot().merge(value),
    "plus": lambda value: _snapshot() + value,
    "minus": lambda value: _snapshot() - value,
    "from_dict": HistogramSnapshot.from_dict,
}
FIELDS = ("timestamp_ns", "created_ns", "protocol", "proxy_id", "backend_id", "connect_us",
          "first_byte_us", "closing_us")  # fmt: skip
CALLS |= {
    field: lambda value, field=field: stats.Event(  # type: ignore[misc]
        **{"type": "closed", "target": TARGET, "timestamp_ns": 1, field: value}
    ).pack()
    for field in FIELDS
}
VALUES = [
    -1, -(2**63) - 1, 2**31, 2**32, 2**63, 2**64, 2**65, HUGE, -HUGE, -0.5, math.nan, math.inf,
    1e300, "", "x", "a\0b", "/a\0b", "\udc80", "x" * 70_000, "9" * 5000, b"", b"12345678", b"\xff",
    bytearray(8), None, 1j, [], [None], {}, {"x": 1}, object(), array("d", [1.0]),
    memoryview(b"12345678")[::2], Liar(b"1"),
]  # fmt: skip


def _snapshot() -> HistogramSnapshot:
    return HistogramSnapshot(BUCKETS, u16(1), u64(1), 1)


def _closed_map() -> lblatency.conntrack.ConntrackMap:
    """A map that was never opened, to which no bad argument may come."""
    return lblatency.conntrack.ConntrackMap.__new__(lblatency.conntrack.ConntrackMap)


def _start(proxies: Any) -> None:
    tracker = LatencyTracker(max_backends=1)
    tracker.start(_ring()[1], None, "web", proxies=proxies)
    tracker.stop()


@pytest.fixture(autouse=True)
def _no_fd_of_ours() -> Iterator[None]:
    """No fd above a hundred or so is open, so that a number means no map."""
    yield
    with socket.socket() as probe:
        assert probe.fileno() < 200


@pytest.mark.parametrize("name", CALLS)
def test_no_call_leaks_an_error_of_the_binding(name: str) -> None:
    """A wrong type is a TypeError, a wrong value a ValueError or an error of lblatency."""
    for value in VALUES:
        try:
            CALLS[name](value)
        except (TypeError, ValueError, LatencyError) as error:
            assert str(error), value  # noqa: PT017
        except BaseException as error:
            raise AssertionError(f"{name} with {str(value)[:50]!r}") from error
