"""What malloc does with memory that was freed."""

from __future__ import annotations

import ctypes
from contextlib import suppress

__all__ = ["give_back_large_blocks"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGE = 128 << 10  # glibc's own threshold, until it sees larger blocks freed
_SPARE = 4 << 20  # that it keeps at the end of a heap, for one small block after the other


def give_back_large_blocks() -> None:
    """Let glibc return large blocks to the kernel as soon as they are freed, for good.

    Otherwise it would keep those of bodies and connections, in pieces between small ones: after
    200 clients that never read, three times what is in use.
    """
    with suppress(AttributeError):  # another libc, which does not keep them
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, _SPARE)
