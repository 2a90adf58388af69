"""The file of `--web.config.file`, in the form of Prometheus' exporter-toolkit."""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import LatencyError
from ..names.base import printable
from ._tls import CIPHERS, CLIENT_AUTH, CURVES, VERSIONS, Pem, make_context
from ._yaml import read_yaml

__all__ = ["Files", "RateLimit", "WebConfig", "read_web_config"]

_BYTES_MAX = 1 << 20
_HASH = re.compile(r"\$2[abxy]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")
_HEADERS = {  # with the values that each may have; any, if there are none
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_ANY_CERT = ("RequireAnyClientCert", "RequireClientCert")


@dataclass(frozen=True)
class RateLimit:
    """How many requests are answered: a burst, and then one per interval, in seconds."""

    interval_s: float
    burst: int


@dataclass(frozen=True)
class WebConfig:
    """What such a file says.

    Attributes:
        context: None for plain HTTP.
        client_sans: the names of which a client's certificate must have one; None if none need be.
        users: the bcrypt hash of each one's password.
        headers: to send with each answer.
        rate_limit: None if there is none.
    """

    context: ssl.SSLContext | None = None
    client_sans: frozenset[str] | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    rate_limit: RateLimit | None = None


class Files:
    """Reads files, and knows later whether one of them has changed."""

    def __init__(self) -> None:
        self._versions: dict[str, object] = {}

    def read(self, path: str) -> bytes:
        """What it contains.

        Raises:
            LatencyError: it cannot be read, or is too long to be what it should be.
        """
        self._versions[path] = None
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # waits for no pipe
            with open(fd, "rb") as file:
                found = os.fstat(fd)
                self._versions[path] = _version(found)
                if not stat.S_ISREG(found.st_mode):
                    raise LatencyError(f"{printable(path)} is not a regular file")
                data = file.read(_BYTES_MAX + 1)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise LatencyError(f"cannot read {printable(path)}: {why}") from None
        if len(data) > _BYTES_MAX:
            raise LatencyError(f"{printable(path)} has more than {_BYTES_MAX >> 20} MiB")
        return data

    def have_changed(self) -> bool:
        """Whether one is another now, or has come, or gone."""
        return any(_now(path) != version for path, version in self._versions.items())


def _version(found: os.stat_result) -> object:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _now(path: str) -> object:
    try:
        return _version(os.stat(path))
    except (OSError, ValueError):
        return None


def read_web_config(path: str, files: Files) -> WebConfig:
    """What the file says now, with the certificates that it names.

    Raises:
        LatencyError: it cannot be read, or must not be; in one line, with its name.
    """
    data = read_yaml(path, files.read(path))
    try:
        return _Reader(Path(path).parent, files).config(data)
    except ValueError as error:
        raise LatencyError(f"{path}: {error}") from None


class _Table:
    """A mapping of the file, whose values are taken out one by one; what is left is unknown."""

    def __init__(self, where: str, data: Any) -> None:
        if not isinstance(data, dict | None):
            raise ValueError(f"{where or 'the file'} must be a mapping")
        self._where = where
        self._left = dict(data or {})

    def take(self, key: str, parse: Callable[[str, Any], Any], default: Any = None) -> Any:
        """A value, or the default if there is none."""
        value = self._left.pop(key, None)
        return default if value is None else parse(f"{self._where}{key}", value)

    def table(self, key: str) -> _Table:
        """A mapping within."""
        return _Table(f"{self._where}{key}.", self._left.pop(key, None))

    def end(self) -> None:
        """Refuse what nobody has taken."""
        for key in self._left:
            raise ValueError(f"unknown key {self._where}{printable(str(key))}")


def _text(key: str, value: Any) -> str:
    if isinstance(value, bool | int | float):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"{key} must be text")
    return value


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key} must be true or false")
    return value


def _list(key: str, value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"{key} must be a list")
    return [_text(key, each) for each in value]


def _texts(key: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"{key} must be a mapping from text to text")
    return {_text(key, name): _text(key, "" if each is None else each)
            for name, each in value.items()}  # fmt: skip


def _one_of(key: str, value: str, allowed: Mapping[str, object]) -> str:
    if value not in allowed:
        known = ", ".join(name for name in allowed if name)
        raise ValueError(f"{key}: '{printable(value)}' is not one of {known}")
    return value


