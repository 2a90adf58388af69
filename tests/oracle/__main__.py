"""Run a campaign: `python -m tests.oracle --scenarios 500`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.support import bpf
from tests.support.clang import compiled

from .scenario import Scenario

STEPS = 40


def compile_balancers(folder: Path) -> dict[int, Path]:
    """Compile the balancer with one ring and with a ring per CPU."""
    return {
        1: compiled("oracle", folder, "-DLBL_RING_BYTES=65536"),
        2: compiled("oracle_rings", folder, "-DLBL_RING_BYTES=65536"),
    }


def run(seed: int, balancers: dict[int, Path]) -> str | None:
    """Run one scenario; returns what went wrong, or None."""
    with bpf.mounted_bpffs() as mounted:
        scenario = Scenario(seed, balancers, mounted)
        try:
            scenario.run(STEPS)
        except Exception:
            return f"seed {seed}: {' '.join(scenario.log[-12:])}\n{traceback.format_exc()}"
        finally:
            scenario.close()
    return None


def main() -> int:
    """Run all scenarios, several at a time, for they mostly wait."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenarios", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--jobs", type=int, default=6)
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.scenarios)
    with tempfile.TemporaryDirectory() as folder:
        balancers = compile_balancers(Path(folder))
        with ProcessPoolExecutor(options.jobs) as pool:
            wrong = [text for text in pool.map(run, seeds, [balancers] * len(seeds)) if text]
    for text in wrong[:5]:
        print(text)
    print(f"{len(seeds)} scenarios from seed {options.seed}: {len(wrong)} wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
