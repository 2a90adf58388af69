"""record_many() with every kind of sequence and array, and with hostile ones."""

from __future__ import annotations

import ctypes
import math
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest

from lblatency import LatencyTracker
from tests.support.rig import TARGET

WHOLE = [0, 1, 2, 5, 100]
GRID = np.array([[0, 1], [2, 5], [100, 0]])
KINDS: dict[str, Callable[[], Any]] = {
    "list": lambda: WHOLE,
    "list of floats": lambda: [float(n) for n in WHOLE],
    "tuple": lambda: tuple(WHOLE),
    "mixed": lambda: [0, True, 2.0, Fraction(5), Decimal(100)],
    "deque": lambda: deque(WHOLE),
    "range": lambda: (n for n in WHOLE),
    "NumPy numbers": lambda: [np.float32(n) for n in WHOLE],
    "two dimensions": lambda: GRID[:, :].astype(float)[:, ::-1],
    "a transposed array": lambda: np.asfortranarray(GRID),
    "every second": lambda: memoryview(array("d", [n for n in WHOLE for _ in range(2)]))[::2],
    "backwards": lambda: np.array(WHOLE, float)[::-1],
    "read only": lambda: memoryview(array("d", WHOLE)).toreadonly(),
    "ctypes": lambda: (ctypes.c_double * 5)(*WHOLE),
    "ctypes of floats": lambda: (ctypes.c_float * 5)(*WHOLE),
    "ctypes of long doubles": lambda: (ctypes.c_longdouble * 5)(*WHOLE),
    "ctypes of two dimensions": lambda: (ctypes.c_longdouble * 2 * 3).from_buffer_copy(
        GRID.astype("g").tobytes()
    ),
}
KINDS |= {
    f"{dimensions} of {name}": partial(np.reshape, GRID.astype(name), shape)
    for name in "dgOf"
    for dimensions, shape in {"two dimensions": (3, 2), "four": (1, 3, 1, 2)}.items()
}
KINDS |= {f"transposed, of {name}": partial(np.asfortranarray, GRID, name) for name in "dgOf"}
KINDS |= {f"array('{code}')": partial(array, code, WHOLE) for code in "bBhHiIlLqQfd"}
KINDS |= {
    f"NumPy {name}": partial(np.array, WHOLE, name)
    for name in (*"ilqfdgO", "i1", "u1", "i2", "u2", "u4", "u8", "f2", ">f2", ">f4", ">f8", ">u8")
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_numbers_are_taken(kind: str) -> None:
    """Numbers of any type, layout and byte order are recorded like doubles."""
    tracker, wanted = LatencyTracker(), LatencyTracker()
    n = tracker.record_many("web", TARGET, KINDS[kind]())
    values = WHOLE + [0] * (n - len(WHOLE))
    assert wanted.record_many("web", TARGET, array("d", values)) == n
    assert n in (5, 6)
    found = tracker.get_histogram("web", TARGET)
    assert found is not None
    assert found == wanted.get_histogram("web", TARGET)


@pytest.mark.parametrize("name", ["f2", "f4", ">f4", "f8", "g"])
def test_fractions_are_as_exact_as_their_type(name: str) -> None:
    """Nothing but the rounding of the type itself is lost."""
    tracker = LatencyTracker()
    values = np.array([0.1, 0.25, 1e-3, 3.3], name)
    tracker.record_many("web", TARGET, values)
    found = tracker.get_histogram("web", TARGET)
    assert found is not None
    assert found["sum"] == sum(round(float(value) * 1e9) for value in values) / 1e9


@pytest.mark.parametrize(
    "empty",
    [
        [],
        (),
        array("d"),
        array("f"),
        np.zeros((0, 3)),
        np.zeros((2, 0), "O"),
        np.zeros(0, "i4"),
        iter([]),
    ],
)
def test_nothing_is_nothing(empty: Any) -> None:
    """Of no numbers, 0 are recorded."""
    assert LatencyTracker().record_many("web", TARGET, empty) == 0


def test_doubles_are_not_copied() -> None:
    """The fast path: a contiguous buffer of doubles is read where it is."""
    from lblatency._numbers import doubles

    for numbers in (array("d", [1, 2]), np.zeros(3), memoryview(array("d", [1])), np.zeros((2, 2))):
        assert doubles(numbers).obj is (numbers.obj if isinstance(numbers, memoryview) else numbers)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 2.0**63, 10**400])
