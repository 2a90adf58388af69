"""The commands of `lblatency`, a file per command."""

from __future__ import annotations

import argparse
from typing import Protocol

__all__ = ["Command"]


class Command(Protocol):
    """The module of a command.

    Attributes:
        HELP: one line for the list of commands.
        EXAMPLES: lines for the end of the help.
    """

    HELP: str
    EXAMPLES: str

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Declare the arguments of the command."""

    def run(self, options: argparse.Namespace, /) -> int:
        """Run the command; returns the exit code. `cli.main()` prints what this raises."""
