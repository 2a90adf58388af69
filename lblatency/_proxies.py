"""Names of proxies, as C takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._address import parse_target
from ._ffi import ffi, lib

__all__ = ["encode_name", "proxy_table"]

_Place = int | tuple[bytes, int]  # a proxy id or a VIP


def encode_name(name: object) -> bytes:
    """A proxy's name as C takes it.

    Raises:
        TypeError: it is not a string.
        ValueError: it is empty, or not Unicode.
    """
    if not isinstance(name, str):
        raise TypeError(f"proxy name must be a string, not {type(name).__name__}")
    if not name:
        raise ValueError("proxy name must not be empty")
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"proxy name {name!r} is not valid Unicode") from None


def _by_place(proxies: Mapping[int | str, str]) -> dict[_Place, bytes]:
    """Encoded names by proxy id or VIP, in the same order."""
    if not isinstance(proxies, Mapping):
        raise TypeError("proxies must be a mapping from proxy id or 'ip:port' to name")
    places: dict[_Place, bytes] = {}
    for key, name in proxies.items():
        encoded = encode_name(name)
        place: _Place
        if isinstance(key, str):
            place = parse_target(key)
            if place in places:
                raise ValueError(f"proxies has {key!r} twice, in other words; name it once")
        elif isinstance(key, int) and 0 <= key < 65536:
            place = key
        else:
            raise ValueError(f"proxy id {key!r} must be 1 to 65535, or an 'ip:port'")
        places[place] = encoded
    return places


def proxy_table(
    proxy_name: str,
    proxies: Mapping[int | str, str],
    of_streams: Sequence[Mapping[int | str, str]] = (),
) -> tuple[Any, list[Any]]:
    """The table of `struct lbl_proxy` for C, and the texts that it points to.

    Args:
        proxy_name: of events without a proxy id.
        proxies: names by proxy id, or by the `ip:port` that clients connect to.
        of_streams: names that each C stream has of its own, in the order of the start. They come
            before the others.

    Raises:
        TypeError: a name is not a string, or names are not a mapping.
        ValueError: a name is empty, a key is none of these, or one VIP has two names.
    """
    texts: list[Any] = []
    rows: list[dict[str, Any]] = []
    if 0 in proxies:
        raise ValueError("proxy id 0 has the name proxy_name; an id in proxies must be 1 to 65535")
    shared = _by_place({0: proxy_name, **proxies})
    own = [_by_place(names) for names in of_streams]

    def add(place: _Place, encoded: bytes, stream: int) -> None:
        texts.append(ffi.from_buffer(encoded))
        row: dict[str, Any] = {"name": texts[-1], "name_bytes": len(encoded), "stream": stream}
        if isinstance(place, int):
            row["id"] = place
        else:
            row.update(has_vip=True, vip_addr=place[0], vip_port=place[1])
        rows.append(row)

    for place, encoded in shared.items():
        if isinstance(place, int) or not any(place in names for names in own):
            add(place, encoded, lib.LBL_ALL_STREAMS)
            continue
        for i, names in enumerate(own):
            if place not in names:
                add(place, encoded, i)
    for i, names in enumerate(own):
        for place, encoded in names.items():
            add(place, encoded, i)
    return ffi.new("struct lbl_proxy[]", rows), texts
