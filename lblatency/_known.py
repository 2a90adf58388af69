"""What only Python knows of itself, of its sources and of names, for all forms of export."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from ._ffi import lib
from ._given import GivenSample
from ._version import __version__
from .families import Family
from .names import Names

__all__ = ["LOST", "Losing", "build", "failed_connects", "lost", "names_age"]

LOST = "lblatency_events_lost"  # sources add their reasons to those of the tracker


class Losing(Protocol):
    """What tells what it lost: a `sources.Source`."""

    def lost(self) -> Mapping[str, int]:
        """How many events, by reason."""

    def failed_connects(self) -> Mapping[str, int]:
        """How many connections never came about, by cause."""


def lost(sources: Iterable[Losing]) -> Counter[str]:
    """What the sources lost, in all, by reason."""
    total: Counter[str] = Counter()
    for source in sources:
        total.update(source.lost())
    return total


def failed_connects(sources: Iterable[Losing]) -> Counter[str]:
    """Which connections never came about, in all, by cause."""
    total: Counter[str] = Counter()
    for source in sources:
        total.update(source.failed_connects())
    return total


def names_age(family: Family, names: Names) -> Iterator[GivenSample]:
    """How old the names of each reader are."""
    for reader in names.status():
        labels = dict(zip(family.labels, (reader["from"], reader["place"]), strict=True))
        yield family.name, labels, math.inf if reader["age_s"] is None else reader["age_s"], None


def build() -> tuple[str, str, dict[str, str]]:
    """Name, help and labels of the info about this build."""
    libbpf = lib.lbl_libbpf_version()
    return (
        "lblatency_build",
        "Version of lblatency and of libbpf",
        {"version": __version__, "libbpf": f"{libbpf // 1000}.{libbpf % 1000}"},
    )
