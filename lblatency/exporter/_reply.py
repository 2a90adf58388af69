"""What a receiver of OTLP answers: whether it took a push, and if not, when to come again."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus
from typing import NamedTuple

from ..names.base import printable

__all__ = ["TYPE", "Outcome", "Reply", "one_line", "read_reply"]

TYPE = "application/x-protobuf"  # of pushes, and of answers
_RETRIED = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_WHY_MAX = 200  # characters of what others say
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_PARTIAL_SUCCESS = 1  # of ExportMetricsServiceResponse
_REJECTED, _ERROR = 1, 2  # of ExportMetricsPartialSuccess
_MESSAGE = 2  # of google.rpc.Status


class Outcome(Enum):
    """What became of a push."""

    ACCEPTED = "accepted"
    PARTIAL = "partial"
    FAILED = "failed"


class Reply(NamedTuple):
    """What the receiver answered.

    Attributes:
        outcome: what became of the push.
        why: it was not accepted, or what else there is to tell, in a line; empty if nothing.
        is_retried: whether to push again before the next is due.
        after_s: how long the receiver wants to be left alone; 0 if it does not say.
    """

    outcome: Outcome
    why: str = ""
    is_retried: bool = False
    after_s: float = 0.0


def one_line(text: str) -> str:
    """What others say, fit for a terminal and a log."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= _WHY_MAX else line[: _WHY_MAX - 1] + "…"


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise ValueError("a number of protobuf has more than ten bytes")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The numbers and the values of a message of protobuf.

    Raises:
        ValueError, IndexError: it is none.
    """
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            n, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            n = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"protobuf has no wire type {kind}")
        if number == 0 or at + n > len(data):
            raise ValueError("a message of protobuf ends too early")
        yield number, data[at : at + n]
        at += n


def _text(value: int | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _of_success(body: bytes) -> Reply:
    try:
        partial = dict(_fields(body)).get(_PARTIAL_SUCCESS, b"")
        if not isinstance(partial, bytes):
            raise ValueError("a message is no number")
        found = dict(_fields(partial))
    except (IndexError, ValueError):
        why = f"the answer is not one of OTLP, but {_text(body)!r}; is that a receiver's URL?"
        return Reply(Outcome.FAILED, one_line(why))
    rejected, said = found.get(_REJECTED, 0), _text(found.get(_ERROR))
    if isinstance(rejected, int) and rejected:
        return Reply(Outcome.PARTIAL, one_line(f"{rejected} points were rejected: {said}"))
    return Reply(Outcome.ACCEPTED, one_line(said))


def _said(content_type: str, body: bytes) -> str:
    """The message in google.rpc.Status; what is none, is text."""
    if content_type.startswith(TYPE):
        with suppress(IndexError, ValueError):
            return _text(dict(_fields(body)).get(_MESSAGE))
    return _text(body)


def _after_s(text: str) -> float:
    """The seconds in a header Retry-After; 0 if it is malformed."""
    try:
        if text.isascii() and text.isdecimal():
            return float(text)
        left = parsedate_to_datetime(text).timestamp() - time.time()
    except (OverflowError, ValueError):
        return 0.0
    return max(left, 0.0) if math.isfinite(left) else 0.0


def read_reply(status: int, reason: str, headers: Mapping[str, str], body: bytes) -> Reply:
    """What an answer means.

    Args:
        status: of HTTP.
        reason: its phrase.
        headers: whose names may have any case.
        body: its beginning.
    """
    if status // 100 == 2:
        return _of_success(body)
    if status // 100 == 3:
        said = f"it redirects to {headers.get('Location')!r}, which is not followed"
    else:
        said = _said(headers.get("Content-Type", ""), body)
    is_retried = status in _RETRIED
    after_s = _after_s(headers.get("Retry-After", "")) if is_retried else 0.0
    return Reply(
        Outcome.FAILED, one_line(f"{status} {reason}: {said}".rstrip(": ")), is_retried, after_s
    )
