"""How still the painting holds: the flicker score of the bundled styles over all frames of a video.

    python -m benchmarks.flicker [VIDEO]

Writes `results/flicker.json`: as each frame is painted, and with `--steady`. `pipeline.flicker` says what the
score and its parts are.
"""

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import cv2

import engines
from benchmarks.machine import write_results
from engines import Image, Look
from engines.style import bundled
from pipeline.flicker import Flicker
from pipeline.frame import Frame
from pipeline.motion import Followed
from pipeline.scaling import size_for, stylizer
from pipeline.sources.file import FileSource
from pipeline.temporal_filter import TemporalFilter

CLIP = Path(__file__).parent.parent / "docs" / "big_buck_bunny.mp4"

STEADY = (0.5, 0.75)
"""Amounts of `--steady` that are measured."""


def measure(video: Path, style: str) -> dict[str, Any]:
    """The flicker of the painting at full strength, over all frames, also with `--steady`; and its times."""
    with FileSource(video, audio=False) as file, engines.load("auto", style=style) as engine:
        source = file.info.width, file.info.height
        paint, size = stylizer(engine, source), size_for(engine.style, source)
        look = Look(engine.style.mix)
        filters = {amount: TemporalFilter(amount, size) for amount in (0.0, *STEADY)}
        found = {amount: Flicker() for amount in filters}
        previous: dict[float, tuple[Image, Image]] = {}
        seconds: dict[str, list[float]] = {"painting": [], "steady": []}
        for frame in Followed(file):
            assert isinstance(frame, Frame)
            began = time.perf_counter()
            painted = paint(frame.image, look.carried(frame.moved))
            seconds["painting"].append(time.perf_counter() - began)
            for amount, steady in filters.items():
                began = time.perf_counter()
                pair = frame.image, steady(frame.image, painted, look)
                if amount:
                    seconds["steady"].append(time.perf_counter() - began)
                if amount in previous:
                    found[amount].add(previous[amount], pair)
                previous[amount] = pair
    reports = {amount: flicker.report() for amount, flicker in found.items()}
    return {
        **reports[0.0],
        "steady": {str(amount): reports[amount] for amount in STEADY},
        "ms": {what: round(1000 * median(each), 1) for what, each in seconds.items()},
    }


def main() -> None:
    """Measure every bundled style, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path, nargs="?", default=CLIP)
    video = parser.parse_args().video
    # As in a render, whose threads each do one thing.
    cv2.setNumThreads(1)
    styles = [f"{name}/{style}" for name in bundled() for style in engines.load_style(name).styles]
    report = {style: measure(video, style) for style in styles}
    print(report)
    print(write_results("flicker", {"video": video.name, "styles": report}))


if __name__ == "__main__":
    main()
