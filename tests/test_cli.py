"""The command line, without privileges."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lblatency import LatencyTracker, __version__, check, sources
from lblatency.cli import main
from lblatency.errors import BpfError, LatencyError
from lblatency.exporter import Address, serving
from lblatency.exporter.served import Served
from lblatency.sources import SOURCES, Ring

PROC_STATUS = "Name:\tpython\nCapEff:\t{:016x}\n"


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_answer(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both exit with 0; the help has examples."""
    with pytest.raises(SystemExit) as ended:
        main([option])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert f"lblatency {__version__}" in out if option == "--version" else "examples:" in out


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`lblatency` alone is a question, not a mistake: the help, and exit code 0."""
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: lblatency")
    assert "examples:" in out
    assert err == ""


SERVE = ["serve", "--proxy", "p", "--ring"]
MISTAKES = [
    (["nothing"], 2, "invalid choice: 'nothing'"),
    (["--nothing"], 2, "unrecognized arguments: --nothing"),
    (["check", "--nothing"], 2, "unrecognized arguments: --nothing"),
    (["check", "--js"], 2, "unrecognized arguments: --js"),
    (["demo", "--dur", "1"], 2, "unrecognized arguments: --dur 1"),
    (["--vers"], 2, "unrecognized arguments: --vers"),
    (["serve", "--ring", "x"], 2, "--proxy"),
    (
        ["serve", "--proxy", "p"],
        2,
        "say where events come from: --haproxy or --nginx or --envoy or --ring or",
    ),
    ([*SERVE, "x", "--proxy-id", "x"], 2, "ID=NAME"),
    (["demo", "--duration", "-1"], 2, "number of seconds"),
    (["demo", "--duration", "nan"], 2, "number of seconds"),
    (["demo", "--listen", "nowhere"], 2, "'nowhere' has no port"),
    (["demo", "--listen", "::1:80"], 2, "'::1:80' has no valid address"),
    (["demo", "--listen", "localhost:65536"], 2, "port 65536 is not 0 to 65535"),
    (["demo", "--listen", ":70000"], 2, "':70000': port 70000 is not 0 to 65535"),
    (["serve", "--haproxy"], 2, "--haproxy: expected one argument"),
    (["serve", "--haproxy", "nowhere"], 2, "'nowhere' is neither a path"),
    (["serve", "--envoy", "127.0.0.1:9901"], 2, "not a URL of the form http://HOST:PORT"),
    (["serve", "--names", "x"], 2, "say where events come from: --haproxy or --nginx"),
    (["serve", "--sockets", "x"], 2, "unrecognized arguments: x"),
    (["serve", "--sockets", "--backend", "10.0.0.1:80"], 2, "say --proxy NAME"),
    (["serve", "--sockets", "--comm", "a=b", "--comm", "c"], 2, "say --proxy NAME"),
    (["serve", "--sockets", "--comm", "=b"], 2, "'=b' is not of the form NAME[=PROXY]"),
    (["serve", "--sockets", "--cgroup", "a="], 2, "'a=' has no name after '='"),
    (["serve", "--sockets", "--cgroup", "/nowhere=a"], 1, "'/nowhere' is no directory of a cgroup"),
    (["serve", "--sockets", "--backend", "::1:80=a"], 2, "with IPv6 in brackets"),
    (["serve", "--sockets", "--counters", "x"], 2, "--counters does nothing without --ring"),
    ([*SERVE, "x", "--comm", "a=b"], 2, "--comm does nothing without --sockets"),
    ([*SERVE, "x", "--backend", "10.0.0.1:80=a"], 2, "--backend does nothing without --sockets"),
    (["serve", "--flows", "eth0", "--proxy", "p"], 2, "--flows needs --backend ADDR[/LEN]:PORT"),
    (["serve", "--flows", "none0", "--backend", "10.0.0.1:80=a"], 1, "none0"),
    (["serve", "--flows", "a/b", "--backend", "10.0.0.1:80=a"], 1, "'a/b' is not the name of"),
    (["serve", "--scan", "x", "--proxy", "p", "--interval", "no"], 2, "is not a number of seconds"),
    (["serve", "--scan", "x", "--proxy", "p", "--interval", "-1"], 2, "is not between"),
    (["serve", "--scan", "/etc/passwd", "--proxy", "p"], 1, "/etc/passwd is not in a bpffs"),
    (["serve", "--scan", "x"], 2, "say --proxy NAME"),
    (["serve", "--layout", "x", "--sockets"], 2, "--layout does nothing without --scan"),
    (["serve", "--sockets", "--pin", "/etc"], 1, "/etc is not in a BPF file system"),
    (["tail"], 2, "say where events come from: --haproxy or --nginx or --envoy or --ring or"),
    (
        ["tail", "--backend", "10.0.0.1:80"],
        2,
        "say where events come from: --haproxy or --nginx or --envoy or --ring or",
    ),
    (["tail", "--ring", "x", "--backend", "10.0.0.1"], 2, "is not of the form ADDR[/LEN]:PORT"),
    (["tail", "--ring", "x", "--backend", "10.0.0.5/24:1"], 2, "the network is 10.0.0.0/24"),
    (["tail", "--ring", "/nowhere/ring"], 1, "no BPF map is pinned at /nowhere/ring"),
    (["tail", "--ring", "/etc/passwd"], 1, "/etc/passwd is not in a bpffs"),
    (["tail", "--ring", "x", "--listen", ":1"], 2, "unrecognized arguments: --listen :1"),
    (["serve", "--config"], 2, "--config: expected one argument"),
    (["serve", "--config", "/nowhere/f.toml"], 1, "cannot read /nowhere/f.toml: No such file"),
    (["serve", "--config", "/etc"], 1, "/etc"),
    (["serve", "--config", "x", "--ring", "y"], 2, "--config and --ring: say all of it in"),
    (["serve", "--ring", "x", "--proxy", ""], 2, "proxy name must not be empty"),
    ([*SERVE, "x", "--proxy-id", "0=x"], 2, "an id in proxies must be 1 to 65535"),
    ([*SERVE, "x", "--proxy-id", "10.0.0.1=x"], 2, "has no port"),
    ([*SERVE, "x", "--proxy-id", "1="], 2, "ID=NAME"),
    (
        ["serve", "--counters", "x", "--proxy", "p"],
        2,
        "say where events come from: --haproxy or --nginx or --envoy or --ring or",
    ),
    ([*SERVE, "x", "--max-backends", "many"], 2, "'many' is not a whole number"),
    ([*SERVE, "x", "--max-backends", "0"], 1, "max_backends must be 1 to"),
    ([*SERVE, "x", "--buckets", "1,two"], 2, "'1,two' is not of the form SECONDS,SECONDS"),
    ([*SERVE, "x", "--buckets", "2,1"], 1, "ascending"),
    ([*SERVE, "x", "--buckets", "nan"], 1, "nan"),
    ([*SERVE, "x", "--buckets", "connect=1"], 1, "connect"),
    ([*SERVE, "x", "--buckets", "size=1"], 1, "buckets for 'size', which is not"),
    ([*SERVE, "x", "--metrics", "lifetime,size"], 1, "'size' must be one of lifetime"),
    ([*SERVE, "x", "--metrics", "connect"], 1, "must include 'lifetime'"),
    ([*SERVE, "/nowhere/ring", "--wait", "0"], 1, "no BPF map is pinned at /nowhere/ring"),
    ([*SERVE, "/etc/passwd"], 1, "/etc/passwd is not in a bpffs"),
    ([*SERVE, "/"], 1, "/ is not in a bpffs"),
]


def complaint(err: str) -> str:
    """What is said on stderr, which must be one line that names the program."""
    assert re.fullmatch(r"lblatency( \w+)?: .*\n", err), err
    return err


@pytest.mark.parametrize(("argv", "code", "text"), MISTAKES)
def test_each_mistake_is_told_in_one_line(
    argv: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 2 for arguments that cannot be, and 1 for what is not to be had."""
    try:
        ended = main(argv)
    except SystemExit as error:
        ended = int(error.code or 0)
    assert ended == code
    out, err = capsys.readouterr()
    assert text in complaint(err)
    assert out == ""


