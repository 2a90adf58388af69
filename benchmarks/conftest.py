"""What all benchmarks share: how long to measure, and where the figures go."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import pytest
from harness import Publish
from rings import Ring


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--smoke`: each benchmark once, to see that it works."""
    parser.addoption("--smoke", action="store_true", help="run each benchmark once, for seconds")


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Say what filled the rings; the name of the machine is nobody's business."""
    machine_info.pop("node", None)
    machine_info["rings"] = _rings()


def _rings() -> str:
    error = Ring().error
    return f"in memory, since BPF is refused: {os.strerror(error)}" if error else "filled by BPF"


def pytest_report_header() -> str:
    """Whether the figures are those of rings in the kernel."""
    return f"rings: {_rings()}"


class _Replay:
    """A clock that shows durations measured before, so that pytest-benchmark can take them down."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


_replay = _Replay()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them were measured side by side before pytest-benchmark sees them one by one."""
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=_replay))


@pytest.fixture(scope="session")
def smoke(request: pytest.FixtureRequest) -> bool:
    """Whether this is only to see that everything works."""
    return bool(request.config.getoption("--smoke"))


@pytest.fixture(scope="session")
def rounds(smoke: bool) -> int:
    """How often to measure; medians are taken."""
    return 1 if smoke else 41


@pytest.fixture
def publish(benchmark: Any) -> Publish:
    """Write down what one contender of a case measured.

    The function takes the topic, the case, the contender, a list of ns for each contender of the
    case, and whatever other figures belong to it.
    """

    def publish(
        topic: str,
        case: str,
        contender: str,
        samples: Mapping[str, Sequence[float]],
        **figures: float,
    ) -> None:
        mine = samples[contender]
        middle = median(mine)
        benchmark.group = f"{topic}: {case}"
        benchmark.extra_info.update(
            topic=topic,
            case=case,
            contender=contender,
            ns=middle,
            ratios={name: middle / median(other) for name, other in samples.items()},
            figures=figures,
        )
        durations: Iterator[float] = itertools.cycle(mine)

        def pass_time() -> None:
            _replay.now += next(durations) / 1e9

        benchmark.pedantic(pass_time, rounds=len(mine))

    return publish
