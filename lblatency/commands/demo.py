"""`lblatency demo`: measure real traffic through a balancer of our own, or a well-known one."""

from __future__ import annotations

import argparse

from ._options import add_flag, listen

__all__ = ["EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "balance real traffic and measure it"
EXAMPLES = """\
  lblatency demo                       a balancer, real traffic and a live table
  lblatency demo --with haproxy        the same through HAProxy, which knows nothing of it
  lblatency demo --duration 10 --json  for a program to read
"""


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to 86400")
    return seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the duration, the form of the output, and the address of /metrics."""
    parser.add_argument(
        "--with",
        dest="way",
        choices=("haproxy", "nginx", "nft"),
        help="balance with this program, as Debian has it, not with a balancer of our own",
    )
    parser.add_argument(
        "--duration",
        type=_seconds,
        default=20.0,
        metavar="SECONDS",
        help="how long to open connections (default 20)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_flag(parser, listen(0, ": any port"))
    parser.set_defaults(way="ebpf")


def run(options: argparse.Namespace) -> int:
    """Run the demo."""
    from ..demo.run import ANY_PORT, run  # its import takes longer than other commands run

    return run(
        way=options.way,
        duration=options.duration,
        json=options.json,
        listen=options.listen or (ANY_PORT,),
    )
