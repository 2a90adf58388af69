"""Which sources to open, from what a command line says, or a table of a file."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._proxies import proxy_table
from .._rules import NameRule
from ..errors import LatencyError, NotPinnedError
from ..names import READERS, Reader
from ..sources import SOURCES, Option, Source
from ._options import add_flag, flag, given

__all__ = [
    "AwayError",
    "Planned",
    "PlannedReader",
    "add_sources",
    "checked",
    "is_repeatable",
    "kept",
    "opening_options",
    "plan",
    "planned",
    "readers",
    "source_options",
]


def _proxy_id(text: str) -> tuple[int | str, str]:
    key, _, name = text.partition("=")
    if not key or not name:
        raise ValueError(f"{text!r} is not of the form ID=NAME or IP:PORT=NAME")
    proxy = (int(key) if key.isdecimal() else key), name
    proxy_table(name, dict([proxy]))
    return proxy


def _proxy(text: str) -> str:
    proxy_table(text, {})
    return text


_PROXY = Option(
    "proxy",
    "NAME",
    "the proxy_name label of connections that no rule names",
    parse=_proxy,
)
_PROXY_ID = Option(
    "proxy_id",
    "ID=NAME",
    "the label for events of another listener, by its proxy id or by the ip:port that it"
    " listens on; may be given again",
    is_list=True,
    parse=_proxy_id,
)
_NAMING = (_PROXY, _PROXY_ID)


def _place_for(reader: type[Reader]) -> Callable[[str], str]:
    def place(text: str) -> str:
        reader(text)
        return text

    return place


_READERS = {
    reader: Option(
        reader.option,
        reader.metavar,
        f"measure {reader.process}, as with --sockets --comm {reader.process}={reader.process};"
        f" names of servers from {reader.help}"
        if reader.process
        else reader.help,
        is_list=True,
        if_bare=reader.if_bare,
        parse=_place_for(reader),
    )
    for reader in READERS
}


class AwayError(NotPinnedError):
    """What a source opens is not pinned yet; `plan` is the source."""

    def __init__(self, why: str, plan: Planned) -> None:
        super().__init__(why)
        self.plan = plan


PlannedReader = tuple[type[Reader], str]  # with its place


@dataclass(frozen=True)
class Planned:
    """A source that is to be opened.

    Attributes:
        source: its class.
        arguments: of the constructor, by keyword.
        proxies: names of proxies that the source does not name itself, by id; 0 is the others'.
        where: what to put before an error: "" or the line of a file.
    """

    source: type[Source]
    arguments: tuple[tuple[str, Any], ...]
    proxies: tuple[tuple[int | str, str], ...] = ()
    where: str = field(default="", compare=False)

    def open(self) -> Source:
        """Open it.

        Raises:
            AwayError: something is not pinned yet.
            LatencyError: it cannot be opened.
        """
        try:
            source = self.source(**dict(self.arguments))
        except NotPinnedError as error:
            raise AwayError(str(error), self) from None
        except (LatencyError, OSError, ValueError) as error:
            raise LatencyError(f"{self.where}{error}") from error
        source.stream.proxies = {**dict(self.proxies), **source.stream.proxies}
        return source


def source_options() -> dict[str, Option]:
    """The options of all sources by name. Several sources may have the same one."""
    own = [option for source in SOURCES for option in source.options]
    return {option.name: option for option in (*_READERS.values(), *own, *_NAMING)}


def opening_options() -> list[Option]:
    """The options of which a command needs one."""
    named = [option for reader, option in _READERS.items() if reader.process]
    return [*named, *(source.options[0] for source in SOURCES)]


def is_repeatable(option: Option) -> bool:
    """Whether it may be given again: it is a list, or opens a source each time."""
    opens = any(option is source.options[0] for source in SOURCES)
    return bool(option.metavar) and (option.is_list or opens)


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the options of every source."""
    for option in source_options().values():
        add_flag(parser, option, is_list=is_repeatable(option))


