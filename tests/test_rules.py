"""Rules that say which connections belong to which proxy."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest

from lblatency._rules import BackendRule, NameRule

BACKENDS = {
    "10.0.0.1:80": BackendRule(IPv4Network("10.0.0.1"), 80, 80),
    "10.0.0.0/24:8080=web": BackendRule(IPv4Network("10.0.0.0/24"), 8080, 8080, "web"),
    "0.0.0.0/0:1-65535": BackendRule(IPv4Network("0.0.0.0/0"), 1, 65535),
    "10.0.0.1:80-80=a=b": BackendRule(IPv4Network("10.0.0.1"), 80, 80, "a=b"),
    "10.0.0.1:80=\u00e9 \n": BackendRule(IPv4Network("10.0.0.1"), 80, 80, "\u00e9 \n"),
    "[fd00::]/64:8000=web": BackendRule(IPv6Network("fd00::/64"), 8000, 8000, "web"),
    "[FD00::1]:1": BackendRule(IPv6Network("fd00::1"), 1, 1),
    "[::]/0:443": BackendRule(IPv6Network("::/0"), 443, 443),
    "[::fffe:0:0]/95:443": BackendRule(IPv6Network("::fffe:0:0/95"), 443, 443),
    "[::ffff:10.0.0.1]:80": BackendRule(IPv4Network("10.0.0.1"), 80, 80),
    "[::ffff:10.0.0.0]/120:80": BackendRule(IPv4Network("10.0.0.0/24"), 80, 80),
    "[::ffff:0:0]/96:80": BackendRule(IPv4Network("0.0.0.0/0"), 80, 80),
}


@pytest.mark.parametrize("text", BACKENDS)
def test_backends_are_read(text: str) -> None:
    """Networks of both versions, single ports and ranges, with a proxy or without."""
    assert BackendRule.parse(text) == BACKENDS[text]


@pytest.mark.parametrize("text", BACKENDS)
def test_backends_are_written_as_they_are_read(text: str) -> None:
    """A rule's own text for its backends says the same backends."""
    rule = BACKENDS[text]
    assert BackendRule.parse(f"{rule.backends}={rule.proxy or 'x'}") == BackendRule(
        rule.network, rule.first_port, rule.last_port, rule.proxy or "x"
    )


FORM = r"is not of the form ADDR\[/LEN\]:PORT\[-PORT\]\[=PROXY\], with IPv6 in brackets"
PORTS = "ports must be 1 to 65535, the lower one first"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", FORM),
        ("=web", FORM),
        ("web", FORM),
        ("10.0.0.1", FORM),
        ("10.0.0.1:", FORM),
        (":80", FORM),
        ("10.0.0.1:http", FORM),
        ("10.0.0.1:80-", FORM),
        ("10.0.0.1:-80", FORM),
        ("10.0.0.1:80,81", FORM),
        ("10.0.0.1:080000", FORM),
        ("10.0.0.1 :80", FORM),
        ("10.0.0.1:80\n", FORM),
        ("10.0.0.0/:80", FORM),
        ("10.0.0.0/-1:80", FORM),
        ("10.0.0.0/255.255.255.0:80", FORM),
        ("10.0.0.\u0661:80", FORM),
        ("localhost:80", FORM),
        ("::1:80", FORM),
        ("fd00::/64:80", FORM),
        ("[fd00::/64]:80", FORM),
        ("[fe80::1%eth0]:80", FORM),
        ("[]:80", FORM),
        ("[::1:80", FORM),
        ("10.0.0:80", "'10.0.0' is not an IP address"),
        ("10.0.0.256:80", "'10.0.0.256' is not an IP address"),
        ("010.0.0.1:80", "'010.0.0.1' is not an IP address"),
        ("[::1::]:80", "'::1::' is not an IP address"),
        ("10.0.0.0/33:80", "length /33 is not 0 to 32"),
        ("[fd00::]/129:80", "length /129 is not 0 to 128"),
        ("10.0.0.5/24:80", r"10.0.0.5 has bits beyond /24; the network is 10.0.0.0/24"),
        ("[::ffff:0:0]/95:80", "bits beyond /95; the network is ::fffe:0:0/95"),
        ("[fd00::1]/64:80", r"fd00::1 has bits beyond /64; the network is fd00::/64"),
        ("10.0.0.1:0", PORTS),
        ("10.0.0.1:0-80", PORTS),
        ("10.0.0.1:65536", PORTS),
        ("10.0.0.1:80-99999", PORTS),
        ("10.0.0.1:81-80", PORTS),
        ("10.0.0.1:80=", "has no name after '='"),
        ("10.0.0.1:80=a\0b", "has a null character"),
    ],
)
def test_what_is_no_backend_is_told_in_one_line(text: str, error: str) -> None:
    """The line has the text that was given, and what is wrong with it."""
    with pytest.raises(ValueError, match=error) as raised:
        BackendRule.parse(text)
    said = str(raised.value)
    assert said.startswith(repr(text))
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("traefik", NameRule("traefik")),
        ("traefik=edge", NameRule("traefik", "edge")),
        ("/system.slice/a=b.service=web", NameRule("/system.slice/a=b.service", "web")),
        ("a proxy= of mine", NameRule("a proxy", " of mine")),
    ],
)
def test_names_are_read(text: str, rule: NameRule) -> None:
    """The last `=` separates the name from the proxy."""
    assert NameRule.parse(text) == rule


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "has no name"),
        ("=web", "has no name"),
        ("=", "has no name"),
        ("traefik=", "has no name after '='"),
        ("a\0b", "has a null character"),
    ],
)
def test_what_is_no_name_is_told_in_one_line(text: str, error: str) -> None:
    """The line has the text that was given, and what is wrong with it."""
    with pytest.raises(ValueError, match=error):
        NameRule.parse(text)


@pytest.mark.parametrize("parse", [BackendRule.parse, NameRule.parse])
def test_a_rule_is_a_string(parse: object) -> None:
    """Anything else is a TypeError that says so."""
    assert callable(parse)
    for value in (b"10.0.0.1:80", None, 80):
        with pytest.raises(TypeError, match=f"not {type(value).__name__}"):
            parse(value)
