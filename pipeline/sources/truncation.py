"""Whether the end of a file is missing, by what its format says of the lengths of its parts."""

import os
from pathlib import Path
from typing import BinaryIO

TRANSPORT_PACKETS = (188, 192, 204)
"""Bytes of a packet of a transport stream: bare, with a time before it as cameras have it, or with parity."""

TAIL = 1 << 18
"""Bytes at the end of a file among which its last part begins: a page of Ogg has 65,307 at most, as many as a
packet of a program stream."""

SEGMENT = bytes.fromhex("18538067")
"""What the part of a Matroska file begins with that holds all but its first header."""

UNKNOWN_RIFF = 0xFFFFFFFF
"""Size that FFmpeg gives a .avi of which it cannot go back to the beginning."""

FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""What the object of an ASF header begins with that holds the size of the file."""


def is_truncated(path: Path, kind: str) -> bool:
    """Whether a file ends within a packet, or before the size that its header tells.

    Args:
        kind: FFmpeg's name of its format; it can be told of what that begins with "mov", "matroska", "avi",
            "flv", "mpegts", "mpeg", "ogg" or "asf".

    Raises:
        OSError: it cannot be read.
    """
    kind = kind.partition(",")[0]
    if kind not in ("mov", "matroska", "avi", "flv", "mpegts", "mpeg", "ogg", "asf"):
        return False
    with path.open("rb") as file:
        head = file.read(TAIL)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        tail = file.read()
        if kind == "mov":
            return size < _end_of_boxes(file, size)
        if kind == "avi":
            return size < _end_of_riff(file, size)
        if kind == "flv":
            return size < _end_of_tags(file, size)
    if kind == "mpegts":
        return all(size % packet for packet in TRANSPORT_PACKETS)
    if kind == "matroska":
        return size < _matroska_size(head)
    if kind == "asf":
        return size < _asf_size(head)
    return _ends_within_page(tail) if kind == "ogg" else _ends_within_pack(tail)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Where the last box of an .mp4 or .mov ends that begins in it; what is behind all boxes is none."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4])
        if length == 1:
            length = int.from_bytes(head[8:])
        # 0 is for one that goes on to the end.
        if length < 8 or not head[4:8].isalnum():
            break
        at += length
    return at


def _end_of_riff(file: BinaryIO, size: int) -> int:
    """Where the last of the chunks ends that an .avi consists of: one more for each gigabyte."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if not head.startswith(b"RIFF") or length == UNKNOWN_RIFF:
            break
        at += 8 + length
    return at


def _end_of_tags(file: BinaryIO, size: int) -> int:
    """Where the last tag of an .flv ends, each of which is followed by four bytes that tell its length."""
    file.seek(0)
    head = file.read(9)
    end = int.from_bytes(head[5:]) if head.startswith(b"FLV") else size
    while end + 4 < size:
        file.seek(end + 4)
        head = file.read(11)
        # Sound, picture or data, in the lowest five bits.
        if head[0] & 31 not in (8, 9, 18):
            break
        end += 4 + 11 + int.from_bytes(head[1:4])
    return end


def _matroska_size(head: bytes) -> int:
    """Bytes of a Matroska file by its header; 0 if that does not tell, as of a recording that was killed."""
    at = head.find(SEGMENT)
    number = head[at + 4 : at + 12]
    if at < 0 or len(number) < 8 or not number[0]:
        return 0
    # So many zeros as it begins with, so many bytes more there are of the number.
    length = 9 - number[0].bit_length()
    told, unknown = int.from_bytes(number[:length]), (1 << 7 * length) - 1
    return 0 if told & unknown == unknown else at + 4 + length + (told & unknown)


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
