"""Names to addresses, in threads that nobody waits for, since an answer may take long."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ["Resolver"]


class Resolver(AbstractResolver):
    """Asks as all programs of this host do.

    A loop's own threads would keep the process from ending until they have an answer.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host; raises `OSError` if there are none."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Any] = loop.create_future()

        def tell(result: object, error: OSError | None) -> None:
            if found.done():  # nobody waits any more
                return
            if error:
                found.set_exception(error)
            else:
                found.set_result(result)

        def look_up() -> None:
            result, error = None, None
            try:
                result = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
            except (OSError, UnicodeError) as reason:
                error = OSError(str(reason)) if isinstance(reason, UnicodeError) else reason
            try:
                loop.call_soon_threadsafe(tell, result, error)
            except RuntimeError:  # the loop has ended
                return

        threading.Thread(target=look_up, name="resolve", daemon=True).start()
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=port,
                family=each_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for each_family, _, protocol, _, address in await found
        ]

    async def close(self) -> None:
        """There is nothing to close."""
