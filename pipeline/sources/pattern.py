"""A moving test pattern that carries a time code, to try outputs and to measure latency with."""

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
from av import AudioFrame
from numpy.typing import NDArray

from engines import Image, Size
from pipeline.colour import BT709, LIMITED, Colour
from pipeline.frame import Frame, Sound, VideoInfo
from pipeline.sources import Source

TIME_BASE = Fraction(1, 90_000)

SAMPLE_RATE = 48_000

CODE_BITS = 24
"""Of the frame's number, in a row of blocks at the lower edge, after a black block and a white one."""

FLASH = 2
"""Frames, at the beginning of each second, in which the upper left corner is white and the sound clicks."""


class PatternSource(Source):
    """Colours that drift, a ball that bounces, and the number of each frame in blocks at the lower edge.

    Args:
        size: (width, height).
        rate: frames per second; frames that the machine is too late for are left out.
        sound: click at the beginning of each second.
    """

    def __init__(
        self, size: Size = (1280, 720), rate: Fraction = Fraction(30), *, sound: bool = False
    ) -> None:
        self.info = VideoInfo(
            *size, rate, TIME_BASE, Colour(BT709, LIMITED, BT709, BT709), live=True, sound=sound
        )
        self._backdrop = _backdrop(size)
        self._closed = False

    def __iter__(self) -> Iterator[Frame | Any]:
        period = 1 / self.info.rate
        began, number = time.monotonic(), 0
        while not self._closed:
            ahead = began + float(number * period) - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
            elif ahead < -float(period):
                late, number = number, int((time.monotonic() - began) / period) + 1
                self.dropped += number - late
                continue
            pts = round(number * period / TIME_BASE)
            image = self.picture(number)
            yield Frame(
                image, pts, round(period / TIME_BASE), TIME_BASE, captured_at=began + float(number * period)
            )
            if self.info.sound:
                yield self._sound(number)
            number += 1

    def picture(self, number: int) -> Image:
        """Frame `number` of the pattern."""
        width, height = self.info.width, self.info.height
        shift = number * max(1, width // 320) % width
        image = np.ascontiguousarray(self._backdrop[:, shift : shift + width])
        seconds = float(number / self.info.rate)
        centre = (
            round(width * (0.5 + 0.35 * np.sin(seconds * 1.3))),
            round(height * (0.45 - 0.3 * abs(np.cos(seconds * 2)))),
        )
        cv2.circle(image, centre, height // 8, (250, 240, 200), -1, cv2.LINE_AA)
        if self._flashes(number):
            image[: height // 6, : height // 6] = 255
        write_code(image, number)
        return image

    def _flashes(self, number: int) -> bool:
        """Whether frame `number` is among the first of its second; there may be less than one in a second."""
        return number % max(1, round(self.info.rate)) < FLASH

    def _sound(self, number: int) -> Sound:
        first = round(number * SAMPLE_RATE / self.info.rate)
        last = round((number + 1) * SAMPLE_RATE / self.info.rate)
        at = np.arange(first, last)
        wave = np.sin(2 * np.pi * 1000 * at / SAMPLE_RATE) * (0.5 if self._flashes(number) else 0)
        samples = AudioFrame.from_ndarray(
            np.stack([wave, wave]).astype(np.float32), format="fltp", layout="stereo"
        )
        samples.sample_rate, samples.pts, samples.time_base = SAMPLE_RATE, first, Fraction(1, SAMPLE_RATE)
        return Sound(samples, 8 * len(at))

    def close(self) -> None:
        """End after the frame in hand."""
        self._closed = True


def _backdrop(size: Size) -> Image:
    """Soft stripes of colour, twice as wide as the picture, whose right half repeats the left one."""
    width, height = size
    x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    hue = (x + 0.3 * y) % 1 * 180
    light = 150 + 60 * np.sin(2 * np.pi * (2 * x + y))
    hsv = np.stack([hue, np.full_like(hue, 150), light], -1).astype(np.uint8)
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.concatenate([rgb, rgb], 1)


def _blocks(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Side of a block of the code and the row that it begins at."""
    side = image.shape[1] // (CODE_BITS + 2)
    return side, image.shape[0] - side


def write_code(image: Image, number: int) -> None:
    """Paint `number` along the lower edge of `image`: a black block, a white one, then its bits."""
    side, top = _blocks(image)
    bits = [0, 1, *(number >> bit & 1 for bit in reversed(range(CODE_BITS)))]
    for index, bit in enumerate(bits):
        image[top:, index * side : (index + 1) * side] = 255 * bit


def read_code(image: Image) -> int | None:
    """The number along the lower edge of `image`, painted or not; None if it cannot be read."""
    side, top = _blocks(image)
    inner = image[top + side // 4 : top + side - side // 4].astype(np.float32).mean(2)
    means = [
        float(inner[:, index * side + side // 4 : (index + 1) * side - side // 4].mean())
        for index in range(CODE_BITS + 2)
    ]
    black, white = means[:2]
    if white - black < 40:
        return None
    middle = (black + white) / 2
    return sum(
        (mean > middle) << bit for bit, mean in zip(reversed(range(CODE_BITS)), means[2:], strict=True)
    )
