"""Captures of a tracker for many scrapes at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from .._ffi import lib
from ..render import Capture, Format
from ._body import Body, Page, pack

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["Scrapes"]


_IN_PIECES = (lib.LBL_TEXT, lib.LBL_OPENMETRICS)  # small ones, so that the loop can make them
_Wanted = dict[tuple[int, bool], Format]  # by the format's number, and whether it is to be packed
_Bodies = dict[tuple[int, bool], Body]


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
        self._next: tuple[_Wanted, asyncio.Task[_Bodies]] | None = None  # not begun
        self._count = 0
        self._seconds = 0.0

    async def body(self, form: Format, *, is_gzip: bool) -> Body:
        """The body for a scrape that comes now."""
        started = time.monotonic()
        key = (form.number, is_gzip or form.number not in _IN_PIECES)
        if self._next is None:
            wanted: _Wanted = {}
            self._next = wanted, asyncio.create_task(self._shoot(wanted))
        wanted, bodies = self._next
        wanted[key] = form
        body = (await asyncio.shield(bodies))[key]
        self._seconds += time.monotonic() - started
        self._count += 1
        return body

    async def _shoot(self, wanted: _Wanted) -> _Bodies:
        async with self._taking:
            self._next = None  # who comes from now on, needs another
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._make, wanted)

    def _make(self, wanted: _Wanted) -> _Bodies:
        """Capture, and pack, in one go: each change of threads is a wait on a busy machine."""
        capture = self._take()
        return {
            key: pack(capture.pieces(form)) if key[1] else Page(capture, form)
            for key, form in wanted.items()
        }

    def collect(self) -> Iterator[Metric]:
        """How long scrapes took, as a `prometheus_client` collector."""
        from prometheus_client.core import SummaryMetricFamily

        yield SummaryMetricFamily(
            "lblatency_scrape_duration_seconds",
            "Time from a scrape's request to its body, before that is sent",
            count_value=self._count,
            sum_value=self._seconds,
        )
