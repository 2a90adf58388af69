"""Why the kernel refuses address space or memory, and what would fit."""

from __future__ import annotations

import resource
from pathlib import Path

__all__ = ["no_room"]

_MIB = 1 << 20
_RING_BYTES = 16 * _MIB  # per ring besides the backends: a thread's stack, and the ids of events


def _used_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _fitting(left: int, row_bytes: int, rings: int) -> int:
    """How many backends fit for sure: a tenth less, in two digits."""
    most = max(0, (left - rings * _RING_BYTES) * 9 // 10 // (rings * row_bytes))
    step: int = 10 ** max(0, len(str(most)) - 2)
    return most // step * step


def _refusal() -> str:
    """The kernel's reason if there is no limit on address space."""
    try:
        strict = Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    except OSError:
        strict = False
    if strict:
        return "vm.overcommit_memory is 2; raise vm.overcommit_ratio"
    return "memory is exhausted"


def no_room(max_backends: int, row_bytes: int, rings: int) -> MemoryError:
    """The exception that names the limit that was hit.

    Args:
        max_backends: of the tracker.
        row_bytes: that a backend takes per ring.
        rings: how many rings were to be attached; each takes address space for all backends.
    """
    need = rings * (max_backends * row_bytes + _RING_BYTES)
    what = (
        f"no address space for {max_backends} backends per ring ({rings} * {need // rings // _MIB}"
        " MiB)"
        if rings
        else "no address space for a tracker"
    )
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return MemoryError(f"{what}: {_refusal()}, or lower max_backends")
    left = max(0, limit - _used_bytes())
    fits = _fitting(left, row_bytes, rings) if rings else 0
    lower = f"; max_backends={fits} fits" if fits else ""
    return MemoryError(
        f"{what}: the limit RLIMIT_AS leaves {left // _MIB} MiB (`ulimit -v` is {limit >> 10})"
        f"{lower}; raise the limit"
    )
