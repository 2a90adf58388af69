"""Arguments that several commands share."""

from __future__ import annotations

import argparse

from .._address import split_endpoint

__all__ = ["add_listen"]


def _listen(text: str) -> tuple[str, int]:
    try:
        return split_endpoint(text, any_host=True)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_listen(parser: argparse.ArgumentParser, port: int, meaning: str = "") -> None:
    """Add --listen, with the loopback address as its default."""
    parser.add_argument(
        "--listen",
        type=_listen,
        default=("127.0.0.1", port),
        metavar="[ADDR]:PORT",
        help="where to serve /metrics; without ADDR, on all addresses"
        f" (default 127.0.0.1:{port}{meaning})",
    )
