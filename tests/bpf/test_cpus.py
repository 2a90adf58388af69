"""The number of CPUs does not come from a file that a container hides or fakes."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import bpf
from tests.support.conntrack import PER_CPU, Table

pytestmark = pytest.mark.bpf

ROOT = Path(__file__).resolve().parents[2]
POSSIBLE = "/sys/devices/system/cpu/possible"
# Run under the faked file, with the fds of a ring, its counters and conntrack maps.
READ_ALL = """
import struct, sys
import lblatency
from tests.support import bpf
cpus, ring, counters, *tables = map(int, sys.argv[1:])
for fd in tables:
    conntrack = lblatency.conntrack.ConntrackMap(fd)
    for _ in range(200):
        for entry in (conntrack.get("192.0.2.7:40000", "10.0.0.1:80"), *conntrack):
            assert (entry.created_ns, entry.packets_rev) == (5, 2 * cpus), entry
stream = lblatency.stats.create_event_stream(ring, counters=counters)
bpf.update(counters, bytes(4), struct.pack("=QQ", 10, 4) * cpus)
for _ in range(200):
    assert stream.stats().dropped == 2 * cpus, stream.stats()
print("right")
"""


@pytest.mark.parametrize("told", ["", "0", "0-63", "0-4095", "nonsense"])
def test_a_faked_file_changes_nothing(tmp_path: Path, told: str) -> None:
    """Look-ups and listings of per-CPU maps are right whatever the file says."""
    fake = tmp_path / "possible"
    fake.write_text(told)
    cpus = bpf.possible_cpus()
    tables = [Table(kind, unified) for kind in sorted(PER_CPU) for unified in (False, True)]
    for table in tables:
        table.put(per_cpu=[(5 + i, 7, 1, 2, 3, 4) for i in range(cpus)])
    counters = bpf.create_map(bpf.PERCPU_ARRAY, 4, 16, 1)
    bpf.update(counters, bytes(4), struct.pack("=QQ", 5, 2) * cpus)
    ring = bpf.create_map(bpf.RINGBUF, 0, 0, 4096)
    fds = [ring, counters, *(table.fd for table in tables)]
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" "$2" && shift 2 && exec "$@"', "sh",
         fake, POSSIBLE, sys.executable, "-c", READ_ALL, str(cpus), *map(str, fds)],
        capture_output=True, text=True, check=False, pass_fds=fds, cwd=ROOT,
    )  # fmt: skip
    for fd in fds:
        os.close(fd)
    assert (ran.stdout, ran.returncode) == ("right\n", 0), ran.stderr
