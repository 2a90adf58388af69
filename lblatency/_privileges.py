"""What a process may do, and how it gives up what it does not need any more."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ._ffi import check, lib

__all__ = ["BITS", "keep_only"]

BITS = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}  # of linux/capability.h
_ANYBODY_READS_MAPS = (5, 19)  # before, a sysctl might leave bpf() to CAP_BPF


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(each) for each in release.split("-")[0].split(".")[:2])


def keep_only(names: Iterable[str]) -> None:
    """Give up all capabilities but these, in all threads and for the programs that we run.

    Raises:
        BpfError: a thread could not be reached.
    """
    kept = set(names)
    if _version(os.uname().release) < _ANYBODY_READS_MAPS:
        kept.add("CAP_BPF")
    check(
        lib.lbl_privileges_keep(sum(1 << BITS[name] for name in kept)),
        "giving up capabilities, by SIGRTMAX",
    )
