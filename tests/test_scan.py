"""What a Scan can be told: layouts, intervals and rules. tests/bpf has the maps."""

from __future__ import annotations

import math

import pytest

from lblatency._layout import FIELDS, Place, format_layout, parse_layout
from lblatency.sources import Scan

NEEDED = "client=key+0 client_port=key+8 backend=key+4 backend_port=key+10 created=value+16"


def test_a_layout_is_read() -> None:
    """Sizes and byte orders that are not said are those that such a field usually has."""
    found = parse_layout(f" {NEEDED},protocol=key+12, packets_fwd=value+24:4:be\nvip=value+0:16 ")
    assert found["client"] == Place(False, 0, 4, True)
    assert found["client_port"] == Place(False, 8, 2, True)
    assert found["created"] == Place(True, 16, 8, False)
    assert found["protocol"] == Place(False, 12, 1, False)
    assert found["packets_fwd"] == Place(True, 24, 4, True)
    assert found["vip"] == Place(True, 0, 16, True)
    assert parse_layout(format_layout(found)) == found


def test_each_field_has_a_place_of_its_own_in_c() -> None:
    """The numbers are those of the enum, without a gap."""
    assert sorted(field.number for field in FIELDS.values()) == list(range(len(FIELDS)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is not of the form FIELD=key|value+OFFSET"),
        ("client", "'client' is not of the form"),
        ("client=0", "'client=0' is not of the form"),
        ("client=key+-1", "is not of the form"),
        ("client=key+99999", "is not of the form"),
        ("client=key+0x10", "is not of the form"),
        ("client=key+\u0661", "is not of the form"),
        ("client=map+0", "is not of the form"),
        ("client=key+0:4:le", "is not of the form"),
        ("client=key+0:4:be:be", "is not of the form"),
        (NEEDED + " client\0=key+0", "is not of the form"),
        (NEEDED + " color=key+0", "there is no field 'color'; there are client, client_port, "),
        (NEEDED + " client=key+4", "client is there twice"),
        ("client=key+0:5", "client has 4 or 16 bytes, not 5"),
        ("client_port=key+0:4", "client_port has 1 or 2 bytes, not 4"),
        ("created=key+0:0", "created has 1 or 2 or 4 or 8 bytes, not 0"),
        ("client=key+0:4:host", "addresses are in network order"),
        ("client=key+0 created=value+0", "does not tell client_port and backend and backend_port"),
        ("client=key+0 " * 200, "a layout of 2600 characters is too long"),
    ],
)
def test_what_is_no_layout_is_an_error_in_one_line(text: str, said: str) -> None:
    """It says which word is wrong, and what is right."""
    with pytest.raises(ValueError, match=r"layout") as caught:
        parse_layout(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("interval", [0, -1, 0.009, 3601, math.nan, math.inf, "x", "", "1s"])
def test_an_interval_is_a_time(interval: float | str) -> None:
    """The error comes before the map is looked for."""
    with pytest.raises(ValueError, match=r"^interval "):
        Scan("/no/such/map", interval=interval)


def test_rules_are_checked_first() -> None:
    """The error is the rule's, whatever the map."""
    with pytest.raises(ValueError, match="is not of the form ADDR"):
        Scan("/no/such/map", backends=["web"])


def test_a_layout_is_text() -> None:
    """Another type is a TypeError."""
    with pytest.raises(TypeError, match="a layout must be a string, not a dict"):
        parse_layout({})  # type: ignore[arg-type]
