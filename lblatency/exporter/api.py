"""`/api/v1`: JSON of a view, for the status page and for programs. docs/api-v1.md describes it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any, NamedTuple

from aiohttp import web

from ..buckets import LIFETIME
from ..errors import LatencyError
from ..history import (
    HEAT_WINDOWS,
    WINDOWS,
    LocalView,
    Selection,
    UnknownBackendError,
    parse_backend,
    parse_window,
)

__all__ = ["routes"]

_KEPT_MAX = 16  # answers of one sample
_QUERY_MAX = 16384  # characters
Make = Callable[[], dict[str, Any]]


class _Answer(NamedTuple):
    """A body, and its tag, which is weak since the server may compress the body."""

    body: bytes
    etag: str


class _Answers:
    """Makes each answer once per sample, however many ask for it, beside the loop."""

    def __init__(self, view: LocalView) -> None:
        self._view = view
        self._sample = -1
        self._tasks: dict[str, asyncio.Task[_Answer]] = {}

    async def get(self, key: str, make: Make) -> _Answer:
        if self._sample != self._view.history.samples or len(self._tasks) >= _KEPT_MAX:
            self._sample = self._view.history.samples
            self._tasks = {}
        task = self._tasks.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._tasks[key] = asyncio.create_task(asyncio.to_thread(_answer, make))
        return await asyncio.shield(task)  # who leaves does not end it for the others


def _answer(make: Make) -> _Answer:
    # What sources say of themselves is theirs, so it may have values that JSON does not know.
    text = json.dumps(make(), allow_nan=False, separators=(",", ":"), default=str)
    body = text.encode()
    tag = hashlib.blake2b(body, digest_size=12).hexdigest()
    return _Answer(body, f'W/"{tag}"')


class _Query:
    """What a request asks for.

    Raises:
        ValueError: something is not known, or given more often than once.
    """

    def __init__(self, request: web.Request, known: Collection[str]) -> None:
        if len(request.query_string) > _QUERY_MAX:
            raise ValueError(f"the query is longer than {_QUERY_MAX} characters")
        if unknown := [name for name in request.query if name not in known]:
            raise ValueError(
                f"{unknown[0]!r} is not known here; known: {', '.join(known) or 'nothing'}"
            )
        self._query = request.query

    def one(self, name: str, default: str) -> str:
        """The only value."""
        values = self._query.getall(name, [default])
        if len(values) > 1:
            raise ValueError(f"{name} must be given once")
        return values[0]

    def selections(self) -> list[Selection]:
        """The backends, then the proxies."""
        return [
            *map(parse_backend, self._query.getall("backend", [])),
            *map(Selection, self._query.getall("proxy", [])),
        ]


def _refusal(status: int, error: Exception) -> web.Response:
    return web.json_response({"version": 1, "error": str(error)}, status=status)


class _Api:
    """The handlers."""

    def __init__(self, view: LocalView) -> None:
        self._view = view
        self._answers = _Answers(view)

    async def status(self, request: web.Request) -> web.Response:
        _Query(request, ())
        return _response(request, await asyncio.to_thread(_answer, self._view.status))

    async def backends(self, request: web.Request) -> web.Response:
        window = parse_window(_Query(request, ("window",)).one("window", "60"))
        make: Make = lambda: self._view.backends(window)  # noqa: E731
        return _response(request, await self._answers.get(f"backends {window}", make))

    async def heatmap(self, request: web.Request) -> web.Response:
        query = _Query(request, ("backend", "proxy", "window", "metric"))
        window = parse_window(query.one("window", "900"), HEAT_WINDOWS)
        metric = query.one("metric", LIFETIME)
        selections = query.selections()
        if len(selections) > 1:
            raise ValueError("a heat map is of one backend, or of one proxy, or of all")
        selection = selections[0] if selections else Selection()
        make: Make = lambda: self._view.heatmap(selection, int(window), metric)  # noqa: E731
        return _response(request, await self._answers.get(request.path_qs, make))

    async def distribution(self, request: web.Request) -> web.Response:
        query = _Query(request, ("backend", "proxy", "window", "metric"))
        window = parse_window(query.one("window", "60"), WINDOWS)
        metric = query.one("metric", LIFETIME)
        selections = query.selections()
        make: Make = lambda: self._view.distribution(selections, window, metric)  # noqa: E731
        return _response(request, await self._answers.get(request.path_qs, make))


def _response(request: web.Request, answer: _Answer) -> web.Response:
    headers = {"ETag": answer.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    tags = [tag.strip() for tag in request.headers.get("If-None-Match", "").split(",")]
    if "*" in tags or answer.etag.removeprefix("W/") in (tag.removeprefix("W/") for tag in tags):
        return web.Response(status=304, headers=headers)
    return web.Response(body=answer.body, content_type="application/json", headers=headers)


Handler = Callable[[web.Request], Awaitable[web.Response]]


def _told(handler: Handler) -> Handler:
    """The handler; what is wrong is an answer, too."""

    async def told(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except UnknownBackendError as error:
            return _refusal(404, error)
        except (LatencyError, MemoryError) as error:
            return _refusal(503, error)
        except ValueError as error:
            return _refusal(400, error)

    return told


def routes(view: LocalView) -> list[web.RouteDef]:
    """The routes of the API. Somebody else lets the view's history take its samples."""
    api = _Api(view)
    handlers = (api.status, api.backends, api.heatmap, api.distribution)
    return [web.get(f"/api/v1/{each.__name__}", _told(each)) for each in handlers]
