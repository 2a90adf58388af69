"""`lblatency serve` answers `/api/v1`, and `top` and `report` understand it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest

from lblatency.cli import main
from lblatency.history import RemoteView
from tests.support.rig import wait_until


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An exporter of a source in memory that had five connections."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.fake_source", "serve", "--fake", "a", "--count", "5",
         "--proxy", "web", "--listen", "127.0.0.1:0"],
        text=True, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        found = re.search(r"metrics at (\S+)/metrics", process.stderr.readline())
        assert found
        view = RemoteView(found[1])
        wait_until(lambda: view.backends("start")["rows"] == 5, "two samples", 30)
        yield found[1]
        process.terminate()


def test_serve_has_the_api(url: str) -> None:
    """All five are recorded, and none is lost; a large answer comes in gzip."""
    status = RemoteView(url).status()
    assert status["running"]
    assert status["coverage"]["share"] == 1
    assert status["coverage"]["lost"] == 0
    assert [source["name"] for source in status["sources"]] == ["fake"]
    asked = urllib.request.Request(
        f"{url}/api/v1/distribution?window=start", headers={"Accept-Encoding": "gzip"}
    )
    with urllib.request.urlopen(asked, timeout=20) as answer:
        assert answer.headers["ETag"].startswith('W/"')
        assert answer.headers["Content-Type"] == "application/json"


def test_top_and_report_read_it(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the same counts."""
    assert main(["top", "--url", url, "--json", "--window", "start"]) == 0
    rows = json.loads(capsys.readouterr().out)["backends"]
    assert [row["count"] for row in rows] == [1] * 5
    assert main(["report", "--url", url, "--window", "start"]) == 0
    assert re.search(r"^all +5 ", capsys.readouterr().out, re.MULTILINE)
