"""A real Prometheus that scrapes, and answers questions."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONFIG = """\
global: {{scrape_interval: 500ms}}
scrape_configs:
- job_name: demo
  static_configs: [{{targets: ['{target}']}}]
"""


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


@contextmanager
def prometheus(folder: Path, target: str, *flags: str) -> Iterator[str]:
    """Let it scrape the target's /metrics twice per second during the block; yields its address."""
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(target=target))
    server = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
        *flags,
    ]
    with ended(server) as running:
        yield first_match(running, r"address=(127\.0\.0\.1:[1-9]\d*)")
