"""The file of `lblatency serve --config`: TOML, whose keys are the flags."""

from __future__ import annotations

import os
import re
import stat
import time
import tomllib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import LatencyError
from ..sources import Option
from ._options import key
from ._settings import SERVE_OPTIONS, SettingError, Settings
from ._sources import (
    Planned,
    PlannedReader,
    is_repeatable,
    opening_options,
    plan,
    readers,
    source_options,
)

__all__ = ["ConfigFile", "ReloadStatus", "read_config"]

if TYPE_CHECKING:
    from prometheus_client import Metric

_BYTES_MAX = 1 << 20
_SOURCE = "source"
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

# As Prometheus names its own.
_SUCCESSFUL = "lblatency_config_last_reload_successful"
_SUCCESS_TIME = "lblatency_config_last_reload_success_timestamp_seconds"

_Path = tuple[str | int, ...]


class _Text:
    """The text of a file, which knows on which line its values are."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._lines = text.replace("\r\n", "\n").split("\n")
        try:
            self.data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = _PLACE.search(str(error))
            line = int(found[1]) if found and found[1] else self._last()
            raise self._error(line, _PLACE.sub("", str(error))) from None
        except (RecursionError, ValueError) as error:  # nested deeply, or a number of 5,000 digits
            raise self._error(1, f"it is no TOML that can be read: {error}") from None

    def _error(self, line: int, what: str) -> LatencyError:
        return LatencyError(f"{self._name}:{line}: {what}")

    def _last(self) -> int:
        return max((n for n, line in enumerate(self._lines, 1) if line.strip()), default=1)

    def _begun(self, n_lines: int) -> Any:
        """The values that the first lines have. An array may go on below, other values may not."""
        for n in range(n_lines, 0, -1):
            text = "\n".join(self._lines[:n])
            for end in ("", "\n]"):
                with suppress(ValueError):
                    return tomllib.loads(text + end)
        return {}

    def line(self, path: _Path) -> int:
        """The line of a value. TOML's parser tells none, so it is the first one that brings it."""
        if not path:
            return 1
        numbers = range(len(self._lines))
        return bisect_left(numbers, True, key=lambda n: _has(self._begun(n), path))

    def refuse(self, path: _Path, what: str) -> LatencyError:
        """An error at a value."""
        return self._error(self.line(path), what)

    def at(self, path: _Path) -> str:
        """What comes before an error at a value."""
        return f"{self._name}:{self.line(path)}: "


def _has(data: Any, path: _Path) -> bool:
    for step in path:
        try:
            data = data[step]
        except (LookupError, TypeError):
            return False
    return True


def _leaves(table: Mapping[str, Any], known: Iterable[str]) -> Iterator[tuple[_Path, Any]]:
    """What a table has, with the keys to it: one with dots is a table of tables in TOML."""
    for name, value in table.items():
        within = [each.removeprefix(f"{name}.") for each in known if each.startswith(f"{name}.")]
        if within and isinstance(value, dict):
            yield from (((name, *path), leaf) for path, leaf in _leaves(value, within))
        else:
            yield (name,), value


def _values(text: _Text, path: _Path, options: Mapping[str, Option]) -> dict[str, Any]:
    """The options in the table at a path, by their names."""
    table: Any = text.data
    for step in path:
        table = table[step]
    by_key = {key(option): option for option in options.values()}
    others = () if path else (_SOURCE,)
    values = {}
    for keys, value in _leaves(table, by_key):
        name = ".".join(map(str, keys))
        option = by_key.get(name)
        if option is not None:
            values[option.name] = _value(text, (*path, *keys), option, value)
        elif name not in others:
            allowed = ", ".join([*by_key, *others])
            place = "in [[source]]" if path else "above the first [[source]]"
            raise text.refuse((*path, *keys), f"unknown key {name!r}; {place} may be: {allowed}")
    return {name: value for name, value in values.items() if value is not None}


def _value(text: _Text, path: _Path, option: Option, value: Any) -> Any:
    """The value of an option; None for a switch that is off."""
    if not option.metavar:
        if not isinstance(value, bool):
            raise text.refuse(path, f"{key(option)} must be true or false")
        return value or None
    if not (option.is_list or is_repeatable(option)):
        return _single(text, path, option, value)
    if not isinstance(value, list):
        return [_single(text, path, option, value)]
    return [_single(text, (*path, i), option, each) for i, each in enumerate(value)]


