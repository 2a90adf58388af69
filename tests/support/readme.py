"""README's code blocks, and a program that runs one of Python: its argument is the number.

It runs where it may mount: a balancer's maps are then pinned where README has them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from array import array
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import REGISTRY

import lblatency
from lblatency.demo.balancer import NatBalancer
from tests.support.balancer import Flow, target
from tests.support.netns import VIP
from tests.support.packets import ACK, FIN

if TYPE_CHECKING:
    from collections.abc import Callable

README = Path(__file__).parents[2] / "README.md"
PINS = "/sys/fs/bpf/mylb"


class Block(NamedTuple):
    """A block of code, its language, and the first of its lines that is not empty."""

    kind: str
    text: str

    @property
    def first(self) -> str:
        """What it is known by."""
        return self.text.partition("\n")[0]


def blocks() -> list[Block]:
    """All of them. A fence that is not understood is a block of an unknown kind."""
    found = re.findall(r"^ *```([^\n]*)\n(.*?)^ *```$", README.read_text(), re.M | re.S)
    return [Block(kind, text) for kind, text in found]


def connection(balancer: NatBalancer) -> None:
    """A connection of hand-made packets, from its opening to its end."""
    flow = Flow(balancer)
    flow.handshake()
    flow.sends(ACK | FIN, seq=1001, ack=5001)
    flow.gets(ACK | FIN, seq=5001, ack=1002)
    flow.sends(ACK, seq=1002, ack=5002)


def _stream() -> dict[str, Any]:
    return {"stream": lblatency.stats.create_event_stream(f"{PINS}/lbl_events")}


def _further(balancer: NatBalancer) -> dict[str, Any]:
    """A histogram to ask for, and two events for the subscriber that would wait for ever."""
    subscribe = lblatency.stats.EventStream.subscribe

    def two(stream: lblatency.stats.EventStream) -> Any:
        found = subscribe(stream)
        connection(balancer)
        return islice(found, 2)

    def start(made: lblatency.LatencyTracker, *given: Any, **named: Any) -> None:
        begin(made, *given, **named)
        made.record_latency("web", "[2001:db8::1]:443", 1)

    begin = lblatency.LatencyTracker.start
    lblatency.stats.EventStream.subscribe = two  # type: ignore[method-assign, assignment]
    lblatency.LatencyTracker.start = start  # type: ignore[method-assign, assignment]
    return _stream() | {"seconds": array("d", [0.25, 0.5])}


def _trackers(_: NatBalancer) -> dict[str, Any]:
    return {"tracker": lblatency.LatencyTracker(), "other_tracker": lblatency.LatencyTracker()}


def _two_backends(_: NatBalancer) -> dict[str, Any]:
    tracker = lblatency.LatencyTracker()
    for host in (1, 2):
        tracker.record_latency("web", f"10.0.0.{host}:80", 1)
    return {"tracker": tracker}


def _gunicorn(names: dict[str, Any]) -> None:
    names["when_ready"](None)
    assert lblatency.running()
    names["on_exit"](None)
    assert not lblatency.running()


# What stands before a block in the reader's program, by the block's first line; else nothing.
BEFORE: dict[str, Callable[[NatBalancer], dict[str, Any]]] = {
    "tracker = lblatency.LatencyTracker(max_backends=10_000)": _further,
    "lblatency.LatencyCollector(": _trackers,
    'earlier = tracker.get_histogram("web", "10.0.0.1:80")': _two_backends,
    'stream = lblatency.stats.create_event_stream("/sys/fs/bpf/mylb/lbl_events")': (
        lambda _: {"registry": REGISTRY}
    ),
}
# What others do with it.
AFTER: dict[str, Callable[[dict[str, Any]], None]] = {"# gunicorn.conf.py": _gunicorn}


def main(number: int) -> None:
    """Run the block beside a balancer that has the pins that README names."""
    block = blocks()[number]
    prepare: Callable[[NatBalancer], dict[str, Any]] = BEFORE.get(block.first, lambda _: {})
    finish: Callable[[dict[str, Any]], None] = AFTER.get(block.first, lambda _: None)
    subprocess.run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], check=True)
    with NatBalancer() as balancer:
        balancer.add_listener(4, VIP[4], 80, "tcp", [(4, target(4), 1)])
        balancer.pin(PINS)
        names: dict[str, Any] = {"__name__": "readme", "lblatency": lblatency}
        names |= prepare(balancer)
        exec(compile(block.text, f"README.md: {block.first}", "exec"), names)  # noqa: S102
        finish(names)
        for each in names.values():
            if isinstance(each, lblatency.LatencyTracker):
                each.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]))
