"""Between the YUV of codecs and the RGB of engines, by the equations of ITU-T H.273.

swscale only changes how samples are stored. OpenCV applies the matrix, in fixed point, within a level of the
equations and without a bias: swscale's fast path darkens every picture by a level, and its accurate one takes
five times as long.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

from engines import Image

IDENTITY = 0
"""The matrix of what is R, G and B already."""
UNSPECIFIED = 2
BT709 = 1
SMPTE170M = 6
BT2020, BT2020_CONSTANT = 9, 10
LIMITED, FULL = 1, 2

LUMA = {
    BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    SMPTE170M: (0.299, 0.114),
    7: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
}
"""Kr and Kb by matrix coefficients (H.273 table 4)."""

PLANAR = {
    (1, 1): "yuv444p",
    (2, 1): "yuv422p",
    (1, 2): "yuv440p",
    (2, 2): "yuv420p",
    (4, 1): "yuv411p",
    (4, 4): "yuv410p",
}
"""Formats whose planes are read as they are, by how many pixels share a chroma sample across and down."""

ONE_THREAD = 1
"""For swscale, which writes beyond the end of a row: over what another thread has begun the next one with."""

SAME_MATRIX = {"src_colorspace": Colorspace.ITU709, "dst_colorspace": Colorspace.ITU709}
"""For swscale, from YUV to YUV, where it applies none: it refuses frames that are tagged with one that it has
not, such as BT.2020 with constant luminance."""


Alpha = NDArray[np.uint8]
"""[h, w], 0 for what is not there to 255 for what hides all behind it."""


@dataclass(frozen=True, slots=True)
class Colour:
    """How a stream's numbers mean colours, in the code points of H.273, as FFmpeg uses them."""

    matrix: int = BT709
    range: int = LIMITED
    """1 limited (16..235), 2 full (0..255)."""
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


def is_yuv(format: av.VideoFormat) -> bool:
    """Whether a pixel format holds Y, Cb and Cr, and not R, G and B, grey, a palette or X, Y and Z."""
    return not (format.is_rgb or format.name.startswith(("gray", "ya", "mono", "pal", "xyz")))


def subsampling(format: av.VideoFormat) -> tuple[int, int]:
    """How many pixels share a chroma sample of a pixel format, across and down."""
    return 4 // format.chroma_width(4), 4 // format.chroma_height(4)


def colour_of(frame: av.VideoFrame) -> Colour:
    """How to encode what was painted of `frame`: as the frame itself is, its matrix and range spelled out.

    Where a file does not tell its matrix, players take BT.709 for HD and BT.601 for less, and so does this.
    BT.2020 with constant luminance is read and written as that without.
    """
    matrix = frame.colorspace
    if not is_yuv(frame.format):
        matrix = BT709
    elif matrix not in LUMA:
        if matrix == BT2020_CONSTANT or frame.color_primaries == BT2020:
            matrix = BT2020
        else:
            matrix = BT709 if frame.width >= 1280 or frame.height > 576 else SMPTE170M
    full = frame.format.name.startswith("yuvj") or (frame.color_range == FULL and not frame.format.is_rgb)
    return Colour(matrix, FULL if full else LIMITED, frame.color_primaries, frame.color_trc)


@cache
def rgb_from_yuv(colour: Colour) -> NDArray[np.float32]:
    """The matrix [3, 4] from 8-bit Y, Cb, Cr, 1 to R, G, B on 0..255 (H.273 section 8.3)."""
    kr, kb = LUMA[colour.matrix]
    kg = 1 - kr - kb
    luma, chroma, black = (1.0, 1.0, 0.0) if colour.range == FULL else (255 / 219, 255 / 224, 16.0)
    red, blue = 2 * (1 - kr) * chroma, 2 * (1 - kb) * chroma
    matrix = np.array(
        [
            [luma, 0, red],
            [luma, -kb / kg * blue, -kr / kg * red],
            [luma, blue, 0],
        ]
    )
    offset = matrix @ [-black, -128.0, -128.0]
    return np.column_stack([matrix, offset]).astype(np.float32)


@cache
def yuv_from_rgb(colour: Colour) -> NDArray[np.float32]:
    """The matrix [3, 4] from R, G, B, 1 on 0..255 to 8-bit Y, Cb, Cr; inverse of `rgb_from_yuv`."""
    matrix = rgb_from_yuv(colour).astype(np.float64)
    inverse = np.linalg.inv(matrix[:, :3])
    return np.column_stack([inverse, -inverse @ matrix[:, 3]]).astype(np.float32)


def has_alpha(frame: av.VideoFrame, codec: str) -> bool:
    """Whether the frames of a video may be transparent, as its first one tells."""
    if codec == "gif" or frame.format.name == "pal8":
        # These are decoded with an alpha whether they need it or not.
        return bool(Decoded().alpha(frame).min() < 255)
    return any(component.is_alpha for component in frame.format.components)


