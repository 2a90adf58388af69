"""The program of filler.bpf.c, which sends events into a ring when it is run by hand."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from tests.support import bpf

if TYPE_CHECKING:
    from pathlib import Path

_FIRST_NS, _EACH_NS = 10**12, 7919


class Filler(NamedTuple):
    """The program, loaded and pinned."""

    at: str
    prog: int

    @classmethod
    def load(cls, compiled: Path, bpffs: bpf.Bpffs, name: str = "") -> Filler:
        """Load it with rings of its own, in a directory of the bpffs."""
        at = os.path.join(bpffs.path, name)
        os.makedirs(at, exist_ok=True)
        bpf.load(compiled, bpf.Bpffs(bpffs.fd, at))
        return cls(at, bpf.open_pinned(f"{at}/programs/fill"))

    def fill(self, first: int, n: int, odd: int = 0) -> None:
        """Send events `first` to `first + n - 1` to both rings."""
        bpf.run(self.prog, struct.pack("=III", first, n, odd))

    def open(self, name: str) -> int:
        """Open one of its maps; returns an fd."""
        return bpf.open_pinned(f"{self.at}/maps/{name}")

    def close(self) -> None:
        """Close the program."""
        os.close(self.prog)


def number_of(timestamp_ns: int) -> int:
    """Which event has this timestamp."""
    return (timestamp_ns - _FIRST_NS) // _EACH_NS
