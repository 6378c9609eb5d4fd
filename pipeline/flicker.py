"""How still a painting holds: one score, for the summary of a run, the card of a pack and the benchmark."""

from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Image
from pipeline.scaling import resize

LINES = 360
"""Shorter side of the pictures, in pixels, at which motion is estimated and errors are taken."""

SMALLEST = 12
"""Shorter side of a picture, in pixels, below which no motion can be estimated."""

HOLDS = 1.0
"""Pixels that motion there and back may miss its start by."""

CUT = 0.1
"""Share of the picture that motion must hold in: with less, there is a cut between the frames."""


@dataclass
class Flicker:
    """The excess warping error of a painted video, summed over pairs of neighbouring frames.

    The warping error (Lai et al. 2018, arXiv 1808.00449) is what remains between a frame and the one before
    it moved along the video's own motion, where the motion holds forwards and backwards: here the mean
    absolute difference in grey levels.
    """

    pairs: int = 0
    video_sum: float = 0.0
    painting_sum: float = 0.0
    contrast_sum: float = 0.0

    def add(self, before: tuple[Image, Image], after: tuple[Image, Image]) -> None:
        """Count two neighbouring frames, each the video's picture and its painting, uint8 [h, w, 3].

        A cut between them, where no motion holds, is not counted, nor is what is smaller than `SMALLEST`.
        """
        height, width = before[0].shape[:2]
        if min(height, width) < SMALLEST:
            return
        scale = min(1.0, LINES / min(height, width))
        size = (round(width * scale), round(height * scale))
        first, second = ([resize(image, size) for image in pair] for pair in (before, after))
        place, holds = checked_flow(first[0], second[0])
        if holds.mean() < CUT:
            return
        self.pairs += 1
        self.video_sum += warping_error(first[0], second[0], place, holds)
        self.painting_sum += warping_error(first[1], second[1], place, holds)
        self.contrast_sum += contrast(second[1])

    def __iadd__(self, other: Self) -> Self:
        self.pairs += other.pairs
        self.video_sum += other.video_sum
        self.painting_sum += other.painting_sum
        self.contrast_sum += other.contrast_sum
        return self

    @property
    def video(self) -> float:
        """Mean warping error of the video, in grey levels."""
        return self.video_sum / max(1, self.pairs)

    @property
    def painting(self) -> float:
        """Mean warping error of the painting, in grey levels."""
        return self.painting_sum / max(1, self.pairs)

    @property
    def contrast(self) -> float:
        """Mean standard deviation of the painting, in grey levels."""
        return self.contrast_sum / max(1, self.pairs)

    @property
    def score(self) -> float | None:
        """The painting's warping error beyond the video's own, in units of the painting's contrast.

        0 is a painting that sticks to what moves. The contrast is there so that a grey picture does not
        win; for the same reason a painting that changes less than its video scores 0 and not below. None
        where nothing was counted, or the painting has no contrast at all.
        """
        if self.contrast < 1:
            return None
        return max(0.0, self.painting - self.video) / self.contrast

    def report(self) -> dict[str, Any]:
        """The score and what it is made of, rounded."""
        score = self.score
        return {
            "score": None if score is None else round(score, 4),
            "painting": round(self.painting, 2),
            "video": round(self.video, 2),
            "contrast": round(self.contrast, 1),
            "pairs": self.pairs,
        }


def checked_flow(before: Image, after: Image) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where each pixel of `after` was in `before`, [h, w, 2] in pixels, and where that can be relied on.

    By dense inverse search (Kroeger et al. 2016, arXiv 1603.03590), there and back.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    a, b = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (before, after))
    return checked(flow.calc(b, a, None), flow.calc(a, b, None))


def checked(
    backward: NDArray[np.float32], forward: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where each pixel of a frame was in the one before, [h, w, 2] in pixels, and where that is relied on.

    There and back, motion must meet (Sundaram et al. 2010, doi:10.1007/978-3-642-15549-9_32), here within
    `HOLDS`, which what was just uncovered does not; and it must come from within the picture.

    Args:
        backward: the motion of each pixel to the frame before, [h, w, 2] (x, y), in pixels.
        forward: that of each pixel of the frame before.
    """
    height, width = backward.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    place = (grid + backward).astype(np.float32)
    returned = cv2.remap(forward, place, None, cv2.INTER_LINEAR)
    inside = (place >= 0).all(-1) & (place[..., 0] <= width - 1) & (place[..., 1] <= height - 1)
    return place, inside & (np.linalg.norm(backward + returned, axis=-1) < HOLDS)


def warping_error(before: Image, after: Image, place: NDArray[np.float32], holds: NDArray[np.bool_]) -> float:
    """Mean absolute difference of `after` and the moved `before` where motion `holds`, in grey levels."""
    moved = cv2.remap(before, place, None, cv2.INTER_LINEAR)
    return float(np.abs(after[holds].astype(np.int16) - moved[holds]).mean())


def contrast(image: Image) -> float:
    """Standard deviation of the pixels of `image` around its mean colour, in grey levels."""
    return float(np.sqrt(np.var(image, axis=(0, 1), dtype=np.float64).mean()))
