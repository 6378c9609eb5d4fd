"""Which way up: the display matrix of phones and cameras."""

import struct
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import av
import cv2
from numpy.typing import NDArray

A = TypeVar("A", bound=NDArray[Any])


@dataclass(frozen=True, slots=True)
class Orientation:
    """What makes a decoded picture upright: first swap its axes, then mirror it."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def upright(self, image: A) -> A:
        """`image` [h, w, 3] or [h, w] the right way up."""
        if self.transpose:
            image = cast(A, cv2.transpose(image))
        if self.mirror_x or self.mirror_y:
            code = -1 if self.mirror_x and self.mirror_y else 1 if self.mirror_x else 0
            image = cast(A, cv2.flip(image, code))
        return image


QUARTER_TURNS = {
    1: Orientation(transpose=True, mirror_y=True),
    2: Orientation(mirror_x=True, mirror_y=True),
    3: Orientation(transpose=True, mirror_x=True),
}
"""By how many quarters of a circle a picture is to be turned, counter-clockwise."""


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """The orientation in the frame's display matrix, rounded to a quarter turn; upright if there is none.

    The matrix (ISO/IEC 14496-12 section 6.2.2, row by row a b u c d v x y w) takes a point (x, y) of the
    decoded picture to (a x + c y, b x + d y) on the display. One that is all zeros is invalid and ignored.
    """
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV 18 has no name for the EXIF that FFmpeg 8.1 hangs on photographs, and gives none of their data.
        # The turn can be had by itself; a mirror image, which cameras do not make, cannot.
        return QUARTER_TURNS.get(round(frame.rotation / 90) % 4, Orientation())
    if data is None:
        return Orientation()
    a, b, _, c, d = struct.unpack("=9i", bytes(cast(Any, data)))[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)
