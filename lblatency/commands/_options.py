"""Options as command-line flags, and one that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from ..exporter.listen import Address
from ..sources import Option

__all__ = ["add_flag", "checked", "flag", "given", "key", "listen"]


def flag(option: Option) -> str:
    """How it is spelled on a command line."""
    return "--" + key(option)


def key(option: Option) -> str:
    """How it is spelled in a file."""
    return option.name.replace("_", "-")


def checked(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """The same for argparse, which hides the text of a ValueError."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def add_flag(parser: argparse.ArgumentParser, option: Option, *, is_list: bool = False) -> None:
    """Add an option; without a default, so that `given()` can tell."""
    if not option.metavar:
        parser.add_argument(flag(option), action="store_true", default=None, help=option.help)
        return
    parser.add_argument(
        flag(option),
        action="append" if is_list or option.is_list else "store",
        type=checked(option.parse),
        nargs=None if option.if_bare is None else "?",
        const=option.if_bare,
        metavar=option.metavar,
        help=option.help,
    )


def given(options: argparse.Namespace, known: Iterable[Option]) -> dict[str, Any]:
    """The values of those options that were given, by name."""
    values = {each.name: getattr(options, each.name) for each in known}
    return {name: value for name, value in values.items() if value is not None}


def listen(port: int, meaning: str = "") -> Option:
    """The address of /metrics, whose default is this port of the loopback address."""
    return Option(
        "listen",
        "[ADDR]:PORT",
        "where to serve /metrics; without ADDR, on all addresses; or unix:PATH; may be given again"
        f" (default 127.0.0.1:{port}{meaning})",
        is_list=True,
        parse=Address.parse,
    )
