"""The endpoints of Envoy, by its admin port."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from typing import Any, cast
from urllib.parse import urlsplit

from .._address import format_target
from ..errors import LatencyError
from ._bounded import ask, check_json, connect
from .base import Reader, Row

__all__ = ["Envoy"]

_REQUEST = "GET {path}/clusters?format=json HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"


class Envoy(Reader):
    """`/clusters?format=json` of the admin port.

    Args:
        place: the port's URL, `http://127.0.0.1:9901`.

    Raises:
        ValueError: it is no such URL.
    """

    option = "envoy"
    metavar = "URL"
    help = "Envoy's admin port, as http://127.0.0.1:9901"

    def __init__(self, place: str) -> None:
        is_text = place.isascii() and place.isprintable() and " " not in place
        try:
            url = urlsplit(place)
            port = url.port
        except ValueError:
            is_text = False
        if not is_text or url.scheme != "http" or not url.hostname or url.query or url.fragment:
            raise ValueError(f"{place!r} is not a URL of the form http://HOST:PORT")
        self.place = place
        self._host, self._port = url.hostname, port or 80
        self._request = _REQUEST.format(path=url.path.rstrip("/"), host=url.netloc).encode()

    def read(self, deadline: float) -> Iterator[Row]:
        """All endpoints that have an address."""
        try:
            with connect(self._host, self._port, deadline) as connected:
                answer = ask(connected, self._request, deadline)
        except OSError as error:
            raise LatencyError(f"no Envoy answers there: {error.strerror or error}") from None
        return _rows(_body(answer))


class _Answered:
    """A socket as `http.client` wants one, that has answered already."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, _mode: str) -> BytesIO:
        return BytesIO(self._answer)


def _body(answer: bytes) -> bytes:
    response = HTTPResponse(cast("socket.socket", _Answered(answer)))
    try:
        response.begin()
        body = response.read()
    except (HTTPException, ValueError):
        raise LatencyError("it does not answer in HTTP; is it Envoy's admin port?") from None
    if response.status != 200:
        raise LatencyError(f"it answers with status {response.status}; is it Envoy's admin port?")
    return body


def _rows(body: bytes) -> Iterator[Row]:
    check_json(body)
    try:
        clusters = json.loads(body)["cluster_statuses"]
        # What Envoy leaves out is empty: a cluster without endpoints has no `host_statuses`.
        hosts = [
            (str(cluster["name"]), host)
            for cluster in clusters
            for host in cluster.get("host_statuses", ())
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise LatencyError("its answer is not the JSON of /clusters?format=json") from None
    for cluster, host in hosts:
        with suppress(ValueError, KeyError, TypeError):  # a pipe, or an internal listener
            yield _row(cluster, host)


def _row(cluster: str, host: Any) -> Row:
    address = host["address"]["socket_address"]
    ip, port = address["address"], address["port_value"]
    if not isinstance(port, int):
        raise TypeError("port_value must be a whole number")
    return Row.of(ip, port, cluster, str(host.get("hostname") or format_target(ip, port)))
