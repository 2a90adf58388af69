"""The exporter: aiohttp in a loop of its own thread, between our sockets and its protocol."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from aiohttp import web
from prometheus_client import PlatformCollector, ProcessCollector

from .._closing import Closing
from ..render import Collects
from ._app import make_app
from ._live import LiveWebConfig
from ._log import exception_handler, line_logger
from ._memory import give_back_large_blocks
from ._push import Pusher
from ._scrapes import Scrapes
from ._watch import HEAD_S, WRITE_S, Watch, cut
from .listen import Listener
from .otlp import Push
from .served import Served

__all__ = ["Exporter"]

_CONNECTIONS_MAX = 512
_REFUSED_MAX = 128  # further ones, which are answered 503; the kernel keeps the others waiting
_REFUSED_HEAD_S = 2.0
_BUFFER_MAX = 64 << 10  # of a connection, before what is written must wait
_KEEP_ALIVE_S = 150.0  # Prometheus scrapes at least every two minutes
_GRACE_S = 5.0
_TICK_S = 1.0
_LOOK_S = 0.01  # while something must soon be over
_THREADS = 2  # one for scrapes, and one for all else that takes time


class Exporter(Closing):
    """Serves a tracker's metrics until it is closed. It closes the listeners, too.

    Args:
        served: what to serve.
        listeners: where to serve it.
        live: TLS, users and the like.
        tell: takes a line for people; called in other threads.
        routes: further ones, beside /metrics and the health checks.
        push: what to push, too.
    """

    def __init__(
        self,
        served: Served,
        listeners: Sequence[Listener],
        live: LiveWebConfig,
        tell: Callable[[str], None],
        routes: Iterable[web.AbstractRouteDef] = (),
        push: Push | None = None,
    ) -> None:
        give_back_large_blocks()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="scrape")
        own: list[Collects] = [
            ProcessCollector(registry=None),
            PlatformCollector(registry=None),
            live,
        ]
        scrapes = Scrapes(lambda: served.capture(own), self._threads)
        own.append(scrapes)
        self._pushers = []
        if push:
            place = listeners[0].place()
            self._pushers = [Pusher(push, lambda: served.capture(own), place, tell)]
            own += self._pushers
        self._listeners = listeners
        self._live = live
        self._tell = tell
        self._app = make_app(
            scrapes, live, served.why_not_ready, self._during, routes, self._threads
        )
        self._watches: dict[object, Watch] = {}  # by aiohttp's protocol
        self._refused: set[object] = set()
        self._busy: set[object] = set()  # with a request
        self._admitting: dict[object, tuple[asyncio.Task[None], socket.socket]] = {}  # before TLS
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(exception_handler(tell))
        self._ending = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exporter")
        self._thread.start()
        self._started.wait()

    def close(self) -> None:
        """Accept no more, let scrapes end for up to 5 s, push once more, and abort what is left."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        finally:
            self._started.set()
            self._threads.shutdown()
            for each in self._pushers:
                each.close()

    async def _main(self) -> None:
        runner = web.AppRunner(
            self._app,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=_KEEP_ALIVE_S,
            logger=line_logger(self._tell),
            shutdown_timeout=_TICK_S,
        )
        await runner.setup()
        assert runner.server is not None
        self._server = runner.server
        looking = asyncio.create_task(self._look())
        for each in self._listeners:
            self._listen(each.socket)
        pushing = [asyncio.create_task(each.run()) for each in self._pushers]
        self._started.set()
        await self._ending.wait()
        for each in self._listeners:
            self._loop.remove_reader(each.socket)
            each.close()
        for task in (looking, *pushing):
            task.cancel()
        await asyncio.gather(self._finish(), *pushing)
        await runner.cleanup()

    async def _finish(self) -> None:
        """Let requests end, and then their connections."""
        tasks = [task for task, _ in self._admitting.values()]
        socks = [sock for _, sock in self._admitting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in socks:  # a task that has not begun has not closed it
            sock.close()
        self._server.pre_shutdown()
        for each in self._server.connections:
            if each.transport is not None and each not in self._busy:
                each.transport.close()
        until = self._loop.time() + _GRACE_S
        while self._server.connections and self._loop.time() < until:
            await asyncio.sleep(_LOOK_S)
        for each in self._server.connections:
            if each.transport is not None:
                cut(each.transport)

    def _count(self) -> int:
        return len(self._server.connections) + len(self._admitting)

    def _listen(self, listening: socket.socket) -> None:
        if not self._ending.is_set():
            self._loop.add_reader(listening, self._accept, listening)

    def _pause(self, listening: socket.socket) -> None:
        """Let the kernel keep those who come, for a moment."""
        self._loop.remove_reader(listening)
        self._loop.call_later(_LOOK_S, self._listen, listening)

    def _accept(self, listening: socket.socket) -> None:
        count = self._count()
        if count >= _CONNECTIONS_MAX + _REFUSED_MAX:
            self._pause(listening)
            return
        try:
            sock, _ = listening.accept()
        except (BlockingIOError, ConnectionError):  # it has gone
            return
        except OSError:  # there are no descriptors left
            self._pause(listening)
            return
        sock.setblocking(False)
        protocol = self._server()
        head_s = HEAD_S
        if count >= _CONNECTIONS_MAX:
            self._refused.add(protocol)
            head_s = _REFUSED_HEAD_S
        self._watches[protocol] = Watch(self._loop.time(), head_s)
        task = asyncio.create_task(self._admit(sock, protocol, head_s))
        self._admitting[protocol] = (task, sock)

    async def _admit(
        self, sock: socket.socket, protocol: web.RequestHandler, head_s: float
    ) -> None:
        """Give a connection to aiohttp, with the TLS of now."""
        context = self._live.now.config.context
        tls = {"ssl_handshake_timeout": head_s, "ssl_shutdown_timeout": WRITE_S} if context else {}
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=context, **tls
            )
            transport.set_write_buffer_limits(_BUFFER_MAX)  # TLS has half a megabyte otherwise
        except OSError:  # as the client would have it
            sock.close()
        finally:
            del self._admitting[protocol]

    @contextmanager
    def _during(self, request: web.Request) -> Iterator[bool]:
        """Note a request; gives False if its connection is one too many."""
        protocol = request.protocol
        self._watches[protocol].has_begun = True
        self._busy.add(protocol)
        try:
            yield protocol not in self._refused
        finally:
            self._busy.discard(protocol)

    async def _look(self) -> None:
        """End what is overdue, and see whether the configuration changed."""
        while True:
            now = self._loop.time()
            open_ones = {*self._server.connections, *self._admitting}
            self._refused &= open_ones
            self._watches = {each: self._watches[each] for each in open_ones}
            for each in self._server.connections:
                if each.transport and self._watches[each].is_overdue(now, each.transport):
                    cut(each.transport)
            await self._loop.run_in_executor(self._threads, self._live.look)
            await asyncio.sleep(_TICK_S)
