"""What `lblatency serve` is told, by flags or by a file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..buckets import LIFETIME, METRICS, buckets_of
from ..exporter.listen import Address
from ..exporter.otlp import INTERVAL_S, Push, endpoint
from ..sources import Option
from ..tracker import LatencyTracker
from ._options import listen
from ._sources import Planned, PlannedReader

__all__ = ["DEFAULT_ADDRESS", "SERVE_OPTIONS", "SettingError", "Settings", "Web"]

_PORT = 10435
DEFAULT_ADDRESS = Address("127.0.0.1", _PORT)
# What a scrape does in 5 s, half of Prometheus' time-out: two cores that others used as well took
# 0.5 to 1.1 s for 2.4 million, compressed. They are half of what a page may be, 2**30 bytes.
_MAX_SERIES = 5_000_000
_EXPIRE_AFTER_S = 86_400.0  # addresses come and go, and an exporter runs for years


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise ValueError(f"{text!r} is not a number of seconds")
    return seconds


def _interval(text: str) -> float:
    if not 1 <= (seconds := _seconds(text)) < math.inf:
        raise ValueError(f"{text} is not a number of seconds from 1 on")
    return seconds


def _count(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def _series(text: str) -> int:
    if (count := _count(text)) < 0:
        raise ValueError(f"{text} is not a number of series")
    return count


def _metrics(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _buckets(text: str) -> tuple[str, tuple[float, ...]]:
    metric, equals, bounds = text.rpartition("=")
    try:
        return metric if equals else LIFETIME, tuple(map(float, bounds.split(",")))
    except ValueError:
        raise ValueError(
            f"{text!r} is not of the form SECONDS,SECONDS,... or METRIC=SECONDS,SECONDS,..."
        ) from None


SERVE_OPTIONS = (
    Option(
        "conntrack",
        "PATH|ID|NAME",
        "the balancer's conntrack map, if events do not tell creation times",
    ),
    Option(
        "metrics",
        "LIST",
        f"latencies to record, of {','.join(METRICS)} (default {LIFETIME})",
        is_list=True,
        parse=_metrics,
    ),
    Option(
        "buckets",
        "[METRIC=]LIST",
        f"upper bounds in seconds, with commas, of a latency (default: of {LIFETIME}); may be"
        " given again",
        is_list=True,
        parse=_buckets,
    ),
    Option(
        "max_backends",
        "N",
        "how many backends have series of their own; the others share `overflow`",
        is_number=True,
        parse=_count,
    ),
    Option(
        "wait",
        "SECONDS",
        "how long to wait for a pinned map that is not there yet (default: for ever)",
        is_number=True,
        parse=_seconds,
    ),
    listen(_PORT),
    Option(
        "web.listen_address",
        "[ADDR]:PORT",
        "the same, as Prometheus' exporters call it",
        is_list=True,
        parse=Address.parse,
    ),
    Option(
        "web.config.file",
        "FILE",
        "TLS, users and headers, in the form of Prometheus' exporter-toolkit; read again when it"
        " or a certificate changes",
    ),
    Option(
        "web.max_series",
        "N",
        "the most series of backends on a page; those that would have more share `overflow` there"
        f" (default {_MAX_SERIES})",
        is_number=True,
        parse=_series,
    ),
    Option(
        "otlp",
        "URL",
        "push all of it by OTLP over HTTP, too; without a path in URL to /v1/metrics; without URL"
        " to OTEL_EXPORTER_OTLP_ENDPOINT (default http://localhost:4318)",
        if_bare="",
        parse=endpoint,
    ),
    Option(
        "otlp_interval",
        "SECONDS",
        f"between two pushes (default {INTERVAL_S:.0f})",
        is_number=True,
        parse=_interval,
    ),
)


class SettingError(ValueError):
    """An option that is well-formed and cannot be; `option` is its name."""

    def __init__(self, option: str, why: str) -> None:
        super().__init__(why)
        self.option = option


@dataclass(frozen=True)
class Web:
    """What the HTTP server is told.

    Attributes:
        listen: addresses; if there are none, `DEFAULT_ADDRESS`.
        config_file: of TLS, users and the like.
        max_series: of backends, on one page.
    """

    listen: tuple[Address, ...] = ()
    config_file: str | None = None
    max_series: int = _MAX_SERIES


@dataclass(frozen=True)
class Settings:
    """All that `serve` can be told.

    Attributes:
        sources: to open.
        readers: where names of servers are.
        conntrack: names the balancer's map; None if events tell creation times.
        wait_s: how long to wait for pins.
        web: where /metrics is, and who may read it.
        push: where to push, too; None for nowhere.
        recording: the arguments of the tracker.
    """

    sources: tuple[Planned, ...]
    readers: tuple[PlannedReader, ...]
    conntrack: str | None
    wait_s: float
    web: Web
    push: Push | None
    recording: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        table: Mapping[str, Any],
        sources: Sequence[Planned],
        readers: Sequence[PlannedReader],
    ) -> Settings:
        """Settings from values by the options' names.

        Raises:
            SettingError: one of them cannot be.
        """
        metrics = tuple(each for some in table.get("metrics", [(LIFETIME,)]) for each in some)
        _try("metrics", lambda: buckets_of(metrics, None))
        buckets = dict(table.get("buckets", ()))
        _try("buckets", lambda: buckets_of(metrics, buckets))
        recording = {"metrics": metrics, "buckets": buckets, "expire_after": _EXPIRE_AFTER_S}
        if (most := table.get("max_backends")) is not None:
            recording["max_backends"] = most
            _try("max_backends", lambda: LatencyTracker(max_backends=most))
        return cls(
            sources=tuple(dict.fromkeys(sources)),
            readers=tuple(dict.fromkeys(readers)),
            conntrack=table.get("conntrack"),
            wait_s=table.get("wait", math.inf),
            web=Web(
                listen=(*table.get("listen", ()), *table.get("web.listen_address", ())),
                config_file=table.get("web.config.file"),
                max_series=table.get("web.max_series", _MAX_SERIES),
            ),
            push=_push(table),
            recording=recording,
        )


def _push(table: Mapping[str, Any]) -> Push | None:
    url, interval_s = table.get("otlp"), table.get("otlp_interval")
    if url is None:
        if interval_s is not None:
            raise SettingError("otlp_interval", "otlp-interval is of no use without otlp")
        return None
    try:
        return Push.of(url, interval_s or INTERVAL_S, os.environ)
    except ValueError as error:
        raise SettingError("otlp", str(error)) from None


def _try(option: str, make: Callable[[], object]) -> None:
    try:
        make()
    except ValueError as error:
        raise SettingError(option, str(error)) from None
