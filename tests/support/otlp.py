"""A receiver of OTLP that answers as a test wants."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from tests.support.rig import wait_until

if TYPE_CHECKING:
    import ssl

HOST = "127.0.0.1"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Got(NamedTuple):
    """A push.

    Attributes:
        at: when it came, by the receiver's clock.
        path: with the query.
        headers: by their names in lower case.
        message: what it said.
    """

    at: float
    path: str
    headers: dict[str, str]
    message: Any

    def metrics(self) -> dict[str, Any]:
        """By name."""
        (resource,) = self.message.resource_metrics
        (scope,) = resource.scope_metrics
        return {each.name: each for each in scope.metrics}

    def resource(self) -> dict[str, str]:
        """The attributes of what pushed."""
        (found,) = self.message.resource_metrics
        return {each.key: each.value.string_value for each in found.resource.attributes}

    def captured_at(self) -> int:
        """When what it says was read, in Unix nanoseconds."""
        (resource,) = self.message.resource_metrics
        metric = resource.scope_metrics[0].metrics[0]
        (*_, point) = getattr(metric, metric.WhichOneof("data")).data_points
        return int(point.time_unix_nano)

    def lifetimes(self) -> Any:
        """The point of a tracker's only backend."""
        (point,) = self.metrics()["lb_backend_latency_seconds"].exponential_histogram.data_points
        return point


def saying(status: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer; `_` in a header's name is `-`."""

    async def answer(_request: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return answer


def partial(rejected: int, why: str) -> bytes:
    """The body of an answer."""
    message = ExportMetricsServiceResponse()
    message.partial_success.rejected_data_points = rejected
    message.partial_success.error_message = why
    return bytes(message.SerializeToString())


class Receiver:
    """Takes pushes while a block runs.

    Attributes:
        url: of its root.
        got: all pushes so far.
        answers: what to answer to the next ones; afterwards, and to all if it is empty, 200.
        finally_: what to answer then, instead.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """Not yet running."""
        self.got: list[Got] = []
        self.answers: list[Answer] = []
        self.finally_: Answer = saying(200)
        self.url = ""
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._ending = asyncio.Event()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()  # aiohttp decompresses it
        headers = {name.lower(): value for name, value in request.headers.items()}
        message = ExportMetricsServiceRequest.FromString(body)
        self.got.append(Got(self._loop.time(), request.path_qs, headers, message))
        answer = self.answers.pop(0) if self.answers else self.finally_
        return await answer(request)

    async def _main(self) -> None:
        app = web.Application(client_max_size=1 << 28)
        app.add_routes([web.post("/{tail:.*}", self._take)])
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0, ssl_context=self._tls)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"{'https' if self._tls else 'http'}://{HOST}:{port}"
        self._started.set()
        await self._ending.wait()
        await runner.cleanup()

    def run(self) -> None:
        """In a thread."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    def until(self, count: int) -> list[Got]:
        """The first pushes, once there are so many."""
        wait_until(lambda: len(self.got) >= count, lambda: f"{count} pushes, not {len(self.got)}")
        return self.got[:count]

    def start(self) -> threading.Thread:
        """Begin."""
        thread = threading.Thread(target=self.run)
        thread.start()
        self._started.wait()
        return thread

    def stop(self) -> None:
        """End; what is not answered yet will not be."""
        self._loop.call_soon_threadsafe(self._ending.set)


@contextmanager
def receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """One that runs during the block."""
    running = Receiver(tls)
    thread = running.start()
    try:
        yield running
    finally:
        running.stop()
        thread.join()
