"""The API of a view over HTTP, and any other routes, in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from aiohttp import web

from lblatency.exporter.api import routes
from lblatency.history import LocalView

__all__ = ["served", "serving"]


@contextmanager
def served(view: LocalView) -> Iterator[str]:
    """Serve the API while the block runs; yields the URL."""
    with serving(routes(view)) as url:
        yield url


@contextmanager
def serving(routes: Iterable[web.AbstractRouteDef], port: int = 0) -> Iterator[str]:
    """Serve on a port of 127.0.0.1 while the block runs, by default any; yields the URL."""
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        return int(runner.addresses[0][1])

    bound = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
