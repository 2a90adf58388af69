"""Rules that say which connections belong to which proxy, as people write them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

__all__ = ["BackendRule", "NameRule"]

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_BACKEND = "ADDR[/LEN]:PORT[-PORT][=PROXY], with IPv6 in brackets"
_BACKEND_PARTS = re.compile(
    r"(?:\[(?P<ip6>[0-9a-fA-F:.]+)\]|(?P<ip4>[0-9.]+))"
    r"(?:/(?P<length>[0-9]{1,3}))?"
    r":(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?"
    r"(?:=(?P<proxy>.*))?",
    re.DOTALL,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(text: str, ip: str, length: str | None) -> Network:
    """The network of an address and a length, IPv4 if it is v4-mapped."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        raise ValueError(f"{text!r}: {ip!r} is not an IP address") from None
    bits = address.max_prefixlen if length is None else int(length)
    if bits > address.max_prefixlen:
        raise ValueError(f"{text!r}: length /{bits} is not 0 to {address.max_prefixlen}")
    network = ipaddress.ip_network((address, bits), strict=False)
    if network.network_address != address:
        raise ValueError(
            f"{text!r}: {address} has bits beyond /{bits}; the network is {network}, a single"
            " address has no length"
        )
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        return ipaddress.IPv4Network((int(address) & 0xFFFFFFFF, bits - _MAPPED.prefixlen))
    return network


@dataclass(frozen=True)
class BackendRule:
    """Connections to these addresses and ports are a proxy's.

    Attributes:
        network: of the backends; v4-mapped addresses are IPv4.
        first_port: the lowest port, at least 1.
        last_port: the highest port.
        proxy: the proxy's name; None for the source's default.
    """

    network: Network
    first_port: int
    last_port: int
    proxy: str | None = None

    @property
    def backends(self) -> str:
        """The rule without the proxy, as `parse()` takes it."""
        ip, length = str(self.network.network_address), self.network.prefixlen
        length_text = "" if length == self.network.max_prefixlen else f"/{length}"
        ports = format(self.first_port) + (
            "" if self.last_port == self.first_port else f"-{self.last_port}"
        )
        return f"[{ip}]{length_text}:{ports}" if ":" in ip else f"{ip}{length_text}:{ports}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The rule in `ADDR[/LEN]:PORT[-PORT][=PROXY]`, with IPv6 in brackets.

        Raises:
            TypeError: `text` is not a string.
            ValueError: `text` is not of that form.
        """
        _check_text(text, _BACKEND)
        parts = _BACKEND_PARTS.fullmatch(text)
        if parts is None:
            raise ValueError(f"{text!r} is not of the form {_BACKEND}")
        network = _network(text, parts["ip6"] or parts["ip4"], parts["length"])
        first = int(parts["first"])
        last = first if parts["last"] is None else int(parts["last"])
        if not 1 <= first <= last <= 65535:
            raise ValueError(f"{text!r}: ports must be 1 to 65535, the lower one first")
        return cls(network, first, last, _proxy(text, parts["proxy"]))


@dataclass(frozen=True)
class NameRule:
    """Connections of processes or cgroups of this name are a proxy's.

    Attributes:
        name: of the process (its `comm`), or the path of the cgroup.
        proxy: the proxy's name; None for the source's default.
    """

    name: str
    proxy: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The rule in `NAME[=PROXY]`; the last `=` separates.

        Raises:
            TypeError: `text` is not a string.
            ValueError: `text` is not of that form.
        """
        _check_text(text, "NAME[=PROXY]")
        name, equals, proxy = text.rpartition("=")
        if not equals:
            name, proxy = text, ""
        if not name:
            raise ValueError(f"{text!r} is not of the form NAME[=PROXY]: it has no name")
        return cls(name, _proxy(text, proxy if equals else None))


def _check_text(text: object, form: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"a rule must be a string {form}, not {type(text).__name__}")
    if "\0" in text:
        raise ValueError(f"{text!r} has a null character")


def _proxy(text: str, proxy: str | None) -> str | None:
    if proxy == "":
        raise ValueError(f"{text!r} has no name after '='; leave '=' out for the default name")
    return proxy
