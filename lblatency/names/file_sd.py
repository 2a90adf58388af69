"""Names from a file in the form of Prometheus' file_sd."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from typing import Any

from .._address import split_endpoint
from ..errors import LatencyError
from ._bounded import BYTES_MAX, check_json
from .base import Reader, Row

__all__ = ["FileSd"]

_LABELS = ("backend", "server", "source")
_SPACE = re.compile(r"[ \t\r\n]*")
_YAML_MAX = 1 << 20  # PyYAML takes a second or two for it


class FileSd(Reader):
    """A JSON or YAML list of groups: `{"targets": ["ip:port"], "labels": {"backend": "web"}}`.

    A group's `labels` have `backend`; they may have `server` (else, that is the target), and
    `source`, the address that the proxy connects from to these targets. Other labels are not read.
    As for Prometheus, a file is YAML if its name ends so; that needs PyYAML.

    Args:
        place: the path of the file.
    """

    option = "names"
    capabilities = ("CAP_DAC_OVERRIDE",)  # the file may be, of another user
    metavar = "FILE"
    help = "names of servers, a JSON or YAML file in the form of Prometheus' file_sd"

    def __init__(self, place: str) -> None:
        self.place = place
        self._read: tuple[object, list[Row] | LatencyError] | None = None

    def read(self, deadline: float) -> list[Row]:  # noqa: ARG002  # a file does not wait
        """All targets. A file that has not changed is not read again."""
        # A pipe or a device must not keep us waiting: O_NONBLOCK, and nothing but a file is read.
        with open(self.place, "rb", opener=_open_at_once) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise LatencyError("it is not a regular file")
            version = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            if self._read is None or self._read[0] != version:
                self._read = version, self._parsed(file.read(BYTES_MAX + 1))
        result = self._read[1]
        if isinstance(result, LatencyError):
            raise result
        return result

    def check(self) -> None:
        """A file that is malformed is refused with the line; one that is not there yet is not."""
        try:
            self.read(0.0)
        except FileNotFoundError:
            pass  # whoever reads the names tells
        except (LatencyError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise LatencyError(f"{self.place}: {why}") from None

    def _parsed(self, data: bytes) -> list[Row] | LatencyError:
        try:
            if len(data) > BYTES_MAX:
                raise LatencyError(f"it has more than {BYTES_MAX >> 20} MiB")
            check_json(data)
            text = data.decode("utf-8-sig")
            is_yaml = self.place.endswith((".yml", ".yaml"))
            groups = _yaml_groups(text) if is_yaml else _json_groups(text)
            return [row for line, group in groups for row in _rows(group, line)]
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            return LatencyError(f"line {line}: it is not UTF-8")
        except RecursionError:
            return LatencyError("it is nested too deeply")
        except LatencyError as error:
            return error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _error(line: int, what: str) -> LatencyError:
    return LatencyError(f"line {line}: {what}")


def _json_groups(text: str) -> Iterator[tuple[int, Any]]:
    """Each group and its line. They are decoded one by one: decoded values do not tell lines."""
    decode = json.JSONDecoder().raw_decode

    def mark(at: int, *wanted: str) -> tuple[str, int]:
        """The mark that comes next, and where what follows it begins."""
        at = _end_of_space(text, at)
        if text[at : at + 1] not in wanted:
            raise _error(text.count("\n", 0, at) + 1, f"expected {' or '.join(wanted)}")
        return text[at : at + 1], _end_of_space(text, at + 1)

    after, at = mark(0, "[")
    if text[at : at + 1] == "]":
        after, at = mark(at, "]")
    line, counted = 1, 0
    while after != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            group, end = decode(text, at)
        except json.JSONDecodeError as error:
            raise _error(error.lineno, error.msg) from None
        except ValueError:  # a number with thousands of digits
            raise _error(line, "a number is too long") from None
        yield line, group
        after, at = mark(end, ",", "]")
    if at < len(text):
        raise _error(text.count("\n", 0, at) + 1, "expected the end of the file")


def _end_of_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found  # it matches nothing, too
    return found.end()


def _yaml_groups(text: str) -> Iterator[tuple[int, Any]]:
    """Each group and its line."""
    try:
        import yaml
    except ImportError:
        raise LatencyError(
            "a YAML file needs PyYAML: `pip install lblatency[yaml]`, or write JSON"
        ) from None
    if len(text) > _YAML_MAX:
        raise LatencyError(f"YAML has more than {_YAML_MAX >> 20} MiB; write JSON")
    # The base loader takes all values as text, as Prometheus does: `server: 1`, `server: on`.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)(text)
    try:
        top = loader.get_single_node()
        if not isinstance(top, yaml.SequenceNode):
            raise _error(1, "expected a list of groups")
        for node in top.value:
            yield node.start_mark.line + 1, loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error)
        raise _error(mark.line + 1 if mark else 1, what) from None
    finally:
        loader.dispose()


def _rows(group: Any, line: int) -> Iterator[Row]:
    """The rows of a group; an error has the line where the group begins."""
    if not isinstance(group, dict) or not isinstance(group.get("targets"), list):
        raise _error(line, 'a group is {"targets": ["ip:port"], "labels": {"backend": "NAME"}}')
    labels = group.get("labels")
    if not isinstance(labels, dict) or not labels.get("backend"):
        raise _error(line, 'the group has no label "backend"')
    for label in _LABELS:
        if not isinstance(labels.get(label, ""), str):
            raise _error(line, f"the label {label!r} is not text; put it in quotes")
    for target in group["targets"]:
        if not isinstance(target, str):
            raise _error(line, f"the target {target!r} is not text; put it in quotes")
        try:
            ip, port = split_endpoint(target)
            server = labels.get("server") or target
            yield Row.of(ip, port, labels["backend"], server, labels.get("source"))
        except ValueError as error:
            raise _error(line, str(error)) from None
