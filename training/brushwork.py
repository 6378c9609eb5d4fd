"""What a canvas is covered with before the picture comes: dots, brush strokes, facets and other marks.

Each is a coat that repeats without a seam: touches laid over one another in any order. Its three channels of
colour are as fine as a small stroke is wide; how high the paint stands, and the ink, are twice as fine, since
an eye sees a jagged line but no jagged patch. Sizes are in places of the canvas.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SEED = 1863

COLOURS = 3
"""Channels of colour of each coat."""

FINE = 2
"""Values of relief to a value of colour, each way, and to a place where touches are not enlarged."""

WAYS = 6
"""Directions that touches lie in, in equal steps of half a turn, the first one along the rows."""

COARSE = 2
"""Values of colour, each way, that have one value of the course; of those that are not enlarged."""

CUTTING = {"facets": 0.6, "planes": 0.5, "rings": 0.8, "figures": 0.6, "sweeps": 0.6, "panes": 0.9}
"""Coats of broad touches, along which a picture may be cut, and by how much nearer each piece is seen: at 1,
it has but one colour."""

LEAST_PANE, LARGEST_PANE = 22, 96
"""Sides of a pane, in halves of a place: none is shorter, and one that is longer is divided."""

PANES = {
    (0.0, 0.0, 0.0): 0.36,
    (-0.4, -0.4, -0.4): 0.14,
    (-1.0, -1.0, -1.0): 0.11,
    (1.0, 0.0, 0.0): 0.13,
    (0.0, 1.0, 0.0): 0.13,
    (0.0, 0.0, 1.0): 0.13,
}
"""What panes have in the three channels, and the share of each in all of them."""

STEP = 1 / 16
"""What values are multiples of: eight bits hold them, and 16 of a floating point do so exactly."""

SLOPED, PARTS = ("facets", "planes"), 8
"""Coats whose touches are shaded from side to side, and the parts of a step that they are shaded in where
they are enlarged: in whole steps, which are then far apart, a weave would lie over them."""

Steps = NDArray[np.int8] | NDArray[np.int16]
"""Values in steps, or in `PARTS` of them: whole numbers that 16 bits of a floating point hold, too."""

Field = NDArray[np.float64]

Touch = Callable[[Field, Field, int], tuple[Field, Field]]
"""How much a touch covers of the places this far below and right of its middle, [h, w], or [4, h, w] where it
covers some channels alone, and the values that it has there, [4, h, w]: colours, then relief. The last
argument is how many values there are to a place: its edges are as sharp as these allow."""


class Grain(NamedTuple):
    """What a canvas is covered with, in steps (`step_of`)."""

    colours: Steps
    """Of each of `COATS`, and of `LYING` one of `WAYS` on, [layers * 3, side, side], where `side` has as many
    values to a place as touches are enlarged; mean 0, deviation 1."""
    relief: Steps
    """Of the same, [layers, 2 * side, 2 * side]: 0 where there is none, root mean square 1."""
    cuts: NDArray[np.int8]
    """Of each of `CUTTING`, how many values of the relief below and right of each what is seen there lies:
    [coats, 2, 2 * side, 2 * side]; 0 where no touch is."""
    course: NDArray[np.int8]
    """Cosine and sine of twice the angle of touches where a picture does not say, [2, s, s], half a value to
    a place."""


@cache
def grain(side: int, enlarged: int = 1) -> Grain:
    """A canvas of `side` places, the same at every call.

    Args:
        enlarged: how many times larger its touches are, in values, and as crisp.
    """
    fine = FINE * enlarged
    # Drawn in this order, from one stream: on other coats than they learned on, styles are worse.
    rng = np.random.default_rng(SEED)
    first = dots(rng, side, fine)
    course = _course(rng, side)[:, ::COARSE, ::COARSE]
    others = [lay(rng, side, fine) for name, lay in COATS.items() if name != "dots"]
    risen = [lay(rng, side, fine, 1) for lay in (strokes, dots)]
    coats = np.stack([first, *others, *reversed(risen)])
    blocks = coats[:, :COLOURS].reshape(len(coats) * COLOURS, side * enlarged, FINE, side * enlarged, FINE)
    colours, relief = blocks.mean((2, 4)), coats[:, COLOURS]
    colours -= colours.mean((1, 2), keepdims=True)
    names = list(COATS)
    parts = np.array([PARTS if enlarged > 1 and name in SLOPED else 1 for name in (*COATS, *LYING)])
    cuts = [nearer * coats[names.index(name), COLOURS + 1 :] for name, nearer in CUTTING.items()]
    return Grain(
        _in_steps(colours, parts.repeat(COLOURS)),
        _in_steps(relief, parts),
        np.stack(cuts).round().clip(-127, 127).astype(np.int8),
        (course / STEP).round().astype(np.int8),
    )


def _course(rng: np.random.Generator, side: int) -> Field:
    """As that of `Grain`; neighbours lie much alike."""
    across, along = (_smooth(rng.standard_normal((side, side)), 200) for _ in range(2))
    return np.stack([across, along]) / np.hypot(across, along)


def _in_steps(layers: Field, parts: NDArray[np.int64]) -> Steps:
    """`layers` as those of a `Grain`, each in multiples of one of so many `parts` of a step."""
    scaled = layers / np.sqrt((layers**2).mean((1, 2), keepdims=True))
    finest, parts = parts.max(), parts[:, None, None]
    values = (scaled / STEP * parts).round().clip(-127 * parts, 127 * parts) * (finest // parts)
    return values.astype(np.int8) if finest == 1 else values.astype(np.int16)


def step_of(values: Steps) -> float:
    """What 1 is in the `values` of a `Grain`."""
    return STEP if values.dtype == np.int8 else STEP / PARTS


def dots(rng: np.random.Generator, side: int, fine: int, way: int = 0) -> Field:
    """Short touches, close together, one `way` of `WAYS`; the fourth channel is how high the paint stands."""
    return _laid(
        rng, side, fine, 2.3, 4, lambda y, x: _stroke(rng, np.pi * way / WAYS, length=2.0, width=2.6)
    )


def strokes(rng: np.random.Generator, side: int, fine: int, way: int = 0) -> Field:
    """Long touches that lie much the same way; otherwise as `dots`."""

    def touch(y: float, x: float) -> Touch:
        return _stroke(rng, np.pi * way / WAYS + rng.normal(0, 0.12), length=7.0, width=2.6)

    return _laid(rng, side, fine, 3.2, 7, touch)


def facets(rng: np.random.Generator, side: int, fine: int) -> Field:
    """Triangles like broken glass, each lighter towards one side, and in every channel towards another."""
    return _laid(rng, side, fine, 11.0, 40, lambda y, x: _facet(rng))


def planes(rng: np.random.Generator, side: int, fine: int) -> Field:
    """Four-sided planes and some facets, most with a line around them, of ink or left bare."""

    def touch(y: float, x: float) -> Touch:
        outline = _outline(rng)
        return _plane(rng, outline) if rng.random() < 0.6 else _facet(rng, outline)

    return _laid(rng, side, fine, 9.0, 40, touch)


def rings(rng: np.random.Generator, side: int, fine: int) -> Field:
    """Discs of rings, each ring of its own value; the fourth channel rises and falls with every ring."""
    return _laid(rng, side, fine, 13.0, 16, lambda y, x: _rings(rng))


def figures(rng: np.random.Generator, side: int, fine: int) -> Field:
    """Discs, wedges, lines, grids and others on large planes; the fourth channel is the ink of some."""
    planes = _laid(rng, side, fine, 40.0, 60, lambda y, x: _ground(rng))
    return _laid(rng, side, fine, 17.0, 36, lambda y, x: _figure(rng), planes)


def sweeps(rng: np.random.Generator, side: int, fine: int) -> Field:
    """Soft patches, curved sweeps of a brush, thin lines side by side; the fourth channel is their ink."""
    kinds = (_patch, _sweep, _lines)
    return _laid(rng, side, fine, 13.0, 30, lambda y, x: kinds[int(rng.choice(3, p=(0.4, 0.25, 0.35)))](rng))


def panes(rng: np.random.Generator, side: int, fine: int) -> Field:
    """Upright rectangles side by side, white and grey, black, or of one channel alone; the fourth channel is
    the ink of the bars between them."""
    # From a stream of its own, so that what is drawn after it is what it was before there were panes.
    (rng,) = rng.spawn(1)
    coat = np.empty((COLOURS + 3, fine * side, fine * side))
    half = fine // 2
    for pane in _divided(rng, slice(0, 2 * side), slice(0, 2 * side)):
        rows, columns = (slice(half * each.start, half * each.stop) for each in pane)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        bar = half * int(rng.integers(1, 3))
        ink = np.ones((height, width))
        ink[bar:-bar, bar:-bar] = 0
        middle = np.meshgrid(height // 2 - np.arange(height), width // 2 - np.arange(width), indexing="ij")
        colour = rng.choice(list(PANES), p=list(PANES.values()))
        coat[:COLOURS, rows, columns] = colour[:, None, None]
        coat[COLOURS:, rows, columns] = np.stack([ink, *middle])
    return coat


COATS: dict[str, Callable[[np.random.Generator, int, int], Field]] = {
    "dots": dots,
    "strokes": strokes,
    "facets": facets,
    "planes": planes,
    "rings": rings,
    "figures": figures,
    "sweeps": sweeps,
    "panes": panes,
}

LYING = ("dots", "strokes")
"""The first of `COATS`, whose touches all lie one way."""


def _laid(
    rng: np.random.Generator,
    side: int,
    fine: int,
    every: float,
    reach: int,
    touch: Callable[[float, float], Touch],
    over: Field | None = None,
) -> Field:
    """A coat with one touch, `reach` at most, somewhere in each square of some `every` places a side.

    Its last two channels are how many values of the relief down and right the middle of its touch is.

    Args:
        fine: values to a place, each way.
        over: the coat that it is laid over, and becomes; a bare one if not given.
    """
    squares = round(side / every)
    corners = np.indices((squares, squares)).reshape(2, -1).T
    size = fine * side
    coat = np.zeros((COLOURS + 3, size, size)) if over is None else over
    around = np.arange(-min(fine * reach, size // 2), min(fine * reach, (size - 1) // 2) + 1)
    for y, x in rng.permutation((corners + rng.random(corners.shape)) * side / squares):
        row, column = int(fine * y), int(fine * x)
        down_of_it, right_of_it = (around[:, None] + row) / fine - y, (around[None] + column) / fine - x
        covered, values = touch(y, x)(down_of_it, right_of_it, fine)
        # By slices: gathering and scattering by lists of places would take most of the time.
        for down, rows in _runs(row + around[0], len(around), size):
            for right, columns in _runs(column + around[0], len(around), size):
                under, middle = np.split(coat[:, rows, columns], [COLOURS + 1])
                under += covered[..., down, right] * (values[:, down, right] - under)
                # Ink alone lies on what is there.
                own = (covered if covered.ndim == 2 else covered[0])[down, right] > 0.5
                middle[:, own] = np.stack(np.meshgrid(-around[down], -around[right], indexing="ij"))[:, own]
    return coat


def _divided(rng: np.random.Generator, rows: slice, columns: slice) -> Iterator[tuple[slice, slice]]:
    """The rows and columns of panes, in halves of a place, that together cover those given: halved across
    the longer side, more or less, again and again."""
    sides = [side.stop - side.start for side in (rows, columns)]
    if max(sides) < 2 * LEAST_PANE or (max(sides) <= LARGEST_PANE and rng.random() < 0.35):
        yield rows, columns
        return
    long = rows if sides[0] * rng.uniform(0.7, 1.4) > sides[1] else columns
    if long.stop - long.start < 2 * LEAST_PANE:
        long = rows if long is columns else columns
    least = max(LEAST_PANE, round(0.3 * (long.stop - long.start)))
    at = int(rng.integers(long.start + least, long.stop - least + 1))
    for part in (slice(long.start, at), slice(at, long.stop)):
        yield from _divided(rng, *((part, columns) if long is rows else (rows, part)))


def _runs(first: int, count: int, side: int) -> Iterator[tuple[slice, slice]]:
    """Where `count` values from the place `first` on lie along a side that repeats: the slice of the values
    and that of the side, for each run without a seam."""
    done = 0
    while done < count:
        start = (first + done) % side
        run = min(count - done, side - start)
        yield slice(done, done + run), slice(start, start + run)
        done += run


def _within(distance: Field, fine: int) -> Field:
    """1 where `distance`, in places, from an edge is below 0, with a soft edge of one value of relief."""
    return np.clip(0.5 - fine * distance, 0, 1)


def _stroke(rng: np.random.Generator, angle: float, *, length: float, width: float) -> Touch:
    """A straight stroke with round ends, of one colour, highest along its middle, with furrows of bristles
    where it is long."""
    own, bristles = rng.standard_normal(COLOURS), rng.uniform(0.4, 1.0, 8)

    def touch(down: Field, right: Field, fine: int) -> tuple[Field, Field]:
        along, across = _turned(down, right, angle)
        distance = np.hypot(np.maximum(np.abs(along) - length / 2, 0), across)
        height = np.clip(1 - 2 * distance / width, 0, 1)
        if length:
            height *= np.interp(across, np.linspace(-width / 2, width / 2, len(bristles)), bristles)
        values = np.empty((COLOURS + 1, *height.shape))
        values[:-1], values[-1] = own[:, None, None], height
        return _within(distance - width / 2, fine), values

    return touch


Outline = Callable[[Field, int], Field]
"""The relief of a line around a shape, at places this far outside, of so many values to a place."""


def _outline(rng: np.random.Generator) -> Outline:
    """Half a place wide or more, of ink, or left bare, or not there."""
    half, height = rng.uniform(0.3, 0.65), rng.choice((1.0, -1.0, 0.0), p=(0.6, 0.2, 0.2))
    return lambda outside, fine: height * _within(np.abs(outside + half) - half, fine)


def _facet(rng: np.random.Generator, outline: Outline | None = None) -> Touch:
    """A triangle, its relief another shade if no outline is given."""
    angles = rng.uniform(0, 2 * np.pi) + np.arange(3) * 2 * np.pi / 3 + rng.uniform(-0.5, 0.5, 3)
    sides = rng.uniform(5.4, 10.8, 3)
    shade, slope = rng.standard_normal(COLOURS + 1), rng.standard_normal((COLOURS + 1, 2)) / 13.5

    def touch(down: Field, right: Field, fine: int) -> tuple[Field, Field]:
        beyond = [right * np.cos(angle) + down * np.sin(angle) for angle in angles]
        outside = np.max([each - side for each, side in zip(beyond, sides, strict=True)], axis=0)
        values = [value + y * down + x * right for value, (y, x) in zip(shade, slope, strict=True)]
        if outline:
            values[-1] = outline(outside, fine)
        return _within(outside, fine), np.stack(values)

    return touch


def _plane(rng: np.random.Generator, outline: Outline) -> Touch:
    """A rectangle askew, large or small, shaded from side to side."""
    size, angle = rng.uniform(0.6, 2.0), rng.uniform(0, np.pi)
    length, width = size * rng.uniform(6.0, 11.0), size * rng.uniform(3.5, 6.0)
    value, slope, skew = rng.standard_normal(COLOURS), rng.standard_normal(COLOURS), rng.normal(0, 0.3)

    def touch(down: Field, right: Field, fine: int) -> tuple[Field, Field]:
        along, across = _turned(down, right, angle)
        across = across + skew * along
        outside = np.maximum(np.abs(along) - length, np.abs(across) - width)
        values = [own + rise * across / width for own, rise in zip(value, slope, strict=True)]
        return _within(outside, fine), np.stack([*values, outline(outside, fine)])

    return touch


def _ground(rng: np.random.Generator) -> Touch:
    """A large plane of one pale colour; some come to a point."""
    angle, skew, pointed = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.3), rng.random() < 0.4
    length, width = rng.uniform(20.0, 45.0), rng.uniform(10.0, 27.0)
    own = 0.6 * rng.standard_normal(COLOURS)

    def touch(down: Field, right: Field, fine: int) -> tuple[Field, Field]:
        along, across = _turned(down, right, angle)
        beside = width * np.clip((along + length) / (2 * length), 0, 1) if pointed else width
        outside = np.maximum(np.abs(along) - length, np.abs(across + skew * along) - beside)
        values = [np.full_like(outside, value) for value in own]
        # Where two planes meet without a line, an edge as sharp as a place is wide would be one of stairs.
        return np.clip(0.5 - outside / 2, 0, 1), np.stack([*values, np.zeros_like(outside)])

    return touch


def _rings(rng: np.random.Generator) -> Touch:
    """A disc of some four rings."""
    radius, width = rng.uniform(8.0, 13.0), rng.uniform(2.2, 3.2)
    own = rng.standard_normal((COLOURS, 8))

    def touch(down: Field, right: Field, fine: int) -> tuple[Field, Field]:
        distance = np.hypot(down, right)
        within = distance / width
        # A quarter of a place of each edge belongs to both rings.
        ring = np.minimum(within.astype(int), own.shape[1] - 2)
        share = _within((ring + 1 - within) * width, fine)
        values = own[:, ring] * (1 - share) + own[:, ring + 1] * share
        return _within(distance - radius, fine), np.stack([*values, np.cos(2 * np.pi * within)])

    return touch


def _figure(rng: np.random.Generator) -> Touch:
    """A geometrical figure in one or two of eight full colours; lines are of ink alone, and round some."""
    figure = list(FIGURES)[int(rng.choice(len(FIGURES), p=list(FIGURES.values())))]
    angle, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2.2)
    first, second = np.zeros((2, COLOURS + 1))
    first[:-1], second[:-1] = rng.choice((-1.0, 1.0), (2, COLOURS))
    ink, outlined = np.array([0.0, 0.0, 0.0, 1.0]), rng.random() < 0.6
    if figure in (_chequer, _grid) or rng.random() < 0.3:
        second = ink

    def touch(down: Field, right: Field, fine: int) -> tuple[Field, Field]:
        outside, share = figure(*_turned(down, right, angle), size, fine)
        if figure in (_line, _arc, _comb):
            return _ink(_within(outside, fine))
        values = [a * (1 - share) + b * share for a, b in zip(first, second, strict=True)]
        if outlined:
            values[-1] = np.maximum(values[-1], _within(np.abs(outside + 0.3) - 0.3, fine))
        return _within(outside, fine), np.stack(values)

    return touch


def _ink(covered: Field) -> tuple[Field, Field]:
    """Ink over whatever colours there are."""
    none, ones = np.zeros_like(covered), np.ones_like(covered)
    return np.stack([none, none, none, covered]), np.stack([none, none, none, ones])


def _sweep(rng: np.random.Generator) -> Touch:
    """An arc of one of eight full colours that tapers to both ends."""
    own = rng.choice((-1.0, 1.0), COLOURS)
    arcs = _arcs(
        1, 5.0, rng.uniform(0, 2 * np.pi), radius=rng.uniform(6.0, 16.0), length=rng.uniform(8.0, 16.0)
    )

    def touch(down: Field, right: Field, fine: int) -> tuple[Field, Field]:
        covered = arcs(down, right, fine)
        values = [np.full_like(covered, value) for value in own]
        return covered, np.stack([*values, np.zeros_like(covered)])

    return touch


def _lines(rng: np.random.Generator) -> Touch:
    """One long arc of ink, thick in its middle, or a few short thin ones side by side."""
    turn, many = rng.uniform(0, 2 * np.pi), rng.random() < 0.35
    count, width = (int(rng.integers(3, 6)), 0.9) if many else (1, rng.uniform(1.2, 2.6))
    length = rng.uniform(6.0, 12.0) if many else rng.uniform(18.0, 44.0)
    arcs = _arcs(count, width, turn, radius=rng.uniform(12.0, 50.0), length=length)
    return lambda down, right, fine: _ink(arcs(down, right, fine))


def _arcs(
    count: int, width: float, turn: float, *, radius: float, length: float
) -> Callable[[Field, Field, int], Field]:
    """How much is covered by arcs around one middle, `width` at theirs, two and a half places apart."""

    def covered(down: Field, right: Field, fine: int) -> Field:
        along, across = _turned(down, right, turn)
        # The middle of the arcs, not of their circles, is where they are laid.
        along = along + radius
        bent = np.abs(np.arctan2(across, along)) * 2 * radius / length
        taper = np.sqrt(np.clip(1 - bent**2, 0, 1))
        distance = np.hypot(along, across) - radius
        beside = np.min([np.abs(distance - 2.5 * (n - (count - 1) / 2)) for n in range(count)], axis=0)
        return _within(beside - width * taper / 2, fine) * (bent < 1)

    return covered


def _patch(rng: np.random.Generator) -> Touch:
    """An oval whose edge is lost in what is around it; some have a line along a part of it."""
    size, angle = np.exp(rng.uniform(np.log(0.4), np.log(1.9))), rng.uniform(0, np.pi)
    length, width = size * rng.uniform(5.0, 15.0), size * rng.uniform(4.0, 8.0)
    own, outlined, side = rng.standard_normal(COLOURS), rng.random() < 0.35, rng.uniform(0, 2 * np.pi)

    def touch(down: Field, right: Field, fine: int) -> tuple[Field, Field]:
        along, across = _turned(down, right, angle)
        reached = np.hypot(along / length, across / width)
        covered = np.clip(2.5 * (1 - reached), 0, 1)
        # Thickest on one side, and nowhere on the other.
        thick = 0.8 * np.cos(np.arctan2(across / width, along / length) - side)
        line = outlined * _within(np.abs(reached - 0.85) * width - thick, fine)
        colours = (np.full_like(covered, value) for value in own)
        return np.stack([covered] * COLOURS + [np.maximum(covered, line)]), np.stack([*colours, line])

    return touch


Figure = Callable[[Field, Field, float, int], tuple[Field, Field]]
"""How far places, so far along and across from its middle, are beyond a figure of a size, and how much they
have of its second value."""


def _disc(along: Field, across: Field, size: float, fine: int) -> tuple[Field, Field]:
    """With a ring around it."""
    distance = np.hypot(along, across)
    return distance - 6 * size, _within(distance - 4 * size, fine)


def _half(along: Field, across: Field, size: float, fine: int) -> tuple[Field, Field]:
    """Half a disc, with a band in it."""
    distance = np.hypot(along, across)
    return np.maximum(distance - 6 * size, -across), _within(np.abs(distance - 4.5 * size) - 0.9 * size, fine)


def _triangle(along: Field, across: Field, size: float, fine: int) -> tuple[Field, Field]:
    """Of two halves."""
    sides = [along * np.cos(side) + across * np.sin(side) for side in 2 * np.pi / 3 * np.arange(3)]
    return np.max(sides, axis=0) - 4 * size, _within(-across, fine)


def _wedge(along: Field, across: Field, size: float, fine: int) -> tuple[Field, Field]:
    """Long and pointed, of two halves."""
    width = 0.4 + 0.12 * (along + 9 * size)
    return np.maximum(np.abs(across) - width, np.abs(along) - 9 * size), _within(-across, fine)


def _line(along: Field, across: Field, size: float, fine: int) -> tuple[Field, Field]:
    return np.maximum(np.abs(across) - 0.2 - 0.2 * size, np.abs(along) - 14 * size), np.zeros_like(along)


def _arc(along: Field, across: Field, size: float, fine: int) -> tuple[Field, Field]:
    """Somewhat more than half a circle."""
    band = np.abs(np.hypot(along, across) - 5 * size) - 0.5 - 0.2 * size
    return np.maximum(band, -across - size), np.zeros_like(along)


def _comb(along: Field, across: Field, size: float, fine: int) -> tuple[Field, Field]:
    """Three lines side by side."""
    teeth = np.abs((across + 1.5) % 3 - 1.5) - 0.3
    return np.max([teeth, np.abs(across) - 4.5, np.abs(along) - 5 * size], axis=0), np.zeros_like(along)


def _chequer(along: Field, across: Field, size: float, fine: int) -> tuple[Field, Field]:
    """Four squares a side."""
    squares = (np.floor(along / 2.5) + np.floor(across / 2.5)) % 2
    return np.maximum(np.abs(along), np.abs(across)) - 5, squares


def _grid(along: Field, across: Field, size: float, fine: int) -> tuple[Field, Field]:
    """Four squares a side, with lines between them."""
    lines = np.minimum(*(np.abs(way % 2.4 - 1.2) for way in (along, across)))
    return np.maximum(np.abs(along), np.abs(across)) - 4.8, _within(lines - 0.4, fine)


FIGURES: dict[Figure, float] = {
    _disc: 0.17,
    _half: 0.1,
    _triangle: 0.12,
    _wedge: 0.1,
    _line: 0.23,
    _arc: 0.12,
    _comb: 0.08,
    _chequer: 0.04,
    _grid: 0.04,
}
"""Each kind, and its share of all figures."""


def _turned(down: Field, right: Field, angle: float) -> tuple[Field, Field]:
    """Places along and across a direction."""
    return right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)


def _smooth(noise: Field, times: int) -> Field:
    """`noise` [h, w], smoothed over its edges as if it repeated."""
    for _ in range(times):
        for axis in (0, 1):
            noise = (np.roll(noise, 1, axis) + 2 * noise + np.roll(noise, -1, axis)) / 4
    return noise