def _whole(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key} must be a whole number")
    return value


def _seconds(key: str, value: Any) -> float:
    """Seconds, from Go's text for a duration; a number alone is nanoseconds, as there."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value * 1e-9
    parts = _DURATION.findall(value) if isinstance(value, str) else []
    if not parts or "".join(map("".join, parts)) != value:
        raise ValueError(
            f"{key}: '{printable(str(value))}' is no duration: write it like 1s or 500ms"
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


class _Reader:
    def __init__(self, folder: Path, files: Files) -> None:
        self._folder = folder
        self._files = files

    def config(self, data: Any) -> WebConfig:
        top = _Table("", data)
        context, sans = self._tls(top.table("tls_server_config"))
        headers = _http(top.table("http_server_config"))
        users = top.take("basic_auth_users", _texts, {})
        for name, hashed in users.items():
            if not _HASH.fullmatch(hashed):
                raise ValueError(
                    f"basic_auth_users: what '{printable(name)}' has is no bcrypt hash; make one"
                    " with htpasswd -nB"
                )
        limit = _rate_limit(top.table("rate_limit"))
        top.end()
        return WebConfig(context, sans, users, headers, limit)

    def _tls(self, table: _Table) -> tuple[ssl.SSLContext | None, frozenset[str] | None]:
        cert = self._pem(table, "cert")
        key = self._pem(table, "key")
        client_ca = self._pem(table, "client_ca")
        auth = table.take("client_auth_type", _text, "")
        sans = table.take("client_allowed_sans", _list)
        options = {
            "min_version": table.take("min_version", _text, "TLS12"),
            "max_version": table.take("max_version", _text, "TLS13"),
            "ciphers": table.take("cipher_suites", _list, []),
            "curves": table.take("curve_preferences", _list, []),
            "prefer_server": table.take("prefer_server_cipher_suites", _flag, True),
        }
        table.end()
        for each in ("min_version", "max_version"):
            _one_of(each, options[each], VERSIONS)
        for cipher in options["ciphers"]:
            _one_of("cipher_suites", cipher, CIPHERS)
        for curve in options["curves"]:
            _one_of("curve_preferences", curve, CURVES)
        if auth in _ANY_CERT:
            raise ValueError(
                f"client_auth_type {auth} takes any certificate without verifying it, which"
                " Python's ssl cannot and which proves nothing; use RequireAndVerifyClientCert"
            )
        _one_of("client_auth_type", auth, CLIENT_AUTH)
        if not (cert or key or client_ca or auth):
            return None, None
        if not cert or not key:
            missing = "key or key_file" if cert else "cert or cert_file"
            raise ValueError(f"tls_server_config needs {missing}")
        verifies = CLIENT_AUTH[auth] != ssl.CERT_NONE
        if client_ca and auth in ("", "NoClientCert"):
            raise ValueError("client_ca needs a client_auth_type that asks for a certificate")
        if sans is not None and CLIENT_AUTH[auth] != ssl.CERT_REQUIRED:
            raise ValueError("client_allowed_sans needs RequireAndVerifyClientCert")
        pem = Pem(cert, key, client_ca if verifies else None)
        context = make_context(pem, client_auth=auth, **options)
        return context, None if sans is None else frozenset(sans)

    def _pem(self, table: _Table, key: str) -> bytes | None:
        """What a `..._file` contains, or what is written in its place."""
        path = table.take(f"{key}_file", _text, "")
        inline: str = table.take(key, _text, "")
        if path:
            return self._files.read(str(self._folder / path))
        return inline.encode() or None


def _http(table: _Table) -> dict[str, str]:
    table.take("http2", _flag)  # we have none, and who allows it does not need it
    headers: dict[str, str] = table.take("headers", _texts, {})
    table.end()
    for name, value in headers.items():
        values = _HEADERS[_one_of("headers", name, _HEADERS)]
        if values and value not in values:
            raise ValueError(f"headers: {name} must be one of {', '.join(values)}")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"headers: {name} has a character that no header may have")
    return headers


def _rate_limit(table: _Table) -> RateLimit | None:
    interval = table.take("interval", _seconds, 0.0)
    burst = table.take("burst", _whole, 0)
    table.end()
    return RateLimit(interval, burst) if interval > 0 else None
