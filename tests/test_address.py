"""Addresses as people write them, as C has them, and back."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lblatency._address import format_ip, format_target, parse_target, split_endpoint

PORTS = st.integers(0, 65535)


@given(st.ip_addresses(v=4), PORTS)
def test_ipv4_round_trip(address: ipaddress.IPv4Address, port: int) -> None:
    """IPv4 is ::ffff:a.b.c.d inside and dotted outside."""
    packed, parsed = parse_target(f"{address}:{port}")
    assert packed == bytes(10) + b"\xff\xff" + address.packed
    assert (format_ip(packed), parsed) == (str(address), port)
    assert format_target(format_ip(packed), port) == f"{address}:{port}"


@given(st.ip_addresses(v=6).filter(lambda a: a.ipv4_mapped is None), PORTS)
def test_ipv6_round_trip(address: ipaddress.IPv6Address, port: int) -> None:
    """IPv6 keeps all its 128 bits, and has brackets where a port follows."""
    packed, parsed = parse_target(f"[{address}]:{port}")
    assert (packed, parsed) == (address.packed, port)
    assert ipaddress.ip_address(format_ip(packed)) == address
    assert parse_target(format_target(format_ip(packed), port)) == (packed, port)


def test_spellings_of_one_address_are_one() -> None:
    """An address is what it means, not how it is written."""
    assert parse_target("[2001:db8:0:0::1]:80") == parse_target("[2001:DB8::1]:80")
    assert parse_target("[::ffff:10.0.0.1]:80") == parse_target("10.0.0.1:80")


@pytest.mark.parametrize(
    "target",
    ["", "10.0.0.1", "10.0.0.1:", "10.0.0.1:http", "10.0.0.1:-1", "10.0.0.1:65536", "[::1]",
     "10.0.0.1:8\u0660", "10.0.0.1: 80", "10.0.0.1:" + "9" * 5000],
)  # fmt: skip
def test_a_target_needs_a_port(target: str) -> None:
    """Without a port from 0 to 65535 it is an error that shows the right form."""
    with pytest.raises(ValueError, match=r"has no port: write 'ip:port' or '\[ip6\]:port'"):
        parse_target(target)


@pytest.mark.parametrize(
    "target",
    [":80", "localhost:80", "10.0.0:80", "10.0.0.256:80", "::1", "::1:80", "[10.0.0.1]:80",
     "[::1:80", "[fe80::1%lo]:80", "10.0.0.1\0:80", " 10.0.0.1:80", "[]:80", "web\udc80:80"],
)  # fmt: skip
def test_a_target_needs_an_address(target: str) -> None:
    """Names and half addresses are an error that shows the right form."""
    with pytest.raises(ValueError, match="has no valid address: write"):
        parse_target(target)


@pytest.mark.parametrize("target", [None, 80, b"10.0.0.1:80", ("10.0.0.1", 80)])
def test_a_target_is_a_string(target: object) -> None:
    """Anything else is a TypeError that says what came instead."""
    with pytest.raises(TypeError, match=f"not {type(target).__name__}"):
        parse_target(target)  # type: ignore[arg-type]


def test_a_listener_may_be_called_by_name() -> None:
    """A host is not looked up, and brackets are taken off."""
    assert split_endpoint("localhost:80") == ("localhost", 80)
    assert split_endpoint("[::]:0") == ("::", 0)
    assert split_endpoint("127.0.0.1:65535") == ("127.0.0.1", 65535)
