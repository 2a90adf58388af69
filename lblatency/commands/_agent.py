"""A tracker and the sources that it records, which may be replaced while it runs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from .._closing import Closing
from ..conntrack import ConntrackMap
from ..errors import LatencyError
from ..history import INTERVAL_S, History, LocalView
from ..names import Names, Reader
from ..sources import OpenAges, Scan, Source
from ..tracker import LatencyTracker
from ._settings import Settings
from ._sources import AwayError, Planned, PlannedReader, checked
from ._ticks import Ticks

__all__ = ["Agent"]

_UNNAMED = "unnamed"  # never seen, since each stream has names for all its events


class Agent(Closing):
    """Opens what settings say, and lets a tracker record it.

    Attributes:
        tracker: records the sources.
        names: what servers are called.
        view: what the API says of all of it.

    Args:
        settings: the first ones. They say what is recorded and where it is served; later ones
            must not say otherwise.
        interval_s: how often to sample the tracker for its history.
    """

    def __init__(self, settings: Settings, *, interval_s: float = INTERVAL_S) -> None:
        self.tracker = LatencyTracker(**settings.recording)
        self.names = Names([])
        self._readers: dict[PlannedReader, Reader] = {}
        self._settings = settings
        self._open: dict[Planned, Source] = {}
        self._ticks = Ticks()
        self._closed_lost: Counter[str] = Counter()
        self._closed_failed: Counter[str] = Counter()
        self._history = History(self.tracker, interval_s=interval_s)
        self._next_sample = 0.0
        self._is_unsampled = False  # the last one failed, and that was told
        self.view = LocalView(
            self.tracker, self._history, sources=self._source_states, names=self.names
        )
        self._opening = threading.Lock()  # a scrape must not read a source that is being closed

    @property
    def sources(self) -> list[Source]:
        """Those that are open."""
        return list(self._open.values())

    def apply(self, settings: Settings) -> None:
        """Open what is new, close what is gone, and leave alone what stays.

        What is gone is closed first, since two may not share a ring or an interface. If it fails,
        all is as before, except that what had to be opened again has forgotten open connections.

        Raises:
            NotPinnedError: a map is not pinned yet.
            LatencyError, MemoryError, ValueError: something cannot be opened or recorded, or
                cannot change while the agent runs.
        """
        for name in ("recording", "web", "push"):
            if getattr(settings, name) != getattr(self._settings, name):
                raise LatencyError(
                    "listen, web, otlp, metrics, buckets and max-backends cannot change while it"
                    " runs; restart it"
                )
        self._readers |= checked(each for each in settings.readers if each not in self._readers)
        before = list(self._open)
        if gone := [each for each in before if each not in settings.sources]:
            self._close(gone)
            self.tracker.stop()  # it empties their rings, and lets go of them
        try:
            self._record(settings)
        except BaseException:
            self._close(each for each in self._open if each not in before)
            if before and not self.tracker.running():
                self._record(self._settings)
            raise
        self._settings = settings
        self._readers = {each: self._readers[each] for each in settings.readers}
        self.names.replace(list(self._readers.values()))

    def apply_what_is_there(self, settings: Settings) -> AwayError | None:
        """As `apply()`, without the sources that are not pinned yet.

        Returns:
            Why the first of them is left out; None if all are open.

        Raises:
            AwayError: none of the sources is there.
        """
        there, first = settings.sources, None
        while there:
            try:
                if not self._open or there != self._settings.sources:
                    self.apply(replace(settings, sources=there))
            except AwayError as away:
                first = first or away
                there = tuple(each for each in there if each != away.plan)
            else:
                return first
        assert first is not None  # settings have a source
        raise first

    def _record(self, settings: Settings) -> None:
        """Open what is not open yet, and let the tracker go on with all."""
        conntrack = None if settings.conntrack is None else ConntrackMap(settings.conntrack)
        with ExitStack() as attempt:
            opened = {
                each: attempt.enter_context(each.open())
                for each in settings.sources
                if each not in self._open
            }
            attempt.pop_all()
        with self._opening:
            self._open |= opened
        self.tracker.stop()
        self.tracker.start(
            [source.stream for source in self._open.values()],
            conntrack,
            _UNNAMED,
        )

    def _close(self, plans: Iterable[Planned]) -> None:
        """Close some sources; what they have counted stays."""
        for each in list(plans):
            with self._opening:
                source = self._open.pop(each)
                self._closed_lost.update(source.lost())
                self._closed_failed.update(source.failed_connects())
                source.close()

    def lost(self) -> Mapping[str, int]:
        """What all sources lost, also those that are closed, by reason."""
        with self._opening:
            return _sum(self._closed_lost, (each.lost() for each in self._open.values()))

    def failed_connects(self) -> Mapping[str, int]:
        """Which connections never came about, in the same way, by cause."""
        with self._opening:
            failed = (each.failed_connects() for each in self._open.values())
            return _sum(self._closed_failed, failed)

    def ages(self) -> Mapping[tuple[str | None, str], OpenAges]:
        """The connections that are open now, of the sources that scan."""
        found: dict[tuple[str | None, str], OpenAges] = {}
        with self._opening:
            for each in self._open.values():
                if isinstance(each, Scan):
                    for backend, ages in each.ages().items():
                        found[backend] = found[backend] + ages if backend in found else ages
        return found

    def scan_interval(self) -> float | None:
        """The longest time between two scans, in seconds; None if no source scans."""
        with self._opening:
            scans = [each for each in self._open.values() if isinstance(each, Scan)]
            return max((each.scan_interval() for each in scans), default=None)

    def tick(self) -> list[str]:
        """Let the sources do their regular work; returns what to tell people."""
        return [*self._sample(), *self._ticks.tick(self.sources)]

    def _sample(self) -> list[str]:
        """Take a sample if it is time; returns what to tell people, which is once."""
        if time.monotonic() < self._next_sample:
            return []
        self._next_sample = time.monotonic() + self._history.interval_s
        try:
            self._history.sample()
        except (LatencyError, MemoryError) as error:
            was_told, self._is_unsampled = self._is_unsampled, True
            return [] if was_told else [f"{error}; the next sample has what this one would have"]
        self._is_unsampled = False
        return []

    def _source_states(self) -> list[dict[str, Any]]:
        with self._opening:
            return [_source_state(each) for each in self._open.values()]

    def close(self) -> None:
        """Stop the tracker and close the sources."""
        self.names.close()
        self.tracker.stop()
        self._close(self._open)


def _source_state(source: Source) -> dict[str, Any]:
    """A source, as the API's status has it."""
    state: dict[str, Any] = {"lost": {}, "failed_connects": {}, "status": {}}
    try:
        state["trouble"] = source.trouble()
        state["attached"] = not source.stream.detached()
        state["lost"] = dict(source.lost())
        state["failed_connects"] = dict(source.failed_connects())
        state["status"] = dict(source.status())
    except (LatencyError, OSError) as error:  # what it counts could not be read
        state |= {"trouble": str(error), "attached": False}
    return {"name": source.options[0].name, **state}


def _sum(closed: Mapping[str, int], counts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    total = Counter(closed)
    for each in counts:
        total.update(each)
    return total
