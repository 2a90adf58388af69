"""Where events come from. `SOURCES` lists the sources, a line per source."""

from __future__ import annotations

from .base import BACKEND, Option, Source
from .flows import Flows
from .ring import Ring
from .scan import OpenAges, Scan
from .sockets import Sockets

__all__ = [
    "BACKEND",
    "SOURCES",
    "Flows",
    "OpenAges",
    "Option",
    "Ring",
    "Scan",
    "Sockets",
    "Source",
]

SOURCES: tuple[type[Source], ...] = (Ring, Sockets, Flows, Scan)
