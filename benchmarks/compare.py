"""Compare the drain of this checkout with that of another, in one sitting.

    python -m benchmarks.compare DIRECTORY

Both checkouts must be built. Each has its own process, and both drain the same events in turn,
round by round. A disturbance longer than a round affects both, so compare the ratio of a round, not
its times. The place of a process's memory favours one of them for as long as the process lives, so
there are several lives.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Self

from .harness import CONSUMER, PRODUCER
from .report import table
from .rings import Traffic, ffi, lib

HERE = Path(__file__).resolve().parent
BACKENDS = [16, 1_000, 10_000, 100_000]
STATES = ("after others", "back to back")
LIVES, ROUNDS = 7, 150

Pair = tuple[float, float]  # by state


class Checkout:
    """A process that drains with the lblatency of a checkout.

    Args:
        path: the checkout.
        backends: how many backends its tracker has room for.
        under: a command that runs the process.
    """

    def __init__(self, path: Path, backends: int, under: Sequence[str] = ()) -> None:
        cpus = map(str, (PRODUCER, CONSUMER))
        python, worker = path / ".venv/bin/python", HERE / "compare_worker.py"
        self._process = subprocess.Popen(
            [*under, python, worker, *cpus, str(backends)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin
        assert self._process.stdout
        self._in, self._out = self._process.stdin, self._process.stdout
        used = Path(self._out.readline().decode().strip())
        if not used.is_relative_to(path):
            raise SystemExit(f"{path}: its Python uses {used}; run `make build` there")

    def drain(self, events: bytes) -> tuple[int, int]:
        """Drain; returns how many events the drain took, and in how many ns."""
        self._in.write(struct.pack("=Q", len(events)))
        self._in.write(events)
        self._in.flush()
        n, ns = struct.unpack("=QQ", self._out.read(16))
        return n, ns

    def learn(self, traffic: Traffic) -> int:
        """Show all backends to the tracker; returns how many drains that took."""
        parts = traffic.each_backend_twice()
        for part in parts:
            self.drain(packed(part))
        return len(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._in.close()
        self._process.wait()


def packed(traffic: Traffic) -> bytes:
    """The events, one after the other."""
    events = ffi.new("struct lbl_event[]", traffic.n)
    lib.bench_events(traffic.spec(), events)
    return bytes(ffi.buffer(events))


def _turn(checkout: Checkout, batches: Sequence[bytes], n: int) -> Pair | None:
    """The ns of each state; None if a drain thread took some of the events."""
    drained = [checkout.drain(batch) for batch in batches]
    if any(taken != n for taken, _ in drained):
        return None
    (_, first), (_, second) = drained
    return first / n, second / n


def _rounds(before: Checkout, after: Checkout, traffic: Traffic) -> Iterator[tuple[Pair, Pair]]:
    """The ns of both checkouts in each round without a disturbance."""
    for number in range(ROUNDS):
        batches = [packed(replace(traffic, seed=2 * number + i)) for i in range(len(STATES))]
        order = (before, after) if number % 2 else (after, before)
        turns = {checkout: _turn(checkout, batches, traffic.n) for checkout in order}
        was, now = turns[before], turns[after]
        if was and now:
            yield was, now


def _life(paths: Sequence[Path], traffic: Traffic) -> list[tuple[Pair, Pair]]:
    with ExitStack() as stack:
        before, after = (stack.enter_context(Checkout(path, traffic.backends)) for path in paths)
        for checkout in (before, after):
            checkout.learn(traffic)
        return list(_rounds(before, after, traffic))


def _row(case: str, state: int, lives: list[list[tuple[Pair, Pair]]]) -> list[str]:
    pairs = [(was[state], now[state]) for life in lives for was, now in life]
    ratios = [now / was for was, now in pairs]
    low, middle, high = quantiles(ratios, n=4)
    of_lives = [median(now[state] / was[state] for was, now in life) for life in lives]
    return [
        case,
        STATES[state],
        f"{median(was for was, _ in pairs):.2f}",
        f"{median(now for _, now in pairs):.2f}",
        f"{middle:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{min(of_lives):.3f} to {max(of_lives):.3f}",
        str(len(ratios)),
    ]


def checkouts() -> list[Path]:
    """The other checkout, which the command line names, and this one."""
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: python -m {__spec__.name} DIRECTORY")
    return [Path(sys.argv[1]).resolve(), HERE.parent]


def main() -> None:
    """Print the table."""
    paths = checkouts()
    rows = [["case", "state", "ns before", "ns after", "after / before", "half of the rounds",
             "lives", "rounds"]]  # fmt: skip
    for backends in BACKENDS:
        for with_ids in (True, False):
            traffic = Traffic(backends, with_ids=with_ids)
            lives = [_life(paths, traffic) for _ in range(LIVES)]
            case = f"{backends} backends, {'ids' if with_ids else 'no ids'}"
            rows += [_row(case, state, lives) for state in range(len(STATES))]
    print(table(rows))


if __name__ == "__main__":
    main()
