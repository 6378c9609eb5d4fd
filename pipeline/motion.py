"""How far a camera has moved, so that a style's canvas can go along with what it films."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Image, Size
from pipeline.frame import Frame
from pipeline.scaling import resize
from pipeline.sources import Source

LINES = 160
"""Shorter side of the pictures, in pixels, in which motion is looked for."""

SMALLEST = 32
"""Shorter side below which none is looked for."""

CELLS = (4, 6)
"""Rows and columns of the fields that are each asked for their motion."""

GRADIENT = 20.0
"""Change of grey levels over two pixels from which on motion can be seen."""

SEEN = 0.04
"""Share of a field's pixels in which it must be seen."""

STILL = 0.06
"""Pixels from one picture to the next below which a field stands still."""

STANDS = 0.2
"""Share of the fields that stand still while the camera does, whatever moves before it."""

AGREES, PARALLAX = 0.35, 0.1
"""Pixels, and share of the motion, by which a field's may differ from the camera's."""

MOST = 0.5
"""Share of the fields that must agree with the camera's motion."""

SIDES = 3
"""Sides of the picture at which some must: what moves in the middle is no camera."""

NATIVE = 480
"""Lines of a picture whose pixels these count:"""

TREMBLES = 1.5
"""Pixels by which the scene may have moved, at once or in all, before it is gone along with: a hand that
trembles moves no canvas."""

CATCHES_UP = 0.5
"""Share of the way by which one that goes along catches up with each picture, if that is no more."""

ARRIVED = 0.05
"""Pixels from which on there is nothing to catch up with."""

REFINED = 2
"""Times that the camera's motion is made more exact."""

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Motion:
    """Where a camera has got to, from which it can be followed on; can be sent to another process."""

    before: Grey | None = None
    """The last picture, small and grey; None before the first."""
    scene: tuple[float, float] = (0.0, 0.0)
    """How far the scene has moved, right and down, in pixels of the source."""
    moved: tuple[float, float] = (0.0, 0.0)
    """How far a canvas is to have gone along."""
    going: bool = False
    """Whether it does."""

    def of(self, image: Image) -> "Motion":
        """After another picture, uint8 [h, w, 3]."""
        grey = small_grey(image)
        return self.then(grey, (image.shape[1], image.shape[0]))

    def then(self, grey: Grey, size: Size) -> "Motion":
        """After another picture.

        Args:
            grey: it, small.
            size: its own (width, height).
        """
        if self.before is None or self.before.shape != grey.shape or min(grey.shape) < SMALLEST:
            return replace(self, before=grey)
        right, down = camera_motion(self.before, grey)
        step = right * size[0] / grey.shape[1], down * size[1] / grey.shape[0]
        scene = self.scene[0] + step[0], self.scene[1] + step[1]
        left = scene[0] - self.moved[0], scene[1] - self.moved[1]
        pixel = min(size) / NATIVE
        swift, far = (max(map(abs, way)) > TREMBLES * pixel for way in (step, left))
        if not (self.going or swift or far):
            return Motion(grey, scene, self.moved)
        share = 1.0 if swift else CATCHES_UP
        moved = self.moved[0] + share * left[0], self.moved[1] + share * left[1]
        return Motion(grey, scene, moved, (1 - share) * max(map(abs, left)) > ARRIVED * pixel)


def camera_motion(before: Grey, after: Grey) -> tuple[float, float]:
    """How far the scene moved, right and down, in pixels; 0 where it did not, or nobody can tell.

    A camera moves all that it sees alike, at the edges of the picture, too, and leaves nothing where it was.
    By dense inverse search (Kroeger et al. 2016, arXiv 1603.03590), the median of each field, and their
    median, which is then made exact.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST).calc(before, after, None)
    seen = np.hypot(*_gradient(before)) > GRADIENT
    rows, columns = (
        np.linspace(0, side, n + 1).astype(int) for side, n in zip(seen.shape, CELLS, strict=True)
    )
    fields = {}
    for row, column in product(range(CELLS[0]), range(CELLS[1])):
        field = np.s_[rows[row] : rows[row + 1], columns[column] : columns[column + 1]]
        if seen[field].mean() > SEEN:
            fields[row, column] = field
    if not fields:
        return 0.0, 0.0
    found = np.array([np.median(flow[field][seen[field]], axis=0) for field in fields.values()])
    if (np.abs(found).max(1) < STILL).mean() >= STANDS:
        return 0.0, 0.0
    camera = np.median(found, axis=0)
    agrees = np.abs(found - camera).max(1) < AGREES + PARALLAX * np.abs(camera).max()
    at = np.array(list(fields))[agrees]
    sides = [at[:, 0] == 0, at[:, 0] == CELLS[0] - 1, at[:, 1] == 0, at[:, 1] == CELLS[1] - 1]
    if agrees.mean() < MOST or sum(side.any() for side in sides) < SIDES:
        return 0.0, 0.0
    counts = np.zeros(seen.shape, bool)
    for field, counted in zip(fields.values(), agrees, strict=True):
        counts[field] = counted
    right, down = _exact(before, after, camera, counts)
    return right, down


def _exact(
    before: Grey, after: Grey, moved: NDArray[np.float32], counts: NDArray[np.bool_]
) -> tuple[float, float]:
    """`moved` to a small part of a pixel, where `counts`: the least squares of Lucas and Kanade (1981)."""
    height, width = before.shape
    for _ in range(REFINED):
        shift = np.array([[1, 0, moved[0]], [0, 1, moved[1]]], np.float32)
        there = cv2.warpAffine(
            before, shift, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        across, along = (step[counts] / 2 for step in _gradient(there))
        rest = there[counts].astype(np.float32) - after[counts]
        matrix = np.array([[across @ across, across @ along], [across @ along, along @ along]])
        missed = np.linalg.lstsq(matrix, np.array([across @ rest, along @ rest]), rcond=None)[0]
        if np.abs(missed).max() > 1:
            break
        moved = moved + missed
    return float(moved[0]), float(moved[1])


def _gradient(image: Grey) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Change of grey levels over two pixels, right and down."""
    across, along = (cv2.Sobel(image, cv2.CV_32F, *step, ksize=1) for step in ((1, 0), (0, 1)))
    return cast(NDArray[np.float32], across), cast(NDArray[np.float32], along)


def small_grey(image: Image) -> Grey:
    """`image` [h, w, 3] with its shorter side at `LINES`, grey."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    if shorter > LINES:
        image = resize(image, (round(width * LINES / shorter), round(height * LINES / shorter)))
    return cast(Grey, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


class Followed(Source):
    """The frames of a source, each of which tells how far a canvas is to have gone along with the scene.

    Args:
        motion: what came before its first frame.
        grey: makes the small picture that motion is looked for in.
    """

    def __init__(
        self, source: Source, motion: Motion | None = None, grey: Callable[[Any], Grey] = small_grey
    ) -> None:
        self._source = source
        self._grey = grey
        self.info = source.info
        self.motion = motion or Motion()
        """After the last frame."""

    def __iter__(self) -> Iterator[Frame | Any]:
        for item in self._source:
            self.lost, self.dropped = self._source.lost, self._source.dropped
            self.reconnected = self._source.reconnected
            if isinstance(item, Frame):
                grey = self._grey(item.image)
                self.motion = self.motion.then(grey, (self.info.width, self.info.height))
                yield replace(item, moved=self.motion.moved)
            else:
                yield item

    def close(self) -> None:
        """Close the source."""
        self._source.close()
