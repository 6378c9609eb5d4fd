"""The coats of the canvas: touches with edges that cover it, without a seam."""

import numpy as np
import pytest

from training import brushwork
from training.checkpoint import load_trunk
from training.cli import TRUNK

SIDE = 96
DOTS, STROKES, FACETS, PLANES, RINGS, FIGURES, SWEEPS, PANES, RISEN_DOTS, RISEN_STROKES = range(10)


def colours(coat: int, side: int = SIDE) -> np.ndarray:
    """The three channels of colour of a coat."""
    return brushwork.grain(side).colours[3 * coat : 3 * coat + 3] * brushwork.STEP


def relief(coat: int, side: int = SIDE) -> np.ndarray:
    return brushwork.grain(side).relief[coat] * brushwork.STEP


def test_colours_have_mean_0_and_relief_is_0_where_there_is_none():
    colour, fine, *_ = brushwork.grain(SIDE)
    assert colour.shape == (30, SIDE, SIDE)
    assert fine.shape == (10, 2 * SIDE, 2 * SIDE)
    # A bare ground is rounded as one.
    np.testing.assert_allclose(colour.mean((1, 2)) * brushwork.STEP, 0, atol=brushwork.STEP / 2)
    np.testing.assert_allclose(colour.std((1, 2)) * brushwork.STEP, 1, atol=0.02)
    np.testing.assert_allclose(np.sqrt((fine.astype(float) ** 2).mean((1, 2))) * brushwork.STEP, 1, atol=0.02)
    for coat in (PLANES, FIGURES, SWEEPS, PANES):
        assert (relief(coat) == 0).mean() > 0.5
    assert max(np.abs(layers.astype(int)).max() for layers in (colour, fine)) < 127, "nothing is cut off"


def test_it_is_what_the_bundled_styles_were_trained_on():
    """But for values that another machine's sines round to the next step."""
    state = load_trunk(TRUNK)["average"]
    names = ("canvases.1", "canvases.0", "simplify.cut", "course")
    for name, grain in zip(names, brushwork.grain(2 * SIDE), strict=True):
        assert (state[f"{name}.grain"].squeeze(0).numpy() == grain).mean() > 0.9999


def test_enlarged_it_has_the_same_touches_in_the_same_places_with_crisper_edges():
    small, large = brushwork.grain(SIDE), brushwork.grain(SIDE, 2)
    assert [layers.shape[-1] for layers in large] == [2 * SIDE, 4 * SIDE, 4 * SIDE, SIDE // 2]
    np.testing.assert_array_equal(large.course, small.course)
    for before, after in zip(small[:2], large[:2], strict=True):
        before, after = (layers * brushwork.step_of(layers) for layers in (before, after))
        n, side, _ = before.shape
        seen = after.reshape(n, side, 2, side, 2).mean((2, 4))
        alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(before, seen, strict=True)]
        assert min(alike) > 0.9
        # Enlarged as they are, they would change half as much from one value to the next.
        steps = [np.abs(np.diff(layers)).mean((1, 2)) for layers in (before, after)]
        rough = [np.abs(np.diff(layers)).max((1, 2)) for layers in (before, after)]
        assert (steps[1] < 0.75 * steps[0]).all()
        assert (rough[1] > 0.7 * rough[0]).all(), "where one blurred would have half"
    # All of them in 16 bits of a floating point, and shades in finer steps than whole ones.
    for layers in large[:2]:
        assert np.array_equal(layers.astype(np.float16).astype(int), layers)
    shades = large.colours[3 * FACETS : 3 * FACETS + 3]
    assert np.mean(shades % brushwork.PARTS > 0) > 0.5
    cuts = small.cuts.repeat(2, 2).repeat(2, 3).astype(int)
    assert (np.abs(large.cuts - 2 * cuts) <= 2).mean() > 0.9


def test_it_repeats_without_a_seam():
    colour, fine, _, course = brushwork.grain(SIDE)
    # The seam is a bar between panes, and what is on its sides differs as across any bar.
    colour = np.delete(colour, slice(3 * PANES, 3 * PANES + 3), 0)
    # Where it turns about a point, the course has large steps of its own.
    for grain, most in ((colour, 1.5), (fine, 1.5), (course, 3)):
        layers = grain.astype(int)
        for axis in (1, 2):
            steps = np.abs(layers - np.roll(layers, 1, axis)).mean((0, 3 - axis))
            assert steps[0] < most * steps.mean(), "the first row follows on the last as on any other"


@pytest.mark.parametrize(
    ("name", "covered"),
    [("facets", 0.95), ("planes", 0.95), ("rings", 0.7), ("figures", 0.7), ("sweeps", 0.3), ("panes", 0.95)],
)
def test_what_is_cut_out_is_seen_from_nearer_about_the_middle_of_its_touch(name, covered):
    cuts = brushwork.grain(SIDE).cuts[list(brushwork.CUTTING).index(name)].astype(float)
    nearer = brushwork.CUTTING[name]
    there = (cuts != 0).any(0)
    assert there.mean() > covered
    for axis in (0, 1):
        # Where a touch does not end, what is seen comes on by what the piece is not nearer.
        both = there & np.roll(there, -1, axis)
        steps = (np.roll(cuts[axis], -1, axis) - cuts[axis])[both]
        within = steps[np.abs(steps + nearer) < 1]
        assert len(within) > 0.75 * len(steps)
        assert within.mean() == pytest.approx(-nearer, abs=0.05)


