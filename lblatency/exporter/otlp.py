"""Where metrics are pushed to by OTLP, and as what: a URL, and what the environment says."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from .._ffi import lib

__all__ = ["INTERVAL_S", "Push", "endpoint"]

INTERVAL_S = 60.0  # as OpenTelemetry's periodic readers have it
_PATH = "/v1/metrics"
_LOCAL = "http://localhost:4318"  # where OpenTelemetry expects a collector
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # what a header may be called
_ATTRIBUTES_MAX = lib.LBL_RESOURCE_MAX - 3  # and those that we know
_OTEL = "OTEL_EXPORTER_OTLP_"


def _split(url: str) -> SplitResult:
    """The parts of a URL that can be posted to.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url)
    is_clean = url.isascii() and url.isprintable() and " " not in url
    if not is_clean or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not of the form http[s]://HOST[:PORT][/PATH]")
    if parts.username is not None or parts.password is not None:
        why = f"a URL of OTLP has no user or password; put a header into {_OTEL}HEADERS"
        raise ValueError(why)
    if parts.port == 0 or parts.fragment:  # a port that is no number raises by itself
        raise ValueError(f"{url!r} must have no port 0 and no fragment")
    return parts


def endpoint(text: str) -> str:
    """The URL to post to: one without a path gets OTLP's own. An empty one is left to `Push.of()`.

    Raises:
        ValueError: it is no URL.
    """
    if not text:
        return ""
    parts = _split(text)
    return parts._replace(path=_PATH).geturl() if parts.path in ("", "/") else text


def _of_environment(environ: Mapping[str, str]) -> str:
    """The URL to post to, by OpenTelemetry's rules: the general one is a base in any case."""
    if own := environ.get(f"{_OTEL}METRICS_ENDPOINT"):
        parts = _split(own)
        return parts._replace(path=parts.path or "/").geturl()
    base = _split(environ.get(f"{_OTEL}ENDPOINT") or _LOCAL)
    return base._replace(path=base.path.rstrip("/") + _PATH).geturl()


def _pairs(name: str, text: str) -> dict[str, str]:
    """What a variable has: KEY=VALUE with commas between, values escaped as in URLs."""
    found = {}
    for each in filter(None, map(str.strip, text.split(","))):
        key, equals, value = each.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"{name} must be KEY=VALUE,KEY=VALUE,...")
        found[unquote(key.strip())] = unquote(value.strip())
    return found


def _headers(environ: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in (f"{_OTEL}HEADERS", f"{_OTEL}METRICS_HEADERS"):
        pairs = _pairs(name, environ.get(name, ""))
        for key, value in pairs.items():  # which may be secret
            if not _TOKEN.fullmatch(key) or not value.isprintable():
                raise ValueError(f"{name} has what cannot be a header")
        found |= {key.lower(): value for key, value in pairs.items()}
    return found


def _attributes(environ: Mapping[str, str]) -> dict[str, str]:
    name = "OTEL_RESOURCE_ATTRIBUTES"
    found = _pairs(name, environ.get(name, ""))
    if service := environ.get("OTEL_SERVICE_NAME"):
        found["service.name"] = service
    if len(found) > _ATTRIBUTES_MAX:
        raise ValueError(f"{name} has {len(found)} attributes; {_ATTRIBUTES_MAX} can be sent")
    return found


@dataclass(frozen=True)
class Push:
    """What `serve` is told about pushing.

    Attributes:
        url: to post to.
        interval_s: from the start of a push to the start of the next.
        headers: further ones, by their names in lower case.
        attributes: of the resource, beside those that we know.
    """

    url: str
    interval_s: float
    headers: Mapping[str, str]
    attributes: Mapping[str, str]

    @classmethod
    def of(cls, url: str, interval_s: float, environ: Mapping[str, str]) -> Push:
        """What to do, with what the environment says.

        Args:
            url: from `endpoint()`; empty for what the environment says, or a collector on this
                host.
            interval_s: as above.
            environ: variables of the environment.

        Raises:
            ValueError: a variable is malformed.
        """
        return cls(
            url or _of_environment(environ), interval_s, _headers(environ), _attributes(environ)
        )

    @property
    def shown(self) -> str:
        """The URL for people, without what may be a token."""
        return self.url.partition("?")[0]

    def resource(self, place: str) -> dict[str, str]:
        """The attributes of what pushes.

        Args:
            place: a port or a path, which tells two exporters on one host apart. Together they are
                what Prometheus calls `instance`, so that a restart does not begin new series.
        """
        host = socket.gethostname()
        own = {
            "service.name": "lblatency",
            "service.instance.id": f"{host}:{place}",
            "host.name": host,
        }
        return own | dict(self.attributes)
