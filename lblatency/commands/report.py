"""`lblatency report`: percentiles and plots, on paper as it were."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import LatencyError
from ..history import WINDOWS, RemoteView, parse_backend, parse_window
from ..report.figures import text
from ..report.readings import Reading, difference, load, observe
from ._options import checked

__all__ = ["EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "write percentiles and plots of an exporter, or of saved snapshots"
EXAMPLES = """\
  lblatency report --url http://127.0.0.1:10435 --window 300 -o report.html
                                       percentiles and plots of the last five minutes
  lblatency report --difference before.json after.json -o plot.png
"""
_MOST_FILES = 2


def _output(path: str) -> Path:
    found = Path(path)
    if found.suffix not in _WRITERS:
        raise ValueError(f"{path!r} must end with one of {', '.join(_WRITERS)}")
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the report is about, and where it goes."""
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="a snapshot, as LatencyTracker.to_json() or -o FILE.json writes it; two are compared",
    )
    parser.add_argument("--url", metavar="URL", help="of an exporter that runs, instead of a file")
    parser.add_argument(
        "--window",
        type=checked(parse_window),
        metavar="SECONDS",
        help=f"with --url, the time before now: {', '.join(map(str, WINDOWS))} (default 900)",
    )
    parser.add_argument(
        "--difference",
        action="store_true",
        help="what happened from the first snapshot to the second, instead of a comparison",
    )
    parser.add_argument(
        "--backend",
        type=checked(parse_backend),
        action="append",
        default=[],
        metavar="PROXY/IP:PORT",
        help="report this backend, instead of the busiest ones; may be given again",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=checked(_output),
        action="append",
        default=[],
        metavar="FILE",
        help="write a page (.html), a picture of the lifetimes (.png, .svg), or the numbers (.json)"
        " there; may be given again. Without it, percentiles are printed",
    )


def _readings(options: argparse.Namespace) -> list[Reading]:
    files = options.files
    if options.url is not None:
        if files or options.difference:
            raise argparse.ArgumentError(None, "--url goes without files and --difference")
        view = RemoteView(options.url)
        return [observe(view, view.url, options.window or WINDOWS[2], options.backend)]
    if options.window is not None:
        raise argparse.ArgumentError(None, "--window does nothing without --url")
    if not files:
        raise argparse.ArgumentError(None, "say what the report is about: --url or a FILE or two")
    if len(files) > _MOST_FILES:
        raise argparse.ArgumentError(None, f"at most {_MOST_FILES} files, not {len(files)}")
    if options.difference and len(files) != _MOST_FILES:
        raise argparse.ArgumentError(None, "--difference needs two files")
    read = [load(path, options.backend) for path in files]
    return [difference(read[1], read[0])] if options.difference else read


def _html(readings: Sequence[Reading]) -> bytes:
    from ..report.page import page

    return page(readings).encode()


def _picture(form: str) -> Callable[[Sequence[Reading]], bytes]:
    def write(readings: Sequence[Reading]) -> bytes:
        from ..report.plots import picture

        return picture(
            readings, readings[0].metrics[0] if readings[0].metrics else "lifetime", form
        )

    return write


def _json(readings: Sequence[Reading]) -> bytes:
    if len(readings) > 1:
        raise LatencyError("a snapshot is of one point in time or of one difference, not of two")
    return json.dumps(readings[0].to_dict(), allow_nan=False).encode() + b"\n"


_WRITERS: dict[str, Callable[[Sequence[Reading]], bytes]] = {
    ".html": _html,
    ".svg": _picture("svg"),
    ".png": _picture("png"),
    ".json": _json,
}


def run(options: argparse.Namespace) -> int:
    """Print the report, or write it to files."""
    readings = _readings(options)
    if not options.output:
        print("\n".join(text(readings)))
    for path in options.output:
        try:
            data = _WRITERS[path.suffix](readings)
        except ImportError as error:
            raise LatencyError(
                f"{path.name} needs {error.name}, which is not installed:"
                " pip install 'lblatency[report]'"
            ) from None
        path.write_bytes(data)
    return 0
