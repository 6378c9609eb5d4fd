"""How still the painting holds: the warping error between its neighbouring frames, beside the video's own.

    python -m benchmarks.flicker [VIDEO]

Writes `results/flicker.json`. The warping error (Lai et al. 2018, arXiv 1808.00449) is what remains between a
frame and the one before it moved along the video's own motion (DIS flow), where the motion holds forwards and
backwards: here as the mean absolute difference in grey levels. 0 is a painting that sticks to what moves.
"""

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import engines
from benchmarks.machine import write_results
from engines import Image, Look
from engines.style import bundled
from pipeline.frame import Frame
from pipeline.scaling import resize, stylizer
from pipeline.sources.file import FileSource

CLIP = Path(__file__).parent.parent / "docs" / "big_buck_bunny.mp4"
HEIGHT = 360
"""Lines at which motion is estimated and errors are taken."""
HOLDS = 1.0
"""Pixels that the motion forwards and back may miss its start by."""


def motion(flow: Any, before: Image, after: Image) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where each pixel of `after` was in `before`, [h, w, 2] in pixels, and where that can be relied on."""
    a, b = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (before, after))
    backward, forward = flow.calc(b, a, None), flow.calc(a, b, None)
    height, width = a.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    place = (grid + backward).astype(np.float32)
    returned = cv2.remap(forward, place, None, cv2.INTER_LINEAR)
    inside = (place >= 0).all(-1) & (place[..., 0] < width - 1) & (place[..., 1] < height - 1)
    return place, inside & (np.linalg.norm(backward + returned, axis=-1) < HOLDS)


def warping_error(before: Image, after: Image, place: NDArray[np.float32], holds: NDArray[np.bool_]) -> float:
    """Mean absolute difference of `after` and the moved `before`, in grey levels."""
    moved = cv2.remap(before, place, None, cv2.INTER_LINEAR)
    return float(np.abs(after[holds].astype(np.int16) - moved[holds]).mean())


def measure(video: Path, style: str) -> dict[str, float]:
    """Warping errors of the video and of its painting at full strength, means over all frames."""
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    errors: dict[str, list[float]] = {"video": [], "painting": []}
    with FileSource(video, audio=False) as source, engines.load("auto", style=style) as engine:
        size = (round(source.info.width * HEIGHT / source.info.height), HEIGHT)
        paint = stylizer(engine, (source.info.width, source.info.height))
        previous: tuple[Image, Image] | None = None
        for frame in source:
            assert isinstance(frame, Frame)
            pair = resize(frame.image, size), resize(paint(frame.image, Look()), size)
            if previous is not None:
                place, holds = motion(flow, previous[0], pair[0])
                for name, before, after in zip(errors, previous, pair, strict=True):
                    errors[name].append(warping_error(before, after, place, holds))
            previous = pair
    return {name: round(mean(values), 2) for name, values in errors.items()}


def main() -> None:
    """Measure every bundled style, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path, nargs="?", default=CLIP)
    video = parser.parse_args().video
    report = {style: measure(video, style) for style in bundled()}
    print(report)
    print(write_results("flicker", {"video": video.name, "grey_levels": report}))


if __name__ == "__main__":
    main()
