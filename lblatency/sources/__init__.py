"""Where events come from. `SOURCES` lists the sources, a line per source."""

from __future__ import annotations

from .base import Option, Source
from .ring import Ring
from .scan import OpenAges, Scan

__all__ = ["SOURCES", "OpenAges", "Option", "Ring", "Scan", "Source"]

SOURCES: tuple[type[Source], ...] = (Ring, Scan)
