"""Hand-made frames, with checksums computed in the slow obvious way."""

from __future__ import annotations

import struct
from ipaddress import ip_address

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def checksum(data: bytes) -> int:
    """The Internet checksum, computed in the slow obvious way."""
    if len(data) % 2:
        data += b"\0"
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ip_header(source: str, target: str, protocol: int, l4_bytes: int, options: bytes) -> bytes:
    src, dst = ip_address(source), ip_address(target)
    if src.version == 6:
        return struct.pack("!IHBB", 6 << 28, l4_bytes, protocol, 64) + src.packed + dst.packed
    length = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH", 0x40 | length // 4, 0, length + l4_bytes, 7, 0x4000, 64, protocol, 0
    )
    head += src.packed + dst.packed + options
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:]


def frame(
    source: tuple[str, int],
    target: tuple[str, int],
    *,
    flags: int | None = None,
    seq: int = 0,
    ack: int = 0,
    payload: bytes = b"",
    ip_options: bytes = b"",
    udp_checksum: bool = True,
    padding: bytes = b"",
) -> bytes:
    """Make an Ethernet frame with right checksums: TCP if it has `flags`, else UDP."""
    if flags is None:
        protocol, at = 17, 6
        l4 = struct.pack("!HHHH", source[1], target[1], 8 + len(payload), 0)
    else:
        protocol, at = 6, 16
        numbers = seq & 0xFFFFFFFF, ack & 0xFFFFFFFF
        l4 = struct.pack("!HHIIBBHHH", source[1], target[1], *numbers, 5 << 4, flags, 512, 0, 0)
    l4 += payload
    ip = _ip_header(source[0], target[0], protocol, len(l4), ip_options)
    if flags is not None or udp_checksum:
        pseudo = ip_address(source[0]).packed + ip_address(target[0]).packed
        pseudo += struct.pack("!II", len(l4), protocol)
        found = checksum(pseudo + l4)
        if flags is None and not found:
            found = 0xFFFF
        l4 = l4[:at] + found.to_bytes(2, "big") + l4[at + 2 :]
    ethertype = 0x0800 if ip_address(source[0]).version == 4 else 0x86DD
    return bytes(12) + struct.pack("!H", ethertype) + ip + l4 + padding


def icmp(
    source: str, target: str, quoted: bytes, *, kind: int, code: int, ip_options: bytes = b""
) -> bytes:
    """Make an Ethernet frame with an ICMP error that quotes an IP packet."""
    version = ip_address(source).version
    body = struct.pack("!BBHI", kind, code, 0, 0) + quoted
    pseudo = b""
    if version == 6:
        pseudo = ip_address(source).packed + ip_address(target).packed
        pseudo += struct.pack("!II", len(body), 58)
    body = body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]
    protocol, ethertype = (1, 0x0800) if version == 4 else (58, 0x86DD)
    ip = _ip_header(source, target, protocol, len(body), ip_options)
    return bytes(12) + struct.pack("!H", ethertype) + ip + body


def target_of(data: bytes) -> tuple[str, int]:
    """The address and port that a frame goes to."""
    if data[12:14] == b"\x08\x00":
        header = (data[14] & 15) * 4
        where = ip_address(data[30:34])
    else:
        header = 40
        where = ip_address(data[38:54])
    return str(where), int.from_bytes(data[14 + header + 2 : 14 + header + 4], "big")
