"""The sources' options as command-line arguments."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import Any

from ..sources import SOURCES, Option, Source

__all__ = ["add_sources", "open_sources"]


def _flag(option: Option) -> str:
    return "--" + option.name.replace("_", "-")


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the options of every source."""
    for source in SOURCES:
        for option in source.options:
            parser.add_argument(
                _flag(option),
                action="append" if option.is_list else "store",
                metavar=option.metavar,
                help=option.help,
            )


def open_sources(options: argparse.Namespace, stack: ExitStack) -> list[Source]:
    """Open the sources whose first option is given; `stack` closes them.

    Raises:
        ArgumentError: no source has its first option.
    """
    wanted = [source for source in SOURCES if getattr(options, source.options[0].name)]
    if not wanted:
        names = " or ".join(_flag(source.options[0]) for source in SOURCES)
        raise argparse.ArgumentError(None, f"say where events come from: {names}")
    return [stack.enter_context(source(**_given(options, source))) for source in wanted]


def _given(options: argparse.Namespace, source: type[Source]) -> dict[str, Any]:
    values = {each.name: getattr(options, each.name) for each in source.options}
    return {name: value for name, value in values.items() if value is not None}
