"""The API of an exporter that runs elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from ..buckets import LIFETIME
from ..errors import LatencyError
from .history import Selection, UnknownBackendError
from .shapes import BACKENDS, DISTRIBUTION, HEATMAP, STATUS, misfit
from .view import VERSION

if TYPE_CHECKING:
    from urllib.error import HTTPError

__all__ = ["RemoteView"]

_TIMEOUT_S = 10.0
_BYTES_MAX = 64 << 20
_ERROR_BYTES_MAX = 1 << 16


class RemoteView:
    """What an exporter's API says. Each method asks it, and raises `LatencyError` if it cannot.

    Args:
        url: of the exporter: `http://host:port`, or of any page of it.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not the URL of an exporter, like http://127.0.0.1:10435")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._known: dict[str, tuple[str, dict[str, Any]]] = {}  # path to ETag and answer

    def status(self) -> dict[str, Any]:
        """As `/api/v1/status`."""
        return self._get("status", STATUS)

    def backends(self, window: int | str) -> dict[str, Any]:
        """As `/api/v1/backends`."""
        return self._get("backends", BACKENDS, [("window", str(window))], _table_misfit)

    def heatmap(self, selection: Selection, window: int, metric: str = LIFETIME) -> dict[str, Any]:
        """As `/api/v1/heatmap`."""
        query = [*_query([selection]), ("window", str(window)), ("metric", metric)]
        return self._get("heatmap", HEATMAP, query)

    def distribution(
        self, selections: Sequence[Selection], window: int | str, metric: str = LIFETIME
    ) -> dict[str, Any]:
        """As `/api/v1/distribution`."""
        query = [*_query(selections), ("window", str(window)), ("metric", metric)]
        return self._get("distribution", DISTRIBUTION, query, _series_misfit)

    def _get(
        self,
        what: str,
        shape: Any,
        query: Sequence[tuple[str, str]] = (),
        more: Callable[[dict[str, Any]], str | None] = lambda _: None,
    ) -> dict[str, Any]:
        from http.client import HTTPException  # commands without a URL do not pay for these
        from urllib.error import HTTPError, URLError
        from urllib.request import Request, urlopen

        path = f"/api/v1/{what}" + (f"?{urlencode(query)}" if query else "")
        etag, known = self._known.get(path, ("", {}))
        request = Request(self.url + path, headers={"If-None-Match": etag} if etag else {})
        try:
            with urlopen(request, timeout=_TIMEOUT_S) as response:
                body = response.read(_BYTES_MAX + 1)
                etag = response.headers.get("ETag", "")
        except HTTPError as error:
            if error.code == 304:
                return known
            raise self._refused(error) from None
        except (HTTPException, OSError) as error:
            why = error.reason if isinstance(error, URLError) else error
            raise LatencyError(f"{self.url} does not answer: {why or repr(why)}") from error
        found = self._parse(body)
        if wrong := misfit(found, shape) or more(found):
            raise self._strange(f"something else than numbers and names ({wrong})")
        self._known = {path: (etag, found)}
        return found

    def _parse(self, body: bytes) -> dict[str, Any]:
        if len(body) > _BYTES_MAX:
            raise self._strange(f"more than {_BYTES_MAX >> 20} MiB")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            raise self._strange("no JSON") from None
        if not isinstance(found, dict) or found.get("version") != VERSION:
            raise self._strange(f"something that is not version {VERSION} of the API")
        return found

    def _strange(self, what: str) -> LatencyError:
        return LatencyError(f"{self.url} answers with {what}; is it lblatency serve?")

    def _refused(self, error: HTTPError) -> LatencyError:
        from http.client import HTTPException

        try:
            said = json.loads(error.read(_ERROR_BYTES_MAX))["error"]
        except (HTTPException, OSError, ValueError, LookupError, TypeError, RecursionError):
            return LatencyError(
                f"{self.url} answers {error.code}; is it lblatency serve, and a new one?"
            )
        kind = UnknownBackendError if error.code == 404 else LatencyError
        return kind(f"{self.url}: {said}")


def _table_misfit(table: dict[str, Any]) -> str | None:
    """Columns of other lengths, or a number of a proxy that has no name."""
    columns, n = table["columns"], table["rows"]
    for name, column in columns.items():
        if not isinstance(column, list) or len(column) != n:
            return str(name)
    return "proxy" if any(i >= len(table["proxies"]) for i in columns["proxy"]) else None


def _series_misfit(distribution: dict[str, Any]) -> str | None:
    """No series, or counts of no bucket."""
    series = distribution["series"]
    if not series or any(len(each["upper"]) != len(each["counts"]) for each in series):
        return "series"
    return None


def _query(selections: Sequence[Selection]) -> list[tuple[str, str]]:
    return [
        ("proxy", each.proxy) if each.target is None else ("backend", str(each))
        for each in selections
        if each.proxy is not None
    ]
