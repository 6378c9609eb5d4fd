"""How long the last picture of an animation is shown, which FFmpeg's encoders and muxers leave open."""

import struct
import zlib
from fractions import Fraction

MOST = (1 << 16) - 1
"""In either part of a delay in APNG."""

LONGEST = (1 << 24) - 1
"""Milliseconds that a picture of a WebP can be shown."""


def apng_lasting(frame: bytes, duration: Fraction) -> bytes:
    """The chunks of one picture of an APNG, shown for `duration` in seconds; the muxer keeps what is set."""
    begin = frame.index(b"fcTL")
    most = int(min(Fraction(MOST), MOST / duration))
    delay = duration.limit_denominator(most) if most else Fraction(MOST)
    # Behind the name: number, width, height, left and top; then the delay, and how the picture is laid on.
    at = begin + 4 + 20
    control = frame[begin:at] + struct.pack(">HH", min(delay.numerator, MOST), delay.denominator)
    control += frame[at + 4 : at + 6]
    end = at + 6
    return frame[:begin] + control + struct.pack(">I", zlib.crc32(control)) + frame[end + 4 :]


def webp_lasting(file: bytes, duration: Fraction) -> bytes:
    """A WebP whose last picture stays until `duration`, in seconds, is over; one that does not move as it is.

    libwebp shows it for the mean of the others.
    """
    begin, last, shown, before = 12, None, 0, 0
    while begin + 8 <= len(file):
        if file[begin : begin + 4] == b"ANMF":
            # Behind name and size: left, top, width and height of three bytes each; then the milliseconds.
            last, before = begin + 8 + 12, shown
            shown += int.from_bytes(file[last : last + 3], "little")
        size = int.from_bytes(file[begin + 4 : begin + 8], "little")
        begin += 8 + size + size % 2
    if last is None:
        return file
    stays = min(max(1, round(1000 * duration) - before), LONGEST)
    return file[:last] + stays.to_bytes(3, "little") + file[last + 3 :]
