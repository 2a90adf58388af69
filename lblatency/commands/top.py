"""`lblatency top`: the table of backends in a terminal."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import LatencyError
from ..history import WINDOWS, RemoteView, View, parse_window
from ..top.table import COLUMNS, chosen_rows, column
from ..top.terms import EXAMPLES as TERMS
from ..top.terms import parse_terms
from ._agent import Agent
from ._options import checked, given
from ._settings import Settings
from ._sources import add_sources, planned, readers, source_options

__all__ = ["EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "show the backends in a table, live"
EXAMPLES = """\
  lblatency top --haproxy /run/haproxy/admin.sock
                                       a live table of the backends
  lblatency top --url http://127.0.0.1:10435
                                       the same of an exporter that runs
"""
_METRICS = ("lifetime", "connect", "first_byte")
_INTERVAL_S = 2.0  # between samples
_POLL_S = 0.1  # between looks for the second sample
_WIDTH = 200  # of --once, if it is no terminal's


def _filter(text: str) -> str:
    parse_terms(text)
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is watched, what of it is shown, and how."""
    add_sources(parser)
    parser.add_argument(
        "--url", metavar="URL", help="of an exporter that runs, instead of a source"
    )
    parser.add_argument(
        "--window",
        type=checked(parse_window),
        default=60,
        metavar="SECONDS",
        help=f"the time before now: {', '.join(map(str, WINDOWS))} (default 60)",
    )
    parser.add_argument(
        "--sort",
        type=checked(column),
        default=column("closed_per_s"),
        metavar="COLUMN",
        help=f"{', '.join(each.name for each in COLUMNS)} (default closed_per_s)",
    )
    parser.add_argument(
        "--filter",
        type=checked(_filter),
        default="",
        metavar="TERMS",
        help=f"show these backends, all of: {TERMS}",
    )
    parser.add_argument("--once", action="store_true", help="print the table once")
    parser.add_argument("--json", action="store_true", help="print it once as JSON, in one line")


@contextmanager
def _viewed(options: argparse.Namespace) -> Iterator[tuple[View, Callable[[], object] | None, str]]:
    """What is watched, what makes it go on, and its name for people."""
    if options.url is not None:
        if given(options, source_options().values()):
            raise argparse.ArgumentError(None, "--url is an exporter's, whose sources are its own")
        remote = RemoteView(options.url)
        yield remote, None, remote.url
        return
    plans = planned(options, must_name=False)
    named = readers(given(options, source_options().values()))
    settings = Settings.of({"metrics": [_METRICS]}, plans, named)
    with Agent(settings, interval_s=_INTERVAL_S) as agent:
        agent.apply(settings)
        agent.tick()
        yield agent.view, agent.tick, ", ".join(source.options[0].name for source in agent.sources)


def _sampled(view: View, tick: Callable[[], object] | None, window: int | str) -> dict[str, Any]:
    """The table, once there are two samples."""
    table = view.backends(window)
    while table["until"] is None:
        time.sleep(_POLL_S)
        if tick:
            tick()
        table = view.backends(window)
    return table


def _print_json(table: Mapping[str, Any], options: argparse.Namespace) -> None:
    rows = chosen_rows(table, options.sort, filter_text=options.filter)
    found = {name: value for name, value in table.items() if name not in ("columns", "proxies")}
    print(json.dumps({**found, "rows": len(rows), "backends": rows}, allow_nan=False))


def run(options: argparse.Namespace) -> int:
    """Show until somebody quits, or print once."""
    is_once = options.once or options.json or not (sys.stdin.isatty() and sys.stdout.isatty())
    try:
        from ..top import once
        from ..top.app import App
        from ..top.screen import State
    except ImportError as error:
        raise LatencyError(
            f"top needs {error.name}, which is not installed: pip install 'lblatency[top]'"
        ) from None
    with _viewed(options) as (view, tick, place):
        state = State(place, options.window, options.sort, filter=options.filter)
        if not is_once:
            App(view, state, tick).run()
            return 0
        table = _sampled(view, tick, options.window)
        if options.json:
            _print_json(table, options)
        else:
            width = os.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
            once.print_table(state, view.status(), table, width)
    return 0
