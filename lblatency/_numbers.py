"""Numbers from any collection of them, as C doubles."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from itertools import chain
from typing import Any

__all__ = ["doubles"]

_REAL = frozenset("?bBhHiIlLqQnNefd")  # what `struct` unpacks to a number
_ITERATED = frozenset("gO")  # long doubles and objects: `struct` cannot, but the array itself can


def doubles(numbers: Any) -> memoryview:
    """The numbers as a contiguous buffer of doubles: the caller's own if it is one already.

    Args:
        numbers: a buffer of any real type and shape, or an iterable of numbers. It is read to its
            end before this returns.

    Raises:
        TypeError: there is no number in the place of one.
        ValueError: a number is too large for a double.
    """
    if isinstance(numbers, (str, bytes, bytearray)):
        raise _refusal(numbers)
    try:
        view = memoryview(numbers)
    except TypeError:
        return _copy(numbers)
    except (ValueError, BufferError) as error:
        raise _refusal(numbers) from error
    if not view.ndim:
        raise _refusal(numbers)
    if view.format == "d" and view.c_contiguous:
        return view
    return _copy(_items(numbers, view))


def _refusal(numbers: object) -> TypeError:
    return TypeError(
        f"seconds must be an array or another iterable of numbers, not {type(numbers).__name__}"
    )


def _items(numbers: Any, view: memoryview) -> Iterable[float]:
    """All items of a buffer, in C's order."""
    code = view.format.lstrip("@=<>!")
    if code in _ITERATED:
        items: Iterable[Any] = numbers
        for _ in range(1, view.ndim):
            items = chain.from_iterable(items)
        return items
    if code not in _REAL:
        raise TypeError(f"seconds must be real numbers, not of format {view.format!r}")
    return chain.from_iterable(struct.iter_unpack(view.format, view.tobytes()))


def _copy(numbers: Iterable[float]) -> memoryview:
    try:
        each = iter(numbers)
    except TypeError:
        raise _refusal(numbers) from None
    copied = array("d")
    try:
        copied.extend(each)
    except (TypeError, OverflowError) as error:
        kind = ValueError if isinstance(error, OverflowError) else TypeError
        raise kind(f"item {len(copied)}: {error}") from error
    return memoryview(copied)