@pytest.mark.parametrize(
    ("coat", "most"),
    [
        *((DOTS, 0.75), (STROKES, 0.7), (FACETS, 0.5), (PLANES, 0.6), (RINGS, 0.7), (FIGURES, 0.1)),
        *((SWEEPS, 0.5), (PANES, 0.1)),
    ],
)
def test_a_touch_is_even_within_and_differs_from_its_neighbour(coat, most):
    # Of smooth noise, which has all steps in between, it is 0.85: worms follow its contours.
    for channel in colours(coat):
        steps = np.abs(np.diff(channel)).ravel()
        assert np.median(steps) < most * steps.mean()


def test_panes_are_upright_and_have_bars_of_ink_between_them():
    values, ink = np.stack(colours(PANES)), relief(PANES)
    fine = values.repeat(brushwork.FINE, 1).repeat(brushwork.FINE, 2)
    for axis in (1, 2):
        differs = (np.diff(fine, axis=axis) != 0).any(0)
        barred = (np.delete(ink, -1, axis - 1) > 0) | (np.delete(ink, 0, axis - 1) > 0)
        # But for the value that lies on both of two panes.
        assert differs.any()
        assert barred[differs].mean() > 0.85
    assert set(np.unique(ink)) == {0.0, ink.max()}
    # Along a bar, and across it: a corner turns by a right angle.
    ends = (ink[1:, 1:] + ink[:-1, :-1] - ink[1:, :-1] - ink[:-1, 1:]) != 0
    assert ends.mean() < 0.02


def test_strokes_are_longer_than_dots_and_facets_larger_than_both():
    def alike(values: np.ndarray) -> float:
        """The share of places that are of the same touch as one four places away, in the four directions."""
        away = [np.roll(values, by, (0, 1)) for by in ((0, 4), (4, 0), (3, 3), (3, -3))]
        return float(np.mean([np.abs(values - other) < 0.3 for other in away]))

    dots, strokes, facets = (
        np.mean([alike(values) for values in colours(coat)]) for coat in (DOTS, STROKES, FACETS)
    )
    assert 1.1 * dots < strokes < 0.8 * facets


@pytest.mark.parametrize("coats", [(DOTS, RISEN_DOTS), (STROKES, RISEN_STROKES)])
def test_touches_of_a_layer_lie_one_way(coats):
    for way, coat in enumerate(coats):
        down, right = np.gradient(relief(coat))
        # Twice the angle of what the gradients are across to.
        across = np.arctan2((-2 * right * down).mean(), (down**2 - right**2).mean()) / 2
        assert across == pytest.approx(way * np.pi / brushwork.WAYS, abs=0.13)


def test_where_a_picture_does_not_say_neighbouring_touches_lie_much_alike_and_others_every_way():
    course = brushwork.grain(SIDE).course * brushwork.STEP
    np.testing.assert_allclose(np.hypot(*course), 1, atol=brushwork.STEP)
    assert np.abs(course - np.roll(course, 1, 2)).mean() < 0.1
    assert np.abs(course.mean((1, 2))).max() < 0.5


def _commonest(values: np.ndarray) -> np.ndarray:
    """Where the commonest value is."""
    kinds, counts = np.unique(values, return_counts=True)
    return values == kinds[counts.argmax()]


def _drawn(coat: int) -> np.ndarray:
    ink = relief(coat)
    return ink > ink.max() / 2


@pytest.mark.parametrize("coat", [FIGURES, SWEEPS])
def test_figures_and_sweeps_have_ink_on_a_bare_ground_and_lines_without_a_colour(coat):
    bare = np.all([_commonest(values) for values in colours(coat)], axis=0)
    assert 0.1 < bare.mean() < 0.7
    drawn = _drawn(coat)
    assert 0.05 < drawn.mean() < 0.3
    assert drawn[bare.repeat(2, 0).repeat(2, 1)].mean() > 0.03


def test_figures_lie_on_planes_larger_than_they_are():
    values = colours(FIGURES)
    bare = np.all([_commonest(each) for each in values], axis=0)
    alike = [
        np.all(np.abs(values - np.roll(values, by, (1, 2))) < 2 * brushwork.STEP, axis=0) & ~bare
        for by in ((0, 16), (16, 0))
    ]
    # Without planes it is 0.016.
    assert np.mean(alike) > 0.05


def test_planes_have_thin_lines_around_them_of_ink_or_bare():
    drawn = _drawn(PLANES)
    bare = relief(PLANES) < relief(PLANES).min() / 2
    assert 0.1 * drawn.mean() < bare.mean() < drawn.mean()
    assert 0.05 < drawn.mean() < 0.4
    eroded = drawn & np.roll(drawn, 3, 0) & np.roll(drawn, 3, 1) & np.roll(drawn, (3, 3), (0, 1))
    assert eroded.mean() < drawn.mean() / 3


def test_a_line_is_as_smooth_as_values_of_relief_can_show():
    """Ink is all there, not there, or, on an edge one value wide, in between."""
    ink = relief(FIGURES) / relief(FIGURES).max()
    between = (ink > 0.1) & (ink < 0.9)
    assert 0.2 * _drawn(FIGURES).mean() < between.mean() < _drawn(FIGURES).mean()


def test_rings_are_seen_alike_from_all_sides():
    """Their relief has as much of every direction, and more of the rings' width than of others."""
    rings = relief(RINGS, 2 * SIDE)
    power = np.abs(np.fft.fftshift(np.fft.fft2(rings))) ** 2
    down, right = np.indices(power.shape) - 2 * SIDE
    distance, angle = np.hypot(down, right), np.arctan2(down, right) % np.pi
    band = (distance > 2 * SIDE / 3.3) & (distance < 2 * SIDE / 2.1)
    sectors = [power[band & (angle // (np.pi / 4) == n)].mean() for n in range(4)]
    assert max(sectors) < 1.3 * min(sectors)
    assert np.mean(sectors) > 3 * power[distance > 2 * SIDE / 2.1].mean()
