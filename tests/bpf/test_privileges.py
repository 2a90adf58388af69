"""What `lblatency serve` may still do once it serves, and that it works without all the rest."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lblatency._ffi import lib
from lblatency._privileges import BITS
from lblatency.sources import Sockets
from tests.support import bpf
from tests.support.netns import Namespace
from tests.support.rig import wait_until
from tests.support.sockets import Connection, named_process

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.bpf

FLOWS = ("--flows", "lbl*", "--backend", "127.0.0.1:9=web")


def capabilities(task: Path) -> set[str]:
    """All that a thread has or can have, by any of the kernel's sets of it."""
    status = (task / "status").read_text()
    masks = re.findall(r"^Cap(?:Inh|Prm|Eff|Amb):\s*(\w+)$", status, re.MULTILINE)
    assert len(masks) == 4
    assert "NoNewPrivs:\t1" in status
    names = {bit: name for name, bit in BITS.items()}
    bits = {bit for bit in range(64) for mask in masks if int(mask, 16) >> bit & 1}
    return {names.get(bit, str(bit)) for bit in bits}


@contextmanager
def serving(*arguments: str, only: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """The command, once it has told where its metrics are; `only` with these capabilities."""
    command = [sys.executable, "-m", "lblatency", "serve", "--listen", "127.0.0.1:0", *arguments]
    if only:
        few = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in only)])
        command = ["setpriv", f"--bounding-set={few}", "--inh-caps=-all", *command]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert "metrics at" in line, line
            yield process
        finally:
            process.terminate()


