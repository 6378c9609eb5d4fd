"""How fast files are painted, what each stage costs, and how that compares.

    python -m benchmarks.throughput [--rounds 3]

Writes `results/throughput.json`. Whatever is compared is measured in turn within each round, because a
machine's speed changes from minute to minute; figures are medians over the rounds.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
import numpy as np

import engines
from benchmarks.machine import write_results
from benchmarks.networks import fast_style_network
from engines import Engine, EngineUnavailable, Look, Style
from pipeline.colour import Decoded, colour_of, to_yuv
from pipeline.progress import VideoProgress
from pipeline.render import Render
from pipeline.scaling import stylizer
from pipeline.sinks.encoders import choose
from pipeline.sources.file import FileSource

CLIP = Path(__file__).parent.parent / "docs" / "big_buck_bunny.mp4"
SIZES = ((1920, 1080), (1280, 720), (640, 360))
WHOLE = SIZES[1:]
"""Sizes that are painted without being scaled as well, by each engine and by the loops."""
ENGINES = (
    ("openvino", "auto"),
    ("openvino", "bfloat16"),
    ("openvino", "float32"),
    ("onnxruntime", "float32"),
)
STYLE = "pointillism"
LOOPS = ("opencv_onnxruntime", "opencv_openvino")
"""The loops that one writes in an hour, by the runtime that they paint with: `loops`."""
PACKS = ("live", "studio")
"""Of which that style is painted as `fauve run` does if it is not told otherwise."""
SAMPLE = 40
"""Frames that a stage is measured over."""


def make_clip(path: Path, size: tuple[int, int], frames: int) -> Path:
    """The bundled clip at `size`, repeated up to `frames` frames, H.264 with its sound's codec and rate."""
    with av.open(str(CLIP)) as source, av.open(str(path), "w") as sink:
        video = sink.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.codec_context.options = {"crf": "18", "preset": "veryfast"}
        sound = sink.add_stream("aac", rate=48000, layout="stereo")
        pictures = [frame.reformat(*size) for frame in source.decode(video=0)]
        for index, frame in zip(range(frames), itertools.cycle(pictures)):
            frame.pts, frame.time_base, frame.pict_type = index, Fraction(1, 25), 0
            sink.mux(video.encode(frame))
        sink.mux(video.encode(None))
        for start in range(0, frames * 48000 // 25, 1024):
            tone = np.sin(np.arange(start, start + 1024) * 0.05, dtype=np.float32)
            samples = av.AudioFrame.from_ndarray(np.stack([tone, tone]), format="fltp", layout="stereo")
            samples.sample_rate, samples.pts, samples.time_base = 48000, start, Fraction(1, 48000)
            sink.mux(sound.encode(samples))
        sink.mux(sound.encode(None))
    return path


def cpu_ms(work: Callable[[], int]) -> float:
    """CPU milliseconds, of all threads together, for each of the items that `work` says it did."""
    began = time.process_time()
    items = work()
    return (time.process_time() - began) / items * 1000


def stages(clip: Path, engine: Engine) -> dict[str, float]:
    """CPU milliseconds a frame of each stage, measured apart."""
    with av.open(str(clip)) as container:
        frames = list(itertools.islice(container.decode(video=0), SAMPLE))
    with FileSource(clip, tracks=False) as source:
        info = source.info
    colour, decoded = colour_of(frames[0]), Decoded()
    images = [decoded.image(frame, colour) for frame in frames]
    look = Look()
    engine(images[0], look)

    def decode() -> int:
        with av.open(str(clip)) as container:
            container.streams.video[0].thread_type = "AUTO"
            return sum(1 for _ in container.decode(video=0))

    def encode() -> int:
        encoding = choose("h264", info, muxer="mp4")
        encoder: Any = av.CodecContext.create(encoding.encoder.name, "w")
        encoding.set_up(encoder, info)
        for picture, frame in zip(pictures, frames, strict=True):
            picture.pts, picture.time_base = frame.pts, frame.time_base
            encoder.encode(picture)
        encoder.encode(None)
        return len(frames)

    def each(work: Callable[[Any], Any], items: list[Any]) -> Callable[[], int]:
        def all_of_them() -> int:
            for item in items:
                work(item)
            return len(items)

        return all_of_them

    pictures = [to_yuv(engine(image, look), colour) for image in images]
    return {
        "decode": cpu_ms(decode),
        "to_rgb": cpu_ms(each(lambda frame: decoded.image(frame, colour), frames)),
        "style": cpu_ms(each(lambda image: engine(image, look), images)),
        "to_yuv": cpu_ms(each(lambda image: to_yuv(image, colour), images)),
        "encode": cpu_ms(encode),
    }


def fauve(clip: Path, engine: Engine, folder: Path, detail: Any) -> float:
    """Frames a second of the product's own path, file to file, with sound."""
    with FileSource(clip, tracks=False) as source:
        info = source.info
        paint = stylizer(engine, (info.width, info.height), detail)
        paint(np.zeros((info.height, info.width, 3), np.uint8), Look())  # compiled before the clock starts
    render = Render(engine, Look(), detail, force=True)
    began = time.perf_counter()
    report = render(clip, folder / "fauve.mp4", lambda info: VideoProgress())
    return int(report["frames"]) / (time.perf_counter() - began)


def opencv_loop(clip: Path, stylize: Callable[[Any], Any], folder: Path, multiple: int) -> float:
    """Frames a second of the loop that one writes in an hour: OpenCV in, the same graph, OpenCV out.

    Args:
        multiple: of the graph; where sides are none, the loop makes its frames a little smaller.
    """
    capture = cv2.VideoCapture(str(clip))
    sides = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    width, height = (side // multiple * multiple for side in sides)
    size = (width, height)
    writer = cv2.VideoWriter(str(folder / "loop.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, size)
    stylize(np.zeros((1, size[1], size[0], 3), np.uint8))
    began, frames = time.perf_counter(), 0
    while True:
        read, image = capture.read()
        if not read:
            break
        if image.shape[:2] != (height, width):
            image = cv2.resize(image, size)
        painted = stylize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)[None])
        writer.write(cv2.cvtColor(painted[0], cv2.COLOR_RGB2BGR))
        frames += 1
    writer.release()
    capture.release()
    return frames / (time.perf_counter() - began)


def loops(style: Style) -> dict[str, Callable[[Any], Any]]:
    """The two runtimes as their own first examples use them."""
    import onnxruntime
    import openvino

    inputs = style.place((style.multiple, style.multiple), Look()).inputs
    session = onnxruntime.InferenceSession(style.model(), providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model(openvino.Core().read_model(style.model()), "CPU")

    def in_onnxruntime(image: Any) -> Any:
        return session.run(None, {"image": image, **inputs})[0]

    def in_openvino(image: Any) -> Any:
        return compiled({"image": image, **inputs})[0]

    return dict(zip(LOOPS, (in_onnxruntime, in_openvino), strict=True))


def classic(size: tuple[int, int]) -> dict[str, float]:
    """Milliseconds for a picture of the classic fast-style network in OpenVINO, by precision."""
    import openvino

    width, height = size
    core = openvino.Core()
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, height, width)).astype(np.float32)
    result = {}
    for name, options in (("auto", {}), ("float32", {"INFERENCE_PRECISION_HINT": "f32"})):
        compiled = core.compile_model(core.read_model(fast_style_network(height, width)), "CPU", options)
        compiled([image])
        times = []
        for _ in range(3):
            began = time.perf_counter()
            compiled([image])
            times.append((time.perf_counter() - began) * 1000)
        result[name] = median(times)
    return result


def peak_memory(clip: Path, folder: Path) -> float:
    """Peak memory of `fauve run` on `clip`, in MiB; from /proc, so on Linux."""
    # Not from getrusage: a process inherits the peak of the one that started it.
    program = (
        "import re, sys; from pathlib import Path; from pipeline.cli import main; main(); "
        "sys.stderr.write(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    arguments = ["run", str(clip), "-o", str(folder / "memory.mp4"), "--style", STYLE, "--force", "--quiet"]
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    return int(result.stderr) / 1024


def running(style: Style) -> Iterator[tuple[str, Engine]]:
    """Each of `ENGINES` that this machine has, by runtime and precision."""
    seen: set[str] = set()
    for name, precision in ENGINES:
        try:
            engine = engines.load(name, style=style, precision=precision, hint="throughput")
        except EngineUnavailable as error:
            print(error)
            continue
        found = f"{name} {engine.precision}"
        if found in seen:
            engine.close()
            continue
        seen.add(found)
        yield found, engine


def measure(rounds: int, folder: Path) -> dict[str, Any]:
    """All measurements, as the JSON file holds them."""
    loaded = dict(running(Style.load(STYLE)))
    packs = {
        f"fauve by default, in `{pack}`": engines.load(
            ENGINES[0][0], style=Style.load(f"{pack}/{STYLE}"), hint="throughput"
        )
        for pack in PACKS
    }
    report: dict[str, Any] = {"style": STYLE, "rounds": rounds, "sizes": {}}
    for size in SIZES:
        clip = make_clip(folder / f"{size[0]}.mp4", size, 132)
        rates: list[dict[str, float]] = []
        cpu: list[dict[str, dict[str, float]]] = []
        for _ in range(rounds):
            rates.append({})
            if size in WHOLE:
                cpu.append({name: stages(clip, engine) for name, engine in loaded.items()})
                rates[-1] |= whole(clip, loaded, folder)
            rates[-1] |= {name: fauve(clip, engine, folder, 1.0) for name, engine in packs.items()}
        result: dict[str, Any] = {"fps": {name: median(rate[name] for rate in rates) for name in rates[0]}}
        if size in WHOLE:
            result |= compared(rates, cpu)
        report["sizes"]["{}x{}".format(*size)] = result
    report["classic_network_ms"] = {"{}x{}".format(*SIZES[-1]): classic(SIZES[-1])}
    short = make_clip(folder / "short.mp4", SIZES[-1], 250)
    long = make_clip(folder / "long.mp4", SIZES[-1], 2500)
    report["peak_memory_mib"] = {
        "250 frames": peak_memory(short, folder),
        "2500 frames": peak_memory(long, folder),
    }
    return report


def whole(clip: Path, loaded: dict[str, Engine], folder: Path) -> dict[str, float]:
    """Frames a second at the clip's own size, of each engine and of each of `LOOPS`."""
    style = Style.load(STYLE)
    rates = {f"fauve, {name}": fauve(clip, engine, folder, "full") for name, engine in loaded.items()}
    for name, stylize in loops(style).items():
        rates[name] = opencv_loop(clip, stylize, folder, style.multiple)
    return rates


def compared(rates: list[dict[str, float]], cpu: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """What each stage costs, what share of the rate that this allows is reached, and how the loops compare.

    Args:
        rates: frames a second of each round, by name.
        cpu: CPU milliseconds of each round, by engine and stage.
    """
    cores = os.cpu_count() or 1
    fastest = f"fauve, {next(iter(cpu[0]))}"
    return {
        "cpu_ms": {
            name: {stage: median(each[name][stage] for each in cpu) for stage in costs}
            for name, costs in cpu[0].items()
        },
        # Compared round by round: what the stages of this very round allow.
        "share_of_allowed": {
            name: median(
                rate[f"fauve, {name}"] * sum(each[name].values()) / 1000 / cores
                for rate, each in zip(rates, cpu, strict=True)
            )
            for name in cpu[0]
        },
        "times_faster_than": {name: median(rate[fastest] / rate[name] for rate in rates) for name in LOOPS},
    }


def table(report: dict[str, Any]) -> str:
    """The report's rates as the README shows them, in Markdown."""
    rows = ["| | " + " | ".join(report["sizes"]) + " |", "| --- |" + " --- |" * len(report["sizes"])]
    names = dict.fromkeys(name for result in report["sizes"].values() for name in result["fps"])
    for name in names:
        cells = [result["fps"].get(name) for result in report["sizes"].values()]
        rows.append(f"| {name} | " + " | ".join(f"{fps:g} fps" if fps else "" for fps in cells) + " |")
    return "\n".join(rows)


def rounded(value: Any) -> Any:
    """`value` with its numbers at three digits."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return float(f"{value:.3g}") if isinstance(value, float) else value


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = rounded(measure(arguments.rounds, Path(folder)))
    for size, result in report["sizes"].items():
        print(size)
        for name, fps in result["fps"].items():
            print(f"  {fps:6.1f} fps  {name}")
        for name, cpu in result.get("cpu_ms", {}).items():
            share = result["share_of_allowed"][name]
            print(f"  CPU-ms {name}: {cpu}, {share:.2f} of the rate that this allows")
        if "times_faster_than" in result:
            print(f"  times faster than {result['times_faster_than']}")
    print(report["classic_network_ms"], report["peak_memory_mib"])
    print(write_results("throughput", report))


if __name__ == "__main__":
    main()
