"""The cffi builder. It cuts its declarations out of the C headers, so they cannot differ."""

import os
import re
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
# The whole C interface that Python sees, from the ground floor up.
HEADERS = [
    "bpf/include/lbl_abi.h",
    "bpf/lib/idle.h",
    "bpf/lib/networks.h",
    "bpf/flows.h",
    "bpf/sockets.h",
    "csrc/kernel/maps.h",
    "csrc/kernel/members.h",
    "csrc/kernel/users.h",
    "csrc/kernel/probe.h",
    "csrc/kernel/pins.h",
    "csrc/kernel/netns.h",
    "csrc/kernel/privileges.h",
    "csrc/kernel/log.h",
    "csrc/event/event.h",
    "csrc/hist/buckets.h",
    "csrc/hist/read.h",
    "csrc/stream/claim.h",
    "csrc/stream/stream.h",
    "csrc/stream/open.h",
    "csrc/stream/ledger.h",
    "csrc/stream/queue.h",
    "csrc/record/metric.h",
    "csrc/record/shard.h",
    "csrc/source/layout.h",
    "csrc/source/conntrack.h",
    "csrc/source/ages.h",
    "csrc/source/scan.h",
    "csrc/source/networks.h",
    "csrc/source/flows.h",
    "csrc/source/sockets.h",
    "csrc/track/tracker.h",
    "csrc/track/removal.h",
    "csrc/track/expiry.h",
    "csrc/track/backend.h",
    "csrc/track/snapshot.h",
    "csrc/track/columns.h",
    "csrc/track/history.h",
    "csrc/track/window.h",
    "csrc/render/families.h",
    "csrc/render/given.h",
    "csrc/render/page.h",
    "csrc/render/otlp.h",
    "csrc/render/render.h",
    "csrc/demo/nat_lb.h",
]
INCLUDE_DIRS = [str(ROOT / "csrc"), str(ROOT / "bpf" / "include")]
NOT_OURS = {"tests", "python"}  # the C tests, and the other extension
SOURCES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "csrc").glob("*/*.c")
    if path.parent.name not in NOT_OURS
)
DEPENDS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("csrc/*/*.h", "bpf/**/*.h", "bpf/*.bpf.c")
    for path in ROOT.glob(pattern)
)
CFLAGS = [
    "-std=gnu11",
    "-O2",
    "-D_GNU_SOURCE",
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Werror",
]
KERNEL_TYPES = """
typedef uint8_t __u8; typedef uint16_t __u16; typedef uint32_t __u32; typedef uint64_t __u64;
"""


def declarations(header: Path) -> str:
    """The part of a header between the cdef marks, which cffi can read as it stands."""
    found = re.search(r"/\* cdef: begin \*/(.*)/\* cdef: end \*/", header.read_text(), re.DOTALL)
    if found is None:
        raise SystemExit(f"{header}: no cdef marks")
    return found.group(1)


ffibuilder = FFI()
ffibuilder.cdef(KERNEL_TYPES + "".join(declarations(ROOT / header) for header in HEADERS))
ffibuilder.set_source(
    "lblatency._native",
    "".join(f'#include "{ROOT / header}"\n' for header in HEADERS),
    sources=SOURCES,
    depends=DEPENDS,
    include_dirs=INCLUDE_DIRS,
    libraries=["bpf"],
    extra_compile_args=[*CFLAGS, *os.environ.get("LBLATENCY_CFLAGS", "").split()],
    extra_link_args=os.environ.get("LBLATENCY_LDFLAGS", "").split(),
)
