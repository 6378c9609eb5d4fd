"""Which way up: the display matrix of phones and cameras, and the EXIF of photographs."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import av
import cv2
import numpy as np
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


EXIF = {
    2: Orientation(mirror_x=True),
    3: Orientation(mirror_x=True, mirror_y=True),
    4: Orientation(mirror_y=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, mirror_x=True),
    7: Orientation(transpose=True, mirror_x=True, mirror_y=True),
    8: Orientation(transpose=True, mirror_y=True),
}
"""By the value of EXIF's tag 0x0112 (CIPA DC-008, section 4.6.5)."""


def orientation_of(frame: av.VideoFrame, photograph: Path | None = None) -> Orientation:
    """The orientation in the frame's display matrix, rounded to a quarter turn; upright if there is none.

    The matrix (ISO/IEC 14496-12 section 6.2.2, row by row a b u c d v x y w) takes a point (x, y) of the
    decoded picture to (a x + c y, b x + d y) on the display. One that is all zeros is invalid and ignored.

    Args:
        photograph: the file that the frame is from, if it is a single picture: its EXIF is looked at.
    """
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV 18 has no name for the EXIF that FFmpeg 8.1 hangs on photographs, and gives none of their data.
        # The turn can be had by itself, but not whether the picture is mirrored.
        if photograph is not None and photograph.is_file():
            return exif_orientation(photograph)
        return QUARTER_TURNS.get(round(frame.rotation / 90) % 4, Orientation())
    if data is None:
        return Orientation()
    a, b, _, c, d = struct.unpack("=9i", bytes(cast(Any, data)))[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def exif_orientation(photograph: Path) -> Orientation:
    """The orientation in the EXIF of a picture file; upright if it has none."""
    # OpenCV takes no names that are not UTF-8.
    file = np.fromfile(photograph, np.uint8)
    _, kinds, metadata = cv2.imdecodeWithMetadata(file, flags=cv2.IMREAD_REDUCED_GRAYSCALE_8)
    for kind, content in zip(kinds, metadata, strict=True):
        if kind == cv2.IMAGE_METADATA_EXIF:
            return EXIF.get(_tag(bytes(cast(Any, content)), 0x0112), Orientation())
    return Orientation()


def _tag(exif: bytes, wanted: int) -> int:
    """The number in a tag of EXIF's first directory, which is that of a TIFF; 0 if it is not there."""
    order = "<" if exif[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * entry)
            if tag == wanted:
                return int(value)
    except struct.error:
        pass
    return 0
