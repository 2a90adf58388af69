"""The application: its routes, and what holds for all requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from ..render import negotiate
from ._auth import names_in
from ._body import Sending, may_compress, pack, send
from ._live import LiveWebConfig
from ._scrapes import Scrapes

__all__ = ["make_app"]

_SMALL = 4096  # bytes that are not worth compressing


def make_app(
    scrapes: Scrapes,
    live: LiveWebConfig,
    why_not_ready: Callable[[], str | None],
    during: Callable[[web.Request], AbstractContextManager[bool]],
    routes: Iterable[web.AbstractRouteDef],
    threads: ThreadPoolExecutor,
) -> web.Application:
    """The application.

    Args:
        scrapes: makes bodies of /metrics.
        live: what operators configured.
        why_not_ready: says in a line why the agent is not ready; None if it is. It is cheap.
        during: is entered for each request; gives False if there are too many connections.
        routes: further ones.
        threads: where bodies are compressed.
    """
    sending = Sending()

    async def metrics(request: web.Request) -> web.StreamResponse:
        form = negotiate(",".join(request.headers.getall("Accept", [])))
        body = await scrapes.body(form, is_gzip=may_compress(request))
        with sending.of(request, body):
            return await send(request, body, {"Content-Type": form.content_type, "Vary": "Accept"})

    async def healthy(_request: web.Request) -> web.Response:
        return web.Response(text="healthy\n")

    async def ready(_request: web.Request) -> web.Response:
        why_not = why_not_ready()
        return web.Response(text=f"{why_not or 'ready'}\n", status=503 if why_not else 200)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        with during(request) as is_welcome:
            if is_welcome:
                return await _refused(request, live) or await handler(request)
        refusal = _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "there are too many connections")
        refusal.force_close()
        return refusal

    @web.middleware
    async def in_a_line(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return _refusal(HTTPStatus.NOT_FOUND, "there is nothing here; metrics are at /metrics")
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"use {allowed}", Allow=allowed)

    @web.middleware
    async def pack_large(request: web.Request, handler: Handler) -> web.StreamResponse:
        """What other routes answer is compressed and sent as metrics are, if it is large."""
        response = await handler(request)
        whole = response.body if isinstance(response, web.Response) else None
        is_packed = "Content-Encoding" in response.headers
        if not isinstance(whole, bytes) or len(whole) < _SMALL or is_packed:
            return response
        body = await asyncio.get_running_loop().run_in_executor(threads, pack, [whole])
        with sending.of(request, body):
            return await send(request, body, response.headers, response.status)

    async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(live.now.config.headers)

    app = web.Application(middlewares=[guard, in_a_line, pack_large])
    app.on_response_prepare.append(add_headers)
    app.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/-/healthy", healthy),
            web.get("/-/ready", ready),
            *routes,
        ]
    )
    return app


async def _refused(request: web.Request, live: LiveWebConfig) -> web.Response | None:
    """Why the web configuration refuses a request; None if it does not."""
    config, auth, limiter = live.now
    if limiter and not limiter.allows():
        return _refusal(HTTPStatus.TOO_MANY_REQUESTS, "too many requests")
    names = names_in(request.get_extra_info("peercert"))
    if config.client_sans is not None and config.client_sans.isdisjoint(names):
        why = "no name in the client's certificate is among those allowed"
        return _refusal(HTTPStatus.FORBIDDEN, why)
    if auth and not await auth.allows(request.headers.get("Authorization", "")):
        challenge = {"WWW-Authenticate": "Basic"}
        return _refusal(HTTPStatus.UNAUTHORIZED, "a user and a password are needed", **challenge)
    return None


def _refusal(status: HTTPStatus, why: str, **headers: str) -> web.Response:
    return web.Response(text=f"{status.phrase}: {why}\n", status=status, headers=headers)
