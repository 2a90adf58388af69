"""Fixtures of all benchmarks: how long to measure, and where the figures go."""

from __future__ import annotations

import os
from typing import Any

import pytest

from . import replay, results
from .rings import Ring


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--smoke`: each benchmark once, to see that it works."""
    parser.addoption("--smoke", action="store_true", help="run each benchmark once, for seconds")


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Say what filled the rings, and remove the name of the machine."""
    machine_info.pop("node", None)
    machine_info["rings"] = _rings()


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Write the figures; the raw samples are in another file."""
    results.write(replay.published(output_json))


def _rings() -> str:
    error = Ring().error
    return f"in memory, since BPF is refused: {os.strerror(error)}" if error else "filled by BPF"


def pytest_report_header() -> str:
    """Say whether the rings are the kernel's or in memory."""
    return f"rings: {_rings()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Time all benchmarks by the replay clock: their contenders are measured before."""
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=replay.clock))


@pytest.fixture(scope="session")
def smoke(request: pytest.FixtureRequest) -> bool:
    """Whether this run only checks that everything works."""
    return bool(request.config.getoption("--smoke"))


@pytest.fixture(scope="session")
def rounds(smoke: bool) -> int:
    """How often to measure; the figure is the median."""
    return 1 if smoke else 41


@pytest.fixture
def publish(benchmark: Any) -> replay.Publish:
    """Report what one contender of a case measured: see replay.py."""
    return replay.publisher(benchmark)
