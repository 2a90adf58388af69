"""Addresses: `ip:port` as people write it, 16 bytes and a port as C has it."""

from __future__ import annotations

import socket
from typing import Any

__all__ = ["format_endpoint", "format_ip", "format_target", "parse_target"]

_MAPPED = bytes(10) + b"\xff\xff"


def parse_target(target: str) -> tuple[bytes, int]:
    """Split `ip:port` or `[ip6]:port` into 16 bytes (IPv4 as ::ffff:a.b.c.d) and the port.

    Raises:
        TypeError: `target` is not a string.
        ValueError: it is not of that form.
    """
    if not isinstance(target, str):
        raise TypeError(f"target must be a string 'ip:port', not {type(target).__name__}")
    host, colon, port = target.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise ValueError(f"target {target!r} has no port: write 'ip:port' or '[ip6]:port'")
    try:
        if host.startswith("[") and host.endswith("]"):
            address = socket.inet_pton(socket.AF_INET6, host[1:-1])
        else:
            address = _MAPPED + socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        raise ValueError(
            f"target {target!r} has no valid address: write 'ip:port' or '[ip6]:port'"
        ) from None
    return address, int(port)


def format_ip(address: bytes) -> str:
    """The address as text: IPv4 dotted, IPv6 as RFC 5952 wants it, without brackets."""
    if address.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def format_target(ip: str, port: int) -> str:
    """`ip:port`, with the brackets that IPv6 needs."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def format_endpoint(address: Any, port: int) -> str:
    """`ip:port` of a C struct's 16 bytes and its port."""
    return format_target(format_ip(bytes(address)), port)
