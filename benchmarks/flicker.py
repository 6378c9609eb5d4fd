"""How still the painting holds: the flicker score of the bundled styles over all frames of a video.

    python -m benchmarks.flicker [VIDEO]

Writes `results/flicker.json`: `pipeline.flicker` says what the score and its parts are.
"""

import argparse
from pathlib import Path
from typing import Any

import engines
from benchmarks.machine import write_results
from engines import Image, Look
from engines.style import bundled
from pipeline.flicker import Flicker
from pipeline.frame import Frame
from pipeline.motion import Followed
from pipeline.scaling import stylizer
from pipeline.sources.file import FileSource

CLIP = Path(__file__).parent.parent / "docs" / "big_buck_bunny.mp4"


def measure(video: Path, style: str) -> dict[str, Any]:
    """The flicker of the painting at full strength, over all frames."""
    flicker = Flicker()
    with FileSource(video, audio=False) as file, engines.load("auto", style=style) as engine:
        paint = stylizer(engine, (file.info.width, file.info.height))
        look = Look(engine.style.mix)
        previous: tuple[Image, Image] | None = None
        for frame in Followed(file):
            assert isinstance(frame, Frame)
            pair = frame.image, paint(frame.image, look.carried(frame.moved))
            if previous is not None:
                flicker.add(previous, pair)
            previous = pair
    return flicker.report()


def main() -> None:
    """Measure every bundled style, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path, nargs="?", default=CLIP)
    video = parser.parse_args().video
    styles = [f"{name}/{style}" for name in bundled() for style in engines.load_style(name).styles]
    report = {style: measure(video, style) for style in styles}
    print(report)
    print(write_results("flicker", {"video": video.name, "styles": report}))


if __name__ == "__main__":
    main()
