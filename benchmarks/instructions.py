"""Count the drain's instructions per event, in this and in another checkout.

    python -m benchmarks.instructions DIRECTORY

Valgrind counts them, and its counts repeat, unlike times. Valgrind has no AVX-512, so it counts the
code for other processors.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

from .compare import Checkout, checkouts, packed
from .report import table
from .rings import Traffic

DRAIN = "lbl_stream_drain"
BACKENDS, EVENTS, DRAINS = 1_000, 2_560, 40


def _count(path: Path, traffic: Traffic) -> Iterator[float]:
    """Instructions per event of each drain whose thread did not come first."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={folder}/out",
                   f"--toggle-collect={DRAIN}", f"--dump-after={DRAIN}"]  # fmt: skip
        with Checkout(path, traffic.backends, under=command) as checkout:
            learned = checkout.learn(traffic)
            taken = [checkout.drain(packed(replace(traffic, seed=i)))[0] for i in range(DRAINS)]
        for number, n in enumerate(taken, start=learned + 1):
            found = re.search(r"^totals: (\d+)", Path(folder, f"out.{number}").read_text(), re.M)
            if found and n == traffic.n:
                yield int(found[1]) / n


def main() -> None:
    """Print the table."""
    before, after = checkouts()
    rows = [["case", "before", "after", "after / before"]]
    for with_ids in (True, False):
        traffic = Traffic(BACKENDS, with_ids=with_ids, n=EVENTS)
        was, now = (median(_count(path, traffic)) for path in (before, after))
        case = f"{BACKENDS} backends, {'ids' if with_ids else 'no ids'}"
        rows.append([case, f"{was:.1f}", f"{now:.1f}", f"{now / was:.3f}"])
    print(table(rows))


if __name__ == "__main__":
    main()
