"""What an exporter serves, to scrapers and on its pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .._known import Losing
from ..history import LocalView
from ..names import Names
from ..render import Capture, Collects
from ..tracker import LatencyTracker

__all__ = ["Served"]


def _always() -> None:
    return None


@dataclass(frozen=True)
class Served:
    """A tracker, and what is known beside it.

    Attributes:
        tracker: what to serve.
        names: what servers are called.
        sources: what they lost is served, too.
        more: further collectors.
        max_series: of backends, on one page; those that would have more share `overflow`;
            None for no limit.
        view: what the status page and the API say of all of it; None for neither.
        why_not_ready: says in a line why the agent is not ready; None if it is. It is cheap.
    """

    tracker: LatencyTracker
    names: Names | None = None
    sources: Sequence[Losing] = ()
    more: Sequence[Collects] = ()
    max_series: int | None = None
    view: LocalView | None = None
    why_not_ready: Callable[[], str | None] = _always

    def capture(self, more: Sequence[Collects]) -> Capture:
        """All of it as it is now, and these collectors."""
        return Capture(
            self.tracker,
            names=self.names,
            sources=self.sources,
            more=[*self.more, *more],
            max_series=self.max_series,
        )
