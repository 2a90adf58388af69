"""Events: the values of each field, the three meanings of a short time, lengths, flags."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest

from lblatency import stats
from lblatency.event import NEVER, REASONS, TYPES
from tests.support.rig import SECOND, TARGET, Rig, foreign64

FLAGS_AT, ADDR_AT = 3, 40
SPANS_AT = {"connect_us": 24, "first_byte_us": 28, "closing_us": 32}
CLOSED = stats.Event("closed", TARGET, 9 * SECOND, SECOND).pack()


def received(*records: bytes) -> list[stats.Event]:
    """The events that a subscriber gets from these records."""
    ring = stats.MemoryRing(1 << 16)
    with stats.create_event_stream(ring) as stream, stream.subscribe() as subscription:
        for record in records:
            assert ring.produce(record)
        stream.drain()
        return [event for _ in records if (event := subscription.get(timeout=0))]


def test_names_are_those_of_the_abi() -> None:
    """Types and reasons have the names and the order of lbl_abi.h."""
    assert TYPES == ("opened", "closed", "periodic")
    assert REASONS == (
        "unknown", "fin", "rst", "timeout", "evicted", "reused", "connect_failed",
    )  # fmt: skip


@pytest.mark.parametrize("field", SPANS_AT)
@pytest.mark.parametrize(
    ("span", "sent", "comes_back_as"),
    [
        (None, 0, None),
        (NEVER, 0xFFFFFFFF, NEVER),
        (0, 1, 1),
        (1, 1, 1),
        (0xFFFFFFFE, 0xFFFFFFFE, 0xFFFFFFFE),
        (0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFE),
        (2**40, 0xFFFFFFFE, 0xFFFFFFFE),
    ],
)
def test_a_short_time_has_three_meanings(
    field: str, span: float | None, sent: int, comes_back_as: float | None
) -> None:
    """Each field tells apart: not measured, never came, and a time, which saturates."""
    event = stats.Event("closed", TARGET, 9 * SECOND, SECOND, **{field: span})  # type: ignore[arg-type]
    packed = event.pack()
    numbers = {
        name: int.from_bytes(packed[at : at + 4], sys.byteorder) for name, at in SPANS_AT.items()
    }
    assert numbers == {**dict.fromkeys(SPANS_AT, 0), field: sent}
    (back,) = received(packed)
    assert {name: getattr(back, name) for name in SPANS_AT} == {
        **dict.fromkeys(SPANS_AT), field: comes_back_as,
    }  # fmt: skip


@pytest.mark.parametrize("span", [-1, float("nan"), float("-inf")])
def test_a_short_time_that_cannot_be_is_refused(span: float) -> None:
    """A negative time or NaN is a ValueError."""
    with pytest.raises(ValueError, match="None, NEVER, or 0 or more"):
        stats.Event("closed", TARGET, 2, 1, connect_us=span).pack()


@pytest.mark.parametrize(
    "field", [{"protocol": 256}, {"timestamp_ns": -1}, {"backend_id": 2**32}, {"proxy_id": 65536}]
)
def test_a_number_that_has_no_room_is_refused(field: dict[str, Any]) -> None:
    """As every field that cannot be sent."""
    with pytest.raises(ValueError, match="out of range"):
        replace(stats.Event("closed", TARGET, 2, 1), **field).pack()


def test_a_zeroed_event_has_measured_nothing() -> None:
    """A field that is 0 is not measured; so are fields that a format does not have."""
    plain, foreign = received(bytes([2]) + bytes(55), foreign64(2, SECOND))
    assert (plain.target, plain.reason, plain.protocol) == ("[::]:0", "unknown", 0)
    for event in (plain, foreign):
        assert [getattr(event, name) for name in SPANS_AT] == [None, None, None]
        assert (event.created_ns, event.backend_id, event.proxy_id) == (0, 0, 0)


def test_a_longer_event_is_read_by_its_front() -> None:
    """A record of 56 + 64*k bytes is read by its first 56; no other length is ours."""
    (known,) = received(CLOSED)
    for more in (64, 128, 640):
        assert received(CLOSED + b"\xff" * more) == [known]
    rig = Rig()
    for length in range(256):
        rig.send((CLOSED + b"\xff" * 256)[:length])
    assert rig.counts("closed", "malformed") == {
        "closed": 6,  # 56, 120, 184, 248; 64 and 72, where the type stands first as well
        "malformed": 250,
    }


@pytest.mark.parametrize("at", range(16))
def test_an_ipv4_event_whose_address_is_none_is_malformed(at: int) -> None:
    """With the IPv4 flag, all 12 bytes of ::ffff: must be right, in longer events too."""
    wrong = bytearray(CLOSED)
    assert wrong[FLAGS_AT] == 1
    wrong[ADDR_AT + at] ^= 0x10
    bad = at < 12
    extended = bytes(wrong) + bytes(64)
    assert len(received(extended)) == (not bad)
    rig = Rig()
    rig.send(extended)
    assert rig.counts("closed", "malformed") == {"closed": not bad, "malformed": bad}


def test_a_mapped_address_needs_no_flag() -> None:
    """The flag is not part of the address: without it the backend is the same."""
    plain = bytearray(CLOSED)
    plain[FLAGS_AT] = 0
    assert received(bytes(plain)) == received(CLOSED)
