"""Bodies of answers: gzip, and slices that are sent as they are taken."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from multidict import CIMultiDict

__all__ = ["may_compress", "send"]

_SLICE = 128 << 10


def may_compress(request: web.Request) -> bool:
    """Whether the client accepts gzip."""
    for each in request.headers.get("Accept-Encoding", "").split(","):
        coding, _, parameters = each.partition(";")
        name, _, quality = parameters.replace(" ", "").partition("=")
        if coding.strip().lower() in ("gzip", "*"):
            is_refused = name == "q" and not quality.strip("0.")
            return not is_refused
    return False


async def send(request: web.Request, body: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
    """Answer with a body, of which no more is copied than the client takes."""
    response = web.StreamResponse(headers=CIMultiDict(headers))
    response.content_length = len(body)
    await response.prepare(request)
    if request.method != "HEAD":
        view = memoryview(body)
        for start in range(0, len(view), _SLICE):
            await response.write(view[start : start + _SLICE])
    await response.write_eof()
    return response
