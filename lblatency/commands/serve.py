"""`lblatency serve`: export the metrics of a running balancer."""

from __future__ import annotations

import argparse
import math
import sys
import time
from contextlib import ExitStack

from .._signals import HeldSignals
from ..buckets import LIFETIME, METRICS
from ..conntrack import ConntrackMap
from ..errors import NotPinnedError
from ..sources import Source
from ..tracker import LatencyTracker
from ._arguments import add_listen
from ._sources import add_sources, open_sources

__all__ = ["EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "serve /metrics of a running balancer"
EXAMPLES = """\
  lblatency serve --ring /sys/fs/bpf/mylb/lbl_events --proxy web
                                       metrics of a balancer that runs already
  lblatency serve --ring lbl_events --proxy web --proxy-id 2=api --listen 0.0.0.0:10435
"""
_TICK_S = 1.0
_EXPIRE_AFTER_S = 86_400.0  # addresses come and go, and an exporter runs for years
_POLL_S = 0.1  # between looks for a pin that is not there yet


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def _proxy(text: str) -> tuple[int | str, str]:
    key, _, name = text.partition("=")
    if not key or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form ID=NAME or IP:PORT=NAME")
    return (int(key) if key.isdecimal() else key), name


def _metrics(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _buckets(text: str) -> tuple[str, tuple[float, ...]]:
    metric, equals, bounds = text.rpartition("=")
    try:
        return metric if equals else LIFETIME, tuple(map(float, bounds.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form SECONDS,SECONDS,... or METRIC=SECONDS,SECONDS,..."
        ) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sources' options, the names of proxies, and the address of /metrics."""
    add_sources(parser)
    parser.add_argument(
        "--conntrack",
        metavar="PATH|ID|NAME",
        help="the balancer's conntrack map, if events do not tell creation times",
    )
    parser.add_argument("--proxy", required=True, metavar="NAME", help="the proxy_name label")
    parser.add_argument(
        "--proxy-id",
        action="append",
        type=_proxy,
        default=[],
        metavar="ID=NAME",
        help="the label for events of another listener, by its proxy id or by the ip:port that"
        " it listens on",
    )
    parser.add_argument(
        "--metrics",
        type=_metrics,
        default=(LIFETIME,),
        metavar="LIST",
        help=f"latencies to record, of {','.join(METRICS)} (default {LIFETIME})",
    )
    parser.add_argument(
        "--buckets",
        action="append",
        type=_buckets,
        default=[],
        metavar="[METRIC=]LIST",
        help=f"upper bounds in seconds, with commas, of a latency (default: of {LIFETIME}); may be"
        " given again",
    )
    parser.add_argument(
        "--max-backends",
        type=int,
        metavar="N",
        help="how many backends have series of their own; the others share `overflow`",
    )
    parser.add_argument(
        "--wait",
        type=_seconds,
        default=math.inf,
        metavar="SECONDS",
        help="how long to wait for a pinned map that is not there yet (default: for ever)",
    )
    add_listen(parser, 10435)


def _say(text: str) -> None:
    print(f"lblatency: {text}", file=sys.stderr, flush=True)


def _open(options: argparse.Namespace, stack: ExitStack) -> list[Source]:
    """Open all sources, or none."""
    with ExitStack() as attempt:
        sources = open_sources(options, attempt)
        stack.push(attempt.pop_all())
    return sources


def _open_if_pinned(options: argparse.Namespace, stack: ExitStack) -> list[Source]:
    """Open the sources; none if something is not pinned yet and may be waited for."""
    try:
        return _open(options, stack)
    except NotPinnedError as error:
        if not options.wait:
            raise
        _say(f"{error}; waiting for it")
        return []


def _wait_for_pins(
    options: argparse.Namespace, stack: ExitStack, signals: HeldSignals
) -> list[Source]:
    """Open the sources as soon as all is pinned; none if a signal comes first."""
    deadline = time.monotonic() + options.wait
    while not signals.arrived(_POLL_S):
        try:
            return _open(options, stack)
        except NotPinnedError:
            if time.monotonic() >= deadline:
                raise
    return []


def _tell_changes(sources: list[Source], before: list[str]) -> list[str]:
    """Say once which rings' pins are gone, and which are back; returns those that are gone."""
    now = [pin for source in sources for pin in source.stream.detached()]
    for pin in now:
        if pin not in before:
            _say(f"{pin} is not the ring that is drained any more; waiting for a ring there")
    for pin in before:
        if pin not in now:
            _say(f"{pin} is drained again")
    return now


def _tell_if_not_counted(tracker: LatencyTracker) -> None:
    if tracker.event_counts()["produced"] is None:
        _say(
            "no readable lbl_counters map of the ring, so events that do not fit into it are not"
            " counted; if the balancer has such a map, name it with --counters"
        )


def _start(
    tracker: LatencyTracker,
    sources: list[Source],
    conntrack: ConntrackMap | None,
    options: argparse.Namespace,
) -> None:
    streams = [source.stream for source in sources]
    tracker.start(streams, conntrack, options.proxy, proxies=dict(options.proxy_id))


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    from .._http import serve_metrics  # imports prometheus_client, which takes long

    room = {} if options.max_backends is None else {"max_backends": options.max_backends}
    tracker = LatencyTracker(
        metrics=options.metrics,
        buckets=dict(options.buckets),
        expire_after=_EXPIRE_AFTER_S,
        **room,
    )
    conntrack = ConntrackMap(options.conntrack) if options.conntrack else None
    with ExitStack() as stack:
        sources = _open_if_pinned(options, stack)
        signals = stack.enter_context(HeldSignals())
        stack.callback(tracker.stop)
        if sources:
            _start(tracker, sources, conntrack, options)
        _say(f"metrics at {stack.enter_context(serve_metrics(tracker, options.listen))}")
        if not sources:
            sources = _wait_for_pins(options, stack, signals)
            if not sources:
                return 0
            _start(tracker, sources, conntrack, options)
        _tell_if_not_counted(tracker)
        detached: list[str] = []
        while not signals.arrived(_TICK_S):
            for source in sources:
                source.tick()
            detached = _tell_changes(sources, detached)
    return 0