@pytest.mark.parametrize(
    "make",
    [
        list, tuple, iter, lambda n: np.array(n, "O"), deque,
        lambda n: np.array(n, "O").reshape(2, 2),
    ],
)  # fmt: skip
def test_one_bad_duration_refuses_all(make: Any, value: float) -> None:
    """The error has the index, and nothing is recorded."""
    tracker = LatencyTracker()
    with pytest.raises(ValueError, match="item 2: "):
        tracker.record_many("web", TARGET, make([1, 2, value, 3]))
    assert tracker.event_counts()["observed"] == 0


@pytest.mark.parametrize("item", ["1", None, b"1", [1], 1j, object()])
def test_one_that_is_no_number_refuses_all(item: object) -> None:
    """The error has the index, and nothing is recorded."""
    tracker = LatencyTracker()
    for numbers in ([1, 2, item], (each for each in (1, 2, item))):
        with pytest.raises(TypeError, match="item 2: must be real number, not"):
            tracker.record_many("web", TARGET, numbers)
    grid = np.array([[1, 2], [0, 3]], "O")
    grid[1, 0] = item
    with pytest.raises(TypeError, match="item 2: must be real number, not"):
        tracker.record_many("web", TARGET, grid)
    assert tracker.event_counts()["observed"] == 0


@pytest.mark.parametrize(
    "what",
    [
        1.0, None, "12345678", b"12345678", bytearray(8), object(), np.float64(1), np.array(1.0),
        np.zeros(2, "M8[s]"), np.zeros(2, "m8[s]"),
    ],
)  # fmt: skip
def test_what_is_no_collection_of_numbers_is_refused(what: object) -> None:
    """Text, bytes, a single number and times of day are a TypeError that says what it takes."""
    with pytest.raises(TypeError, match="seconds must be an array or another iterable of numbers"):
        LatencyTracker().record_many("web", TARGET, what)


@pytest.mark.parametrize("name", ["c8", "c16", "S3", "U3", "i4,f8", "V2"])
def test_arrays_of_other_things_are_refused(name: str) -> None:
    """Complex numbers, texts and structs are a TypeError that shows their format."""
    with pytest.raises(TypeError, match=r"seconds must be real numbers, not of format|item 0: "):
        LatencyTracker().record_many("web", TARGET, np.zeros(2, name))


# ---- hostile ----


class Lying:
    """A sequence that says another length than it has."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, at: int) -> float:
        if at < 3:
            return 1.0
        raise IndexError


class LyingList(list[float]):
    """A list that says another length than it has."""

    def __len__(self) -> int:
        return sys.maxsize


@pytest.mark.parametrize("length", [0, 1, sys.maxsize, -1])
def test_a_length_is_not_believed(length: int) -> None:
    """As many are recorded as there are."""
    tracker = LatencyTracker()
    assert tracker.record_many("web", TARGET, Lying(length)) == 3
    assert tracker.record_many("web", TARGET, LyingList([1.0, 2.0])) == 2


def test_a_list_may_change_while_it_is_read() -> None:
    """An item that empties or extends its list while it is converted does no harm."""

    class Item:
        def __init__(self, change: Callable[[], None]) -> None:
            self.change = change

        def __float__(self) -> float:
            self.change()
            self.change = lambda: None
            return 1.0

    tracker = LatencyTracker()
    numbers: list[Any] = [1.0] * 10
    numbers[5] = Item(numbers.clear)
    assert tracker.record_many("web", TARGET, numbers) == 6
    more: list[Any] = [1.0] * 10
    more[5] = Item(lambda: more.extend([1.0] * 1000))
    assert tracker.record_many("web", TARGET, more) == 1010


def test_an_array_cannot_shrink_while_it_is_read() -> None:
    """Its buffer is held until it is recorded, so resizing it is refused."""
    numbers = array("d", [1.0] * 1000)
    refused: list[BufferError] = []

    class Target(str):
        __slots__ = ()

        def __hash__(self) -> int:
            try:
                del numbers[:]
            except BufferError as error:
                refused.append(error)
            return super().__hash__()

        __eq__ = str.__eq__

    tracker = LatencyTracker()
    assert tracker.record_many("web", Target(TARGET), numbers) == 1000
    assert refused


def test_what_goes_wrong_while_reading_is_told() -> None:
    """An error of the iterable itself comes through, and nothing is recorded."""

    def broken() -> Iterator[float]:
        yield 1.0
        raise RuntimeError("the disk is full")

    tracker = LatencyTracker()
    with pytest.raises(RuntimeError, match="the disk is full"):
        tracker.record_many("web", TARGET, broken())
    assert tracker.event_counts()["observed"] == 0
