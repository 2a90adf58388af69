"""The commands of `lblatency`, a file each."""

from __future__ import annotations

import argparse
from typing import Protocol

__all__ = ["Command"]


class Command(Protocol):
    """What a command's module has.

    Attributes:
        HELP: one line for the list of commands.
        EXAMPLES: lines for the end of the same page.
    """

    HELP: str
    EXAMPLES: str

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Declare what the command takes."""

    def run(self, options: argparse.Namespace, /) -> int:
        """Do it; returns the exit code. `cli.main()` prints what this raises."""
