"""The tracker that the functions of the package work on."""

from __future__ import annotations

from .tracker import LatencyTracker

__all__ = ["tracker"]

_made: dict[str, LatencyTracker] = {}


def tracker() -> LatencyTracker:
    """The one of this process, made on first use."""
    try:
        return _made["tracker"]
    except KeyError:  # setdefault: two threads that come here at once get the same one
        return _made.setdefault("tracker", LatencyTracker())
