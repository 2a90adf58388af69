"""Scenarios over real rings against a model; `make oracle` runs 500 of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.oracle.__main__ import compile_balancers, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.bpf

SCENARIOS = 8


@pytest.fixture(scope="module")
def balancers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The balancer's programs, compiled."""
    return compile_balancers(tmp_path_factory.mktemp("oracle"))


@pytest.mark.parametrize("seed", range(SCENARIOS))
def test_all_histograms_and_sums_are_exact(seed: int, balancers: dict[int, Path]) -> None:
    """Restarts, zeroed counters, several users, resets and removals change no sum."""
    assert run(seed, balancers) is None