def python(*command: str, **rest: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m lblatency`."""
    return subprocess.run(
        [sys.executable, "-m", "lblatency", *command],
        text=True, stderr=subprocess.PIPE, timeout=120, check=False, **rest,
    )  # fmt: skip


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command", [["check"], ["check", "--json"], ["--help"], ["demo", "--help"], []]
)
def test_a_closed_pipe_is_quiet(command: list[str], unbuffered: str) -> None:
    """`lblatency check | head -0`: nothing on stderr, and the code that SIGPIPE gives."""
    reader, writer = os.pipe()
    os.close(reader)
    ran = python(*command, stdout=writer, env=os.environ | {"PYTHONUNBUFFERED": unbuffered})
    os.close(writer)
    assert ran.stderr == ""
    if not unbuffered:  # else argparse overlooks it when it prints a help
        assert ran.returncode == 128 + signal.SIGPIPE


def test_a_full_disk_is_told() -> None:
    """What cannot be written is an error in one line."""
    with open("/dev/full", "w") as full:
        ran = python("check", stdout=full)
    assert ran.returncode == 1
    assert complaint(ran.stderr).endswith("No space left on device\n")


# Ctrl-C comes where the interpreter looks for the n-th of the modules that the command imports.
INTERRUPTED = """
import os, signal, sys
class Finder:
    left = int(sys.argv.pop(1))
    has_begun = False
    def find_spec(self, name, *_):
        Finder.has_begun |= name == "lblatency.cli"
        Finder.left -= Finder.has_begun
        if Finder.has_begun and Finder.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from lblatency.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("place", range(1, 31))
def test_ctrl_c_is_quiet_while_modules_are_imported(place: int) -> None:
    """Whatever is being imported: exit code 130 and not a word."""
    ran = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(place), "check"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (130, "")


def test_a_second_ctrl_c_does_not_wait() -> None:
    """The first one raises KeyboardInterrupt in the command; the second ends even its handler."""
    script = """
import os, signal, sys
from lblatency import __main__, cli
def command():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        print("undoing", flush=True)
        os.kill(os.getpid(), signal.SIGINT)
        print("undone", flush=True)
cli.main = command
sys.exit(__main__.main())
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "undoing\n", "")


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """As `nohup` and a shell's background want it."""
    script = (
        "import signal; from lblatency.__main__ import main; main(); print(signal.getsignal(2))"
    )
    ran = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, script],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.stdout.endswith("Handlers.SIG_IGN\n" if "Handlers" in ran.stdout else "1\n")


def test_all_addresses_are_listened_on() -> None:
    """`--listen :PORT` serves clients of IPv4 and of IPv6."""
    served = Served(LatencyTracker(max_backends=10))
    with serving(served, [Address("", 0)], print) as (url,):
        port = int(url.rsplit(":", 1)[1].partition("/")[0])
        for host in ("127.0.0.1", "[::1]"):
            with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=20) as reply:
                assert b"lblatency_build_info" in reply.read()


# ---- check ----


def test_check_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is 1 if a command lacks something, not if something optional is missing."""
    findings = [
        check.Finding("kernel", True, "6.1", "newer"),
        check.Finding("bpffs", False, "not mounted", "mount it", needed_by=()),
    ]
    monkeypatch.setattr(check, "check_machine", lambda: findings)
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    assert "mount it" in out
    assert out.endswith("\ndemo: yes\nserve: yes\n")
    findings.append(check.Finding("CAP_BPF", False, "missing", "run as root", needed_by=("demo",)))
    assert main(["check"]) == 1
    out = capsys.readouterr().out
    assert "run as root" in out
    assert out.endswith("\ndemo: needs CAP_BPF; simulated until then\nserve: yes\n")


def test_check_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    """One object with the same findings and verdicts."""
    code = main(["check", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found["findings"]] == [
        each.name for each in check.check_machine()
    ]
    assert [each["command"] for each in found["verdicts"]] == ["demo", "serve"]
    assert code == (0 if all(each["ok"] for each in found["verdicts"]) else 1)


def test_check_fits_into_79_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long values and advice go on below."""
    words = "all the many mounts " * 20
    findings = [check.Finding("bpffs", False, words, words), check.Finding("none", True, "", "")]
    monkeypatch.setattr(check, "check_machine", lambda: findings)
    main(["check"])
    lines = capsys.readouterr().out.splitlines()
    assert 70 < max(map(len, lines)) <= 79
    assert len(lines) > 10


DENIED = """
import sys
from lblatency.cli import main
from lblatency.errors import BpfError, LatencyError
from lblatency.sources import SOURCES, Ring
from tests.support.seccomp import deny_bpf
deny_bpf()
sys.exit(main(["check", "--json"]))
"""


@pytest.mark.bpf
def test_check_finds_out_that_a_container_denies_bpf() -> None:
    """All capabilities are held, but bpf() is denied: both verdicts say so."""
    ran = subprocess.run(
        [sys.executable, "-c", DENIED], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1, ran.stderr
    found = json.loads(ran.stdout)
    findings = {each["name"]: each for each in found["findings"]}
    assert findings["CAP_BPF"]["ok"]
    for name in ("open pins", "look up ids", "make maps", "load programs"):
        assert findings[name]["found"] == "Operation not permitted"
        assert "seccomp" in findings[name]["advice"]
    for source in SOURCES:
        assert not findings[f"--{source.options[0].name}"]["ok"]
    assert [each["text"] for each in found["verdicts"]] == [
        "needs open pins, make maps, load programs; simulated until then",
        "needs open pins",
    ]


class Tried(Ring):
    """A source that needs two capabilities, and opens or does not."""

    options = (sources.Option("tried", "X", "to try"), sources.BACKEND)
    capabilities = ("CAP_BPF", "CAP_NET_ADMIN")
    refusal: ClassVar[Exception | None] = None

    @classmethod
    def try_out(cls) -> None:
        """Do what the test says."""
        if cls.refusal:
            raise cls.refusal


@pytest.mark.parametrize(
    ("missing", "refusal", "found", "advice"),
    [
        ([], None, "works", ""),
        (["CAP_PERFMON"], None, "works", ""),
        (["CAP_NET_ADMIN"], None, "no CAP_NET_ADMIN", "cap_bpf,cap_net_admin with `setcap`"),
        (["CAP_BPF", "CAP_NET_ADMIN"], None, "no CAP_BPF, no CAP_NET_ADMIN", "run as root"),
        ([], BpfError.from_errno(1, "x"), "x: Operation not permitted; needs CAP_BPF", "seccomp"),
        ([], LatencyError("no BTF"), "no BTF", "see above"),
    ],
)
def test_check_tries_each_source(
    monkeypatch: pytest.MonkeyPatch,
    missing: list[str],
    refusal: Exception | None,
    found: str,
    advice: str,
) -> None:
    """It says which capabilities are missing; if none is, what the source says when it opens."""
    monkeypatch.setattr(check, "SOURCES", (Tried,))
    monkeypatch.setattr(check, "missing_capabilities", lambda: missing)
    monkeypatch.setattr(Tried, "refusal", refusal)
    finding = check.check_machine()[-1]
    assert finding.name == "--tried"
    assert finding.ok is (found == "works")
    assert finding.found.startswith(found)
    assert finding.ok or advice in finding.advice
    assert finding.needed_by == ()


@pytest.mark.bpf
@pytest.mark.parametrize(
    "source", [["--sockets"], ["--flows", "lo", "--backend", "192.0.2.1:9=x"]], ids=lambda it: it[0]
)
@pytest.mark.parametrize("command", ["serve", "tail"])
def test_a_source_without_privileges_is_refused_in_one_line(
    command: str, source: list[str]
) -> None:
    """It says what is missing, and not what libbpf guesses."""
    nobody = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    ran = subprocess.run(
        [*nobody, sys.executable, "-m", "lblatency", command, *source],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "Operation not permitted; needs CAP_BPF and CAP_PERFMON" in complaint(ran.stderr)
    assert "libbpf" not in ran.stderr


@pytest.mark.bpf
def test_check_without_privileges() -> None:
    """A pinned map can be served; the demo lacks capabilities; root's advice is given."""
    ran = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all",
         sys.executable, "-m", "lblatency", "check"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "NO  CAP_BPF        missing" in ran.stdout
    assert "NO  load programs  Operation not permitted" in ran.stdout
    assert "--  look up ids    Operation not permitted" in ran.stdout
    assert "\ndemo: needs CAP_BPF, CAP_PERFMON" in ran.stdout
    assert "\nserve: yes, if maps are given by pin path" in ran.stdout


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
    probes = ["open pins", "look up ids", "make maps", "load programs"]
    assert list(findings) == [
        "kernel", "BTF", *capabilities, *probes, "bpffs", "libbpf", "tools",
        *(f"--{source.options[0].name}" for source in SOURCES),
    ]  # fmt: skip
    assert all(each.advice for each in findings.values())
    assert findings["kernel"].found == os.uname().release
    assert findings["BTF"].ok is os.path.exists("/sys/kernel/btf/vmlinux")
    missing = [name for name in capabilities if not findings[name].ok]
    assert missing == check.missing_capabilities()
    version = subprocess.run(
        ["pkg-config", "--modversion", "libbpf"], capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith(findings["libbpf"].found + ".")


@pytest.mark.parametrize(("mounts", "found"), [("", "not mounted"), ("b /a bpf rw 0 0\n", "/a")])
def test_mounts_are_found(mounts: str, found: str, tmp_path: Path) -> None:
    """File systems of type bpf alone."""
    path = tmp_path / "mounts"
    path.write_text(f"proc /proc proc rw 0 0\n{mounts}")
    finding = check.find_bpffs(path)
    assert (finding.found, finding.ok) == (found, bool(mounts))
