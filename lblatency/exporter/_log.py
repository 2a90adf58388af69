"""What aiohttp and asyncio log, as lines for people instead of tracebacks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError

__all__ = ["exception_handler", "line_logger"]


def _line(message: str, error: BaseException | None) -> str:
    text = f"{message}: {error!r}" if error else message
    return " ".join(text.split())


class _Lines(logging.Handler):
    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        # Not a client's mistake, which it is told, nor that it has gone.
        if not isinstance(error, HttpProcessingError | ConnectionError):
            self._tell(_line(record.getMessage(), error))


def line_logger(tell: Callable[[str], None]) -> logging.Logger:
    """A logger of our own, which tells what is not a client's mistake."""
    logger = logging.Logger("lblatency.exporter")
    logger.addHandler(_Lines(tell))
    return logger


def exception_handler(
    tell: Callable[[str], None],
) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """For a loop: tells what nobody caught."""

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        tell(_line(str(context.get("message", "")), context.get("exception")))

    return handle
