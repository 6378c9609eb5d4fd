"""What dividing a render among workers costs: an index, following the camera, entering at key frames, a join.

    python -m benchmarks.workers [--frames 1500]

Writes `results/workers.json`. CPU seconds, and their share of those of the whole render by one worker.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import engines
from benchmarks.machine import write_results
from benchmarks.throughput import STYLE, make_clip, rounded
from engines import Look
from pipeline import render as rendering
from pipeline.frame import Frame
from pipeline.progress import VideoProgress
from pipeline.segments import Segment, missing
from pipeline.sources.file import FileSource
from pipeline.sources.index import read_index

SIZE = (640, 360)
WORKERS = (2, 4, 8)


def until_first_frame(clip: Path, segment: Segment) -> float:
    """CPU seconds until the first frame of `segment` is decoded."""
    began = time.process_time()
    _, source = segment.open(clip, None)
    with source:
        next(item for item in source if isinstance(item, Frame))
    return time.process_time() - began


def measure(frames: int, folder: Path) -> dict[str, Any]:
    """All measurements, as the JSON file holds them."""
    clip = make_clip(folder / "clip.mp4", SIZE, frames)
    joined: list[float] = []
    join = rendering.join

    def timed(*arguments: Any) -> None:
        began = time.process_time()
        join(*arguments)
        joined.append(time.process_time() - began)

    rendering.join = timed
    with engines.load("auto", style=STYLE, hint="throughput") as engine:
        render = rendering.Render(engine, Look(), "full", force=True)
        began = time.process_time()
        render(clip, folder / "painted.mp4", lambda info: VideoProgress())
        whole = time.process_time() - began
    rendering.join = join
    began = time.process_time()
    index = read_index(clip)
    indexed = time.process_time() - began
    assert index is not None, "an .mp4 of our own tells its times"
    with FileSource(clip, tracks=False) as source:
        time_base = source.info.time_base
    first = until_first_frame(clip, Segment())
    cost = {}
    for workers in WORKERS:
        segments = missing([], index, time_base, None, workers)
        run_in = sum(until_first_frame(clip, segment) - first for segment in segments)
        began = time.process_time()
        render.painting(clip, None).located(segments, lambda frames: None)
        follow = time.process_time() - began
        cost[f"{workers} workers"] = {
            "run_in_s": run_in,
            "follow_s": follow,
            "share": (indexed + joined[0] + run_in + follow) / whole,
        }
    return {
        "frames": frames,
        "size": "{}x{}".format(*SIZE),
        "render_s": whole,
        "index_s": indexed,
        "join_s": joined[0],
        "divided": cost,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = rounded(measure(arguments.frames, Path(folder)))
    print(report)
    print(write_results("workers", report))


if __name__ == "__main__":
    main()
