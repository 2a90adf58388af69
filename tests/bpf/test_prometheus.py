"""A real Prometheus scrapes the demo, and answers questions about it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.rig import wait_until

pytestmark = pytest.mark.bpf

CONFIG = """\
global: {{scrape_interval: 500ms}}
scrape_configs:
- job_name: demo
  static_configs: [{{targets: ['{target}']}}]
"""
QUANTILE = (
    "histogram_quantile(0.5, sum by (target_ip, le) (rate(lb_backend_latency_seconds_bucket[4s])))"
)


@contextmanager
def ended(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a process during the block."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def first_match(process: subprocess.Popen[str], pattern: str) -> str:
    """The group of the first match of the pattern in stderr."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError(f"{process.args!r} ended without {pattern!r}")


def ask(address: str, query: str) -> list[dict[str, Any]]:
    """The samples of a query; none while Prometheus is not up yet."""
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return list(json.load(reply)["data"]["result"])
    except OSError:
        return []


def test_prometheus_scrapes_the_demo_and_answers(tmp_path: Path) -> None:
    """`histogram_quantile` gives each backend a median between its fastest and slowest."""
    demo = [sys.executable, "-m", "lblatency", "demo", "--duration", "60", "--json"]
    with ended(demo) as running:
        target = first_match(running, r"metrics at http://([^/]+)/")
        config = tmp_path / "prometheus.yml"
        config.write_text(CONFIG.format(target=target))
        server = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            "--web.listen-address=127.0.0.1:0",
        ]
        with ended(server) as prometheus:
            address = first_match(prometheus, r"address=(127\.0\.0\.1:[1-9]\d*)")
            answers = wait_until(
                lambda: len(found := ask(address, QUANTILE)) >= 4 and found, "four medians", 30
            )
            medians = {each["metric"]["target_ip"]: float(each["value"][1]) for each in answers}
    assert all(0.001 < median < 1 for median in medians.values())
    assert max(medians.values()) > 10 * min(medians.values())
