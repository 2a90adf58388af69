"""Who a request is from: basic authentication, and names in certificates."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import bcrypt

__all__ = ["BasicAuth", "names_in"]

_WRONG_MAX = 100  # wrong passwords that are remembered


class BasicAuth:
    """Checks passwords against bcrypt's hashes.

    One check at a time, in a thread of its own, so that guessing holds up nobody who is known. A
    verdict is remembered, by an HMAC, so that no password stays in memory; those that were good
    apart, so that guessing does not displace them.

    Args:
        users: the hash of each user's password, by name.
    """

    _hasher = ThreadPoolExecutor(1, thread_name_prefix="bcrypt")

    def __init__(self, users: Mapping[str, str]) -> None:
        self.users = dict(users)
        self._key = os.urandom(32)
        self._good: set[bytes] = set()
        self._wrong: dict[bytes, None] = {}  # the oldest first

    async def allows(self, authorization: str) -> bool:
        """Whether the header's user exists and has that password."""
        if (given := _decoded(authorization)) is None:
            return False
        user, password = given
        # An unknown user costs what a known one does, so that the time does not tell names.
        expected = self.users.get(user) or next(iter(self.users.values()))
        text = b"\0".join([user.encode("utf-8", "surrogateescape"), password])
        seen = hmac.new(self._key, text, hashlib.sha256).digest()
        if seen in self._good:
            return True
        if seen in self._wrong:
            return False
        loop = asyncio.get_running_loop()
        is_right = await loop.run_in_executor(self._hasher, _matches, password, expected.encode())
        if is_right and user in self.users:
            self._good.add(seen)
            return True
        self._wrong[seen] = None
        if len(self._wrong) > _WRONG_MAX:
            del self._wrong[next(iter(self._wrong))]
        return False


def _decoded(authorization: str) -> tuple[str, bytes] | None:
    scheme, _, coded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(coded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user.decode("utf-8", "surrogateescape"), password) if colon else None


def _matches(password: bytes, expected: bytes) -> bool:
    try:
        return bcrypt.checkpw(password, expected)
    except ValueError:  # over 72 bytes, which no hash is of
        return False


def names_in(certificate: Mapping[str, Any] | None) -> Collection[str]:
    """The alternative names in a peer's certificate, as Go spells them."""
    if not certificate:
        return ()
    return {
        str(ipaddress.ip_address(name)) if kind == "IP Address" else name
        for kind, name in certificate.get("subjectAltName", ())
        if kind in ("DNS", "IP Address", "URI", "email")
    }
