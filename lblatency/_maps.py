"""Open BPF maps by fd, pin path, id or name."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Protocol

from ._ffi import check, ffi, lib
from .errors import BpfError, LatencyError, NotPinnedError

__all__ = ["MapSpec", "counters_of", "inner_maps", "map_fd", "pin_path"]


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


MapSpec = int | str | os.PathLike[str] | _HasFileno


def _open(spec: str) -> int:
    if "\0" in spec:  # C would read the name up to there
        raise ValueError(f"the name of a BPF map cannot have a NUL character: {spec!r}")
    if "/" in spec:
        if not os.path.lexists(spec):
            raise NotPinnedError(
                f"no BPF map is pinned at {spec}; `bpftool map` lists maps. If there is no bpffs"
                " there, mount it with `mount -t bpf bpf /sys/fs/bpf`"
            )
        rc = lib.lbl_map_by_path(os.fsencode(spec))
        if rc == -errno.EINVAL:
            raise LatencyError(f"{spec} is not in a bpffs, so no BPF map is pinned there")
        return check(rc, f"opening the map pinned at {spec}")
    if spec.isascii() and spec.isdigit() and len(spec) < 10:
        return check(lib.lbl_map_by_id(int(spec)), f"opening the BPF map with id {spec}")
    rc = lib.lbl_map_by_name(spec.encode())
    if rc == -errno.ENOTUNIQ:
        raise BpfError(
            -rc, f"several maps have this name: {spec!r}; give the id of {_called(spec)}"
        )
    return check(rc, f"opening the BPF map called {spec!r}")


def _called(name: str) -> str:
    """The maps of a name in words: ids, types and the programs that use them."""
    text = ffi.new("char[]", 4096)
    check(lib.lbl_maps_called(name.encode(), text, len(text)), f"listing the maps called {name!r}")
    maps: str = ffi.string(text).decode(errors="replace")
    return maps


def _fd(number: int) -> int:
    if not -(2**31) <= number < 2**31:
        raise ValueError(f"an fd is a small number, not {number!r}")
    return number


@contextmanager
def map_fd(spec: MapSpec) -> Iterator[int]:
    """An fd of the map, open during a `with` block.

    Args:
        spec: an open fd (int, or anything with `fileno()`), a pin path (with a `/`), an id (digits
            in a string) or a name.

    Raises:
        BpfError: the kernel has no such map, or refuses access to it.
    """
    if isinstance(spec, bool) or not (
        isinstance(spec, (int, str, os.PathLike)) or hasattr(spec, "fileno")
    ):
        raise TypeError(
            f"a BPF map is named by fd, pin path, id or name, not by a {type(spec).__name__}"
        )
    if isinstance(spec, os.PathLike):
        spec = os.fspath(spec)
    if isinstance(spec, int):
        yield _fd(spec)
    elif isinstance(spec, str):
        fd = _open(spec)
        try:
            yield fd
        finally:
            os.close(fd)
    else:
        yield _fd(spec.fileno())


def pin_path(spec: MapSpec) -> bytes | None:
    """The absolute pin path that a map is named by; None if it is named otherwise."""
    if isinstance(spec, os.PathLike):
        spec = os.fspath(spec)
    return os.fsencode(os.path.abspath(spec)) if isinstance(spec, str) and "/" in spec else None


@contextmanager
def counters_of(ring: MapSpec, ring_fd: int) -> Iterator[int]:
    """An fd of the `lbl_counters` map of a ring, open during a `with` block; -1 if there is none.

    It looks beside the ring's pin, then among the maps of the programs that use the ring.
    `lbl_counters` counts for rings called `lbl_events` only, so another ring has none.
    """
    fd = lib.lbl_counters_find(pin_path(ring) or ffi.NULL, ring_fd)
    try:
        yield max(fd, -1)
    finally:
        if fd >= 0:
            os.close(fd)


@contextmanager
def inner_maps(fd: int) -> Iterator[dict[int, int] | None]:
    """The maps in an array of maps by index, as fds during a `with` block; None if it is none."""
    found: dict[int, int] = {}
    try:
        for index in count():
            inner = lib.lbl_map_inner(fd, index)
            if inner in (-errno.EINVAL, -errno.EBADF, -errno.EBADFD, -errno.ERANGE):
                break
            if inner != -errno.ENOENT:
                found[index] = check(inner, f"opening map {index} of an array of maps")
        yield found if inner == -errno.ERANGE else None
    finally:
        for each in found.values():
            os.close(each)