def over(image: Image, alpha: Alpha, background: tuple[int, int, int]) -> Image:
    """`image` laid over a colour."""
    weight = alpha[..., None].astype(np.uint32)
    mixed = image * weight + np.array(background, np.uint32) * (255 - weight)
    flat: Image = ((mixed + 127) // 255).astype(np.uint8)
    return flat


class Decoded:
    """Turns decoded frames into RGB; one for each thread, since it keeps swscale's tables."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def image(self, frame: av.VideoFrame, colour: Colour) -> Image:
        """`frame` as RGB, of any pixel format and 8 bits or more; it must not be changed meanwhile."""
        if not is_yuv(frame.format):
            if frame.format.name.endswith(("555be", "565be")):
                # swscale takes their bytes in the wrong order, but for what has more than eight bits.
                frame = self._reformatter.reformat(frame, format="rgb48le", threads=ONE_THREAD)
            packed = _packed(self._reformatter.reformat(frame, format="rgb24", threads=ONE_THREAD))
            # swscale takes every grey for one of full range.
            grey = frame.format.name.startswith(("gray", "ya")) and frame.color_range == LIMITED
            return cv2.LUT(packed, _expanded()) if grey else packed
        across, down = subsampling(frame.format)
        if frame.format.name.replace("yuvj", "yuv") not in (*PLANAR.values(), "nv12"):
            # The same range on both sides: swscale must not touch the numbers. Nor may it resize the chroma,
            # which it would stretch to an odd side.
            frame = self._reformatter.reformat(
                frame,
                format=PLANAR[across, down],
                src_color_range=colour.range,
                dst_color_range=colour.range,
                threads=ONE_THREAD,
                **SAME_MATRIX,
            )
        height, width = frame.height, frame.width
        if frame.format.name == "nv12":
            y, (cb, cr) = _plane(frame.planes[0]), _interleaved(frame.planes[1], width)
        else:
            y, cb, cr = (_plane(plane) for plane in frame.planes[:3])
        if (across, down) != (1, 1):
            size = (cb.shape[1] * across, cb.shape[0] * down)
            cb, cr = (cv2.resize(plane, size)[:height, :width] for plane in (cb, cr))
        image: Image = cv2.transform(cv2.merge((y, cb, cr)), rgb_from_yuv(colour))
        return image

    def alpha(self, frame: av.VideoFrame) -> Alpha:
        """How opaque each pixel of `frame` is."""
        if is_yuv(frame.format):
            # On the way to RGBA swscale would leave the last columns of some widths as they come.
            planar: Any = self._reformatter.reformat(
                frame, format="yuva444p", threads=ONE_THREAD, **SAME_MATRIX
            )
            return _plane(planar.planes[3])
        rgba: Any = self._reformatter.reformat(frame, format="rgba", threads=ONE_THREAD).to_ndarray()
        alpha: Alpha = rgba[..., 3]
        return alpha


@cache
def _expanded() -> NDArray[np.uint8]:
    """Each level of limited range in full range."""
    levels = (np.arange(256) - 16) * 255 / 219
    table: NDArray[np.uint8] = levels.round().clip(0, 255).astype(np.uint8)
    return table


def _rows(plane: Any) -> NDArray[np.uint8]:
    """The bytes of `plane`, with what pads its rows."""
    rows: NDArray[np.uint8] = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height]


def _plane(plane: Any) -> NDArray[np.uint8]:
    return _rows(plane)[:, : plane.width]


def _interleaved(plane: Any, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Cb and Cr, each half as wide as the picture, out of the plane that holds them in turn."""
    half = (width + 1) // 2
    pairs = _rows(plane)[:, : 2 * half].reshape(-1, half, 2)
    return pairs[..., 0], pairs[..., 1]


def _packed(frame: av.VideoFrame) -> Image:
    return _rows(frame.planes[0])[:, : frame.width * 3].reshape(frame.height, frame.width, 3)


RGB = {"bgr0", "rgb24", "rgba", "bgra"}
"""Pixel formats that hold R, G and B."""


def encodable(
    image: Image, colour: Colour, pixels: str = "yuv420p", alpha: Alpha | None = None
) -> av.VideoFrame:
    """`image` as a frame for an encoder, in the pixel format `pixels` and tagged with `colour`.

    Args:
        alpha: how opaque each pixel is, where `pixels` holds that; of any size.
    """
    size = image.shape[1], image.shape[0]
    if alpha is not None and alpha.shape != image.shape[:2]:
        alpha = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
    if pixels in RGB:
        if pixels in ("rgba", "bgra"):
            opaque = np.full(image.shape[:2], 255, np.uint8) if alpha is None else alpha
            frame = av.VideoFrame.from_ndarray(np.dstack([image, opaque]), format="rgba")
        else:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        return frame if frame.format.name == pixels else frame.reformat(format=pixels)
    if pixels.startswith("yuva"):
        return _with_alpha(to_yuv(image, colour, pixels.replace("yuva", "yuv")), pixels, alpha)
    return to_yuv(image, colour, pixels)


def _with_alpha(opaque: av.VideoFrame, pixels: str, alpha: Alpha | None) -> av.VideoFrame:
    """`opaque` in a format that has one plane more."""
    planes: list[NDArray[Any]] = [_rows(plane) for plane in opaque.planes]
    values = np.full((opaque.height, opaque.width), 255, np.uint8) if alpha is None else alpha
    if pixels.endswith("10le"):
        values = (values.astype(np.uint32) * 1023 // 255).astype("<u2").view(np.uint8)
    frame = frame_of([*planes, values], (opaque.width, opaque.height), pixels)
    frame.colorspace, frame.color_range = opaque.colorspace, opaque.color_range
    frame.color_primaries, frame.color_trc = opaque.color_primaries, opaque.color_trc
    return frame


def frame_of(planes: Iterable[NDArray[np.uint8]], size: tuple[int, int], pixels: str) -> av.VideoFrame:
    """A frame in the pixel format `pixels`.

    Args:
        planes: bytes, [h, w] or more; what there is more of is left out.
        size: (width, height).
    """
    frame = av.VideoFrame(*size, pixels)
    plane: Any
    for plane, content in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        width = min(plane.line_size, content.shape[1])
        rows[:, :width] = content[: plane.height, :width]
        plane.update(rows)
    return frame


def to_yuv(image: Image, colour: Colour, pixels: str = "yuv420p") -> av.VideoFrame:
    """`image` as a frame in the pixel format `pixels`, one of Y, Cb and Cr, and tagged with `colour`."""
    height, width = image.shape[:2]
    yuv = cv2.transform(image, yuv_from_rgb(colour))
    if pixels == "yuv420p" and width % 2 == height % 2 == 0:
        buffer = np.empty((height * 3 // 2, width), np.uint8)
        cv2.extractChannel(yuv, 0, buffer[:height])
        half = (width // 2, height // 2)
        chroma = buffer[height:].reshape(2, half[1], half[0])
        for index in (0, 1):
            # By area, which is the average of the four pixels that share the sample.
            cv2.resize(cv2.extractChannel(yuv, index + 1), half, chroma[index], interpolation=cv2.INTER_AREA)
        # PyAV 18 lends a buffer as so many lines as 4 divides; others it has to copy.
        lent = height % 4 == 0
        make = av.VideoFrame.from_numpy_buffer if lent else av.VideoFrame.from_ndarray
        frame = make(buffer, format="yuv420p")
    else:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(yuv.transpose(2, 0, 1)), format="yuv444p")
    return tagged(frame, colour, pixels, "AREA")


def tagged(frame: av.VideoFrame, colour: Colour, pixels: str, interpolation: str) -> av.VideoFrame:
    """`frame`, of Y, Cb and Cr, tagged with `colour` and stored in the pixel format `pixels`.

    Args:
        interpolation: swscale's name of how chroma is resized, where it is.
    """
    if frame.format.name != pixels:
        size = (frame.width, frame.height)
        # The same range on both sides: swscale must not touch the numbers.
        frame = _padded(frame, subsampling(av.VideoFormat(pixels))).reformat(
            format=pixels,
            src_color_range=colour.range,
            dst_color_range=colour.range,
            interpolation=interpolation,
            threads=ONE_THREAD,
        )
        if (frame.width, frame.height) != size:
            frame = frame_of([_rows(plane) for plane in frame.planes], size, pixels)
    frame.colorspace, frame.color_range = colour.matrix, colour.range
    frame.color_primaries, frame.color_trc = colour.primaries, colour.transfer
    return frame


def _padded(frame: av.VideoFrame, shared: tuple[int, int]) -> av.VideoFrame:
    """`frame` with its last row and column repeated up to whole samples of a chroma that pixels share.

    To an odd side swscale would stretch it, and no sample but the first would lie where its pixels do.
    """
    right, bottom = -frame.width % shared[0], -frame.height % shared[1]
    if subsampling(frame.format) != (1, 1) or not (right or bottom):
        return frame
    deep = frame.format.components[0].bits > 8
    planes = [
        cv2.copyMakeBorder(
            _rows(plane).view(np.uint16 if deep else np.uint8)[:, : frame.width],
            *(0, bottom, 0, right),
            cv2.BORDER_REPLICATE,
        )
        for plane in frame.planes
    ]
    size = (frame.width + right, frame.height + bottom)
    return frame_of([plane.view(np.uint8) for plane in planes], size, frame.format.name)
