"""An exporter of the page whose documents, in the form of docs/api-v1.md, are made up."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from aiohttp import web

from lblatency.exporter import pages
from tests.support.served_api import serving

__all__ = ["HOSTILE", "FakeExporter"]

Json = dict[str, Any]

METRICS = ("lifetime", "connect", "first_byte")
NOW = 1764079198.0
INTERVAL_S = 5.0
_SCALE = {"lifetime": 1.0, "connect": 0.02, "first_byte": 0.4}
_QUANTILE = NormalDist().inv_cdf
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "\"quoted\" 'twice' `and` ${again}",
    "two\nlines\r\nand a tab\t",
    "\u202eright to left\u202c \u05d0\u05d1\u05d2",
    "\x1b[31mred\x1b[0m\x07\x00",
    "a/b?c=d&e#f%2f",
    "long " + "x" * 2**20,
    "__proto__",
    "\U0001f4a9" * 200,
)


@dataclass
class Backend:
    """One made-up backend: its lifetimes are lognormal."""

    proxy: str
    target: str
    server: str | None
    rate: float
    median: float
    sigma: float
    change: float
    resets: int
    failed: int

    def quantile(self, share: float, metric: str = "lifetime") -> float:
        """Seconds, in three digits."""
        scale = self.median * _SCALE[metric]
        return float(f"{scale * math.exp(self.sigma * _QUANTILE(share)):.3g}")

    def counts(self, growth: float, total: int, metric: str) -> dict[int, int]:
        """Rows of a log scale to counts; row r ends at growth**r seconds."""
        found: dict[int, int] = {}
        spread = self.sigma / math.log(growth)
        middle = math.log(self.median * _SCALE[metric]) / math.log(growth)
        normal = NormalDist(middle, spread)
        below = 0
        for row in range(math.floor(middle - 4 * spread), math.ceil(middle + 4 * spread) + 1):
            now = round(total * normal.cdf(row))
            if now > below:
                found[row] = now - below
            below = now
        return found


def _spread(count: int, proxies: Sequence[str], servers: Sequence[str | None]) -> list[Backend]:
    dice = random.Random(count)
    made = []
    for i in range(count):
        proxy = proxies[i * len(proxies) // count]
        busy = 10 ** dice.uniform(-1, 2.6)
        slow = 4 if dice.random() < 0.02 else 1
        made.append(
            Backend(
                proxy=proxy,
                target=f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}:8080"
                if i % 50
                else f"[fd00::{i:x}]:443",
                server=servers[i % len(servers)],
                rate=float(f"{busy:.3g}"),
                median=slow * 0.004 * (2 + len(proxy) % 7) * math.exp(dice.gauss(0, 0.15)),
                sigma=dice.uniform(0.5, 1.1),
                change=float(f"{max(0, dice.gauss(-0.3, 0.4)):.3g}"),
                resets=dice.choice([0] * 12 + [1, 3, 17]),
                failed=dice.choice([0] * 30 + [2]),
            )
        )
    return made


@dataclass
class FakeExporter:
    """Answers like an exporter with made-up backends; tests change what it says.

    Attributes:
        backends: what the table has.
        overrides: dotted paths into the status and the values that are there instead.
        sample: how many samples were taken; `tick()` takes one.
        asked: path and query of all requests.
        refusal: the status to answer with, instead of a document.
    """

    backends: list[Backend]
    overrides: dict[str, Any] = field(default_factory=dict)
    sample: int = 0
    asked: list[str] = field(default_factory=list)
    refusal: int | None = None
    _made: dict[str, bytes] = field(default_factory=dict)  # of this sample, by path and query

    @classmethod
    def of(cls, count: int) -> FakeExporter:
        """Ordinary backends, in up to five proxies; the first third have names."""
        proxies = ("api", "checkout", "edge", "search", "web")[: max(1, min(5, count // 2))]
        return cls(_spread(count, proxies, ["srv-a", "srv-b", None]))

    @classmethod
    def hostile(cls) -> FakeExporter:
        """A proxy and a server for each hostile name."""
        count = 3 * len(HOSTILE)
        backends = _spread(count, sorted(HOSTILE), HOSTILE)
        return cls(backends, {"sources.0.trouble": HOSTILE[0], "sources.0.name": HOSTILE[5]})

    def tick(self) -> None:
        """Take a sample: rates move by a known factor."""
        self.sample += 1
        self._made.clear()
        for backend in self.backends:
            backend.rate = float(f"{backend.rate * 1.25:.3g}")

    @property
    def until(self) -> float:
        """When the newest sample was taken."""
        return NOW + self.sample * INTERVAL_S

    def status(self) -> Json:
        """`/api/v1/status`."""
        closed, unmatched = 1203944, 241
        lost = {"dropped": 0, "taken": 0, "unmatched": unmatched, "rejected": 0, "malformed": 0}
        found: Json = {
            "version": 1,
            "software": "0.3.0",
            "now": self.until + 1,
            "started": NOW - 79198,
            "running": True,
            "metrics": list(METRICS),
            "windows": [60, 300, 900, "start"],
            "coverage": {
                "closed": closed,
                "recorded": closed - unmatched,
                "share": (closed - unmatched) / closed,
                "lost": 0,
                "lost_by": lost,
                "counted": True,
                "open_error": 0,
            },
            "events": {"produced": 2410331, "received": 2410331, "dropped": 0, "in_ring": 0},
            "sources": [
                {
                    "name": "sockets",
                    "trouble": None,
                    "attached": True,
                    "lost": {"recursion": 0},
                    "failed_connects": {"refused": 4, "timed_out": 0},
                    "status": {},
                }
            ],
            "names": [
                {
                    "from": "haproxy",
                    "place": "/run/haproxy/admin.sock",
                    "count": len(self.backends),
                    "age_s": 1.9,
                    "error": None,
                }
            ],
            "history": {
                "sampled": self.until,
                "interval_s": INTERVAL_S,
                "covers_s": 900.0,
                "fine_columns": 180,
                "coarse_columns": 240,
                "backends": len(self.backends),
                "left_out": 0,
                "bytes": 41203311,
                "bytes_max": 100663296,
            },
        }
        for path, value in self.overrides.items():
            *way, last = path.split(".")
            place: Any = found
            for step in way:
                place = place[int(step) if isinstance(place, list) else step]
            place[last] = value
        return found

    def table(self, window: str) -> Json:
        """`/api/v1/backends`."""
        proxies = sorted({backend.proxy for backend in self.backends})
        seconds = 3600.0 if window == "start" else float(window)
        index = {proxy: i for i, proxy in enumerate(proxies)}
        rows = sorted(self.backends, key=lambda backend: index[backend.proxy])
        return {
            "version": 1,
            "window": window if window == "start" else int(window),
            "since": self.until - seconds,
            "until": self.until,
            "seconds": seconds,
            "metrics": list(METRICS),
            "proxies": proxies,
            "left_out": 0,
            "rows": len(rows),
            "columns": {
                "proxy": [index[row.proxy] for row in rows],
                "target": [row.target for row in rows],
                "server": [row.server for row in rows],
                "closed_per_s": [row.rate for row in rows],
                "opened_per_s": [row.rate for row in rows],
                "open": [round(row.rate * row.median * 9) for row in rows],
                "count": [round(row.rate * seconds) for row in rows],
                "p50": [row.quantile(0.5) for row in rows],
                "p95": [row.quantile(0.95) for row in rows],
                "p99": [row.quantile(0.99) for row in rows],
                "connect_p95": [row.quantile(0.95, "connect") for row in rows],
                "first_byte_p95": [
                    row.quantile(0.95, "first_byte") if i % 9 else None
                    for i, row in enumerate(rows)
                ],
                "resets": [row.resets for row in rows],
                "failed_connects": [row.failed for row in rows],
                "change": [row.change for row in rows],
                "change_in": [
                    ("lifetime" if i % 3 else "rate") if row.change else None
                    for i, row in enumerate(rows)
                ],
            },
        }

    def _chosen(self, request: web.Request) -> list[tuple[str | None, str | None, list[Backend]]]:
        found: list[tuple[str | None, str | None, list[Backend]]] = []
        proxies = request.query.getall("proxy", [])
        for name in request.query.getall("backend", []):
            proxy, _, target = name.rpartition("/")
            those = [b for b in self.backends if (b.proxy, b.target) == (proxy, target)]
            if not those:
                raise LookupError(f"backend: {proxy}/{target} is not known")
            found.append((proxy, target, those))
            proxies.append(proxy)
        for proxy in dict.fromkeys(proxies):
            those = [b for b in self.backends if b.proxy == proxy]
            if not those:
                raise LookupError(f"proxy: {proxy} is not known")
            found.append((proxy, None, those))
        return found or [(None, None, self.backends)]

    def heatmap(self, request: web.Request) -> Json:
        """`/api/v1/heatmap`: rates that swing, and a slow quarter of an hour's third."""
        proxy, target, those = self._chosen(request)[0]
        metric = request.query.get("metric", "lifetime")
        window = int(request.query.get("window", 900))
        seconds = 60.0 if window == 14400 else INTERVAL_S
        first = NOW - window + seconds
        growth = 2 ** (2**-2)
        dice = random.Random(str(target))
        columns = []
        for c in range(round(window / seconds)):
            end = first + c * seconds + self.sample * INTERVAL_S
            load = 1 + 0.6 * math.sin(c / 25) + dice.uniform(-0.1, 0.1)
            rows: dict[int, int] = {}
            for backend in those[:8]:
                slow = 1.0 + 2.2 * math.exp(-(((c / (window / seconds)) - 0.7) ** 2) / 0.003)
                moved = Backend(**{**vars(backend), "median": backend.median * slow})
                total = max(1, round(backend.rate * seconds * load))
                for row, count in moved.counts(growth, total, metric).items():
                    rows[row] = rows.get(row, 0) + count
            if 40 <= c < 44:
                rows = {}  # nothing happened
            columns.append((end, rows))
        known = [row for _, rows in columns for row in rows]
        low, high = (min(known), max(known)) if known else (0, -1)

        def quantile(rows: dict[int, int], share: float) -> float | None:
            left = share * sum(rows.values())
            for row in sorted(rows):
                left -= rows[row]
                if left <= 0:
                    return float(f"{growth**row:.3g}")
            return None

        return {
            "version": 1,
            "metric": metric,
            "proxy": proxy,
            "target": target,
            "window": window,
            "since": first - seconds + self.sample * INTERVAL_S,
            "until": NOW + self.sample * INTERVAL_S,
            "schema": 2,
            "upper": [growth**row for row in range(low, high + 1)],
            "columns": {
                "end": [end for end, _ in columns],
                "seconds": [seconds for _ in columns],
                "total": [sum(rows.values()) for _, rows in columns],
                "p50": [quantile(rows, 0.5) for _, rows in columns],
                "p99": [quantile(rows, 0.99) for _, rows in columns],
                "counts": [[rows.get(r, 0) for r in range(low, high + 1)] for _, rows in columns],
            },
        }

    def distribution(self, request: web.Request) -> Json:
        """`/api/v1/distribution`."""
        metric = request.query.get("metric", "lifetime")
        window = request.query.get("window", "60")
        growth = 2 ** (2**-6)
        series = []
        for proxy, target, those in self._chosen(request):
            rows: dict[int, int] = {}
            for backend in those[:6]:
                for row, count in backend.counts(growth, round(backend.rate * 60), metric).items():
                    rows[row] = rows.get(row, 0) + count
            ordered = sorted(rows)
            total = sum(rows.values())

            def at(
                share: float,
                ordered: list[int] = ordered,
                rows: dict[int, int] = rows,
                total: int = total,
            ) -> float | None:
                left = share * total
                for row in ordered:
                    left -= rows[row]
                    if left <= 0:
                        return float(f"{growth**row:.3g}")
                return None

            series.append(
                {
                    "proxy": proxy,
                    "target": target,
                    "server": those[0].server if target else None,
                    "count": total,
                    "sum_ns": total * 10**7,
                    "mean": at(0.6),
                    "p50": at(0.5),
                    "p90": at(0.9),
                    "p95": at(0.95),
                    "p99": at(0.99),
                    "p999": at(0.999),
                    "upper": [growth**row for row in ordered],
                    "counts": [rows[row] for row in ordered],
                }
            )
        return {
            "version": 1,
            "metric": metric,
            "window": window if window == "start" else int(window),
            "since": self.until - 60,
            "until": self.until,
            "seconds": 60.0,
            "bounds": [],
            "series": series,
        }

    async def _answer(
        self, request: web.Request, make: Callable[[web.Request], Json]
    ) -> web.Response:
        self.asked.append(request.path_qs)
        if self.refusal:
            return web.Response(status=self.refusal, text="no\n")
        try:
            body = self._made.get(request.path_qs) or json.dumps(make(request)).encode()
        except LookupError as error:
            return web.json_response({"version": 1, "error": str(error)}, status=404)
        if not request.path.endswith("/status"):
            self._made[request.path_qs] = body
        etag = f'"{hash(body)}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304)
        response = web.Response(
            body=body,
            content_type="application/json",
            headers={"ETag": etag, "Cache-Control": "no-cache"},
        )
        response.enable_compression()
        return response

    def _routes(self) -> Iterator[web.RouteDef]:
        kinds: dict[str, Callable[[web.Request], Json]] = {
            "status": lambda _request: self.status(),
            "backends": lambda request: self.table(request.query.get("window", "60")),
            "heatmap": self.heatmap,
            "distribution": self.distribution,
        }
        for name, make in kinds.items():

            async def handler(
                request: web.Request, make: Callable[[web.Request], Json] = make
            ) -> web.Response:
                return await self._answer(request, make)

            yield web.get(f"/api/v1/{name}", handler)

    @contextmanager
    def serving(self, port: int = 0) -> Iterator[str]:
        """Serve the page and the documents while the block runs; yields the URL."""
        with serving([*pages.routes(), *self._routes()], port) as url:
            yield f"{url}/"
