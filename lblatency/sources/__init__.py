"""Where events come from. `SOURCES` is the list of what there is, a line each."""

from __future__ import annotations

from .base import Option, Source
from .ring import Ring

__all__ = ["SOURCES", "Option", "Ring", "Source"]

SOURCES: tuple[type[Source], ...] = (Ring,)
