"""The metric families, read from C's table, which is the only place that names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._ffi import ffi, lib
from .buckets import METRICS

__all__ = ["FAMILIES", "Family", "Sample"]

_TYPES = {
    lib.LBL_COUNTER: "counter",
    lib.LBL_GAUGE: "gauge",
    lib.LBL_HISTOGRAM: "histogram",
    lib.LBL_GAUGE_HISTOGRAM: "gaugehistogram",
    lib.LBL_INFO: "info",
}


@dataclass(frozen=True)
class Sample:
    """One value of a family.

    Attributes:
        label_value: value of the family's own label; None if the family has none.
        of_producers: whether the value is known only if the producers count.
    """

    label_value: str | None
    of_producers: bool
    _ptr: Any

    def value(self, of: Any) -> int:
        """The sample's value in `of`, the C struct of the family's scope."""
        return int(lib.lbl_sample_value(self._ptr, of))

    def values(self, snapshot: Any, ret: Any) -> None:
        """Write its value in each row of a C `struct lbl_snapshot` to an array of `uint64_t`."""
        lib.lbl_sample_values(self._ptr, snapshot, ret)


@dataclass(frozen=True)
class Family:
    """A metric family.

    Attributes:
        name: without `_total` and `_info`.
        help: one sentence.
        unit: "seconds" or "bytes", which the name ends with; "" for none.
        type: "counter", "gauge", "histogram", "gaugehistogram" or "info".
        metric: of a histogram, the latency.
        is_per_backend: whether each backend has these samples; otherwise, the tracker has them.
        is_of_sources: whether the sources know the samples.
        is_of_scans: whether sources that scan know the samples.
        is_of_names: whether the samples come from the names of servers, not from a tracker.
        is_of_pages: whether only a page that has a limit has a sample.
        labels: all label names.
        is_sparse: whether samples that are 0 are left out.
        in_copy: whether a tracker that a child of `fork()` copied has these samples, too.
        samples: empty for histograms, and if it is of names, of sources or of scans.
    """

    name: str
    help: str
    unit: str
    type: str
    metric: str
    is_per_backend: bool
    is_of_sources: bool
    is_of_scans: bool
    is_of_names: bool
    is_of_pages: bool
    labels: tuple[str, ...]
    is_sparse: bool
    in_copy: bool
    samples: tuple[Sample, ...]


def _text(pointer: Any) -> str:
    return bytes(ffi.string(pointer)).decode()


def _optional(pointer: Any) -> str | None:
    return _text(pointer) if pointer else None


def _scope_labels(scope: int) -> tuple[str, ...]:
    names = ffi.new("const char *const **")
    return tuple(_text(names[0][i]) for i in range(lib.lbl_scope_labels(scope, names)))


def _family(pointer: Any) -> Family:
    raw = pointer[0]
    own = _optional(raw.label)
    return Family(
        name=_text(raw.name),
        help=_text(raw.help),
        unit=_text(lib.lbl_family_unit(pointer)),
        type=_TYPES[raw.type],
        metric=METRICS[raw.metric],
        is_per_backend=raw.scope in (lib.LBL_PER_BACKEND, lib.LBL_PER_OPEN, lib.LBL_PER_NAME),
        is_of_scans=raw.scope in (lib.LBL_PER_OPEN, lib.LBL_PER_SCAN),
        is_of_names=raw.scope in (lib.LBL_PER_NAME, lib.LBL_PER_READER),
        is_of_pages=raw.scope == lib.LBL_PER_PAGE,
        is_of_sources=raw.scope == lib.LBL_PER_SOURCE,
        labels=_scope_labels(raw.scope) + ((own,) if own else ()),
        is_sparse=raw.is_sparse,
        in_copy=raw.in_copy,
        samples=tuple(
            Sample(
                label_value=_optional(raw.samples[i].label_value),
                of_producers=raw.samples[i].of_producers,
                _ptr=raw.samples + i,
            )
            for i in range(raw.n_samples)
        ),
    )


def _read_all() -> tuple[Family, ...]:
    n = ffi.new("size_t *")
    first = lib.lbl_families(n)
    return tuple(_family(first + i) for i in range(n[0]))


FAMILIES = _read_all()
