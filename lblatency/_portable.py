"""A histogram as a dict for JSON, which does not depend on how slots are numbered."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from ._ffi import lib
from .buckets import Buckets

__all__ = ["pack", "unpack"]

_VERSION = 1
_FIELDS = {"version", "buckets", "slots", "sum_ns"}


def pack(buckets: Buckets, counts: Mapping[int, int], sum_ns: int) -> dict[str, Any]:
    """The dict that `HistogramSnapshot.to_dict()` describes; `counts` are by slot, ascending."""
    last = lib.lbl_buckets_slots(buckets.ptr) - 1
    return {
        "version": _VERSION,
        "buckets": list(buckets.bounds),
        "slots": [
            [None if slot == last else lib.lbl_buckets_upper(buckets.ptr, slot), count]
            for slot, count in counts.items()
        ],
        "sum_ns": sum_ns,
    }


def _whole(value: object, what: str, limit: int) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise ValueError(f"{what} must be an int from 0 to {limit - 1}, not {value!r}")
    return value


def _slot_and_count(buckets: Buckets, pair: Any) -> tuple[int, int]:
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise ValueError(f"each of slots must be [last nanosecond, count], not {pair!r}")
    count = _whole(pair[1], "a count", 2**64)
    last = lib.lbl_buckets_slots(buckets.ptr) - 1
    if pair[0] is None:
        return last, count
    ns = _whole(pair[0], "the last nanosecond of a slot", 2**64)
    slot = int(lib.lbl_buckets_slot(buckets.ptr, ns))
    if slot == last or lib.lbl_buckets_upper(buckets.ptr, slot) != ns:
        raise ValueError(f"there is no slot that ends at {ns} ns with these bounds")
    return slot, count


def unpack(data: Mapping[str, Any], sum_limit: int) -> tuple[Buckets, dict[int, int], int]:
    """The buckets, the counts by slot, and the sum in ns, which is below `sum_limit`.

    Raises:
        TypeError: `data` is not a mapping.
        ValueError: it is not of the form that `pack()` writes.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"a histogram's dict must be a mapping, not {type(data).__name__}")
    version = data.get("version")
    if type(version) is not int or version != _VERSION:
        raise ValueError(
            f"cannot read a histogram of version {version!r}, only of {_VERSION}; if a later"
            " lblatency wrote it, update this one"
        )
    if data.keys() != _FIELDS:
        raise ValueError(
            f"a histogram's dict has the keys {', '.join(sorted(_FIELDS))}, not"
            f" {', '.join(sorted(map(str, data)))}"
        )
    sum_ns = _whole(data["sum_ns"], "sum_ns", sum_limit)
    try:
        buckets = Buckets.of(data["buckets"])
    except TypeError as error:
        raise ValueError(str(error)) from None
    if not isinstance(data["slots"], (list, tuple)):
        raise ValueError(f"slots must be a list, not {data['slots']!r}")
    pairs = [_slot_and_count(buckets, pair) for pair in data["slots"]]
    if any(other <= one for (one, _), (other, _) in pairwise(pairs)):
        raise ValueError("slots must be in ascending order, each once")
    return buckets, dict(pairs), sum_ns
