"""How fast each engine that loads here paints, by size and precision, beside other people's networks.

    python -m benchmarks.engines [--seconds 1] [--engine torch:cuda ...] [--size 1280x720 ...] [--budget 540]

Writes `results/engines.json`. Frames lie in host memory before and after. Each engine has a process of its
own for each network; its first picture of a size is not counted. `p50` and `p95` are of one picture at a
time, `fps` of as many at once as the engine takes. Memory is the process's peak while it paints that size, of
the GPU what it holds.

On an NVIDIA GPU the floors are measured, too: how long the convolutions of our network would take if each
moved its input, output and weights once at the rate of a copy, and if they ran at the rate of a large matrix
product; and beside them how long our kernels take for a picture, alone and where several are painted at once.
"""

import argparse
import contextlib
import itertools
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import engines
from benchmarks.machine import write_results
from benchmarks.networks import NETWORKS, as_style
from engines import Engine, EngineError, Image, Look, Size, Style
from engines.cuda import gpus
from pipeline.stats import percentiles

OURS = "live"
SIZES = ((640, 360), (1280, 720), (1920, 1080))
LARGE = (3840, 2160)
"""Of GPUs only."""

PRECISIONS = ("float32", "bfloat16", "float16", "int8")
FEWEST = 5
"""Pictures that a figure is taken over at least."""

SLOWEST = 2.0
"""Seconds; a size at which a picture would take longer is left out."""


def text(size: Size) -> str:
    """As people write it."""
    return "{}x{}".format(*size)


def size_of(text: str) -> Size:
    """What `text` says, such as 1280x720."""
    width, height = text.split("x")
    return int(width), int(height)


def style_of(network: str, size: Size) -> Style:
    """The pack or network by that name, ready for pictures of `size`."""
    return as_style(network, size) if network in NETWORKS else engines.load_style(network)


def cells(
    network: str, engine: str, precision: str, sizes: list[Size], seconds: float
) -> Iterator[dict[str, Any]]:
    """The figures of one engine with one network, size by size, as long as it is not too slow.

    Raises:
        EngineError: it does not run here.
    """
    before = gpu_memory()
    slow = 0.0
    for size in sizes:
        pixels = size[0] * size[1]
        if slow * pixels > SLOWEST:
            return
        image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
        style = style_of(network, size)
        with engines.load(engine, style=style, precision=precision) as single:
            forget_peak_memory()
            took = one_at_a_time(single, image, seconds)
            device, memory, gpu = single.device, peak_memory(), gpu_memory() - before
        p50, p95, _ = percentiles(took)
        slow = p50 / pixels
        with engines.load(engine, style=style, precision=precision, hint="throughput") as several:
            fps = at_once(several, image, seconds)
        yield {
            "network": network,
            "engine": engine,
            "precision": precision,
            "device": device,
            "size": text(size),
            "p50_ms": 1000 * p50,
            "p95_ms": 1000 * p95,
            "fps": fps,
            "memory_mib": memory,
            "gpu_memory_mib": gpu,
        }


def one_at_a_time(engine: Engine, image: Image, seconds: float) -> list[float]:
    """Seconds that each picture takes, from the call to the picture."""
    engine(image, Look())
    took: list[float] = []
    while sum(took) < seconds or len(took) < FEWEST:
        began = time.perf_counter()
        engine(image, Look())
        took.append(time.perf_counter() - began)
    return took


def at_once(engine: Engine, image: Image, seconds: float) -> float:
    """Pictures a second when `Engine.streams` threads paint."""
    painted = [0] * engine.streams
    with ThreadPoolExecutor(engine.streams) as pool:
        list(pool.map(lambda _: engine(image, Look()), painted))
        began = time.perf_counter()

        def paint(thread: int) -> None:
            while time.perf_counter() - began < seconds or painted[thread] < FEWEST:
                engine(image, Look())
                painted[thread] += 1

        list(pool.map(paint, range(engine.streams)))
        return sum(painted) / (time.perf_counter() - began)


