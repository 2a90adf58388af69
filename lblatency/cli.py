"""The command `lblatency`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from ._version import __version__
from .commands import Command, check, demo, serve
from .errors import LatencyError

__all__ = ["main"]

_COMMANDS: dict[str, Command] = {
    "check": check,
    "demo": demo,
    "serve": serve,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lblatency",
        description="How long connections through a load balancer live, per backend.",
        epilog="examples:\n" + "".join(command.EXAMPLES for command in _COMMANDS.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lblatency {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        added = commands.add_parser(name, help=command.HELP)
        command.add_arguments(added)
        added.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except argparse.ArgumentError as error:
        parser.error(str(error))
    except (LatencyError, MemoryError, OSError, ValueError) as error:
        print(f"lblatency: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
