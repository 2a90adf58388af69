"""A scan of a conntrack map with 100,000 entries, of which none has changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from statistics import median

import pytest

from lblatency.sources import Scan
from tests.support.conntrack import KINDS, Table

from ..harness import CONSUMER, interleave, pin, same
from ..replay import Publish
from ..rings import Ring

ENTRIES = 100_000
MAPS = {
    f"{kind}, keys of {40 if unified else 16} bytes": (kind, unified)
    for kind in ("hash", "per-CPU hash")
    for unified in (False, True)
}
NEVER = 3600


def _timed(source: Scan) -> Callable[[], float]:
    def scan() -> float:
        before = time.thread_time_ns()
        source.scan()
        return float(time.thread_time_ns() - before)

    return scan


def _filled(stack: ExitStack, kind: str, unified: bool, entries: int) -> Scan:
    table = Table(KINDS[kind], unified, 2 * entries)
    stack.callback(table.close)
    for i in range(entries):
        client = f"192.0.2.{i // 50_000}", 1024 + i % 50_000
        table.put(client, (f"10.0.0.{i % 100}", 80))
    return stack.enter_context(Scan(table.fd, interval=NEVER))


@pytest.fixture(scope="module")
def scans(rounds: int, smoke: bool) -> Iterator[Mapping[str, list[float]]]:
    """Ns of CPU of the thread that scans."""
    if not Ring().in_kernel:
        pytest.skip("left out: needs BPF")
    pin(CONSUMER)
    with ExitStack() as stack:
        turns = {
            name: same(_timed(_filled(stack, *which, ENTRIES // 100 if smoke else ENTRIES)))
            for name, which in MAPS.items()
        }
        yield interleave(turns, rounds)


@pytest.mark.parametrize("contender", MAPS)
def test_scan(contender: str, scans: Mapping[str, list[float]], publish: Publish) -> None:
    """Listing, comparing with what was seen before, and sweeping."""
    publish("scan", "100000 entries", contender, scans, cpu_ms=median(scans[contender]) / 1e6)
