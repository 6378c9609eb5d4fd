"""What a canvas is covered with before the picture comes: dots, brush strokes, facets.

Each is a coat of four channels that repeats without a seam: touches laid over one another in any order until
little of the canvas is left bare. Sizes are in places of the canvas.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

SEED = 1863

CHANNELS = 4
"""Of each coat."""

Grain = NDArray[np.float64]

Touch = Callable[[Grain, Grain], tuple[Grain, Grain]]
"""How much a touch covers of the places this far below and right of its middle, and the values that it has
there, [4, h, w]."""


@cache
def grain(side: int) -> NDArray[np.float32]:
    """The coats of `COATS`, one after the other, [coats * 4, side, side].

    Each channel has mean 0 and deviation 1.
    """
    rng = np.random.default_rng(SEED)
    coats = np.concatenate([coat(rng, side) for coat in COATS.values()])
    coats -= coats.mean((1, 2), keepdims=True)
    return (coats / coats.std((1, 2), keepdims=True)).astype(np.float32)


def dots(rng: np.random.Generator, side: int) -> Grain:
    """Round touches, close together; the fourth channel is how high their paint stands."""
    return _laid(rng, side, 2.3, 3, lambda y, x: _stroke(rng, 0.0, length=0.0, width=3.0))


def strokes(rng: np.random.Generator, side: int) -> Grain:
    """Long touches that follow one another's direction; the fourth channel as in `dots`."""
    across, along = (_smooth(rng.standard_normal((side, side)), 200) for _ in range(2))
    direction = np.arctan2(across, along)

    def touch(y: float, x: float) -> Touch:
        return _stroke(rng, direction[int(y), int(x)] + rng.normal(0, 0.15), length=7.0, width=2.6)

    return _laid(rng, side, 3.2, 7, touch)


def facets(rng: np.random.Generator, side: int) -> Grain:
    """Triangles like broken glass, each lighter towards one side, and in every channel towards another."""
    return _laid(rng, side, 11.0, 40, lambda y, x: _facet(rng, 9.0))


COATS: dict[str, Callable[[np.random.Generator, int], Grain]] = {
    "dots": dots,
    "strokes": strokes,
    "facets": facets,
}


def _laid(
    rng: np.random.Generator, side: int, every: float, reach: int, touch: Callable[[float, float], Touch]
) -> Grain:
    """A coat with one touch, `reach` at most, somewhere in each square of some `every` places a side."""
    squares = round(side / every)
    corners = np.indices((squares, squares)).reshape(2, -1).T
    coat = np.zeros((CHANNELS, side, side))
    around = np.arange(-min(reach, side // 2), min(reach, (side - 1) // 2) + 1)
    for y, x in rng.permutation((corners + rng.random(corners.shape)) * side / squares):
        row, column = int(y), int(x)
        covered, values = touch(y, x)(around[:, None] - (y - row), around[None] - (x - column))
        at = np.ix_(range(CHANNELS), (row + around) % side, (column + around) % side)
        coat[at] += covered * (values - coat[at])
    return coat


def _stroke(rng: np.random.Generator, angle: float, *, length: float, width: float) -> Touch:
    """A straight stroke with round ends: of one value in three channels, highest along its middle."""
    own = rng.standard_normal(CHANNELS - 1)

    def touch(down: Grain, right: Grain) -> tuple[Grain, Grain]:
        lengthwise = np.abs(right * np.cos(angle) + down * np.sin(angle))
        sideways = right * np.sin(angle) - down * np.cos(angle)
        distance = np.hypot(np.maximum(lengthwise - length / 2, 0), sideways)
        height = np.clip(1 - 2 * distance / width, 0, 1)
        values = [np.full_like(height, value) for value in own]
        return np.clip(width / 2 - distance + 0.5, 0, 1), np.stack([*values, height])

    return touch


def _facet(rng: np.random.Generator, size: float) -> Touch:
    """A triangle whose sides are about `size` away from its middle."""
    angles = rng.uniform(0, 2 * np.pi) + np.arange(3) * 2 * np.pi / 3 + rng.uniform(-0.5, 0.5, 3)
    sides = size * rng.uniform(0.6, 1.2, 3)
    shade, slope = rng.standard_normal(CHANNELS), rng.standard_normal((CHANNELS, 2)) / (1.5 * size)

    def touch(down: Grain, right: Grain) -> tuple[Grain, Grain]:
        beyond = [right * np.cos(angle) + down * np.sin(angle) for angle in angles]
        outside = np.max([each - side for each, side in zip(beyond, sides, strict=True)], axis=0)
        values = [value + y * down + x * right for value, (y, x) in zip(shade, slope, strict=True)]
        return np.clip(0.5 - outside, 0, 1), np.stack(values)

    return touch


def _smooth(noise: Grain, times: int) -> Grain:
    """`noise` [h, w], smoothed over its edges as if it repeated."""
    for _ in range(times):
        for axis in (0, 1):
            noise = (np.roll(noise, 1, axis) + 2 * noise + np.roll(noise, -1, axis)) / 4
    return noise
