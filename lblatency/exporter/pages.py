"""The status page: static files, which ask nothing of any other host."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from aiohttp import web
from aiohttp.typedefs import Handler

from ._body import Packed, send

__all__ = ["routes"]

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class _File:
    """A file of the page, read and compressed once.

    Attributes:
        type: of its content.
        body: as it is.
        packed: with gzip.
        etag: of the body, as it is or packed, so it is weak.
    """

    type: str
    packed: Packed
    etag: str

    @classmethod
    def read(cls, file: Traversable) -> _File:
        body = file.read_bytes()
        return cls(
            type=_TYPES[file.name.rpartition(".")[2]],
            packed=Packed(gzip.compress(body, 9, mtime=0), len(body)),
            etag=hashlib.sha256(body).hexdigest()[:16],
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The file, with gzip if the browser takes it; 304 if it has the file."""
        headers = {**_HEADERS, "ETag": f'W/"{self.etag}"'}
        if any(each.value in (self.etag, "*") for each in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = self.type
        return await send(request, self.packed, headers)


def _files(folder: Traversable, path: str) -> list[tuple[str, Traversable]]:
    """All files below a folder that a browser asks for, by their path."""
    found = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _files(each, f"{path}/{each.name}")
        elif each.name.rpartition(".")[2] in _TYPES:
            found.append((f"{path}/{each.name}", each))
    return found


def routes() -> list[web.RouteDef]:
    """`/` and the files that it needs, below `/page/`."""

    def handler(file: Traversable) -> Handler:
        return _File.read(file).answer

    page = resources.files(__package__) / "page"
    return [
        web.get("/", handler(page / "index.html")),
        *(web.get(path, handler(file)) for path, file in sorted(_files(page, "/page"))),
    ]
