"""A camera's noise taken out of what stands still, because a style turns noise into strokes that crawl."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from engines import Image
from pipeline.frame import Frame
from pipeline.sources import Source

KEPT = 0.75
"""Share of the picture before where nothing moves. Noise goes down to 0.38 of what it was."""

NEIGHBOURHOOD = 5
"""Side of the square in which differences are averaged, in pixels of half the size."""

MOVES = 1.45
"""Difference, as a multiple of the noise, above which a pixel moves."""

QUIET_SHARE = 25
"""Percentile of the differences that is taken for the noise: this much of a picture stands still."""

RISE = 1.02
"""How fast the noise may grow from frame to frame, so that motion all over is not taken for noise."""


class NoiseReduction:
    """A recursive temporal filter that follows motion: what stands still is averaged over time.

    Each call gives the picture to show for the next frame of a video, and needs no later one.
    """

    def __init__(self) -> None:
        self._before: Image | None = None
        self._noise: float | None = None

    def __call__(self, image: Image) -> Image:
        """`image`, uint8 [h, w, 3], of the same size as those before."""
        if self._before is None or self._before.shape != image.shape:
            self._before, self._noise = image, None
            return image
        averaged = cv2.addWeighted(self._before, KEPT, image, 1 - KEPT, 0)
        shown: Image = cv2.copyTo(image, self._moving(image, self._before), averaged)
        self._before = shown
        return shown

    def _moving(self, image: Image, before: Image) -> Image:
        """Where the picture moved, [h, w], not 0 there."""
        height, width = image.shape[:2]
        half = (max(1, width // 2), max(1, height // 2))
        small, small_before = (cv2.resize(x, half, interpolation=cv2.INTER_NEAREST) for x in (image, before))
        change = cv2.cvtColor(cv2.absdiff(small, small_before), cv2.COLOR_RGB2GRAY)
        change = cv2.blur(change, (NEIGHBOURHOOD, NEIGHBOURHOOD))
        level = float(np.percentile(change[::4, ::4], QUIET_SHARE))
        self._noise = level if self._noise is None else min(level, self._noise * RISE + 0.01)
        moving = cv2.threshold(change, MOVES * self._noise + 0.7, 255, cv2.THRESH_BINARY)[1]
        mask: Image = cv2.resize(moving, (width, height), interpolation=cv2.INTER_NEAREST)
        return mask


class Denoised(Source):
    """A live source without its noise where it stands still.

    Args:
        picture: the live source.
    """

    def __init__(self, picture: Source) -> None:
        self._picture = picture
        self.info = picture.info

    def __iter__(self) -> Iterator[Frame | Any]:
        reduce = NoiseReduction()
        shown: Frame | None = None
        for item in self._picture:
            self.lost, self.dropped = self._picture.lost, self._picture.dropped
            self.reconnected = self._picture.reconnected
            if isinstance(item, Frame):
                # A held picture that is shown again is no news about the noise.
                held = shown is not None and item.captured_at is None
                shown = replace(item, image=shown.image if held and shown else reduce(item.image))
                yield shown
            else:
                yield item

    def close(self) -> None:
        """Let go of the source."""
        self._picture.close()
