"""What a canvas is covered with before the picture comes: dots, brush strokes, facets and other marks.

Each is a coat of four channels that repeats without a seam: touches laid over one another in any order. Sizes
are in places of the canvas.
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


def planes(rng: np.random.Generator, side: int) -> Grain:
    """Four-sided planes, each shaded from side to side; the fourth channel is a line around most."""
    return _laid(rng, side, 9.0, 34, lambda y, x: _plane(rng, rng.uniform(0, np.pi)))


def rings(rng: np.random.Generator, side: int) -> Grain:
    """Discs of rings, each ring of its own value; the fourth channel rises and falls with every ring."""
    return _laid(rng, side, 13.0, 16, lambda y, x: _rings(rng))


def figures(rng: np.random.Generator, side: int) -> Grain:
    """Discs, triangles, lines, combs, chequers on a bare ground; the fourth channel is the ink of some."""
    return _laid(rng, side, 12.0, 30, lambda y, x: _figure(rng))


def sweeps(rng: np.random.Generator, side: int) -> Grain:
    """Soft patches, curved sweeps of a brush, thin lines side by side; the fourth channel is their ink."""
    kinds = (_patch, _sweep, _lines)
    return _laid(rng, side, 9.0, 30, lambda y, x: kinds[int(rng.choice(3, p=(0.45, 0.27, 0.28)))](rng))


COATS: dict[str, Callable[[np.random.Generator, int], Grain]] = {
    "dots": dots,
    "strokes": strokes,
    "facets": facets,
    "planes": planes,
    "rings": rings,
    "figures": figures,
    "sweeps": sweeps,
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
        along, across = _turned(down, right, angle)
        distance = np.hypot(np.maximum(np.abs(along) - length / 2, 0), across)
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


def _plane(rng: np.random.Generator, angle: float) -> Touch:
    """A rectangle askew, large or small, two of three with a line around it."""
    size, outlined = rng.uniform(0.6, 2.0), rng.random() < 0.67
    length, width = size * rng.uniform(6.0, 11.0), size * rng.uniform(3.5, 6.0)
    value, slope, skew = (
        rng.standard_normal(CHANNELS - 1),
        rng.standard_normal(CHANNELS - 1),
        rng.normal(0, 0.3),
    )

    def touch(down: Grain, right: Grain) -> tuple[Grain, Grain]:
        along, across = _turned(down, right, angle)
        across = across + skew * along
        outside = np.maximum(np.abs(along) - length, np.abs(across) - width)
        values = [own + rise * across / width for own, rise in zip(value, slope, strict=True)]
        line = outlined * np.clip(1.3 - np.abs(outside + 0.8), 0, 1)
        return np.clip(0.5 - outside, 0, 1), np.stack([*values, line])

    return touch


def _rings(rng: np.random.Generator) -> Touch:
    """A disc of some four rings."""
    radius, width = rng.uniform(8.0, 13.0), rng.uniform(2.2, 3.2)
    own = rng.standard_normal((CHANNELS - 1, 8))

    def touch(down: Grain, right: Grain) -> tuple[Grain, Grain]:
        distance = np.hypot(down, right)
        within = distance / width
        # Half a place of each edge belongs to both rings.
        ring = np.minimum(within.astype(int), own.shape[1] - 2)
        share = np.clip((within - ring - 1) * width + 0.5, 0, 1)
        values = own[:, ring] * (1 - share) + own[:, ring + 1] * share
        return np.clip(radius - distance + 0.5, 0, 1), np.stack([*values, np.cos(2 * np.pi * within)])

    return touch


def _figure(rng: np.random.Generator) -> Touch:
    """A geometrical figure in one or two of eight full colours; lines are of ink alone."""
    figure = FIGURES[int(rng.choice(len(FIGURES), p=(0.2, 0.25, 0.25, 0.18, 0.12)))]
    angle, size = rng.uniform(0, np.pi), rng.uniform(0.5, 2.2)
    first, second = np.zeros((2, CHANNELS))
    first[:-1], second[:-1] = rng.choice((-1.0, 1.0), (2, CHANNELS - 1))
    ink = np.array([0.0, 0.0, 0.0, 2.0])
    if figure in (_line, _comb):
        first = ink
    if figure is _chequer or rng.random() < 0.3:
        second = ink

    def touch(down: Grain, right: Grain) -> tuple[Grain, Grain]:
        beyond, share = figure(*_turned(down, right, angle), size)
        values = [a * (1 - share) + b * share for a, b in zip(first, second, strict=True)]
        return np.clip(0.5 - beyond, 0, 1), np.stack(values)

    return touch


def _sweep(rng: np.random.Generator) -> Touch:
    """An arc of one of eight full colours that tapers to both ends."""
    own = rng.choice((-1.0, 1.0), CHANNELS - 1)
    return _arcs(
        rng, 1, 5.0, radius=rng.uniform(6.0, 16.0), length=rng.uniform(8.0, 16.0), values=[*own, 0.0]
    )


def _lines(rng: np.random.Generator) -> Touch:
    """Up to three thin arcs side by side, nearly straight, without a colour."""
    count = int(rng.integers(1, 4))
    radius, length = rng.uniform(14.0, 70.0), rng.uniform(12.0, 34.0)
    return _arcs(rng, count, 1.7, radius=radius, length=length, values=[0.0, 0.0, 0.0, 2.0])


def _arcs(
    rng: np.random.Generator, count: int, width: float, *, radius: float, length: float, values: list[float]
) -> Touch:
    """Arcs around one middle, `width` at theirs, four places apart."""
    turn = rng.uniform(0, 2 * np.pi)

    def touch(down: Grain, right: Grain) -> tuple[Grain, Grain]:
        along, across = _turned(down, right, turn)
        # The middle of the arcs, not of their circles, is where they are laid.
        along = along + radius
        bent = np.abs(np.arctan2(across, along)) * 2 * radius / length
        taper = np.sqrt(np.clip(1 - bent**2, 0, 1))
        distance = np.hypot(along, across) - radius
        beside = np.min([np.abs(distance - 4.0 * (n - (count - 1) / 2)) for n in range(count)], axis=0)
        covered = np.clip(width * taper / 2 - beside + 0.5, 0, 1) * (bent < 1)
        return covered, np.stack([np.full_like(covered, value) for value in values])

    return touch


def _patch(rng: np.random.Generator) -> Touch:
    """An oval whose edge is lost in what is around it."""
    length, width, angle = rng.uniform(5.0, 15.0), rng.uniform(4.0, 8.0), rng.uniform(0, np.pi)
    own = rng.standard_normal(CHANNELS - 1)

    def touch(down: Grain, right: Grain) -> tuple[Grain, Grain]:
        along, across = _turned(down, right, angle)
        covered = np.clip(2.5 * (1 - np.hypot(along / length, across / width)), 0, 1)
        return covered, np.stack([*(np.full_like(covered, value) for value in own), np.zeros_like(covered)])

    return touch


Figure = Callable[[Grain, Grain, float], tuple[Grain, Grain]]
"""How far places, so far along and across from its middle, are beyond a figure of a size, and how much they
have of its second value."""


def _disc(along: Grain, across: Grain, size: float) -> tuple[Grain, Grain]:
    """With a ring around it."""
    distance = np.hypot(along, across)
    return distance - 6 * size, np.clip(distance - 3.5 * size + 0.5, 0, 1)


def _triangle(along: Grain, across: Grain, size: float) -> tuple[Grain, Grain]:
    """Of two halves."""
    sides = [along * np.cos(side) + across * np.sin(side) for side in 2 * np.pi / 3 * np.arange(3)]
    return np.max(sides, axis=0) - 4 * size, np.clip(across + 0.5, 0, 1)


def _line(along: Grain, across: Grain, size: float) -> tuple[Grain, Grain]:
    return np.maximum(np.abs(across) - 0.8, np.abs(along) - 14 * size), np.zeros_like(along)


def _comb(along: Grain, across: Grain, size: float) -> tuple[Grain, Grain]:
    """Three lines side by side."""
    teeth = np.abs((across + 2) % 4 - 2) - 0.8
    return np.max([teeth, np.abs(across) - 5.5, np.abs(along) - 6 * size], axis=0), np.zeros_like(along)


def _chequer(along: Grain, across: Grain, size: float) -> tuple[Grain, Grain]:
    """Four squares a side."""
    squares = (np.floor(along / 2.5) + np.floor(across / 2.5)) % 2
    return np.maximum(np.abs(along), np.abs(across)) - 5, squares


FIGURES: tuple[Figure, ...] = (_disc, _triangle, _line, _comb, _chequer)


def _turned(down: Grain, right: Grain, angle: float) -> tuple[Grain, Grain]:
    """Places along and across a direction."""
    return right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)


def _smooth(noise: Grain, times: int) -> Grain:
    """`noise` [h, w], smoothed over its edges as if it repeated."""
    for _ in range(times):
        for axis in (0, 1):
            noise = (np.roll(noise, 1, axis) + 2 * noise + np.roll(noise, -1, axis)) / 4
    return noise