def _arguments(source: type[Source], table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The arguments of each source of this class that a table opens."""
    first, *others = source.options
    if not table.get(first.name):
        return
    shared = {
        option.keyword: tuple(value) if option.is_list else value
        for option in others
        if (value := table.get(option.name)) is not None
    }
    if not first.metavar:
        yield shared
    elif first.is_list:
        yield {first.keyword: tuple(table[first.name]), **shared}
    else:
        yield from ({first.keyword: value, **shared} for value in table[first.name])


def _check_required(source: type[Source], arguments: Mapping[str, Any], spell: Any) -> None:
    by_keyword = {option.keyword: option for option in source.options}
    for name, parameter in inspect.signature(source).parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in arguments:
            needed, opening = by_keyword[name], source.options[0]
            raise ValueError(f"{spell(opening)} needs {spell(needed)} {needed.metavar}")


def _check_used(
    table: Mapping[str, Any], spell: Callable[[Option], str], also_used: Iterable[Option]
) -> None:
    """An option of no source that is opened would be overlooked."""
    used = {option.name for option in (*_NAMING, *_READERS.values(), *also_used)} | {
        option.name
        for source in SOURCES
        if table.get(source.options[0].name)
        for option in source.options
    }
    for name, option in source_options().items():
        if name in table and name not in used:
            homes = [spell(each.options[0]) for each in SOURCES if option in each.options]
            raise ValueError(f"{spell(option)} does nothing without {' or '.join(homes)}")


def _with_processes(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Who names the servers of a proxy wants its sockets, too."""
    processes = [
        NameRule(reader.process, table.get(_PROXY.name, reader.process))
        for reader, option in _READERS.items()
        if reader.process and table.get(option.name)
    ]
    if not processes:
        return table
    return {**table, "sockets": True, "comm": [*table.get("comm", ()), *processes]}


def readers(table: Mapping[str, Any]) -> list[PlannedReader]:
    """Where a table of options says that names of servers are."""
    return [
        (reader, place)
        for reader, option in _READERS.items()
        for place in table.get(option.name, ())
    ]


def checked(plans: Iterable[PlannedReader]) -> dict[PlannedReader, Reader]:
    """Make readers.

    Raises:
        LatencyError: the place of one is malformed.
    """
    made = {(kind, place): kind(place) for kind, place in plans}
    for reader in made.values():
        reader.check()
    return made


def kept(sources: Iterable[Planned], readers: Iterable[PlannedReader]) -> set[str]:
    """The capabilities that are needed once all sources are open."""
    ticking = {name for each in sources for name in each.source.keeps}
    return ticking | {name for reader, _ in readers for name in reader.capabilities}


def plan(
    table: Mapping[str, Any],
    spell: Callable[[Option], str],
    *,
    where: str = "",
    must_name: bool = True,
    also_used: Iterable[Option] = (),
) -> list[Planned]:
    """The sources that a table of options opens; none if it opens none.

    Args:
        table: values by the options' names.
        spell: how people write an option there.
        where: what to put before an error of the sources.
        must_name: whether each proxy must have a name.
        also_used: options that the command uses itself.

    Raises:
        ValueError: an option is missing, or one would do nothing.
    """
    table = _with_processes(table)
    proxies = dict(table.get(_PROXY_ID.name, ()))
    if _PROXY.name in table:
        proxies[0] = table[_PROXY.name]
    plans = []
    for source in SOURCES:
        for arguments in _arguments(source, table):
            _check_required(source, arguments, spell)
            if must_name and not (0 in proxies or source.is_named(**arguments)):
                raise ValueError(f"say {spell(_PROXY)} {_PROXY.metavar}: {_PROXY.help}")
            plans.append(Planned(source, tuple(arguments.items()), tuple(proxies.items()), where))
    if plans:
        _check_used(table, spell, also_used)
    return plans


def planned(
    options: argparse.Namespace, *, must_name: bool = True, also_used: Iterable[Option] = ()
) -> list[Planned]:
    """The sources that a command line opens. See `plan()`.

    Raises:
        ArgumentError: it opens none, or an option is missing or would do nothing.
    """
    try:
        table = given(options, source_options().values())
        plans = plan(table, flag, must_name=must_name, also_used=also_used)
    except ValueError as error:
        raise argparse.ArgumentError(None, str(error)) from None
    if not plans:
        names = " or ".join(flag(option) for option in opening_options())
        raise argparse.ArgumentError(None, f"say where events come from: {names}")
    return plans
