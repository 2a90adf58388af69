"""`lblatency serve` beside a running balancer."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lblatency.demo.balancer import NatBalancer
from tests.support import bpf
from tests.support.balancer import Flow, target
from tests.support.bpf import Bpffs
from tests.support.netns import VIP
from tests.support.packets import ACK, FIN
from tests.support.rig import wait_until

pytestmark = pytest.mark.bpf


@pytest.fixture
def balancer() -> Iterator[NatBalancer]:
    """A balancer with a listener and a backend per IP version, and no reader of the ring."""
    with NatBalancer() as made:
        for version in (4, 6):
            made.add_listener(version, VIP[version], 80, "tcp", [(version, target(version), 1)])
        yield made


def scrape(url: str) -> dict[tuple[str, str, str], float]:
    """A mapping from (sample, proxy, target ip) to value."""
    with urllib.request.urlopen(url, timeout=5) as reply:
        text = reply.read().decode()
    return {
        (sample.name, sample.labels.get("proxy_name", ""), sample.labels.get("target_ip", "")):
            sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }  # fmt: skip


def connect_and_close(flow: Flow) -> None:
    """Run a whole connection of hand-made packets."""
    flow.handshake()
    flow.sends(ACK | FIN, seq=1001, ack=5001)
    flow.gets(ACK | FIN, seq=5001, ack=1002)
    flow.sends(ACK, seq=1002, ack=5002)


def serve(fd: int, *more: str) -> subprocess.Popen[str]:
    """Start the command on the pinned maps of the bpffs behind `fd`."""
    ring = f"/proc/self/fd/{fd}/lb/lbl_events"
    command = [sys.executable, "-m", "lblatency", "serve", "--ring", ring, *more]
    return subprocess.Popen(command, pass_fds=[fd], stderr=subprocess.PIPE, text=True)


def test_a_pinned_ring_is_served(balancer: NatBalancer, bpffs: Bpffs) -> None:
    """It exports the connections by proxy name, finds the counters, and exits on SIGTERM."""
    fd, path = bpffs
    balancer.pin(f"{path}/lb")
    options = ["--proxy", "web", "--proxy-id", "6=api", "--listen", "127.0.0.1:0"]
    with serve(fd, *options) as server:
        try:
            assert server.stderr is not None
            found = re.search(r"metrics at (\S+)", server.stderr.readline())
            assert found is not None
            for version in (4, 6):
                connect_and_close(Flow(balancer, version))
            count = "lb_backend_latency_seconds_count"
            v4, v6 = (target(version).rpartition(":")[0].strip("[]") for version in (4, 6))
            wait_until(lambda: scrape(found[1]).get((count, "api", v6)), "the second connection")
            assert scrape(found[1])[count, "proxy-4", v4] == 1
            with serve(fd, *options) as second:
                assert second.wait(10) == 1
                assert second.stderr is not None
                refused = f"process {server.pid} consumes it already; stop that process"
                assert refused in second.stderr.read()
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0


def test_a_ring_without_counters_is_told_once(bpffs: Bpffs) -> None:
    """It says what is missing and how to name it, serves all else, and exports that it is so."""
    fd, path = bpffs
    ring = bpf.create_map(bpf.RINGBUF, 0, 0, 4096, "no_counters")
    os.mkdir(f"{path}/lb")
    bpf.pin(ring, f"{path}/lb/lbl_events")
    os.close(ring)
    with serve(fd, "--proxy", "web", "--listen", "127.0.0.1:0") as server:
        try:
            assert server.stderr is not None
            found = re.search(r"metrics at (\S+)", server.stderr.readline())
            assert found is not None
            assert "no readable lbl_counters map" in server.stderr.readline()
            values = scrape(found[1])
            assert values["lblatency_counters_attached", "", ""] == 0
            assert values["lblatency_ring_events", "", ""] == 0
            assert ("lblatency_events_produced_total", "", "") not in values
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
        assert server.stderr.read() == ""


def test_scarce_address_space_is_told(balancer: NatBalancer, bpffs: Bpffs) -> None:
    """Without room for its backends, it says in one line what fits, and serves nothing."""
    fd, path = bpffs
    balancer.pin(f"{path}/lb")
    command = [
        "/bin/sh", "-c", 'ulimit -v 262144; exec "$@"', "sh", sys.executable, "-m", "lblatency",
        "serve", "--ring", f"/proc/self/fd/{fd}/lb/lbl_events", "--proxy", "web",
        "--listen", "127.0.0.1:0",
    ]  # fmt: skip
    done = subprocess.run(command, pass_fds=[fd], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        r"lblatency: no address space for 100000 backends per ring \(\d+ \* \d+ MiB\): the limit"
        r" RLIMIT_AS leaves \d+ MiB \(`ulimit -v` is 262144\); max_backends=\d+ fits; raise the"
        r" limit\n",
        done.stderr,
    ), done.stderr


def test_latencies_bounds_and_limits_are_options(balancer: NatBalancer, bpffs: Bpffs) -> None:
    """Two latencies with bounds of their own; the second of two backends is in `overflow`."""
    fd, path = bpffs
    balancer.pin(f"{path}/lb")
    options = ["--proxy", "web", "--listen", ":0", "--metrics", "lifetime,connect",
               "--buckets", "1,60", "--buckets", "connect=0.5", "--max-backends", "1"]  # fmt: skip
    with serve(fd, *options) as server:
        try:
            assert server.stderr is not None
            found = re.search(r"metrics at http://\[::\]:(\d+)", server.stderr.readline())
            assert found is not None
            for version in (4, 6):
                connect_and_close(Flow(balancer, version))
            url = f"http://127.0.0.1:{found[1]}/metrics"
            count = "lb_backend_latency_seconds_count"
            second = (count, "overflow", "overflow")
            wait_until(lambda: scrape(url).get(second), "the second connection")
            with urllib.request.urlopen(url, timeout=20) as reply:
                text = reply.read().decode()
            for metric, bounds in (("latency", "1.0 60.0 +Inf"), ("connect", "0.5 +Inf")):
                pattern = rf'lb_backend_{metric}_seconds_bucket{{.*le="([^"]+)"'
                series = re.findall(pattern, text)
                assert series == bounds.split() * 2
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0


def complaint(*arguments: str, fds: tuple[int, ...] = (), without: str = "") -> str:
    """The one line that a `serve` says that fails; `without` capabilities, for setpriv."""
    command = [sys.executable, "-m", "lblatency", "serve", "--proxy", "web", "--wait", "0"]
    command += arguments
    if without:
        command = ["setpriv", f"--bounding-set={without}", f"--inh-caps={without}", *command]
    ran = subprocess.run(
        command, pass_fds=fds, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr.startswith("lblatency: ")
    assert ran.stderr.count("\n") == 1, ran.stderr
    return ran.stderr


def test_each_mistake_about_maps_is_one_line(balancer: NatBalancer, bpffs: Bpffs) -> None:
    """No such pin, no ring, a wrong counters map, no such id or name, a name that several have."""
    fd, path = bpffs
    balancer.pin(f"{path}/lb")
    at = f"{path}/lb"
    assert "no BPF map is pinned at" in complaint(
        "--ring", f"{path}/none", "--wait", "0", fds=(fd,)
    )
    assert "is no ring buffer" in complaint("--ring", f"{at}/lbl_conntrack", fds=(fd,))
    assert "is no ring buffer" in complaint("--ring", f"{at}/lbl_counters", fds=(fd,))
    wrong = ["--ring", f"{at}/lbl_events", "--counters", f"{at}/lbl_conntrack"]
    assert "counters map is not one" in complaint(*wrong, fds=(fd,))
    wrong = ["--ring", f"{at}/lbl_events", "--conntrack", f"{at}/lbl_events"]
    assert "onntrack" in complaint(*wrong, fds=(fd,))
    assert "id 987654321: No such file" in complaint("--ring", "987654321")
    assert "called 'no such name': No such file" in complaint("--ring", "no such name")
    name = f"lbl_s{os.getpid()}"
    fds = [bpf.create_map(bpf.RINGBUF, 0, 0, 4096, name) for _ in range(2)]
    said = complaint("--ring", name)
    assert all(f"{bpf.map_id(each)} (ringbuf, used by no program)" in said for each in fds)
    for each in fds:
        os.close(each)


def test_each_mistake_about_addresses_is_one_line(balancer: NatBalancer, bpffs: Bpffs) -> None:
    """A port that is taken, an address of another machine, a name that nobody has."""
    fd, path = bpffs
    balancer.pin(f"{path}/lb")
    ring = ["--ring", f"{path}/lb/lbl_events", "--listen"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = complaint(*ring, address, fds=(fd,))
        assert f"cannot listen on {address}: Address already in use" in said
    assert "cannot listen on 192.0.2.1:1: " in complaint(*ring, "192.0.2.1:1", fds=(fd,))
    assert "cannot listen on no.invalid:1: " in complaint(*ring, "no.invalid:1", fds=(fd,))
    assert "cannot listen on " in complaint(*ring, f"{'x' * 70}.invalid:1", fds=(fd,))


def test_what_an_ordinary_user_may_not_is_one_line(balancer: NatBalancer, bpffs: Bpffs) -> None:
    """A pin without access, and ids and names: the error says what is needed."""
    fd, path = bpffs
    balancer.pin(f"{path}/lb")
    os.chmod(f"{path}/lb/lbl_events", 0)
    said = complaint("--ring", f"{path}/lb/lbl_events", fds=(fd,), without="-all")
    assert "needs read and write access to the pinned map" in said
    for spec in ("1", "lbl_events"):
        assert "needs CAP_BPF" in complaint("--ring", spec, without="-all")


def test_a_ring_that_comes_and_goes_is_told_once(bpffs: Bpffs) -> None:
    """Not there yet, there, gone, and there again: a line each, and the metrics say so."""
    fd, path = bpffs
    os.mkdir(f"{path}/lb")

    def pin(size: int) -> None:
        ring = bpf.create_map(bpf.RINGBUF, 0, 0, size, "no_counters")
        bpf.pin(ring, f"{path}/lb/lbl_events")
        os.close(ring)

    with serve(fd, "--proxy", "web", "--listen", "127.0.0.1:0") as server:
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            assert f"no BPF map is pinned at {path_in(server)}" in line
            assert line.endswith("; waiting for it\n")
            found = re.search(r"metrics at (\S+)", server.stderr.readline())
            assert found is not None

            def attached(expected: int, size: int) -> bool:
                values = scrape(found[1])
                return (
                    values["lblatency_stream_attached", "", ""] == expected
                    and values["lblatency_ring_size_bytes", "", ""] == size
                )

            assert attached(0, 0)
            pin(4096)
            assert "no readable lbl_counters map" in server.stderr.readline()
            wait_until(lambda: attached(1, 4096), "the ring")
            os.unlink(f"{path}/lb/lbl_events")
            assert "waiting for a ring there" in server.stderr.readline()
            assert attached(0, 4096)
            pin(8192)
            assert "is drained again" in server.stderr.readline()
            assert attached(1, 8192)
            assert scrape(found[1])["lblatency_ring_replaced_total", "", ""] == 1
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
        assert server.stderr.read() == ""


def path_in(server: subprocess.Popen[str]) -> str:
    """The ring's path, as the command was given it."""
    assert isinstance(server.args, list)
    return str(server.args[server.args.index("--ring") + 1])


