"""The command `lblatency`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from . import __version__, stats
from .conntrack import ConntrackMap
from .errors import LatencyError
from .tracker import LatencyTracker

__all__ = ["main"]

_EXAMPLES = """\
examples:
  lblatency check                      what this machine allows
  lblatency demo                       a balancer, real traffic and a live table
  lblatency demo --duration 10 --json  the same for a program to read
  lblatency serve --ring /sys/fs/bpf/mylb/lbl_events --proxy web
                                       metrics of a balancer that runs already
  lblatency serve --ring lbl_events --proxy web --proxy-id 2=api --listen 0.0.0.0:10435
"""


def _listen(text: str) -> tuple[str, int]:
    from ._http import split_listen

    try:
        return split_listen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to 86400")
    return seconds


def _proxy(text: str) -> tuple[int | str, str]:
    key, _, name = text.partition("=")
    if not key or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form ID=NAME or IP:PORT=NAME")
    return (int(key) if key.isdecimal() else key), name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lblatency",
        description="How long connections through a load balancer live, per backend.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lblatency {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="balance real traffic and measure it")
    demo.add_argument("--duration", type=_seconds, default=20.0, metavar="SECONDS",
                      help="how long to open connections (default 20)")  # fmt: skip
    demo.add_argument("--json", action="store_true", help="print one JSON object")
    demo.add_argument("--listen", type=_listen, default=("127.0.0.1", 0), metavar="ADDR:PORT",
                      help="where to serve /metrics (default 127.0.0.1:0: any port)")  # fmt: skip
    demo.set_defaults(run=_demo)

    serve = commands.add_parser("serve", help="serve /metrics of a running balancer")
    serve.add_argument("--ring", action="append", required=True, metavar="PATH|ID|NAME",
                       help="its ring buffer; may be given again for further rings")  # fmt: skip
    serve.add_argument("--counters", metavar="PATH|ID|NAME",
                       help="its lbl_counters map (default: looked for)")  # fmt: skip
    serve.add_argument("--conntrack", metavar="PATH|ID|NAME",
                       help="its conntrack map, if events do not tell creation times")  # fmt: skip
    serve.add_argument("--proxy", required=True, metavar="NAME", help="the proxy_name label")
    serve.add_argument("--proxy-id", action="append", type=_proxy, default=[],
                       metavar="ID=NAME", help="the label for events of another listener,"
                       " by proxy id or by the ip:port it listens on")  # fmt: skip
    serve.add_argument("--listen", type=_listen, default=("127.0.0.1", 10435), metavar="ADDR:PORT",
                       help="where to serve (default 127.0.0.1:10435)")  # fmt: skip
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="what this machine allows")
    check.set_defaults(run=_check)
    return parser


def _demo(options: argparse.Namespace) -> int:
    from .demo.run import run

    return run(duration=options.duration, json=options.json, listen=options.listen)


def _serve(options: argparse.Namespace) -> int:
    from ._http import serve_metrics
    from ._signals import HeldSignals

    conntrack = ConntrackMap(options.conntrack) if options.conntrack else None
    stream = stats.create_event_stream(options.ring, counters=options.counters)
    tracker = LatencyTracker()
    with HeldSignals() as signals:
        tracker.start(stream, conntrack, options.proxy, proxies=dict(options.proxy_id))
        try:
            with serve_metrics(tracker, options.listen) as url:
                print(f"lblatency: metrics at {url}", file=sys.stderr, flush=True)
                signals.wait()
        finally:
            tracker.stop()
    return 0


def _check(_options: argparse.Namespace) -> int:
    from .check import check_machine

    findings = check_machine()
    for finding in findings:
        mark = "ok" if finding.ok else "NO" if finding.required else "--"
        print(f"{mark}  {finding.name:<14} {finding.found}")
        if not finding.ok:
            print(f"      {finding.advice}")
    return 0 if all(finding.ok or not finding.required for finding in findings) else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except (LatencyError, OSError, ValueError) as error:
        print(f"lblatency: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
