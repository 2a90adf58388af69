"""The upstreams of nginx, by its configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from .._address import parse_ip, split_endpoint
from ..errors import LatencyError
from ._bounded import resolve, run
from .base import Reader, Row, printable

__all__ = ["Nginx"]

_FILE = re.compile(r"^# configuration file (/.*):$", re.MULTILINE)
# With the time and the process of each run, the same mistake would be told again and again.
_WHEN = re.compile(r"^[\d/]+ [\d:]+ (\[\w+\]) \d+#\d+: ")
_DIRECTIVE = re.compile(r"(proxy|fastcgi|grpc|memcached|scgi|uwsgi)_(pass|bind)")
_TARGET = re.compile(r"(?:(\w+)://)?([^/]+)")
_PORTS = {"https": 443, "grpcs": 443}

_Block = list[dict[str, Any]]


class Nginx(Reader):
    """`nginx -T`: each `upstream`, and what is passed to an address without one.

    It is what the files say, so a change shows before nginx is told to reload. Host names are
    resolved when the configuration changes, as nginx does.

    Args:
        place: the configuration file; "" for the one that nginx was built with.
    """

    option = process = "nginx"
    capabilities = ("CAP_DAC_OVERRIDE", "CAP_NET_BIND_SERVICE", "CAP_CHOWN")  # nginx tries all that
    if_bare = ""
    metavar = "CONF"
    help = "nginx's configuration file, if it is not the default one"
    interval_s = 30.0
    timeout_s = 10.0

    def __init__(self, place: str = "") -> None:
        self.place = place or "nginx -T"
        self._command = ["nginx", "-T", "-q", *(["-c", os.path.abspath(place)] if place else [])]
        self._read: tuple[bytes, list[Row]] | None = None

    def read(self, deadline: float) -> list[Row]:
        """All servers of all upstreams. A configuration that has not changed is parsed once."""
        code, output = run(self._command, deadline)
        if code:
            said = output.decode(errors="replace").splitlines()
            why = next((line for line in said if "[warn]" not in line), "it says nothing")
            why = printable(_WHEN.sub(r"\1 ", why))
            raise LatencyError(f"`{' '.join(self._command)}` fails: {why}")
        if self._read is None or output != self._read[0]:
            self._read = output, _rows(output.decode(errors="replace"), deadline)
        return self._read[1]


def _rows(dump: str, deadline: float) -> list[Row]:
    # The dump is each file after a line with its path; the text before may have warnings.
    _, *parts = _FILE.split(dump)
    if not parts:
        raise LatencyError("`nginx -T` shows no configuration file")
    parsed = map(_parsed, parts[::2], parts[1::2])
    files = _Files(dict(zip(parts[::2], parsed, strict=True)))
    try:
        return [
            row
            for statement in files.statements(files.main)
            if statement["directive"] in ("http", "stream")  # each has upstreams of its own
            for row in _Module(files, statement.get("block", [])).rows(deadline)
        ]
    except RecursionError:
        raise LatencyError("its files include each other, or its blocks nest, too deeply") from None


def _parsed(path: str, text: str) -> _Block:
    try:
        import crossplane  # only users of nginx need it
    except ImportError:
        raise LatencyError(
            "reading nginx's configuration needs crossplane: `pip install lblatency[nginx]`"
        ) from None
    fd = os.memfd_create("nginx.conf")  # crossplane reads nothing but files
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        name = f"/proc/self/fd/{fd}"
        parsed = crossplane.parse(name, single=True, check_ctx=False, check_args=False)
    for error in parsed["errors"]:
        what = error["error"].partition(f" in {name}")[0] or "it breaks off"
        raise LatencyError(f"{printable(path)}, line {error['line'] or 1}: {printable(what)}")
    return parsed["config"][0]["parsed"]  # type: ignore[no-any-return]


class _Files:
    """The files of a configuration, by path."""

    def __init__(self, files: dict[str, _Block]) -> None:
        self._files = files
        self._path = next(iter(files))
        self.main = files[self._path]

    def statements(self, block: _Block) -> Iterator[dict[str, Any]]:
        """The statements of a block, with those of included files in their place."""
        for statement in block:
            if statement["directive"] != "include":
                yield statement
                continue
            pattern = PurePosixPath(self._path).parent / "".join(statement["args"][:1])
            for path, included in self._files.items():
                if PurePosixPath(path).match(str(pattern)):
                    yield from self.statements(included)


class _Module:
    """The upstreams of the http or the stream block, and who passes to them."""

    def __init__(self, files: _Files, block: _Block) -> None:
        self._files = files
        self._servers: dict[str, list[str]] = {}  # of each upstream
        self._ports: dict[str, int] = {}  # the default port, by what is passed to
        self._sources: dict[str, set[str | None]] = {}  # what is bound, by what is passed to
        self._visit(block, {})
        for place in self._ports.keys() - self._servers.keys():
            self._servers[place] = [place]  # an address makes an upstream of itself

    def _visit(self, block: _Block, binds: dict[str, str | None]) -> None:
        statements = list(self._files.statements(block))
        # What a block binds holds for all of it, and for the blocks in it that bind nothing.
        binds = binds | {
            kind: _bound(args[0]) for kind, what, args in _directives(statements) if what == "bind"
        }
        for kind, what, args in _directives(statements):
            if what == "pass" and (found := _TARGET.match(args[0])):
                scheme, place = found.groups()
                self._ports[place] = _PORTS.get(scheme, 80)
                self._sources.setdefault(place, set()).add(binds.get(kind))
        for statement in statements:
            inner = statement.get("block")
            if inner is not None and statement["directive"] == "upstream":
                self._servers["".join(statement["args"])] = [
                    each["args"][0]
                    for each in self._files.statements(inner)
                    if each["directive"] == "server" and each["args"]
                ]
            elif inner is not None:
                self._visit(inner, binds)

    def rows(self, deadline: float) -> Iterator[Row]:
        """A row per address and source of each upstream's servers."""
        for upstream, servers in self._servers.items():
            port = 80 if upstream not in servers else self._ports[upstream]
            for server in servers:
                for ip, its_port in _addresses(server, port, deadline):
                    for source in self._sources.get(upstream, {None}):
                        yield Row.of(ip, its_port, upstream, server, source)


def _directives(statements: _Block) -> Iterator[tuple[str, str, list[str]]]:
    """The `proxy_pass` and `proxy_bind` in a block, and their like: "proxy", "pass", arguments."""
    for statement in statements:
        found = _DIRECTIVE.fullmatch(statement["directive"])
        if found and statement["args"]:
            yield found[1], found[2], statement["args"]


def _split(text: str, default_port: int) -> tuple[str, int]:
    try:
        return split_endpoint(text)
    except ValueError:
        return text.removeprefix("[").removesuffix("]"), default_port


def _bound(text: str) -> str | None:
    """The address in `proxy_bind`; None for `off`, and for a variable."""
    ip, _ = _split(text, 0)
    try:
        parse_ip(ip)
    except ValueError:
        return None
    return ip


def _addresses(server: str, default_port: int, deadline: float) -> Iterator[tuple[str, int]]:
    if "$" not in server and not server.startswith("unix:"):
        host, port = _split(server, default_port)
        for ip in resolve(host, deadline):
            with suppress(ValueError):  # an address with a zone
                parse_ip(ip)
                yield ip, port
