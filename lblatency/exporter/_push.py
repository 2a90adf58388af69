"""Pushes by OTLP over HTTP, in the exporter's loop.

All that is pushed is cumulative. So each try has a capture of its own, and what was not taken needs
no keeping: the next one says it all.
"""

from __future__ import annotations

import asyncio
import io
import random
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from .._closing import Closing
from .._version import __version__
from ..render import Capture
from ._body import pack
from ._reply import TYPE, Outcome, Reply, one_line, read_reply
from ._resolver import Resolver
from .otlp import Push

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["Pusher"]

_TIMEOUT_S = 10.0  # as OpenTelemetry has it
_LAST_S = 2.0
_CLOSING_S = 0.01  # the loop closes what aiohttp has given up in its next rounds
_BACKOFF_S = 1.0  # before the first retry, doubled each time up to the interval
_AFTER_MAX_S = 600.0  # of what a receiver wants
_REPLY_MAX = 1 << 16  # bytes that are looked at
_HEADERS = {
    "content-type": TYPE,
    "content-encoding": "gzip",
    "accept-encoding": "identity",
    "user-agent": f"lblatency/{__version__}",
}


def _packed(pieces: Iterator[bytes]) -> bytes | None:
    """The next one, in gzip."""
    piece = next(pieces, None)
    return None if piece is None else pack([piece]).data


class Pusher(Closing):
    """Pushes until it is cancelled, one request at a time.

    Args:
        push: what to do.
        capture: takes what to push, in a thread of the pusher.
        place: what tells this exporter from others on this host.
        tell: takes a line for people.
    """

    def __init__(
        self,
        push: Push,
        capture: Callable[[], Capture],
        place: str,
        tell: Callable[[str], None],
    ) -> None:
        self._push = push
        self._capture = capture
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="push")
        self._resource = push.resource(place)
        self._tell = tell
        self._tls = ssl.create_default_context() if push.url.startswith("https:") else None
        self._told = (Outcome.ACCEPTED, False)
        self._counts = dict.fromkeys(Outcome, 0)
        self._good_at = 0.0

    def _session(self) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
        return aiohttp.ClientSession(
            # A connection that is kept for a minute is often dead: each push has its own.
            connector=aiohttp.TCPConnector(
                ssl=self._tls or False, resolver=Resolver(), force_close=True
            ),
            headers=dict(self._push.headers) | _HEADERS,
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def run(self) -> None:
        """Push at once and then regularly; when cancelled, a last time, for 2 s at most."""
        loop = asyncio.get_running_loop()
        async with self._session() as session:
            try:
                n_retries = 0
                while True:
                    due = loop.time() + self._push.interval_s
                    reply = await self._once(session)
                    n_retries = n_retries + 1 if reply.is_retried else 0
                    await asyncio.sleep(self._pause_s(reply, n_retries) or due - loop.time())
            except asyncio.CancelledError:
                await self._last(session)
        await asyncio.sleep(_CLOSING_S)

    def _pause_s(self, reply: Reply, n_retries: int) -> float:
        """How long to wait before a retry; 0 if there is none."""
        if not reply.is_retried:
            return 0
        longest = min(_BACKOFF_S * 2.0 ** min(n_retries - 1, 32), self._push.interval_s)
        backoff = longest * random.uniform(0.5, 1)
        return backoff + min(reply.after_s, _AFTER_MAX_S)

    async def _last(self, session: aiohttp.ClientSession) -> None:
        try:
            async with asyncio.timeout(_LAST_S):
                await self._once(session)
        except TimeoutError:
            self._tell(f"the last push to {self._push.shown} has no answer within {_LAST_S:.0f} s")

    async def _once(self, session: aiohttp.ClientSession) -> Reply:
        """Push what there is now."""
        try:
            reply = await self._send(session)
        except TimeoutError:
            reply = Reply(Outcome.FAILED, f"no answer within {_TIMEOUT_S:.0f} s", is_retried=True)
        except (aiohttp.ClientError, OSError) as error:
            why = one_line(str(error)) or type(error).__name__
            reply = Reply(Outcome.FAILED, why, is_retried=True)
        except Exception as error:  # of a collector: a scrape fails, and the next may not
            reply = Reply(Outcome.FAILED, one_line(repr(error)))
        self._note(reply)
        return reply

    async def _send(self, session: aiohttp.ClientSession) -> Reply:
        """Post one request after the other, until one fails."""
        loop = asyncio.get_running_loop()
        worst = Reply(Outcome.ACCEPTED)
        pieces = await loop.run_in_executor(self._thread, self._pieces)
        while body := await loop.run_in_executor(self._thread, _packed, pieces):
            reply = await self._post(session, body)
            if reply.outcome is Outcome.FAILED:
                return reply
            worst = max(worst, reply, key=lambda each: (each.outcome is Outcome.PARTIAL, each.why))
        return worst

    def _pieces(self) -> Iterator[bytes]:
        return self._capture().otlp_pieces(self._resource)

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> Reply:
        async with session.post(
            URL(self._push.url, encoded=True), data=io.BytesIO(body), allow_redirects=False
        ) as answer:
            found = bytearray()
            async for part in answer.content.iter_chunked(_REPLY_MAX):
                found += part
                if len(found) >= _REPLY_MAX:
                    break
            said = bytes(found[:_REPLY_MAX])
            return read_reply(answer.status, answer.reason or "", answer.headers, said)

    def _note(self, reply: Reply) -> None:
        """Count what became of a push, and tell when that is news."""
        self._counts[reply.outcome] += 1
        if reply.outcome is not Outcome.FAILED:
            self._good_at = time.time()
        news = (reply.outcome, bool(reply.why))
        if news != self._told:
            self._tell(_NEWS[news].format(url=self._push.shown, why=reply.why))
        self._told = news

    def close(self) -> None:
        """Wait until its thread takes nothing any more."""
        self._thread.shutdown()

    def collect(self) -> Iterator[Metric]:
        """What became of all pushes, as a `prometheus_client` collector."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        pushes = CounterMetricFamily(
            "lblatency_otlp_pushes", "Pushes by OTLP, by outcome", labels=["outcome"]
        )
        for outcome, count in self._counts.items():
            pushes.add_metric([outcome.value], count)
        yield pushes
        yield GaugeMetricFamily(
            "lblatency_otlp_last_success_timestamp_seconds",
            "When a receiver last took a push by OTLP, 0 if never",
            value=self._good_at,
        )


_NEWS = {
    (Outcome.ACCEPTED, False): "pushing to {url} works again",
    (Outcome.ACCEPTED, True): "{url} takes pushes, and says: {why}",
    (Outcome.PARTIAL, True): "{url} takes pushes in part: {why}",
    (Outcome.FAILED, True): "cannot push to {url}: {why}; it is tried again",
}
