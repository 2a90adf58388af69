"""Which format an Accept header gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lblatency.formats import OPENMETRICS, TEXT, TEXT_1, Format, negotiate

OM = "application/openmetrics-text"
PROM_2_42 = f"{OM};version=1.0.0,{OM};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
PROM_3_5 = (
    f"{OM};version=1.0.0;escaping=allow-utf-8;q=0.5,{OM};version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, TEXT),
        ("", TEXT),
        ("*/*", TEXT),
        ("text/*", TEXT),
        ("application/*", OPENMETRICS),
        (BROWSER, TEXT),
        (PROM_2_42, OPENMETRICS),
        (PROM_3_5, OPENMETRICS),
        ("text/plain;version=0.0.4;q=1,*/*;q=0.1", TEXT),
        ("text/plain", TEXT),
        ("text/plain; version=1.0.0", TEXT_1),
        ("text/plain;version=9.9.9", TEXT),
        (f"{OM}", OPENMETRICS),
        (f"{OM};version=2.0.0", TEXT),
        (f"{OM};version=2.0.0,{OM};version=1.0.0;q=0.1", OPENMETRICS),
        (f"{OM};version=0.0.1", TEXT),
        (f"{OM};q=0.2,text/plain;q=0.3", TEXT),
        (f"{OM};q=0.3,text/plain;q=0.2", OPENMETRICS),
        (f"{OM};q=0,*/*;q=0.5", TEXT),
        ("text/plain;q=0,*/*", TEXT_1),
        (f"{OM},text/plain", OPENMETRICS),
        (f"text/plain,{OM}", TEXT),
        (f"*/*,{OM}", OPENMETRICS),
        (f"{OM};q=nonsense,text/plain;q=0.1", TEXT),
        (f"{OM};q=7", TEXT),
        (f"{OM};q=nan", TEXT),
        (f'{OM.upper()} ; VERSION="1.0.0" ; Q=1', OPENMETRICS),
        ("image/png", TEXT),
        ("*/*;q=0", TEXT),
        (";;,,;=,q=", TEXT),
        (f"{OM};q=0.4," + "," * 10_000 + "text/plain;q=0.5", OPENMETRICS),
    ],
)
def test_the_format_that_is_liked_best(accept: str | None, chosen: Format) -> None:
    """Weights, versions and wildcards are obeyed, and what cannot be read is passed over."""
    assert negotiate(accept).content_type.partition("; escaping")[0] == chosen.content_type


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (";escaping=allow-utf-8", "allow-utf-8"),
        (";escaping=underscores", "underscores"),
        (";escaping=values", "values"),
        (";escaping=dots", "underscores"),  # would double all underscores
        (";escaping=evil\r\nX: y", "underscores"),
        ("", "underscores"),
    ],
)
def test_the_escaping_is_told_where_formats_have_it(asked: str, told: str) -> None:
    """Text 1.0.0 and OpenMetrics name an escaping under which names are as we write them."""
    for accept in (f"{OM};version=1.0.0{asked}", f"text/plain;version=1.0.0{asked}"):
        assert negotiate(accept).content_type.endswith(f"; escaping={told}")
    assert "escaping" not in negotiate(f"text/plain;version=0.0.4{asked}").content_type


@given(st.text(alphabet="*/;=,q.0159 \"'\x00textplain", max_size=200))
def test_no_header_fails(accept: str) -> None:
    """Whatever the header says, there is an answer."""
    assert negotiate(accept).content_type.isprintable()
