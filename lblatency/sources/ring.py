"""The ring buffers of a load balancer that reports its own connections."""

from __future__ import annotations

from collections.abc import Sequence

from .._ffi import check, lib
from .._maps import MapSpec
from ..stats import MemoryRing, create_event_stream
from .base import Option, Source

__all__ = ["Ring"]

_MAP = "PATH|ID|NAME"


class Ring(Source):
    """One or more ring buffers of a balancer. See `stats.create_event_stream()`."""

    options = (
        Option("ring", _MAP, "a balancer's ring buffer; may be given again", is_list=True),
        Option("counters", _MAP, "its lbl_counters map (default: looked for)"),
    )

    def __init__(
        self, ring: MapSpec | MemoryRing | Sequence[MapSpec], *, counters: MapSpec | None = None
    ) -> None:
        self.stream = create_event_stream(ring, counters=counters)

    @classmethod
    def try_out(cls) -> None:
        """Ask the kernel for a pin that does not exist."""
        check(lib.lbl_probe(lib.LBL_PROBE_PINS), "opening pins")
