"""The agents that one would write in C++ and Go."""

from __future__ import annotations

import subprocess
from typing import Self

from .. import builder
from ..harness import CONSUMER, pin
from ..rings import Ring, Traffic


class Agent:
    """A peer in its own process, which reads the same ring as the other peers."""

    def __init__(self, language: str, ring: Ring) -> None:
        ring.require_kernel()
        path = builder.peer(language)
        self._ring = ring
        pin(CONSUMER)
        self._process = subprocess.Popen(
            [path, str(ring.fd)],
            pass_fds=[ring.fd],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: str, table: str, number: int) -> None:
        """Send a command to the peer."""
        assert self._process.stdin
        self._process.stdin.write(f"{command} {table} {number}\n")
        self._process.stdin.flush()

    def answer(self) -> tuple[int, int]:
        """Wait for the peer's answer: events, ns."""
        assert self._process.stdout
        events, ns = self._process.stdout.readline().split()
        return int(events), int(ns)

    def learn(self, traffic: Traffic) -> None:
        """Show all backends to the peer."""
        for part in traffic.each_backend_twice():
            self.drain(part)

    def drain(self, traffic: Traffic) -> float:
        """Ns per event. Cases with as many backends share the histograms."""
        self._ring.fill(traffic)
        self.ask("drain", str(traffic.backends), traffic.n)
        events, ns = self.answer()
        if events != traffic.n:
            raise RuntimeError(f"took {events} of {traffic.n} events")
        return ns / events

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.communicate()
