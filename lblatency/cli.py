"""The commands of `lblatency`, and what is said of mistakes: one line, without a traceback."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from ._version import __version__
from .commands import Command, check, demo, report, serve, tail, top
from .errors import LatencyError

__all__ = ["main", "make_parser"]

_COMMANDS: dict[str, Command] = {
    "check": check,
    "demo": demo,
    "report": report,
    "serve": serve,
    "tail": tail,
    "top": top,
}


class _Parser(argparse.ArgumentParser):
    """Takes flags by their full names only, so that a new flag never changes what another means."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="lblatency",
        description="How long connections through a load balancer live, per backend.",
        epilog="examples:\n" + "".join(command.EXAMPLES for command in _COMMANDS.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lblatency {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in _COMMANDS.items():
        added = commands.add_parser(name, help=command.HELP, allow_abbrev=False)
        command.add_arguments(added)
        added.set_defaults(command=command, parser=added)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Without a command, print the help."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if "command" not in options:
        parser.print_help()
        return 0
    try:
        return int(options.command.run(options))
    except argparse.ArgumentError as error:
        used: argparse.ArgumentParser = options.parser
        used.error(str(error))
    except BrokenPipeError:
        raise
    except (LatencyError, MemoryError, OSError, ValueError) as error:
        print(f"lblatency: {error}", file=sys.stderr)
        return 1