def _single(text: _Text, path: _Path, option: Option, value: Any) -> Any:
    if value is True and option.if_bare is not None:
        value = option.if_bare
    allowed: type | tuple[type, ...] = (int, float) if option.is_number else str
    if not isinstance(value, allowed) or isinstance(value, bool):
        what = "a number" if option.is_number else f'text in quotes: "{option.metavar}"'
        or_list = " or true" if option.if_bare is not None else ""
        or_list += ", or a list of such" if is_repeatable(option) else ""
        raise text.refuse(path, f"{key(option)} must be {what}{or_list}")
    try:
        return option.parse(str(value))
    except ValueError as error:
        raise text.refuse(path, f"{key(option)}: {error}") from None


def _sources(text: _Text) -> Iterator[tuple[list[Planned], list[PlannedReader]]]:
    tables = text.data.get(_SOURCE)
    if not (tables and isinstance(tables, list) and all(isinstance(each, dict) for each in tables)):
        why = "say where events come from: a table [[source]] for each source"
        raise text.refuse((_SOURCE,) if _SOURCE in text.data else (), why)
    for i in range(len(tables)):
        path = (_SOURCE, i)
        try:
            table = _values(text, path, source_options())
            plans = plan(table, key, where=text.at(path))
        except ValueError as error:
            raise text.refuse(path, str(error)) from None
        if not plans:
            opening = ", ".join(key(each) for each in opening_options())
            raise text.refuse(path, f"this [[source]] opens none; it needs one of: {opening}")
        yield plans, readers(table)


def read_config(name: str, data: bytes) -> Settings:
    """The settings in a file's data.

    Raises:
        LatencyError: it is malformed; the one line has its name and the number of the line.
    """
    try:
        text = _Text(name, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LatencyError(f"{name}:{line}: it is not UTF-8") from None
    table = _values(text, (), {option.name: option for option in SERVE_OPTIONS})
    found = list(_sources(text))
    sources = [each for plans, _ in found for each in plans]
    names = [each for _, named in found for each in named]
    try:
        return Settings.of(table, sources, names)
    except SettingError as error:
        raise text.refuse((error.option.replace("_", "-"),), str(error)) from None


class ReloadStatus:
    """Exports what became of the last reading of a file, as a `prometheus_client` collector."""

    def __init__(self) -> None:
        self._last = (True, time.time())

    def told(self, *, is_good: bool) -> None:
        """Note the outcome of a reading."""
        self._last = (is_good, time.time() if is_good else self._last[1])

    def collect(self) -> Iterator[Metric]:
        """The two gauges."""
        from prometheus_client.core import GaugeMetricFamily  # its import takes long

        is_good, good_at = self._last
        text = "1 if the configuration file was good when it was last read, else 0"
        yield GaugeMetricFamily(_SUCCESSFUL, text, value=is_good)
        text = "When the configuration file that is in use was read"
        yield GaugeMetricFamily(_SUCCESS_TIME, text, value=good_at)


class ConfigFile:
    """A file that may change.

    Args:
        path: its name.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._version: object = None

    def _stat(self) -> object:
        try:
            found = os.stat(self.path)
        except (OSError, ValueError):  # it is away, or no such name can be
            return None
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def has_changed(self) -> bool:
        """Whether it is another file than `read()` found, good or bad."""
        return self._stat() != self._version

    def read(self) -> Settings:
        """The settings that it has now.

        Raises:
            LatencyError: it cannot be read, or is malformed.
        """
        self._version = self._stat()
        try:
            # A pipe or a device must not keep us waiting: O_NONBLOCK, and only a file is read.
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise LatencyError(f"{self.path} is not a regular file")
                data = file.read(_BYTES_MAX + 1)
        except (OSError, ValueError) as error:  # a name with a null character is a ValueError
            why = error.strerror if isinstance(error, OSError) else error
            raise LatencyError(f"cannot read {self.path}: {why}") from None
        if len(data) > _BYTES_MAX:
            raise LatencyError(f"{self.path} has more than {_BYTES_MAX >> 20} MiB")
        return read_config(self.path, data)
