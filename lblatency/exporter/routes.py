"""All that is served beside /metrics and the health checks: a line for each part."""

from __future__ import annotations

from aiohttp import web

from . import landing
from .served import Served

__all__ = ["routes"]


def routes(_served: Served) -> list[web.AbstractRouteDef]:
    """The routes, of what is served."""
    return [*landing.routes()]
