"""Bodies of answers: gzip, and slices that are sent as they are taken."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from aiohttp import web
from multidict import CIMultiDict

from ..render import Capture, Format
from ._watch import cut

__all__ = ["Body", "Packed", "Page", "Sending", "may_compress", "pack", "send"]

try:
    _zlib = importlib.import_module("isal.isal_zlib")
except ImportError:  # there is no wheel of it for each processor
    _zlib = zlib
_LEVEL = 1
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # with gzip's header
_SLICE = 128 << 10  # that is written at once
_PIECE = 4 << 10  # of gzip, which makes a slice of text
_CAPTURE = 8 << 20
_ALIVE_BYTES = 64 << 20  # of all bodies that are being sent
_ALIVE_MIN = 4  # bodies, however large they are


class Packed(NamedTuple):
    """A body in gzip, as which it waits for clients that want it plain, too.

    Attributes:
        data: the gzip.
        length: bytes of what is in it.
    """

    data: bytes
    length: int

    def weight(self) -> int:
        """The bytes that it keeps in memory."""
        return len(self.data)


class Page(NamedTuple):
    """Plain text that is rendered as the client takes it, so it is never whole."""

    capture: Capture
    form: Format

    def weight(self) -> int:
        """About what a capture of 10,000 backends keeps in memory."""
        return _CAPTURE


Body = Packed | Page


def pack(pieces: Iterable[bytes]) -> Packed:
    """What pieces make together."""
    packer = _zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    parts: list[bytes] = []
    length = 0
    for piece in pieces:
        length += len(piece)
        parts.append(packer.compress(piece))
    return Packed(b"".join([*parts, packer.flush()]), length)


def _slices(body: Body, *, is_gzip: bool) -> Iterator[bytes | memoryview]:
    if isinstance(body, Page):
        for piece in body.capture.pieces(body.form):
            view = memoryview(piece)
            yield from (view[start : start + _SLICE] for start in range(0, len(view), _SLICE))
        return
    view = memoryview(body.data)
    if is_gzip:
        yield from (view[start : start + _SLICE] for start in range(0, len(view), _SLICE))
        return
    unpacker = _zlib.decompressobj(_GZIP_WINDOW)
    for start in range(0, len(view), _PIECE):
        yield unpacker.decompress(view[start : start + _PIECE])


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
    """Answer with a body, of which no more is made or copied than the client takes."""
    is_gzip = isinstance(body, Packed) and may_compress(request)
    response = web.StreamResponse(status=status, headers=CIMultiDict(headers))
    if isinstance(body, Packed):
        response.content_length = len(body.data) if is_gzip else body.length
    response.headers.add("Vary", "Accept-Encoding")
    if is_gzip:
        response.headers["Content-Encoding"] = "gzip"
    await response.prepare(request)
    if request.method != "HEAD":
        for part in _slices(body, is_gzip=is_gzip):
            if part:
                await response.write(part)
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
        return sum(each.body.weight() for each in self._held.values())
