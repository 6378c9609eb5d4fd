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
SIZES = ((1280, 720), (640, 360))
ENGINES = (
    ("openvino", "auto"),
    ("openvino", "bfloat16"),
    ("openvino", "float32"),
    ("onnxruntime", "float32"),
)
STYLE = "pointillism"
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

    return {"opencv_onnxruntime": in_onnxruntime, "opencv_openvino": in_openvino}


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
    style = Style.load(STYLE)
    loaded = dict(running(style))
    cores = os.cpu_count() or 1
    report: dict[str, Any] = {"style": STYLE, "rounds": rounds, "sizes": {}}
    for size in SIZES:
        clip = make_clip(folder / f"{size[0]}.mp4", size, 132)
        cpu: dict[str, list[dict[str, float]]] = {name: [] for name in loaded}
        fps: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, engine in loaded.items():
                cpu[name].append(stages(clip, engine))
                fps.setdefault(f"fauve, {name}", []).append(fauve(clip, engine, folder, "full"))
            first = next(iter(loaded.values()))
            if size[1] > style.native_height:
                fps.setdefault("fauve, default detail", []).append(fauve(clip, first, folder, 1.0))
            for name, stylize in loops(style).items():
                fps.setdefault(name, []).append(opencv_loop(clip, stylize, folder, style.multiple))
        result: dict[str, Any] = {"cpu_ms": {}, "fps": {name: median(values) for name, values in fps.items()}}
        for name, samples in cpu.items():
            result["cpu_ms"][name] = {stage: median(s[stage] for s in samples) for stage in samples[0]}
            # Compared round by round: what the stages of this very round allow.
            result.setdefault("share_of_allowed", {})[name] = median(
                rate * sum(sample.values()) / 1000 / cores
                for rate, sample in zip(fps[f"fauve, {name}"], samples, strict=True)
            )
        fastest = f"fauve, {next(iter(loaded))}"
        result["times_faster_than"] = {
            name: median(a / b for a, b in zip(fps[fastest], fps[name], strict=True)) for name in loops(style)
        }
        report["sizes"]["{}x{}".format(*size)] = result
    report["classic_network_ms"] = {"{}x{}".format(*size): classic(size) for size in SIZES[1:]}
    short = make_clip(folder / "short.mp4", SIZES[1], 250)
    long = make_clip(folder / "long.mp4", SIZES[1], 2500)
    report["peak_memory_mib"] = {
        "250 frames": peak_memory(short, folder),
        "2500 frames": peak_memory(long, folder),
    }
    return report


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
        for name, cpu in result["cpu_ms"].items():
            share = result["share_of_allowed"][name]
            print(f"  CPU-ms {name}: {cpu}, {share:.2f} of the rate that this allows")
        print(f"  times faster than {result['times_faster_than']}")
    print(report["classic_network_ms"], report["peak_memory_mib"])
    print(write_results("throughput", report))


if __name__ == "__main__":
    main()
