"""The command line, without privileges."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lblatency import __version__, check
from lblatency.cli import main

PROC_STATUS = "Name:\tpython\nCapEff:\t{:016x}\n"


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_answer(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both exit with 0; the help has examples."""
    with pytest.raises(SystemExit) as ended:
        main([option])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert f"lblatency {__version__}" in out if option == "--version" else "examples:" in out


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "COMMAND"),
        (["serve", "--ring", "x"], "--proxy"),
        (["serve", "--proxy", "p"], "say where events come from: --ring"),
        (["serve", "--ring", "x", "--proxy", "p", "--proxy-id", "x"], "ID=NAME"),
        (["demo", "--duration", "-1"], "number of seconds"),
        (["demo", "--listen", "nowhere"], "not of the form address:port"),
        (["demo", "--listen", ":80"], "not of the form address:port"),
        (["demo", "--listen", "::1:80"], "not of the form address:port"),
        (["demo", "--listen", "localhost:65536"], "not of the form address:port"),
    ],
)
def test_misuse_is_explained(
    argv: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong arguments give exit code 2 and say what is wrong."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_a_missing_ring_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A path that does not exist gives one line, not a traceback."""
    assert main(["serve", "--ring", "/nowhere/ring", "--proxy", "web"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("lblatency: no BPF map is pinned at /nowhere/ring")
    assert err.count("\n") == 1


def test_check_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is 1 if something required is missing, not if something optional is."""
    findings = [
        check.Finding("kernel", True, "6.1", "newer"),
        check.Finding("bpffs", False, "not mounted", "mount it", required=False),
    ]
    monkeypatch.setattr(check, "check_machine", lambda: findings)
    assert main(["check"]) == 0
    assert "mount it" in capsys.readouterr().out
    findings.append(check.Finding("CAP_BPF", False, "missing", "run as root"))
    assert main(["check"]) == 1
    assert "run as root" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("effective", "missing"),
    [
        (0, ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"]),
        (1 << 39 | 1 << 38, ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]),
        (1 << 21, ["CAP_NET_ADMIN"]),
        (1 << 21 | 1 << 12, []),
    ],
)
def test_missing_capabilities_are_named(effective: int, missing: list[str], tmp_path: Path) -> None:
    """CAP_SYS_ADMIN includes the capabilities that were split off from it."""
    status = tmp_path / "status"
    status.write_text(PROC_STATUS.format(effective))
    assert check.missing_capabilities(status) == missing


def test_the_machine_is_looked_at() -> None:
    """The findings are what the machine reports about itself, and have advice."""
    findings = {each.name: each for each in check.check_machine()}
    capabilities = ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
    assert list(findings) == ["kernel", "BTF", *capabilities, "bpffs", "libbpf"]
    assert all(each.advice for each in findings.values())
    assert findings["kernel"].found == os.uname().release
    assert findings["BTF"].ok is os.path.exists("/sys/kernel/btf/vmlinux")
    missing = [name for name in capabilities if not findings[name].ok]
    assert missing == check.missing_capabilities()
    listed = subprocess.run(
        ["findmnt", "-n", "-l", "-t", "bpf", "-o", "TARGET"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    mounted = listed.stdout.split()
    assert findings["bpffs"].ok is bool(mounted)
    assert findings["bpffs"].found == (", ".join(mounted) or "not mounted")
    version = subprocess.run(
        ["pkg-config", "--modversion", "libbpf"], capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith(findings["libbpf"].found + ".")
