"""What runs inside a namespace of the demo: `python -m lblatency.demo.traffic ROLE`.

A worker moves into a network namespace of its own and says "ready". Told "go" it does its part:
`server NUMBER` is a backend, `client SECONDS` opens the connections and writes its report, and
`balancer` only keeps its namespace alive. All end with their standard input, or their parent.
"""

from __future__ import annotations

import os
import sys

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


def _say(word: str) -> None:
    os.write(1, word.encode() + b"\n")


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
        server.run()
    elif role == "client":
        sys.stdout.buffer.write(Client(float(rest[0])).run())
    elif role == "balancer":
        os.read(0, 1)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BrokenPipeError:
        raise SystemExit(1) from None  # the demo has gone, and nobody is left to be told
    except OSError as error:
        raise SystemExit(f"lblatency demo, {' '.join(sys.argv[1:])}: {error}") from error
