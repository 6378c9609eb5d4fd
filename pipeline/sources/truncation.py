"""Whether the end of a file is missing, by what its format says of the lengths of its parts."""

import os
from pathlib import Path

TRANSPORT_PACKETS = (188, 192, 204)
"""Bytes of a packet of a transport stream: bare, with a time before it as cameras have it, or with parity."""

TAIL = 1 << 18
"""Bytes at the end of a file among which its last part begins: a page of Ogg has 65,307 at most, as many as a
packet of a program stream."""

FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""What the object of an ASF header begins with that holds the size of the file."""


def is_truncated(path: Path, kind: str) -> bool:
    """Whether a file ends within a packet, or before the size that its header tells.

    Args:
        kind: FFmpeg's name of its format; of "mpegts", "mpeg", "ogg" and "asf" it can be told.

    Raises:
        OSError: it cannot be read.
    """
    if kind not in ("mpegts", "mpeg", "ogg", "asf"):
        return False
    with path.open("rb") as file:
        head = file.read(TAIL)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        tail = file.read()
    if kind == "mpegts":
        return all(size % packet for packet in TRANSPORT_PACKETS)
    if kind == "asf":
        return size < _asf_size(head)
    return _ends_within_page(tail) if kind == "ogg" else _ends_within_pack(tail)


def _asf_size(head: bytes) -> int:
    """Bytes of an ASF file by its header; 0 if that does not tell, as of a broadcast."""
    at = head.find(FILE_PROPERTIES)
    properties = head[at:][:92]
    if at < 0 or len(properties) < 92 or properties[88] & 1:
        return 0
    return int.from_bytes(properties[40:48], "little")


def _ends_within_page(tail: bytes) -> bool:
    at = tail.rfind(b"OggS\0")
    page = tail[at:]
    if at < 0 or len(page) < 27:
        return at >= 0
    segments = page[26]
    return len(page) < 27 + segments + sum(page[27 : 27 + segments])


def _ends_within_pack(tail: bytes) -> bool:
    """Whether the last pack of a program stream, or a packet in it, goes on beyond the end."""
    at = tail.rfind(b"\0\0\1\xba")
    if at < 0:
        return False
    while tail[at : at + 3] == b"\0\0\1" and at + 14 <= len(tail):
        code = tail[at + 3]
        if code == 0xB9:
            at += 4
        elif code == 0xBA:
            # MPEG-1 has no stuffing there.
            at += 14 + (tail[at + 13] & 7) if tail[at + 4] >> 6 == 1 else 12
        else:
            at += 6 + int.from_bytes(tail[at + 4 : at + 6])
    return at > len(tail)
