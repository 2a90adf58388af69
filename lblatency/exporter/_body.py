"""Bodies of answers: gzip, and slices that are sent as they are taken."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from aiohttp import web
from multidict import CIMultiDict

from ..render import Capture, Format
from ._watch import cut

__all__ = ["Body", "Sending", "compressed", "may_compress", "packed", "send"]

try:
    _zlib = importlib.import_module("isal.isal_zlib")
except ImportError:  # there is no wheel of it for each processor
    _zlib = zlib
Body = bytes | memoryview
_LEVEL = 1
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # with gzip's header
_SLICE = 128 << 10
_ALIVE_BYTES = 64 << 20
_ALIVE_MIN = 4  # however large they are


def compressed(capture: Capture, form: Format) -> bytes:
    """A capture in a format, in gzip. Text is compressed as it is made, so it is never whole."""
    return _gzip(capture.pieces(form))


def packed(body: bytes) -> bytes:
    """A body in gzip."""
    return _gzip([body])


def _gzip(pieces: Iterable[Body]) -> bytes:
    packer = _zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    parts = [packer.compress(piece) for piece in pieces]
    return b"".join([*parts, packer.flush()])


def may_compress(request: web.Request) -> bool:
    """Whether the client accepts gzip."""
    for each in request.headers.get("Accept-Encoding", "").split(","):
        coding, _, parameters = each.partition(";")
        name, _, quality = parameters.replace(" ", "").partition("=")
        if coding.strip().lower() in ("gzip", "*"):
            is_refused = name == "q" and not quality.strip("0.")
            return not is_refused
    return False


async def send(
    request: web.Request, body: Body, headers: Mapping[str, str], status: int = 200
) -> web.StreamResponse:
    """Answer with a body, of which no more is copied than the client takes."""
    response = web.StreamResponse(status=status, headers=CIMultiDict(headers))
    response.content_length = len(body)
    await response.prepare(request)
    if request.method != "HEAD":
        view = memoryview(body)
        for start in range(0, len(view), _SLICE):
            await response.write(view[start : start + _SLICE])
    await response.write_eof()
    return response


class _Held:
    def __init__(self, body: Body) -> None:
        self.body = body
        self.requests: list[web.Request] = []


class Sending:
    """The bodies that are being sent.

    Each capture makes a body of its own, and a client that does not read keeps it alive. So the
    oldest are given up, and their connections, when all together become too many bytes.
    """

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}  # by id(), the oldest first

    @contextmanager
    def of(self, request: web.Request, body: Body) -> Iterator[None]:
        """While the block runs, the body is sent to the request's client."""
        held = self._held.setdefault(id(body), _Held(body))
        held.requests.append(request)
        self._make_room()
        try:
            yield
        finally:
            held.requests.remove(request)
            if not held.requests:
                self._held.pop(id(body), None)

    def _make_room(self) -> None:
        while len(self._held) > _ALIVE_MIN and self._bytes() > _ALIVE_BYTES:
            oldest = self._held.pop(next(iter(self._held)))
            for request in oldest.requests:
                if request.transport is not None:
                    cut(request.transport)

    def _bytes(self) -> int:
        return sum(len(each.body) for each in self._held.values())
