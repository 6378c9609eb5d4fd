"""Convolutions of few channels on NVIDIA GPUs, with what stands before and behind them in one kernel.

The networks of live video have 16 to 128 channels. There a convolution is bound by what it moves, and a
library that pads, convolves, adds and cuts off below 0 in kernels of their own moves each picture five times.
Here the padding is an index that does not leave the picture, and bias, sums and ReLU happen before the result
is written. An implicit matrix product over pictures with channels last (Chetlur et al. 2014, arXiv
1410.0759): rows are pixels, columns are channels, and the sum goes over the kernel's taps and the channels
that they see.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, library

LARGEST_CHANNELS = 256
"""Beyond, a convolution is bound by arithmetic, and cuDNN's are better."""

NARROW = 16
"""Of channels and columns: fewer are filled up, as the matrix units take no less."""

SQUARE: tl.constexpr = tl.constexpr(12)
"""Values of a square of 2x2 pixels, as a generator's last convolution gives them."""

ROW_CHANNELS = 4
"""Of which a row of taps is taken as one: three, and one that is empty, so that a pixel is read in one go."""

PAINT_BLOCK = (4, 32)
"""Rows and columns of places that one program of `_paint` computes."""

LARGEST_SQUARES = 64
"""Channels up to which a transposed convolution writes squares: the zeros that it multiplies by cost less
than reading its input four times."""


@dataclass(frozen=True)
class Geometry:
    """Which pixels a convolution reads for which one it writes; two numbers are of rows and columns.

    A transposed convolution of stride 2 writes a square of 2x2 pixels for each place: it is four of 2x2 taps,
    its `phases`, or, where channels are few, one of 3x3 taps with four times the columns, `squares`.
    """

    taps: tuple[int, int]
    stride: int
    first: int
    """Of the first tap from the pixel's own place, along each axis: -1 where there is one before it."""
    transposed: bool
    size: tuple[int, int]
    """Places: of a transposed one, twice as many rows and columns are written."""
    outputs: int
    squares: bool = False
    row: bool = False
    """Whether a row of taps is taken as one, with all of its channels, as pays with three or four of them."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of what is written: channels, rows and columns."""
        rows, columns = self.size
        return (self.outputs, 2 * rows, 2 * columns) if self.transposed else (self.outputs, rows, columns)


