"""How long the fused convolutions of our network take on an NVIDIA GPU, by the tile that a program computes.

    python -m benchmarks.tiles [--size 1280x720 ...] [--budget 540]

Writes `results/tiles.json`: for each convolution the tile that `engines.convolution.tile_for` takes, and the
fastest of those that were tried, each replayed from a CUDA graph. What they take to compile is spent in
processes of their own, beforehand. Not run in this form; an earlier one chose the tiles that there are.
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import product
from multiprocessing import get_context
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

import engines
from benchmarks.engines import OURS, size_of, text
from benchmarks.machine import write_results
from engines import Look, Size
from engines.convolution import Tile, convolve, processors, tile_for
from engines.onnx_to_torch import Program

SIZES = ((1280, 720), (3840, 2160))

BLOCKS = ((4, 8), (2, 32), (4, 16), (8, 8), (1, 128), (2, 64), (4, 32), (8, 16), (8, 32))
"""Rows and columns of places."""

LARGEST_TILE = 128 * 128
"""Values that a program's registers hold."""

SHARED = 99 << 10
"""Bytes that a program has on GPUs for desks; data centres' have twice as many."""

Layer = tuple[Any, tuple[Tensor, ...]]
"""A convolution, and what it is given."""


@cache
def layers(size: Size) -> list[Layer]:
    """The fused convolutions that paint a picture of `size`, each different one once."""
    style = engines.load_style(OURS)
    place = style.place(size, Look())
    shape = (1, size[1] + place.top + place.bottom, size[0] + place.left + place.right, 3)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8)).cuda()
    inputs = {name: torch.from_numpy(value).cuda() for name, value in place.inputs.items()}
    with torch.no_grad():
        settled = Program(style.model("float16"), image.device, fused=True).settle(image, inputs)
        found: dict[Any, Layer] = {}
        for work, given in settled.steps(image, settled.look(inputs)):
            if isinstance(work, partial) and work.func is convolve:
                shapes = tuple(None if each is None else each.shape for each in given)
                found.setdefault((shapes, work.keywords["given"]), (work, given))
    return list(found.values())


def candidates(inner: int, columns: int) -> list[Tile]:
    """The tiles to try for a sum of `inner` channels and so many columns."""
    tried = []
    for block, n, k, warps, stages in product(
        BLOCKS, (16, 32, 64, 128), (16, 32, 64, 128), (4, 8), (2, 3, 4)
    ):
        rows = block[0] * block[1]
        fits = rows * n <= LARGEST_TILE and 2 * stages * k * (rows + n) <= SHARED
        # Of eight warps, each needs something to do.
        if columns % n or inner % k or k < min(inner, 64) or not fits or (warps == 8 and rows * n < 64 * 64):
            continue
        tried.append(Tile(block, n, k, warps, stages))
    return tried


def once(size: Size, index: int, tile: Tile) -> bool:
    """Compile and run one convolution; whether it runs."""
    work, given = layers(size)[index]
    try:
        with torch.no_grad():
            work(*given, tile=tile)
        torch.cuda.synchronize()
    except Exception:  # Triton's, of a tile that this GPU has no room for
        return False
    return True


def microseconds(size: Size, index: int, tile: Tile, times: int = 20) -> float:
    """Of one convolution, in a CUDA graph that is replayed; median of five turns."""
    work, given = layers(size)[index]
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.no_grad():
        with torch.cuda.stream(stream):
            work(*given, tile=tile)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            work(*given, tile=tile)
    took = []
    for _ in range(5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(times):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        took.append(1000 * begin.elapsed_time(end) / times)
    return median(took)


def measure(size: Size, pool: ProcessPoolExecutor, until: float) -> list[dict[str, Any]]:
    """Each convolution of a size, with the tile that is taken and the fastest one.

    Args:
        until: the time, of `time.monotonic`, after which none is begun.
    """
    report: list[dict[str, Any]] = []
    for index, (work, given) in enumerate(layers(size)):
        if time.monotonic() > until:
            print(f"{text(size)}: {len(layers(size)) - index} convolutions are left out by --budget")
            break
        x, (taps, inner, columns) = given[0], given[1].shape[1:]
        geometry = work.keywords["given"]
        taken = tile_for(inner, columns, geometry.size[0] * geometry.size[1], processors(x.device))
        tiles = [taken, *(tile for tile in candidates(inner, columns) if tile != taken)]
        ran = pool.map(partial(once, size, index), tiles)
        took = {tile: microseconds(size, index, tile) for tile, runs in zip(tiles, ran, strict=True) if runs}
        fastest = min(took, key=lambda tile: took[tile])
        report.append(
            {
                "from": list(x.shape[1:]),
                "to": list(geometry.shape),
                "taps": taps,
                "taken_us": round(took[taken], 2),
                "fastest_us": round(took[fastest], 2),
                "fastest": str(fastest),
            }
        )
        print(text(size), report[-1], flush=True)
    return report


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--size", action="append", type=size_of, help="only this one; may be given several times"
    )
    parser.add_argument(
        "--budget", type=float, default=540, help="seconds after which no convolution is begun"
    )
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.budget
    with ProcessPoolExecutor(max(1, (os.cpu_count() or 2) - 2), get_context("spawn")) as pool:
        report = {text(size): measure(size, pool, until) for size in arguments.size or SIZES}
    print(write_results("tiles", report))


if __name__ == "__main__":
    main()
