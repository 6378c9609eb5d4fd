"""Between the standard range, which is painted, and the high range of the source.

What tone mapping takes from the source is kept as a gain, smoothed, and given back to the painting: strokes
stay and highlights return. The idea is that of gain maps (ISO 21496-1); the transfers are ITU-R BT.2100's.
"""

from dataclasses import dataclass
from functools import cache

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Image
from pipeline.colour import BT2020, LIMITED, Colour, frame_of, tagged

PQ, HLG = 16, 18
"""Transfer characteristics (H.273 table 3) of high dynamic range."""

WHITE = 203.0
"""Luminance of standard white in a picture of high range, in cd/m2 (BT.2408)."""

HLG_PEAK, HLG_GAMMA = 1000.0, 1.2
"""Nominal display of HLG in cd/m2, and the gamma of its picture (BT.2100 table 5)."""

STEP = 4
"""Pixels of the picture for one of the map."""

SMOOTHING = 3
"""Side of the window that the map is averaged over, in its own pixels."""

FLOOR = 0.05
"""cd/m2 that are added on both sides, so that black stays black whatever its noise."""

LARGEST = 6.0
"""Stops, up and down."""

LUMA_709 = np.array([0.2126, 0.7152, 0.0722], np.float32)
LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)

BT2020_FROM_709 = np.array(
    [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]], np.float32
)
"""Linear light (BT.2087)."""

TABLE = 4096
"""Entries of the table of PQ over the fourth root of luminance, where it is nearly straight."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What the standard picture is multiplied by to be the high one again."""

    stops: NDArray[np.float32]
    """Binary logarithm, [h / STEP, w / STEP]."""
    transfer: int
    """`PQ` or `HLG`."""


def high_colour(transfer: int) -> Colour:
    """How what is lifted is encoded and tagged."""
    return Colour(BT2020, LIMITED, BT2020, transfer)


def small_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of the map of a picture."""
    return max(1, width // STEP), max(1, height // STEP)


def high_luminance(planes: NDArray[np.uint16], transfer: int) -> NDArray[np.float32]:
    """Luminance in cd/m2, [h, w], of 10-bit Y, Cb, Cr in limited range, [3, h, w]."""
    y, cb, cr = planes.astype(np.float32)
    y, cb, cr = (y - 64) / 876, (cb - 512) / 896, (cr - 512) / 896
    red, blue = y + 1.4746 * cr, y + 1.8814 * cb
    green = (y - LUMA_2020[0] * red - LUMA_2020[2] * blue) / LUMA_2020[1]
    signal = np.clip(np.stack([red, green, blue], -1), 0, 1)
    if transfer == PQ:
        return np.asarray(pq_luminance(signal) @ LUMA_2020)
    scene = hlg_scene(signal) @ LUMA_2020
    return np.asarray(HLG_PEAK * scene**HLG_GAMMA, np.float32)


def gain_of(high: NDArray[np.float32], image: Image, transfer: int) -> Gain:
    """The gain from `image`, tone-mapped, uint8 [h, w, 3], to `high`, of the size that `small_size` says."""
    size = (high.shape[1], high.shape[0])
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    standard = WHITE * (cv2.LUT(small, _linear()) @ LUMA_709)
    stops = np.log2((high + FLOOR) / (standard + FLOOR))
    smooth = cv2.blur(stops, (SMOOTHING, SMOOTHING), borderType=cv2.BORDER_REPLICATE)
    return Gain(np.clip(smooth, -LARGEST, LARGEST).astype(np.float32), transfer)


def lift(image: Image, gain: Gain, pixels: str) -> av.VideoFrame:
    """`image`, uint8 [h, w, 3] in BT.709, in the high range, as a frame of the 10-bit format `pixels`."""
    height, width = image.shape[:2]
    light = cv2.transform(cv2.LUT(image, _linear()), BT2020_FROM_709 * WHITE)
    factor = cv2.resize(np.exp2(gain.stops), (width, height), interpolation=cv2.INTER_LINEAR)
    light = np.maximum(light * factor[..., None], 0)
    signal = _pq_signal(light) if gain.transfer == PQ else _hlg_signal(light)
    planes = [values.view(np.uint8) for values in _ten_bits(signal)]
    frame = frame_of(planes, (width, height), "yuv444p10le")
    return tagged(frame, high_colour(gain.transfer), pixels, "AREA")


def _ten_bits(signal: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Y, Cb, Cr [3, h, w] in limited range of R, G, B [h, w, 3] in 0..1 (BT.2020, not constant luminance)."""
    red, green, blue = LUMA_2020
    matrix = np.array(
        [
            [876 * red, 876 * green, 876 * blue, 64],
            [-896 * red / 1.8814, -896 * green / 1.8814, 896 * (1 - blue) / 1.8814, 512],
            [896 * (1 - red) / 1.4746, -896 * green / 1.4746, -896 * blue / 1.4746, 512],
        ],
        np.float32,
    )
    codes = cv2.transform(signal, matrix)
    whole: NDArray[np.uint16] = np.clip(np.rint(codes), 4, 1019).astype(np.uint16)
    return np.ascontiguousarray(whole.transpose(2, 0, 1))


@cache
def _linear() -> NDArray[np.float32]:
    """Linear light in 0..1 of each byte, by the display gamma of BT.1886."""
    table: NDArray[np.float32] = ((np.arange(256) / 255) ** 2.4).astype(np.float32)
    return table


def pq_signal(luminance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The signal in 0..1 of a luminance in cd/m2 (SMPTE ST 2084, inverse EOTF)."""
    power = np.clip(luminance / 10_000, 0, 1) ** 0.1593017578125
    signal: NDArray[np.float64] = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    return signal


def pq_luminance(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """The luminance in cd/m2 of a signal in 0..1 (SMPTE ST 2084, EOTF)."""
    power = signal ** np.float32(1 / 78.84375)
    base = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
    luminance: NDArray[np.float32] = 10_000 * base ** np.float32(1 / 0.1593017578125)
    return luminance


@cache
def _pq_table() -> NDArray[np.float32]:
    roots = np.arange(TABLE) / (TABLE - 1)
    return pq_signal(10_000 * roots**4).astype(np.float32)


def _pq_signal(light: NDArray[np.float32]) -> NDArray[np.float32]:
    roots = cv2.sqrt(cv2.sqrt(np.minimum(light / 10_000, 1)))
    signal: NDArray[np.float32] = _pq_table()[np.rint(roots * (TABLE - 1)).astype(np.uint16)]
    return signal


def hlg_scene(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scene light in 0..1 of an HLG signal in 0..1 (BT.2100 table 5, inverse OETF)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    low, high = signal * signal / 3, (np.exp((signal - c) / a) + b) / 12
    scene: NDArray[np.float32] = np.where(signal <= 0.5, low, high).astype(np.float32)
    return scene


def _hlg_signal(light: NDArray[np.float32]) -> NDArray[np.float32]:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    relative = light / HLG_PEAK
    luminance = np.maximum(relative @ LUMA_2020, 1e-6)
    scene = np.clip(relative * (luminance ** (1 / HLG_GAMMA - 1))[..., None], 0, 1)
    low, high = np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-6)) + c
    signal: NDArray[np.float32] = np.where(scene <= 1 / 12, low, high).astype(np.float32)
    return signal
