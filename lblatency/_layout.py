"""Layouts of conntrack maps: described in words, or read from a map's type information (BTF)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ._ffi import check, ffi, lib
from .errors import LatencyError

__all__ = ["Place", "format_layout", "layout_of", "parse_layout"]


class Place(NamedTuple):
    """Where a map has a field.

    Attributes:
        in_value: whether it is in the value, else in the key.
        offset: in bytes.
        bytes: of the field.
        big_endian: or in the host's byte order. Addresses always are in network order.
    """

    in_value: bool
    offset: int
    bytes: int
    big_endian: bool


class _Field(NamedTuple):
    number: int
    bytes: int  # unless it is said
    names: tuple[str, ...]  # in structs of balancers; the first that is there counts


_ADDRESS, _PORT, _NUMBER = 4, 2, 8
FIELDS: Mapping[str, _Field] = {
    "client": _Field(
        lib.LBL_AT_CLIENT,
        _ADDRESS,
        ("client", "client_addr", "client_ip", "src", "saddr", "src_addr", "src_ip", "sip"),
    ),
    "client_port": _Field(
        lib.LBL_AT_CLIENT_PORT, _PORT, ("client_port", "sport", "src_port", "source_port")
    ),
    "backend": _Field(
        lib.LBL_AT_BACKEND,
        _ADDRESS,
        ("backend", "backend_addr", "backend_ip", "target", "target_addr", "target_ip", "real",
         "real_addr", "real_ip", "dst", "daddr", "dst_addr", "dst_ip", "dip"),
    ),
    "backend_port": _Field(
        lib.LBL_AT_BACKEND_PORT,
        _PORT,
        ("backend_port", "target_port", "real_port", "dport", "dst_port", "dest_port"),
    ),
    "protocol": _Field(
        lib.LBL_AT_PROTOCOL, 1, ("protocol", "proto", "nexthdr", "l4proto", "l4_proto", "ip_proto")
    ),
    "vip": _Field(lib.LBL_AT_VIP, _ADDRESS, ("vip", "vip_addr", "vip_ip", "orig_addr", "orig_dst")),
    "vip_port": _Field(lib.LBL_AT_VIP_PORT, _PORT, ("vip_port", "orig_port", "orig_dport")),
    "created": _Field(
        lib.LBL_AT_CREATED,
        _NUMBER,
        ("created", "created_at", "creation_time", "create_time", "first_seen", "start",
         "start_time", "started", "ctime"),
    ),
    "last_seen": _Field(
        lib.LBL_AT_LAST_SEEN,
        _NUMBER,
        ("last_seen", "last_used", "last_packet", "last_time", "last", "updated", "updated_at",
         "atime"),
    ),
    "packets_fwd": _Field(
        lib.LBL_AT_PACKETS_FWD, _NUMBER, ("packets_fwd", "fwd_packets", "packets", "pkts")
    ),
    "packets_rev": _Field(lib.LBL_AT_PACKETS_REV, _NUMBER, ("packets_rev", "rev_packets")),
    "bytes_fwd": _Field(lib.LBL_AT_BYTES_FWD, _NUMBER, ("bytes_fwd", "fwd_bytes")),
    "bytes_rev": _Field(lib.LBL_AT_BYTES_REV, _NUMBER, ("bytes_rev", "rev_bytes")),
}  # fmt: skip
_ADDRESSES = frozenset({"client", "backend", "vip"})
_PORTS = frozenset({"client_port", "backend_port", "vip_port"})
_NEEDED = ("client", "client_port", "backend", "backend_port", "created")
_SIZES = {_ADDRESS: (4, 16), _PORT: (1, 2), 1: (1, 2), _NUMBER: (1, 2, 4, 8)}

_FORM = "FIELD=key|value+OFFSET[:BYTES][:be|:host]"
_PLACE = re.compile(
    r"(?P<field>[a-z_]{1,20})=(?P<part>key|value)\+(?P<offset>[0-9]{1,4})"
    r"(?::(?P<bytes>[0-9]{1,2}))?(?::(?P<order>be|host))?"
)
_LONGEST_TEXT = 2000
_MEMBERS = 512

Layout = Mapping[str, Place]


def _check_needed(layout: Layout, what: str) -> None:
    missing = [name for name in _NEEDED if name not in layout]
    if missing:
        raise ValueError(f"{what} does not tell {' and '.join(missing)}; write {_FORM} for each")


def parse_layout(text: str) -> Layout:
    """The places in `FIELD=key|value+OFFSET[:BYTES][:be|:host]`, with commas or spaces between.

    An address has 4 bytes unless 16 are said, a port 2, the protocol 1, a time or a count 8. Ports
    are in network order and other numbers in the host's, unless it is said otherwise.

    Raises:
        TypeError: `text` is not a string.
        ValueError: `text` is not of that form, or a field is missing that is needed.
    """
    if not isinstance(text, str):
        raise TypeError(f"a layout must be a string, not a {type(text).__name__}")
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"a layout of {len(text)} characters is too long")
    layout: dict[str, Place] = {}
    for word in re.split(r"[,\s]+", text.strip()):
        parts = _PLACE.fullmatch(word)
        if parts is None:
            raise ValueError(f"layout: {word!r} is not of the form {_FORM}")
        name = parts["field"]
        if name not in FIELDS:
            raise ValueError(f"layout: there is no field {name!r}; there are {', '.join(FIELDS)}")
        if name in layout:
            raise ValueError(f"layout: {name} is there twice")
        size = FIELDS[name].bytes if parts["bytes"] is None else int(parts["bytes"])
        allowed = _SIZES[FIELDS[name].bytes]
        if size not in allowed:
            sizes = " or ".join(map(str, allowed))
            raise ValueError(f"layout: {word!r}: {name} has {sizes} bytes, not {size}")
        big_endian = (
            name in _ADDRESSES | _PORTS if parts["order"] is None else parts["order"] == "be"
        )
        if name in _ADDRESSES and not big_endian:
            raise ValueError(f"layout: {word!r}: addresses are in network order")
        layout[name] = Place(parts["part"] == "value", int(parts["offset"]), size, big_endian)
    _check_needed(layout, "layout")
    return layout


def format_layout(layout: Layout) -> str:
    """The text that `parse_layout()` takes."""
    return " ".join(
        f"{name}={'value' if at.in_value else 'key'}+{at.offset}:{at.bytes}"
        + ("" if name in _ADDRESSES else f":{'be' if at.big_endian else 'host'}")
        for name, at in layout.items()
    )


class _Member(NamedTuple):
    name: str  # as in the struct, nested ones with dots
    at: Place

    def __str__(self) -> str:
        return f"{'value' if self.at.in_value else 'key'}.{self.name}"


def _members(fd: int) -> list[_Member]:
    found = ffi.new("struct lbl_member[]", _MEMBERS)
    n = check(lib.lbl_map_members(fd, found, _MEMBERS), "reading the map's type information")
    return [
        _Member(
            ffi.string(each.name).decode(errors="backslashreplace"),
            Place(bool(each.in_value), each.offset, each.bytes, bool(each.big_endian)),
        )
        for each in found[0:n]
    ]


def _called(member: _Member) -> set[str]:
    """What a member may be called: by its whole name, and by the last part of it."""
    parts = member.name.lower().split(".")
    return {name.removesuffix("_ns") for name in ("_".join(parts), parts[-1])}


def _find(name: str, members: Iterable[_Member]) -> Place | None:
    """The member that is the field.

    Raises:
        LatencyError: it may be one of several.
    """
    field = FIELDS[name]
    fitting = [each for each in members if each.at.bytes in _SIZES[field.bytes]]
    for called in field.names:
        found = [each for each in fitting if called in _called(each)]
        if len(found) > 1:
            raise LatencyError(
                f"{found[0]} or {found[1]} of the map may be the field {name}; give its layout"
            )
        if found:
            at = found[0].at
            return at._replace(big_endian=at.big_endian or name in _ADDRESSES | _PORTS)
    return None


def _from_btf(fd: int, sizes: Any) -> Layout:
    members = _members(fd)
    if not members:
        raise LatencyError(
            f"the map, with keys of {sizes.key_bytes} bytes and values of {sizes.value_bytes}, has"
            " no documented layout and no type information (BTF); give its layout"
        )
    found = {name: place for name in FIELDS if (place := _find(name, members)) is not None}
    missing = [name for name in _NEEDED if name not in found]
    if missing:
        seen = ", ".join(map(str, members[:20]))
        raise LatencyError(
            f"no member of the map is {' or '.join(missing)}: it has {seen}; give its layout"
        )
    return found


def layout_of(fd: int, text: str | None) -> tuple[Any, str]:
    """The `struct lbl_layout *` of a map for C, and what it is in words.

    NULL if `text` is None and the map's sizes are those of a documented layout; read from the map's
    type information if they are not.

    Raises:
        LatencyError: there is no type information, or it does not tell the layout.
        ValueError: the layout is malformed, or the map is too small for it.
        BpfError: the kernel refuses.
    """
    sizes = ffi.new("struct lbl_map_sizes *")
    check(lib.lbl_map_sizes(fd, sizes), "reading the map's sizes")
    if text is None and lib.lbl_layout_is_documented(sizes.key_bytes, sizes.value_bytes):
        return ffi.NULL, f"documented, keys of {sizes.key_bytes} bytes"
    layout = _from_btf(fd, sizes) if text is None else parse_layout(text)
    made = ffi.new("struct lbl_layout *")
    for name, at in layout.items():
        made.at[FIELDS[name].number] = at._asdict()
    misfit = lib.lbl_layout_misfit(made, sizes.key_bytes, sizes.value_bytes)
    for name, at in layout.items():
        if FIELDS[name].number == misfit:
            part, size = ("value", sizes.value_bytes) if at.in_value else ("key", sizes.key_bytes)
            raise ValueError(
                f"layout: {name} would be at bytes {at.offset} to {at.offset + at.bytes - 1} of the"
                f" {part}, which has {size}"
            )
    return made, format_layout(layout)
