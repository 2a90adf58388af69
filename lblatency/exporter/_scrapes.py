"""Captures of a tracker for many scrapes at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..render import Capture, Format
from ._body import Packed, pack

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["Scrapes"]


class _Shot:
    """A capture, and its bodies, each of which is made once."""

    def __init__(self, capture: Capture, threads: ThreadPoolExecutor) -> None:
        self._capture = capture
        self._threads = threads
        self._bodies: dict[int, asyncio.Future[Packed]] = {}

    async def body(self, form: Format) -> Packed:
        """What to send."""
        if form.number not in self._bodies:
            self._bodies[form.number] = asyncio.get_running_loop().run_in_executor(
                self._threads, pack, self._capture.pieces(form)
            )
        return await asyncio.shield(self._bodies[form.number])


class Scrapes:
    """Takes captures, one at a time. Scrapes share one, if it began after all of them came.

    Args:
        capture: takes one, in a thread.
        threads: where it is taken and rendered.
    """

    def __init__(self, capture: Callable[[], Capture], threads: ThreadPoolExecutor) -> None:
        self._take = capture
        self._threads = threads
        self._taking = asyncio.Lock()
        self._next: asyncio.Task[_Shot] | None = None  # which has not begun
        self._count = 0
        self._seconds = 0.0

    async def body(self, form: Format) -> Packed:
        """The body for a scrape that comes now."""
        started = time.monotonic()
        if self._next is None:
            self._next = asyncio.create_task(self._shoot())
        shot = await asyncio.shield(self._next)
        body = await shot.body(form)
        self._seconds += time.monotonic() - started
        self._count += 1
        return body

    async def _shoot(self) -> _Shot:
        async with self._taking:
            self._next = None  # who comes from now on, needs another
            loop = asyncio.get_running_loop()
            return _Shot(await loop.run_in_executor(self._threads, self._take), self._threads)

    def collect(self) -> Iterator[Metric]:
        """How long scrapes took, as a `prometheus_client` collector."""
        from prometheus_client.core import SummaryMetricFamily

        yield SummaryMetricFamily(
            "lblatency_scrape_duration_seconds",
            "Time from a scrape's request to its body, before that is sent",
            count_value=self._count,
            sum_value=self._seconds,
        )
