"""The only importer of cffi's module. It turns C's return codes into exceptions."""

from __future__ import annotations

import errno
from typing import Any

from . import _native
from .errors import BpfError

ffi = _native.ffi
lib = _native.lib

__all__ = ["address", "check", "check_loaded", "ffi", "lib"]


def address(pointer: Any) -> int:
    """The address that a pointer holds."""
    return int(ffi.cast("uintptr_t", pointer))


def check(rc: int, what: str) -> int:
    """Return a count, or raise `BpfError` for a negative errno; `what` says what was being done."""
    if rc < 0:
        raise BpfError.from_errno(-rc, what)
    return rc


def check_loaded(rc: int, what: str) -> int:
    """As `check`, with what libbpf and the kernel had to say, unless it is that we may not."""
    if rc < 0 and rc != -errno.EPERM:
        said = ffi.string(lib.lbl_log_text()).decode(errors="replace").strip()
        if said:
            what = f"{what} ({' | '.join(said.splitlines())})"
    return check(rc, what)
