"""All that is served beside /metrics and the health checks: a line for each part.

Handlers may answer with whole bodies. Large ones are compressed and sent piece by piece by the
application, which also looks after users, headers, 404 and 405.
"""

from __future__ import annotations

from aiohttp import web

from . import api, landing, pages
from .served import Served

__all__ = ["routes"]


def routes(served: Served) -> list[web.AbstractRouteDef]:
    """The routes, of what is served."""
    if served.view is None:
        return landing.routes()
    return [*pages.routes(), *api.routes(served.view)]
