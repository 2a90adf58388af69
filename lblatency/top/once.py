"""The table as text, for pipes and files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from .screen import State, coverage_line, row_lines

__all__ = ["print_table"]


def print_table(
    state: State, status: Mapping[str, Any], table: Mapping[str, Any], width: int
) -> None:
    """Print all rows; in colours if somebody can see them."""
    console = Console(width=width, highlight=False)
    for line in [coverage_line(status), *row_lines(state, table, width)]:
        line.rstrip()
        console.print(line, no_wrap=True, overflow="crop")
