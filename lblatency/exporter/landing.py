"""The page at /."""

from __future__ import annotations

from aiohttp import web

from .._version import __version__

__all__ = ["routes"]

_PAGE = f"""\
<!doctype html>
<html lang="en">
<title>lblatency</title>
<h1>lblatency {__version__}</h1>
<ul>
<li><a href="metrics">Metrics</a>
<li><a href="-/healthy">Health</a>
<li><a href="-/ready">Readiness</a>
</ul>
"""


async def _page(_request: web.Request) -> web.Response:
    return web.Response(text=_PAGE, content_type="text/html")


def routes() -> list[web.AbstractRouteDef]:
    """Its route."""
    return [web.get("/", _page)]
