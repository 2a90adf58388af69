"""Hand measured times to pytest-benchmark, which hands them to results.csv.

pytest-benchmark times one function after the other, so a disturbance of the machine affects one of
them alone. We time all contenders of a case side by side (see harness.py), then replay the times:
pytest-benchmark gets a clock that shows these durations, and keeps the statistics, the raw samples
and the comparison between runs as if it had measured them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from .results import Result

Samples = Mapping[str, Sequence[float]]  # ns, by contender
Publish = Callable[..., None]  # publisher()'s function


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


clock = _Clock()


def publisher(benchmark: Any) -> Publish:
    """A function that reports one contender of a case to pytest-benchmark's fixture.

    The function takes the topic, the case, the contender, a list of ns for each contender of the
    case, and other figures by name.
    """

    def publish(topic: str, case: str, contender: str, samples: Samples, **figures: float) -> None:
        mine = samples[contender]
        benchmark.group = f"{topic}: {case}"
        benchmark.extra_info.update(
            topic=topic, case=case, contender=contender, ns=median(mine), figures=figures
        )
        durations: Iterator[float] = itertools.cycle(mine)

        def pass_time() -> None:
            clock.now += next(durations) / 1e9

        benchmark.pedantic(pass_time, rounds=len(mine))

    return publish


def published(document: Mapping[str, Any]) -> list[Result]:
    """The results in pytest-benchmark's JSON, without the raw samples."""
    return [Result(**each["extra_info"]) for each in document["benchmarks"]]
