"""What only Python knows of itself, of its sources and of names, for all forms of export."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, runtime_checkable

from ._ffi import lib
from ._given import GivenSample
from ._version import __version__
from .families import Family
from .names import Names
from .sources import OpenAges

__all__ = [
    "LOST",
    "Losing",
    "Scanning",
    "age_values",
    "build",
    "failed_connects",
    "lost",
    "names_age",
    "open_ages",
    "scan_interval",
    "scanning",
]

LOST = "lblatency_events_lost"  # sources add their reasons to those of the tracker


class Losing(Protocol):
    """What tells what it lost: a `sources.Source`."""

    def lost(self) -> Mapping[str, int]:
        """How many events, by reason."""

    def failed_connects(self) -> Mapping[str, int]:
        """How many connections never came about, by cause."""


@runtime_checkable
class Scanning(Protocol):
    """What knows the connections that are open now, too: a `sources.Scan`."""

    def ages(self) -> Mapping[tuple[str | None, str], OpenAges]:
        """How old they are, by proxy (None is the tracker's) and `ip:port`."""

    def scan_interval(self) -> float | None:
        """Seconds between two scans, by which a latency may be off; None if there are none."""


def scanning(sources: Iterable[Losing]) -> list[Scanning]:
    """Those of the sources that scan."""
    return [each for each in sources if isinstance(each, Scanning)]


def open_ages(scans: Iterable[Scanning], default: str | None) -> dict[tuple[str, str], OpenAges]:
    """How old each backend's open connections are, by proxy and `ip:port`.

    Args:
        scans: all sources that scan.
        default: the name of the proxy where the source tells none; None leaves these out.
    """
    found: dict[tuple[str, str], OpenAges] = {}
    for source in scans:
        for (own_name, target), ages in source.ages().items():
            proxy = default if own_name is None else own_name
            if proxy is not None:
                where = proxy, target
                found[where] = found[where] + ages if where in found else ages
    return found


def age_values(ages: OpenAges) -> Iterator[tuple[str, dict[str, str], float]]:
    """The samples of a gauge histogram: suffix of the name, label of a bucket, value."""
    for bound, count in zip(ages.buckets, ages.counts, strict=True):
        yield "_bucket", {"le": repr(float(bound))}, count
    yield "_bucket", {"le": "+Inf"}, ages.count
    yield "_gcount", {}, ages.count
    yield "_gsum", {}, ages.sum


def scan_interval(scans: Iterable[Scanning]) -> float | None:
    """The longest time between two scans, in seconds; None if nothing scans."""
    return max((each for scan in scans if (each := scan.scan_interval()) is not None), default=None)


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