def test_waiting_ends(bpffs: Bpffs) -> None:
    """After --wait seconds it is an error; a signal ends it before, without one."""
    for wait, code in (("0", 1), ("0.2", 1), ("1e9", 0)):
        options = ["--proxy", "web", "--listen", "127.0.0.1:0", "--wait", wait]
        with serve(bpffs.fd, *options) as server:
            assert server.stderr is not None
            assert "no BPF map is pinned" in server.stderr.readline()
            if wait != "0":
                assert "metrics at" in server.stderr.readline()
            if not code:
                server.send_signal(signal.SIGTERM)
            assert server.wait(10) == code
            assert ("no BPF map is pinned" in server.stderr.read()) == (wait == "0.2")


def test_a_ring_whose_names_change_in_the_file_goes_on(
    balancer: NatBalancer, bpffs: Bpffs, tmp_path: Path
) -> None:
    """The file is read again, and the ring is followed under other names, without a lost event."""
    fd, path = bpffs
    balancer.pin(f"{path}/lb")
    config = tmp_path / "serve.toml"

    def write(names: str) -> None:
        ring = f"/proc/self/fd/{fd}/lb/lbl_events"
        config.write_text(
            f'listen = "127.0.0.1:0"\n[[source]]\nring = "{ring}"\nproxy = "web"\n{names}'
        )

    write('proxy-id = "4=before"\n')
    command = [sys.executable, "-m", "lblatency", "serve", "--config", str(config)]
    with subprocess.Popen(command, pass_fds=[fd], stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            found = re.search(r"metrics at (\S+)", server.stderr.readline())
            assert found is not None
            count = "lb_backend_latency_seconds_count"
            ip = target(4).rpartition(":")[0]
            connect_and_close(Flow(balancer, 4))
            wait_until(lambda: scrape(found[1]).get((count, "before", ip)), "the connection")
            write('proxy-id = "4=after"\n')
            server.send_signal(signal.SIGHUP)
            assert "is read again" in server.stderr.readline()
            connect_and_close(Flow(balancer, 4, port=40_001))
            wait_until(lambda: scrape(found[1]).get((count, "after", ip)), "the second connection")
            values = scrape(found[1])
            assert values[count, "before", ip] == 1
            assert values[count, "after", ip] == 1
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
        assert server.stderr.read() == ""
