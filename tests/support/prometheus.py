"""A real Prometheus that scrapes, and answers questions."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONFIG = """\
global: {{scrape_interval: 500ms}}
scrape_configs:
- job_name: demo
  static_configs: [{{targets: {targets}}}]
"""
KEEP_CLASSIC = "  always_scrape_classic_histograms: true\n"  # beside native ones, from 3.0 on


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


def write_config(folder: Path, targets: str | Sequence[str], options: str = "") -> Path:
    """What to scrape twice per second."""
    each = [targets] if isinstance(targets, str) else list(targets)
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(targets=json.dumps(each)) + options)
    return config


@contextmanager
def prometheus(
    folder: Path,
    targets: str | Sequence[str],
    *flags: str,
    program: str = "prometheus",
    options: str = "",
) -> Iterator[str]:
    """Let it scrape /metrics of each target during the block; yields its address.

    Args:
        folder: for its files.
        targets: addresses.
        flags: further ones.
        program: which one.
        options: further lines of the configuration, of how it scrapes.
    """
    config = write_config(folder, targets, options)
    server = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
        *flags,
    ]
    with ended(server) as running:
        yield first_match(running, r"address=(127\.0\.0\.1:[1-9]\d*)")