def forget_peak_memory() -> None:
    """Have `peak_memory` begin anew, where the system can: comparing with the reference took some, too."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """Most resident memory that this process has had, in MiB; 0 where the system does not tell."""
    try:
        found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


def gpu_memory() -> float:
    """Memory in use on the first NVIDIA GPU by whomever, in MiB; 0 without one."""
    if not gpus() or shutil.which("nvidia-smi") is None:
        return 0.0
    query = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return float(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0])


def convolutions(style: Style, precision: str, size: Size) -> tuple[int, int]:
    """Bytes that the convolutions of `style` move at least for a picture of `size`, and their operations.

    Each reads its input and its weights once and writes its output once; a multiplication and an addition are
    two operations.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from engines.onnx_to_torch import Program

    moved = operations = 0

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal moved, operations
            result = function(*args, **(kwargs or {}))
            if "convolution" in str(function):
                x, weight = args[:2]
                transposed = len(args) > 6 and args[6] is True
                moved += sum(tensor.numel() * tensor.element_size() for tensor in (x, weight, result))
                operations += 2 * (x if transposed else result).numel() * weight[0].numel()
            return result

    program = Program(style.model(precision), torch.device("cpu"))
    # A smaller picture, counted for the larger one: the layers' edges make it a little more than it is.
    height, width = (-(-side // 4 // style.multiple) * style.multiple for side in size[::-1])
    image = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    inputs = style.place((width, height), Look()).inputs
    with torch.inference_mode(), Watched():
        program.settle(image, {name: torch.from_numpy(value) for name, value in inputs.items()})
    share = size[0] * size[1] / (height * width)
    return round(moved * share), round(operations * share)


def floors(sizes: list[Size]) -> dict[str, Any]:
    """What an NVIDIA GPU allows at most, and how near our kernels come."""
    import torch

    def seconds(work: Callable[[], Any], times: int = 20) -> float:
        """Of one `work`, measured on the device."""
        for _ in range(3):
            work()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(times):
            work()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) / 1000 / times

    def bandwidth() -> float:
        """Bytes read and written a second, by the faster of the driver's copy and a kernel's."""
        source = torch.ones(1 << 30, device="cuda")
        target = torch.empty_like(source)
        ways = (lambda: target.copy_(source), lambda: torch.mul(source, 1.0, out=target))
        return 2 * source.nbytes / min(map(seconds, ways))

    def matrix_rate(side: int = 8192) -> float:
        matrix = torch.randn(side, side, device="cuda", dtype=torch.float16)
        return 2 * side**3 / seconds(lambda: matrix @ matrix)

    def side_by_side(painters: list[Any]) -> float:
        """Seconds for a picture where each of `painters` has one on the GPU."""

        def paint(times: int) -> None:
            for painter in painters * times:
                with torch.cuda.stream(painter._stream):
                    painter._graph.replay()
            torch.cuda.synchronize()

        paint(3)
        began = time.perf_counter()
        paint(times := 30)
        return (time.perf_counter() - began) / times / len(painters)

    copied, multiplied = bandwidth(), matrix_rate()
    style = engines.load_style(OURS)
    report: dict[str, Any] = {
        "copy_gb_per_s": copied / 1e9,
        "matrix_tflop_per_s": multiplied / 1e12,
        "network": OURS,
        "precision": "float16",
        "sizes": {},
    }
    with engines.load("torch:cuda", style=style, precision="float16", hint="throughput") as engine:
        for size in sizes:
            engine(np.zeros((size[1], size[0], 3), np.uint8), Look())
            painters: list[Any] = list(next(reversed(engine._painters.values())).queue)
            moved, operations = convolutions(style, "float16", size)
            alone, at_once = seconds(painters[0]._graph.replay), side_by_side(painters)
            floor = max(moved / copied, operations / multiplied)
            report["sizes"][text(size)] = {
                "bytes": moved,
                "operations": operations,
                "copy_floor_ms": 1000 * moved / copied,
                "matrix_floor_ms": 1000 * operations / multiplied,
                "kernels": type(painters[0]._settled).__name__,
                "kernels_ms": 1000 * alone,
                "kernels_per_floor": alone / floor,
                "at_once": len(painters),
                "at_once_ms": 1000 * at_once,
                "at_once_per_floor": at_once / floor,
            }
    return report


FIRST_PICTURE = """
import pipeline.commands.live
import numpy, engines
from engines import Look
from pipeline.scaling import stylizer
with engines.load("auto", style="live", behind=True) as engine:
    stylizer(engine, (1280, 720))(numpy.zeros((720, 1280, 3), numpy.uint8), Look())
    print(engine.name, flush=True)
"""


def first_picture() -> dict[str, Any]:
    """Seconds from the start of a process to its first picture of 1280x720, as `fauve live` paints it."""
    took = []
    for _ in range(4):
        began = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-c", FIRST_PICTURE], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            name = process.stdout.readline().strip()
            took.append(time.perf_counter() - began)
    # The first one filled the caches.
    return {"engine": name, "seconds": median(took[1:])}


def in_a_process(*arguments: str) -> Iterator[dict[str, Any]]:
    """What a process of this program with `arguments` reports, as it comes."""
    command = [sys.executable, "-m", "benchmarks.engines", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        yield {"error": f"the process ended with {process.returncode}"}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All measurements, as the JSON file holds them, printed as they come."""
    began = time.monotonic()
    sizes = arguments.size or [*SIZES, *([LARGE] if gpus() else [])]
    report: dict[str, Any] = {"first_picture": first_picture(), "cells": [], "left_out": {}}
    print("first picture after {seconds:.2f} s, by {engine}".format(**report["first_picture"]))
    if gpus() and "torch:cuda" in (arguments.engine or engines.NAMES):
        report["floors"] = next(in_a_process("--floors", *map(text, sizes)))
        print(json.dumps(report["floors"], indent=1))
    head = ("network", "engine", "precision", "size", "p50 ms", "p95 ms", "fps", "MiB", "GPU")
    print("{:28}{:18}{:10}{:11}{:>9}{:>9}{:>9}{:>7}{:>7}".format(*head))
    chosen = list(itertools.product(arguments.engine or engines.NAMES, PRECISIONS))
    for network, (name, precision) in itertools.product((OURS, *NETWORKS), chosen):
        if precision == "int8" and not (network == OURS and name == "openvino"):
            continue
        what = f"{network}, {name} {precision}"
        if any(f"{OURS}, {name} {precision}" == out for out in report["left_out"]):
            continue
        if time.monotonic() - began > arguments.budget:
            report["left_out"][what] = "left out by --budget"
            continue
        fast = any(part in name for part in ("cuda", "gpu", "tensorrt"))
        asked = [text(size) for size in sizes if size != LARGE or fast]
        one = ["--one", network, name, precision, "--seconds", str(arguments.seconds)]
        for cell in in_a_process(*one, *(part for size in asked for part in ("--size", size))):
            if "error" in cell:
                report["left_out"][what] = cell["error"]
                print(f"{what}: {cell['error']}")
                continue
            report["cells"].append({key: three_digits(value) for key, value in cell.items()})
            print(
                "{network:28}{engine:18}{precision:10}{size:11}{p50_ms:9.2f}{p95_ms:9.2f}{fps:9.1f}"
                "{memory_mib:7.0f}{gpu_memory_mib:7.0f}".format(**cell),
                flush=True,
            )
    return report


def table(report: dict[str, Any]) -> str:
    """Milliseconds of a picture, by size, as Markdown."""
    sizes = list(dict.fromkeys(cell["size"] for cell in report["cells"]))
    rows: dict[str, dict[str, str]] = {}
    for cell in report["cells"]:
        row = f"{cell['network']} | {cell['engine']} | {cell['precision']}"
        rows.setdefault(row, {})[cell["size"]] = f"{cell['p50_ms']:g}"
    return "\n".join(
        [
            f"| network | engine | precision | {' | '.join(sizes)} |",
            f"| --- | --- | --- |{' --- |' * len(sizes)}",
            *(
                f"| {row} | {' | '.join(found.get(size, '') for size in sizes)} |"
                for row, found in rows.items()
            ),
        ]
    )


def three_digits(value: Any) -> Any:
    """A number at the precision that it was measured with; anything else as it is."""
    return float(f"{value:.3g}") if isinstance(value, float) else value


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    parser.add_argument("--engine", action="append", help="only this one; may be given several times")
    parser.add_argument("--size", action="append", type=size_of, help="only this one; likewise")
    parser.add_argument("--budget", type=float, default=540, help="seconds after which no engine is begun")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--floors", nargs="+", type=size_of, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.floors:
        print(json.dumps(floors(arguments.floors)))
    elif arguments.one:
        try:
            for cell in cells(*arguments.one, arguments.size, arguments.seconds):
                print(json.dumps(cell), flush=True)
        except EngineError as error:
            print(json.dumps({"error": str(error)}))
    else:
        print(write_results("engines", measure(arguments)))


if __name__ == "__main__":
    main()