@triton.jit
def _convolve(  # type: ignore[no-untyped-def]
    x,
    weight,
    bias,
    other,
    y,
    height,
    width,
    rows,
    columns,
    other_step,
    channels: tl.constexpr,
    inner: tl.constexpr,
    outputs: tl.constexpr,
    filled_columns: tl.constexpr,
    taps_y: tl.constexpr,
    taps_x: tl.constexpr,
    stride: tl.constexpr,
    first: tl.constexpr,
    transposed: tl.constexpr,
    squares: tl.constexpr,
    row: tl.constexpr,
    relu: tl.constexpr,
    summed: tl.constexpr,
    relu_sum: tl.constexpr,
    block_y: tl.constexpr,
    block_x: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
):
    parts: tl.constexpr = filled_columns // block_n
    blocks: tl.constexpr = inner // block_k
    across = tl.cdiv(columns, block_x)
    tile = tl.program_id(0)
    phase = tl.program_id(1) // parts
    picture = tl.program_id(2).to(tl.int64)
    pixel = tl.arange(0, block_y * block_x)
    at_y = (tile // across) * block_y + pixel // block_x
    at_x = (tile % across) * block_x + pixel % block_x
    n = (tl.program_id(1) % parts) * block_n + tl.arange(0, block_n)
    k = tl.arange(0, block_k)
    x += picture * height * width * channels
    weight += phase * (taps_y * taps_x * inner) * filled_columns
    from_y = at_y * stride + first + phase // 2
    from_x = at_x * stride + first + phase % 2
    total = tl.zeros((block_y * block_x, block_n), tl.float32)
    for step in range(taps_y * taps_x * blocks):
        total = _step(
            total, x, weight, from_y, from_x, n, k, step, height, width,
            channels, filled_columns, taps_x, blocks, row, block_k,
        )  # fmt: skip
    if squares:
        channel = n % outputs
        phases = n // outputs
        known = phases < 4
        to_y = (at_y * 2)[:, None] + (phases // 2)[None, :]
        to_x = (at_x * 2)[:, None] + (phases % 2)[None, :]
        place = (to_y * (columns * 2) + to_x) * outputs + channel[None, :]
    else:
        channel = n
        known = n < outputs
        if transposed:
            at = (at_y * 2 + phase // 2) * (columns * 2) + at_x * 2 + phase % 2
        else:
            at = at_y * columns + at_x
        place = (at * outputs)[:, None] + n[None, :]
    there = ((at_y < rows) & (at_x < columns))[:, None] & known[None, :]
    total += tl.load(bias + channel, known, 0.0)[None, :].to(tl.float32)
    if relu:
        total = tl.maximum(total, 0.0)
    if summed:
        total += tl.load(other + picture * other_step + place, there, 0.0).to(tl.float32)
    if relu_sum:
        total = tl.maximum(total, 0.0)
    if transposed:
        y += picture * rows * columns * (4 * outputs)
    else:
        y += picture * rows * columns * outputs
    tl.store(y + place, total.to(y.dtype.element_ty), there)


@triton.jit
def _paint(  # type: ignore[no-untyped-def]
    x,
    weight,
    bias,
    base,
    base_weight,
    base_bias,
    image,
    strength,
    y,
    height,
    width,
    base_height,
    base_width,
    rows,
    columns,
    channels: tl.constexpr,
    base_channels: tl.constexpr,
    base_inner: tl.constexpr,
    filled_columns: tl.constexpr,
    taps_y: tl.constexpr,
    taps_x: tl.constexpr,
    first: tl.constexpr,
    base_taps: tl.constexpr,
    base_first: tl.constexpr,
    block_y: tl.constexpr,
    block_x: tl.constexpr,
):
    across = tl.cdiv(columns, block_x)
    tile = tl.program_id(0)
    picture = tl.program_id(1).to(tl.int64)
    pixel = tl.arange(0, block_y * block_x)
    at_y = (tile // across) * block_y + pixel // block_x
    at_x = (tile % across) * block_x + pixel % block_x
    n = tl.arange(0, filled_columns)
    x += picture * height * width * channels
    base += picture * base_height * base_width * base_channels
    total = tl.zeros((block_y * block_x, filled_columns), tl.float32)
    k = tl.arange(0, base_inner)
    for step in tl.static_range(base_taps):
        total = _step(
            total, base, base_weight, at_y + base_first, at_x + base_first, n, k, step,
            base_height, base_width, base_channels, filled_columns, 1, 1, True, base_inner,
        )  # fmt: skip
    k = tl.arange(0, channels)
    for step in range(taps_y * taps_x):
        total = _step(
            total, x, weight, at_y + first, at_x + first, n, k, step, height, width,
            channels, filled_columns, taps_x, 1, False, channels,
        )  # fmt: skip
    known = n < SQUARE
    total += (tl.load(bias + n, known, 0.0) + tl.load(base_bias + n, known, 0.0))[None, :].to(tl.float32)
    there = ((at_y < rows) & (at_x < columns))[:, None] & known[None, :]
    # Two rows of two pixels of three values.
    place = ((at_y * 2)[:, None] + (n // 6)[None, :]) * (columns * 6) + (at_x * 6)[:, None] + (n % 6)[None, :]
    place += picture * rows * columns * SQUARE
    seen = tl.load(image + place, there, 0).to(tl.float32)
    painted = seen + (total - seen) * tl.load(strength).to(tl.float32)
    painted = tl.minimum(tl.maximum(painted, 0.0), 255.0)
    # To the nearest, and of two to the even one, as ONNX's Round does.
    below = tl.floor(painted)
    half = painted - below
    odd = below - 2 * tl.floor(below * 0.5)
    up = tl.where(half == 0.5, odd, tl.where(half > 0.5, 1.0, 0.0))
    tl.store(y + place, (below + up).to(tl.uint8), there)


@triton.jit
def _step(  # type: ignore[no-untyped-def]
    total,
    x,
    weight,
    from_y,
    from_x,
    n,
    k,
    step,
    height,
    width,
    channels: tl.constexpr,
    filled_columns: tl.constexpr,
    taps_x: tl.constexpr,
    blocks: tl.constexpr,
    row: tl.constexpr,
    block_k: tl.constexpr,
):
    """`total` and what one tap sees in a block of channels, times its weights."""
    tap = step // blocks
    channel = (step % blocks) * block_k + k
    see_y = tl.minimum(tl.maximum(from_y + tap // taps_x, 0), height - 1)
    see_x = tl.minimum(tl.maximum(from_x + tap % taps_x, 0), width - 1)
    seen_at = ((see_y * width + see_x) * channels)[:, None] + channel[None, :]
    if row:
        # The window of a place that is not written may reach behind the picture's last pixel.
        seen = tl.load(x + seen_at, seen_at < height * width * channels, 0.0)
    else:
        seen = tl.load(x + seen_at)
    weights = tl.load(weight + (step * block_k + k)[:, None] * filled_columns + n[None, :])
    return tl.dot(seen, weights, total)


def geometry(
    weight: tuple[int, ...], size: tuple[int, int], stride: int, edge: int, *, transposed: bool
) -> Geometry | None:
    """How a convolution of a picture of `size` (rows, columns) goes; None for one that the kernel has not.

    Args:
        weight: its shape: [outputs, inputs, rows, columns], and of a transposed one [inputs, outputs, 4, 4].
        edge: pixels by which the picture is continued on all sides, with the values of its edge, or where
            negative is cut; of a transposed one it is 1, and 3 are cut off what comes out.
    """
    outputs, channels = (weight[1], weight[0]) if transposed else weight[:2]
    high, wide = weight[2:]
    if max(channels, outputs) > LARGEST_CHANNELS:
        return None
    whole = channels >= NARROW and not channels & (channels - 1)
    if transposed:
        if not whole or (high, wide, stride, edge) != (4, 4, 2, 1) or outputs & (outputs - 1):
            return None
        squares = channels <= LARGEST_SQUARES
        return Geometry((3, 3) if squares else (2, 2), 1, -1, True, size, outputs, squares)
    rows, columns = (
        (side + 2 * edge - tap) // stride + 1 for side, tap in zip(size, (high, wide), strict=True)
    )
    if channels == ROW_CHANNELS and channels * wide <= 2 * NARROW and edge <= 0:
        return Geometry((high, 1), stride, -edge, False, (rows, columns), outputs, row=True)
    return Geometry((high, wide), stride, -edge, False, (rows, columns), outputs) if whole else None


def pack(weight: Tensor, given: Geometry) -> Tensor:
    """The weights as the kernel reads them, [phases, taps, channels, columns], filled up with zeros.

    May be recorded in a CUDA graph: nothing is copied to the device.
    """
    if given.transposed:
        # Along each axis a pixel of an even row sees by the kernel's rows 3 and 1, one of an odd row by 2 and
        # 0; there are no rows 4, which are zero.
        order = [[3, 1, 4], [4, 2, 0]] if given.squares else [[3, 1], [2, 0]]
        weight = torch.nn.functional.pad(weight, (0, 1, 0, 1))
        for axis in (3, 2):
            parts = weight.unbind(axis)
            weight = torch.stack([torch.stack([parts[tap] for tap in phase], 2) for phase in order], 2)
            weight = weight.movedim((2, 3), (-2, -1)) if axis == 3 else weight
        # [channels, outputs, phases, taps, phases, taps], first down, then across.
        if given.squares:
            taps = weight.permute(3, 5, 0, 2, 4, 1).flatten(3).flatten(0, 1)[None]
        else:
            taps = weight.permute(2, 4, 3, 5, 0, 1).flatten(0, 1).flatten(1, 2)
    elif given.row:
        taps = weight.permute(2, 3, 1, 0).flatten(1, 2)[None]
    else:
        taps = weight.permute(2, 3, 1, 0).flatten(0, 1)[None]
    more = [filled(count) - count for count in taps.shape[2:]]
    return torch.nn.functional.pad(taps, (0, more[1], 0, more[0])).contiguous()


def filled(count: int) -> int:
    """The power of two, and `NARROW` at least, that `count` is filled up to."""
    return max(NARROW, 1 << (count - 1).bit_length())


@dataclass(frozen=True)
class Tile:
    """What one program of the kernel computes, and with how much of a multiprocessor."""

    block: tuple[int, int]
    """Rows and columns of places."""
    columns: int
    inner: int
    warps: int
    stages: int


def tile_for(inner: int, columns: int, places: int, processors: int) -> Tile:
    """The tile for a sum of `inner` channels, as was measured on an H200.

    Args:
        places: of the picture.
        processors: multiprocessors of the device, each of which should have one to compute.
    """
    if inner <= 32:
        return Tile((4, 32), min(columns, 64), inner, 4, 4)
    if columns >= 128 and places >= 128 * processors:
        return Tile((8, 16), 128, 64, 8, 3)
    return Tile((8, 16) if columns < 128 else (4, 16), min(columns, 64), 64, 4, 4)


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a CUDA device."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count) if device.type == "cuda" else 1


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    other: Tensor | None,
    given: Geometry,
    *,
    relu: bool,
    relu_sum: bool,
    tile: Tile | None = None,
) -> Tensor:
    """`x` [n, channels, h, w], channels last, convolved: bias, ReLU, plus `other`, ReLU.

    Args:
        weight: as `pack` gives it.
        other: [n or 1, outputs, h, w], added to what is convolved.
    """
    inner, columns = weight.shape[2:]
    tile = tile or tile_for(inner, columns, given.size[0] * given.size[1], processors(x.device))
    convolved: Tensor = _operator(
        x, weight, bias, other,
        [*given.taps, given.stride, given.first, given.transposed, *given.size, given.squares, given.row],
        [*tile.block, tile.columns, tile.inner, tile.warps, tile.stages],
        given.outputs, relu, relu_sum,
    )  # fmt: skip
    return convolved


@library.custom_op("fauve::convolve", mutates_args=())
def _operator(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    other: Tensor | None,
    geometry: list[int],
    tile: list[int],
    outputs: int,
    relu: bool,
    relu_sum: bool,
) -> Tensor:
    taps_y, taps_x, stride, first, transposed, rows, columns, squares, row = geometry
    block_y, block_x, block_n, block_k, warps, stages = tile
    n, channels, height, width = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    y: Tensor = _unwritten(x, geometry, tile, outputs, relu, relu_sum)
    if other is not None:
        other = other.contiguous(memory_format=torch.channels_last)
    phases, _, inner, filled_columns = weight.shape
    places = triton.cdiv(rows, block_y) * triton.cdiv(columns, block_x)
    launch: Any = _convolve[(places, phases * (filled_columns // block_n), n)]
    launch(
        x, weight, bias, y if other is None else other, y,
        height, width, rows, columns,
        0 if other is None or len(other) < n else other.stride(0),
        channels=channels, inner=inner, outputs=outputs, filled_columns=filled_columns,
        taps_y=taps_y, taps_x=taps_x, stride=stride, first=first,
        transposed=transposed, squares=squares, row=row,
        relu=relu, summed=other is not None, relu_sum=relu_sum,
        block_y=block_y, block_x=block_x, block_n=block_n, block_k=block_k,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return y


@_operator.register_fake
def _unwritten(x: Tensor, *given: Any) -> Tensor:
    """What `_operator` returns for these, as long as nothing is written to it."""
    *_, geometry, _, outputs, _, _ = given
    _, _, _, _, transposed, rows, columns, _, _ = geometry
    shape = (len(x), outputs, *(side * (2 if transposed else 1) for side in (rows, columns)))
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def paint(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    base: Tensor,
    base_weight: Tensor,
    base_bias: Tensor,
    image: Tensor,
    strength: Tensor,
    given: Geometry,
    base_given: Geometry,
) -> Tensor:
    """The painted picture: two convolutions added, which give squares of pixels, and as much of it in
    the place of `image` uint8 [n, 2 h, 2 w, 3] as `strength` says.

    Args:
        base: what is convolved row by row of taps.
    """
    painted: Tensor = _paint_operator(
        x, weight, bias, base, base_weight, base_bias, image, strength,
        [*given.taps, given.first, base_given.taps[0], base_given.first, *given.size],
    )  # fmt: skip
    return painted


@library.custom_op("fauve::paint", mutates_args=())
def _paint_operator(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    base: Tensor,
    base_weight: Tensor,
    base_bias: Tensor,
    image: Tensor,
    strength: Tensor,
    geometry: list[int],
) -> Tensor:
    taps_y, taps_x, first, base_taps, base_first, rows, columns = geometry
    x, base = (each.contiguous(memory_format=torch.channels_last) for each in (x, base))
    image = image.contiguous()
    y = torch.empty_like(image)
    block_y, block_x = PAINT_BLOCK
    launch: Any = _paint[(triton.cdiv(rows, block_y) * triton.cdiv(columns, block_x), len(x))]
    launch(
        x, weight, bias, base, base_weight, base_bias, image, strength, y,
        *x.shape[2:], *base.shape[2:], rows, columns,
        channels=x.shape[1], base_channels=base.shape[1], base_inner=base_weight.shape[2],
        filled_columns=weight.shape[3], taps_y=taps_y, taps_x=taps_x, first=first,
        base_taps=base_taps, base_first=base_first, block_y=block_y, block_x=block_x,
        num_warps=4, num_stages=4,
    )  # fmt: skip
    return y


@_paint_operator.register_fake
def _unpainted(*given: Any) -> Tensor:
    """What `_paint_operator` returns for these, as long as nothing is written to it."""
    *_, image, _, _ = given
    return torch.empty_like(image, memory_format=torch.contiguous_format)
