"""Addresses: `ip:port` as people write them, 16 bytes and a port as C stores them."""

from __future__ import annotations

import socket
from typing import Any

__all__ = [
    "format_endpoint",
    "format_ip",
    "format_target",
    "is_ipv4",
    "parse_ip",
    "parse_target",
    "split_endpoint",
]

_MAPPED = bytes(10) + b"\xff\xff"


def parse_ip(ip: str) -> bytes:
    """The 16 bytes of an address, IPv4 as ::ffff:a.b.c.d.

    Raises:
        ValueError: `ip` is not an IP address.
    """
    try:
        if ":" in ip:
            return socket.inet_pton(socket.AF_INET6, ip)
        return _MAPPED + socket.inet_pton(socket.AF_INET, ip)
    except (OSError, ValueError):
        raise ValueError(f"{ip!r} is not an IP address") from None


def is_ipv4(address: bytes) -> bool:
    """Whether the 16 bytes are ::ffff:a.b.c.d."""
    return address.startswith(_MAPPED)


def _refusal(text: str, what: str) -> ValueError:
    return ValueError(f"{text!r} has no {what}: write 'ip:port' or '[ip6]:port'")


def split_endpoint(text: str, *, any_host: bool = False) -> tuple[str, int]:
    """Split `host:port` or `[ip6]:port`. The host may be a name; its brackets are removed.

    With `any_host`, it may be left out: `:port`.

    Raises:
        ValueError: `text` is not of that form.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise _refusal(text, "port")
    if len(port) > 5 or int(port) > 65535:
        raise ValueError(f"{text!r}: port {port} is not 0 to 65535")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if not (host or any_host) or is_bracketed != (":" in host):
        raise _refusal(text, "valid address")
    return host[1:-1] if is_bracketed else host, int(port)


def parse_target(target: str) -> tuple[bytes, int]:
    """Split `ip:port` or `[ip6]:port` into 16 bytes (IPv4 as ::ffff:a.b.c.d) and the port.

    Raises:
        TypeError: `target` is not a string.
        ValueError: `target` is not of that form.
    """
    if not isinstance(target, str):
        raise TypeError(f"target must be a string 'ip:port', not {type(target).__name__}")
    host, port = split_endpoint(target)
    try:
        return parse_ip(host), port
    except ValueError:
        raise _refusal(target, "valid address") from None


def format_ip(address: bytes) -> str:
    """The address as text: IPv4 dotted, IPv6 in the form of RFC 5952, without brackets."""
    if is_ipv4(address):
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def format_target(ip: str, port: int) -> str:
    """`ip:port`, or `[ip]:port` for IPv6."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def format_endpoint(address: Any, port: int) -> str:
    """`ip:port` from the 16 bytes and the port of a C struct."""
    return format_target(format_ip(bytes(address)), port)
