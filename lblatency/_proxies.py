"""Names of proxies, as C takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._address import parse_target
from ._ffi import ffi, lib

__all__ = ["encode_name", "proxy_table"]


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


def proxy_table(
    proxy_name: str,
    proxies: Mapping[int | str, str],
    of_streams: Sequence[Mapping[int | str, str]] = (),
) -> tuple[Any, list[Any]]:
    """The table of `struct lbl_proxy` for C, and the texts that it points to.

    Args:
        proxy_name: of events without a proxy id.
        proxies: names by proxy id, or by the `ip:port` that clients connect to.
        of_streams: names that each C stream has of its own, in the order of the start.

    Raises:
        TypeError: a name is not a string.
        ValueError: a name is empty, a key is none of these, or one VIP has two names.
    """
    texts: list[Any] = []
    rows: list[dict[str, Any]] = []
    vips: set[tuple[bytes, int, int]] = set()
    every = lib.LBL_ALL_STREAMS
    shared = [(key, name, every) for key, name in proxies.items()]
    own = [(key, name, i) for i, names in enumerate(of_streams) for key, name in names.items()]
    if 0 in proxies:
        raise ValueError("proxy id 0 has the name proxy_name; an id in proxies must be 1 to 65535")
    for key, name, stream in [(0, proxy_name, every), *shared, *own]:
        encoded = encode_name(name)
        texts.append(ffi.from_buffer(encoded))
        row: dict[str, Any] = {"name": texts[-1], "name_bytes": len(encoded), "stream": stream}
        if isinstance(key, str):
            address, port = parse_target(key)
            if vips & {(address, port, stream), (address, port, every)}:
                raise ValueError(f"proxies has {key!r} twice, in other words; name it once")
            vips.add((address, port, stream))
            row.update(has_vip=True, vip_addr=address, vip_port=port)
        elif isinstance(key, int) and 0 <= key < 65536:
            row["id"] = key
        else:
            raise ValueError(f"proxy id {key!r} must be 1 to 65535, or an 'ip:port'")
        rows.append(row)
    return ffi.new("struct lbl_proxy[]", rows), texts
