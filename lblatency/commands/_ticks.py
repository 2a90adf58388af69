"""The regular work of sources, which goes on whatever is wrong with one of them."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import LatencyError
from ..sources import Source

__all__ = ["Ticks"]


class Ticks:
    """Lets sources do their regular work, and remembers what people were told."""

    def __init__(self) -> None:
        self._told: dict[Source, str] = {}

    def tick(self, sources: Sequence[Source]) -> list[str]:
        """Do it once; returns what to tell people: what is wrong, once, and that it is no more."""
        wrong = {each: why for each in sources if (why := _tick(each))}
        news = [
            f"{why}; it is tried again"
            for each, why in wrong.items()
            if self._told.get(each) != why
        ]
        news += [
            f"it works again, after: {why}"
            for each, why in self._told.items()
            if each in sources and each not in wrong
        ]
        self._told = wrong
        return news


def _tick(source: Source) -> str | None:
    try:
        source.tick()
    except (LatencyError, OSError) as error:
        return str(error)
    return source.trouble()
