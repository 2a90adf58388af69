"""What runs inside a namespace of the demo: `python -m lblatency.demo.traffic ROLE`.

A worker moves into a network namespace of its own and says "ready". Told "go" it does its part:
`server NUMBER` is a backend, `client SECONDS` opens the connections and writes its report, and
`balancer` keeps its namespace alive, and becomes the program that it may be told with the "go".
All end with their standard input, or their parent. Servers then write their reports, too.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys

from .._signals import HeldSignals
from . import namespace
from .client import Client
from .plan import backend_numbered
from .server import Server

__all__ = ["main"]

_ENDPOINT = {
    "net/ipv6/conf/all/disable_ipv6": 0,
    "net/ipv6/conf/default/disable_ipv6": 0,
    "net/ipv6/conf/default/accept_dad": 0,  # addresses of our own: no second's wait for a claim
}
_ROUTER = {"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1}

_LONGEST_COMMAND = 4096  # what a pipe takes in one piece


def _say(word: str) -> None:
    os.write(1, word.encode() + b"\n")


def _be_undisturbed() -> None:
    """Run at real-time priority where that is allowed: what delays a clock makes it worse."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    gc.disable()


def main(arguments: list[str]) -> None:
    """Run the worker of that role."""
    role, *rest = arguments
    namespace.die_with_parent()
    namespace.enter_new_network()
    namespace.set_sysctls(_ENDPOINT | _ROUTER if role == "balancer" else _ENDPOINT)
    _say("ready")
    if os.read(0, 1) != b"g":
        return
    if role == "server":
        server = Server(backend_numbered(int(rest[0])))
        _say("listening")
        _be_undisturbed()
        sys.stdout.buffer.write(server.run())
    elif role == "client":
        _be_undisturbed()
        sys.stdout.buffer.write(Client(float(rest[0])).run())
    elif role == "balancer":
        _become(os.read(0, _LONGEST_COMMAND))


def _become(command: bytes) -> None:
    """Run a program in this process, which dies with its parent as before.

    What a terminal sends to its foreground must not end it, so it has a session of its own, and
    what was sent before, and is held, is forgotten.
    """
    if command:
        os.setsid()
        while HeldSignals().arrived(0):
            pass
        os.dup2(1, 2)
        arguments = command.split(b"\0")
        os.execv(arguments[0], arguments)  # noqa: S606


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BrokenPipeError:
        raise SystemExit(1) from None  # the demo has gone, and nobody is left to be told
    except OSError as error:
        raise SystemExit(f"lblatency demo, {' '.join(sys.argv[1:])}: {error}") from error