def wait_for(process: subprocess.Popen[str], kept: set[str]) -> None:
    """Wait until all threads have exactly these."""
    tasks = Path(f"/proc/{process.pid}/task")

    def found() -> list[set[str]]:
        return [capabilities(task) for task in tasks.iterdir()]

    def is_done() -> bool:
        try:
            return all(each == kept for each in found())
        except AssertionError:  # no_new_privs is still to come
            return False

    wait_until(is_done, lambda: f"{kept} only, not {found()}")
    assert {"lbl-drain", "lbl-expiry"} <= {
        (task / "comm").read_text().strip() for task in tasks.iterdir()
    }


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (("--sockets",), set()),
        (FLOWS, {"CAP_NET_ADMIN"}),
        (("--haproxy", "/nowhere/admin.sock"), {"CAP_DAC_OVERRIDE"}),
        (("--nginx",), {"CAP_DAC_OVERRIDE", "CAP_NET_BIND_SERVICE", "CAP_CHOWN"}),
        (("--envoy", "http://127.0.0.1:9"), set()),
    ],
)
def test_it_keeps_what_its_sources_go_on_to_need(
    arguments: tuple[str, ...], kept: set[str]
) -> None:
    """In all threads, also those that ran before: no more than the source says."""
    with closing(Namespace()) as namespace, namespace.inside(), serving(*arguments) as process:
        wait_for(process, kept)


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (("--sockets",), set()),
        (FLOWS, {"CAP_NET_ADMIN"}),
        (("--haproxy", "/nowhere/admin.sock"), {"CAP_DAC_OVERRIDE"}),
    ],
)
def test_tail_keeps_no_more_either(arguments: tuple[str, ...], kept: set[str]) -> None:
    """Its lines begin when it has given up the rest."""
    command = [sys.executable, "-m", "lblatency", "tail", *arguments]
    with (
        closing(Namespace()) as namespace,
        namespace.inside(),
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("TIME ")
            for task in Path(f"/proc/{process.pid}/task").iterdir():
                assert capabilities(task) == kept
        finally:
            process.terminate()


def test_a_file_that_may_change_keeps_what_any_source_needs(tmp_path: Path) -> None:
    """No more than that, either: it cannot load a module of the kernel, say."""
    path = tmp_path / "f.toml"
    path.write_text('listen = "127.0.0.1:0"\n[[source]]\nsockets = true\n')
    command = [sys.executable, "-m", "lblatency", "serve", "--config", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "metrics at" in process.stderr.readline()
            assert "takes connections of haproxy" in process.stderr.readline()
            wait_for(process, set(BITS))
            path.write_text(
                'listen = "127.0.0.1:0"\n[[source]]\nflows = "lo"\nbackend = "192.0.2.1:9=x"\n'
            )
            assert "is read again" in process.stderr.readline()
        finally:
            process.terminate()


def test_interfaces_are_followed_with_what_is_kept() -> None:
    """One that comes later is attached to, by an agent that began with what Flows says it needs."""
    needed = ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN")
    with (
        closing(Namespace()) as namespace,
        namespace.inside(),
        serving(*FLOWS, only=needed) as process,
    ):
        wait_for(process, {"CAP_NET_ADMIN"})
        for name in ("lbl0", "lbl1"):
            subprocess.run(
                ["ip", "link", "add", name, "type", "veth", "peer", f"{name}p"], check=True
            )
            index = socket.if_nametoindex(name)
            wait_until(partial(bpf.programs_at, index, bpf.TCX_INGRESS), f"programs at {name}")


def alone(code: str) -> str:
    """What a process says that gives up its capabilities."""
    code = f"import os, time; from lblatency._privileges import keep_only; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_programs_that_it_runs_get_no_more() -> None:
    """Although its user is root, to whom a program's start would give all of them back."""
    said = alone("keep_only(['CAP_CHOWN']); os.system('grep CapEff /proc/self/status')")
    assert said.split() == ["CapEff:", f"{1 << BITS['CAP_CHOWN']:016x}"]


@pytest.mark.skipif(shutil.which("nginx") is None, reason="there is no nginx")
def test_nginx_tells_its_configuration_with_what_its_reader_keeps() -> None:
    """It tries to bind, to log and to own its directories."""
    said = alone(
        "from lblatency.names import Nginx; keep_only(Nginx.capabilities);"
        "print(Nginx().read(time.monotonic() + 20))"
    )
    assert said.startswith("[")


# What Python loads late, it must have before: its files may be root's.
UNPRIVILEGED = """
import ctypes, encodings.idna, os, sys
from lblatency import cli
import importlib.resources.readers, importlib.readers
import lblatency.exporter._live, lblatency.exporter.routes, lblatency.exporter.server
import http.server, socketserver, wsgiref.simple_server
import prometheus_client.exposition, prometheus_client.openmetrics.exposition
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(12345)
ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE, as after a login: /proc/self is its own
sys.exit(cli.main(sys.argv[2:]))
"""


def test_check_tells_an_ordinary_user_what_each_source_lacks() -> None:
    """Rings and conntrack maps may be read by path, though /sys/fs/bpf itself is root's."""
    command = [sys.executable, "-c", UNPRIVILEGED, "12345", "check", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    findings = {each["name"]: each["found"] for each in json.loads(done.stdout)["findings"]}
    assert {name: found for name, found in findings.items() if name.startswith("--")} == {
        "--ring": "works",
        "--sockets": "no CAP_BPF, no CAP_PERFMON",
        "--flows": "no CAP_BPF, no CAP_PERFMON, no CAP_NET_ADMIN",
        "--scan": "works",
    }


@pytest.mark.parametrize("source", ["sockets", "ring"])
def test_an_ordinary_user_serves_what_root_has_pinned(bpffs: bpf.Bpffs, source: str) -> None:
    """A member of the directory's group, without any capability, by either option."""
    group = 23456
    shared = Path(bpffs.path) / "shared"
    shared.mkdir()
    os.chown(shared, -1, group)
    shared.chmod(0o770)
    Path(bpffs.path).chmod(0o755)
    with closing(Namespace()) as namespace, namespace.inside(), named_process() as name:
        Sockets(comms=[f"{name}=web"], pin=shared, keep_pins=True).close()
        arguments = {
            "sockets": ["--sockets", "--pin", str(shared), "--comm", f"{name}=web"],
            "ring": [
                "--ring", f"{shared}/v{lib.LBL_PIN_LAYOUT}/sockets/lbl_events",
                "--proxy", "none", "--proxy-id", "1=web",
            ],
        }[source]  # fmt: skip
        command = [sys.executable, "-c", UNPRIVILEGED, str(group), "serve", *arguments]
        with subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0"],
            pass_fds=[bpffs.fd],
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stderr is not None
                said = process.stderr.readline()
                found = re.search(r"metrics at (\S+)", said)
                assert found is not None, said + process.stderr.read()
                wait_for(process, set())
                made = Connection()
                made.exchange()
                made.close()
                series = (
                    r'lb_backend_latency_seconds_count{proxy_name="web",target_ip="127.0.0.1",'
                    rf'target_port="{made.target.rpartition(":")[2]}"}} 1.0'
                )

                def scrape() -> str:
                    with urllib.request.urlopen(found[1], timeout=20) as reply:
                        return str(reply.read().decode())

                wait_until(lambda: series in scrape(), "the connection")
                assert "lblatency_events_produced_total" in scrape()
            finally:
                process.terminate()
        assert process.returncode == 0
    left = {path.name for path in shared.glob("*/sockets/*")}
    assert ("lbl_events" in left) == (source == "ring"), "who ends the source takes its pins away"
