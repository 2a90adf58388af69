"""A real Prometheus scrapes the demo, and answers questions about it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.prometheus import ask, ended, first_match, prometheus
from tests.support.rig import wait_until

pytestmark = pytest.mark.bpf

QUANTILE = (
    "histogram_quantile(0.5, sum by (target_ip, le) (rate(lb_backend_latency_seconds_bucket[4s])))"
)


def test_prometheus_scrapes_the_demo_and_answers(tmp_path: Path) -> None:
    """`histogram_quantile` gives each backend a median between its fastest and slowest."""
    demo = [sys.executable, "-m", "lblatency", "demo", "--duration", "60", "--json"]
    with ended(demo) as running:
        target = first_match(running, r"metrics at http://([^/]+)/")
        with prometheus(tmp_path, target) as address:
            answers = wait_until(
                lambda: len(found := ask(address, QUANTILE)) >= 4 and found, "four medians", 30
            )
            medians = {each["metric"]["target_ip"]: float(each["value"][1]) for each in answers}
    assert all(0.001 < median < 1 for median in medians.values())
    assert max(medians.values()) > 10 * min(medians.values())
