"""What is shown of a painting, averaged over time along the motion of the video: strokes go along with it."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Image, Look, Size
from pipeline.scaling import resize, working_size

LINES, LIVE_LINES = 240, 160
"""Shorter side of the pictures, in pixels, in which motion is looked for: of files, and of what is live."""

LIVE_HEIGHT = 360
"""Shorter side, in pixels, that live paintings are mixed at."""

SMALLEST = 32
"""Shorter side, in pixels, from which on there is enough of a painting to find motion by."""

STILL, MOVES = 0.1, 0.2
"""Pixels there below which nothing moves, and from which on motion is what it is found to be."""

ALIKE, OTHER = 12.0, 24.0
"""Grey levels by which a place may differ from where it came from, and from which on it is another."""

MOST = 0.9
"""Share of the picture shown before that there is room for."""

FORGOTTEN = 1 / 4096
"""Share of a picture from which on nobody can tell whether it was there."""

JUMP = 0.1
"""By how much of the mix or the strength a look changes at once, and not little by little."""


def memory(amount: float) -> int:
    """How many pictures back what is shown hangs on, if each takes a share of `amount` of the one before."""
    return math.ceil(math.log(FORGOTTEN) / math.log(amount)) if amount else 0


class TemporalFilter:
    """Mixes into each painting the one shown before it, moved along as the video has moved since.

    A canvas that stays where it is lies over what moves like a pane of glass, and one that follows a camera
    knows one motion. Here every place has its own: strokes go along with it, and give way to those of the
    canvas little by little. It is the motion-compensated recursive filter of video denoising (Dubois and
    Sabri 1984, doi:10.1109/TCOM.1984.1096143), over flow by dense inverse search (Kroeger et al. 2016, arXiv
    1603.03590). What stands still keeps its place. Where the video looks other than where it came from,
    as it does at a cut or where something has just come into view, nothing is mixed in.

    Called for every frame in turn.

    Args:
        amount: share of what was shown before, from 0 to `MOST`.
        size: (width, height) at which paintings are mixed; finer detail is that of each painting itself.
        live: in half the time, at some of the effect.

    Raises:
        ValueError: there is no such share.
    """

    def __init__(self, amount: float, size: Size, *, live: bool = False) -> None:
        if not 0 <= amount <= MOST:
            raise ValueError(f"a painting takes 0 to {MOST} of what was shown before it, not {amount}")
        self._amount = amount if min(size) >= SMALLEST else 0.0
        self._size = working_size(size, LIVE_HEIGHT, 1) if live else size
        self._small = working_size(size, LIVE_LINES if live else LINES, 1)
        self._places, self._places_small = _grid(self._size), _grid(self._small)
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._before: tuple[Image, NDArray[np.float32]] | None = None
        """The last picture of the video, small, and what was shown for it at `size`."""
        self._look = Look()

    def __call__(self, image: Image, painted: Image, look: Look) -> Image:
        """What to show for `painted`, which `look` made of the video's `image`.

        Both are uint8 [h, w, 3], of any sizes; what is shown is of the painting's.
        """
        if not self._amount or look.strength == 0:
            self.forget()
            return painted
        if _jumped(self._look, look):
            self.forget()
        shown = resize(painted, self._size).astype(np.float32)
        small = resize(image, self._small)
        before, self._before, self._look = self._before, (small, shown), look
        if before is None:
            return painted
        place, share = self._along(before[0], small)
        moved = cv2.remap(before[1], place, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        change = cv2.multiply(
            cv2.subtract(moved, shown, dst=moved), cv2.merge((share, share, share)), dst=moved
        )
        cv2.add(shown, change, dst=shown)
        height, width = painted.shape[:2]
        if (width, height) != self._size:
            change = cv2.resize(change, (width, height), interpolation=cv2.INTER_LINEAR)
        mixed: Image = cv2.add(painted, change, dtype=cv2.CV_8U)
        return mixed

    def forget(self) -> None:
        """Mix nothing into the next painting."""
        self._before = None

    def _along(self, before: Image, after: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Where each pixel of `size` was before, (x, y) [h, w, 2], and the share it takes of what was there.

        Args:
            before, after: neighbouring pictures of the video, small.
        """
        now, then = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (after, before))
        flow = self._flow.calc(now, then, None)
        place = self._places_small + flow
        red, green, blue = cv2.split(cv2.absdiff(cv2.remap(before, place, None, cv2.INTER_LINEAR), after))
        other = cv2.max(cv2.max(red, green), blue).astype(np.float32)
        x, y = cv2.split(place)
        inside = (x >= 0) & (y >= 0) & (x < self._small[0]) & (y < self._small[1])
        share = np.clip((OTHER - other) / (OTHER - ALIKE), 0, 1) * inside
        share = cv2.blur(cv2.erode(share, np.ones((3, 3))), (3, 3)) * self._amount
        # What is found where nothing moves would have the canvas creep.
        far = cv2.magnitude(*cv2.split(flow))
        flow *= np.clip((far - STILL) / (MOVES - STILL), 0, 1)[..., None]
        flow *= np.divide(self._size, self._small)
        return self._places + cv2.resize(flow, self._size), cv2.resize(share, self._size)


def _grid(size: Size) -> NDArray[np.float32]:
    columns, rows = (np.arange(side, dtype=np.float32) for side in size)
    return np.stack(np.meshgrid(columns, rows), -1)


def _jumped(before: Look, look: Look) -> bool:
    """Whether a look changes as in a cut, and not as in a fade."""
    old, new = (
        {name: weight / sum(each.mix.values()) for name, weight in each.mix.items()}
        for each in (before, look)
    )
    apart = sum(abs(old.get(name, 0.0) - new.get(name, 0.0)) for name in old | new) / 2
    return max(apart, abs(before.strength - look.strength)) > JUMP
