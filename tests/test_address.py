"""Addresses as people write them and as C stores them, both ways."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lblatency._address import (
    format_ip,
    format_target,
    is_ipv4,
    parse_ip,
    parse_target,
    split_endpoint,
)

PORTS = st.integers(0, 65535)


@given(st.ip_addresses(v=4), PORTS)
def test_ipv4_round_trip(address: ipaddress.IPv4Address, port: int) -> None:
    """IPv4 is ::ffff:a.b.c.d in C, and dotted as text."""
    packed, parsed = parse_target(f"{address}:{port}")
    assert packed == bytes(10) + b"\xff\xff" + address.packed
    assert (format_ip(packed), parsed) == (str(address), port)
    assert format_target(format_ip(packed), port) == f"{address}:{port}"


@pytest.mark.parametrize(
    ("ip", "packed", "ipv4"),
    [
        ("10.0.0.1", bytes(10) + b"\xff\xff\x0a\0\0\1", True),
        ("::ffff:10.0.0.1", bytes(10) + b"\xff\xff\x0a\0\0\1", True),
        ("::10.0.0.1", bytes(12) + b"\x0a\0\0\1", False),
        ("2001:db8::1", b"\x20\x01\x0d\xb8" + bytes(11) + b"\1", False),
    ],
)
def test_an_address_without_a_port(ip: str, packed: bytes, ipv4: bool) -> None:
    """`parse_ip()` gives the same 16 bytes, and they tell the family."""
    assert parse_ip(ip) == packed
    assert is_ipv4(packed) is ipv4


@pytest.mark.parametrize("ip", ["", "localhost", "10.0.0", "[::1]", "::1%lo", "1.2.3.4:80", "\0"])
def test_what_is_no_address(ip: str) -> None:
    """Names, ports and brackets are refused: they are not part of an address."""
    with pytest.raises(ValueError, match="is not an IP address"):
        parse_ip(ip)


@given(st.ip_addresses(v=6), PORTS)
def test_ipv6_round_trip(address: ipaddress.IPv6Address, port: int) -> None:
    """IPv6 keeps all 128 bits, and gets brackets if a port follows."""
    assume(address.ipv4_mapped is None)
    packed, parsed = parse_target(f"[{address}]:{port}")
    assert (packed, parsed) == (address.packed, port)
    assert ipaddress.ip_address(format_ip(packed)) == address
    assert parse_target(format_target(format_ip(packed), port)) == (packed, port)


def test_every_port_goes_both_ways() -> None:
    """Each of the 65536 ports comes back, for addresses of both families."""
    for host in ("10.0.0.1", "2001:db8::1"):
        for port in range(65536):
            packed, parsed = parse_target(format_target(host, port))
            assert (format_ip(packed), parsed) == (host, port)


def test_spellings_of_one_address_are_one() -> None:
    """All spellings of an address give the same 16 bytes."""
    assert parse_target("[2001:db8:0:0::1]:80") == parse_target("[2001:DB8::1]:80")
    assert parse_target("[::ffff:10.0.0.1]:80") == parse_target("10.0.0.1:80")


@pytest.mark.parametrize(
    "target",
    ["", "10.0.0.1", "10.0.0.1:", "10.0.0.1:http", "10.0.0.1:-1", "[::1]", "10.0.0.1:8\u0660",
     "10.0.0.1: 80"],
)  # fmt: skip
def test_a_target_needs_a_port(target: str) -> None:
    """A target without a port is an error that shows the right form."""
    with pytest.raises(ValueError, match=r"has no port: write 'ip:port' or '\[ip6\]:port'"):
        parse_target(target)


@pytest.mark.parametrize("port", ["65536", "70000", "99999", "100000", "9" * 5000])
@pytest.mark.parametrize("host", ["10.0.0.1", "[2001:db8::1]", "localhost", ""])
def test_a_port_out_of_range_is_named(host: str, port: str) -> None:
    """The error has the whole text, the port in it, and what a port may be."""
    with pytest.raises(ValueError, match="is not 0 to 65535") as caught:
        split_endpoint(f"{host}:{port}")
    assert str(caught.value) == f"'{host}:{port}': port {port} is not 0 to 65535"


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
    """A target that is not a string is a TypeError that names its type."""
    with pytest.raises(TypeError, match=f"not {type(target).__name__}"):
        parse_target(target)  # type: ignore[arg-type]


def test_a_listener_may_be_called_by_name() -> None:
    """A host name is not resolved, and brackets are removed."""
    assert split_endpoint("localhost:80") == ("localhost", 80)
    assert split_endpoint("[::]:0") == ("::", 0)
    assert split_endpoint("127.0.0.1:65535") == ("127.0.0.1", 65535)
