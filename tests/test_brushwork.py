"""The coats of the canvas: touches with edges that cover it, without a seam."""

import numpy as np
import pytest

from training import brushwork

SIDE = 96
DOTS, STROKES, FACETS, PLANES, RINGS, FIGURES, SWEEPS = (range(4 * n, 4 * n + 4) for n in range(7))


def test_each_channel_has_mean_0_and_deviation_1():
    grain = brushwork.grain(SIDE)
    assert grain.shape == (28, SIDE, SIDE)
    np.testing.assert_allclose(grain.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(grain.std((1, 2)), 1, atol=1e-5)


def test_it_repeats_without_a_seam():
    grain = brushwork.grain(SIDE)
    for axis in (1, 2):
        steps = np.abs(grain - np.roll(grain, 1, axis)).mean((0, 3 - axis))
        assert steps[0] < 1.5 * steps.mean(), "the first row follows on the last as on any other"


@pytest.mark.parametrize(
    ("coat", "most"),
    [(DOTS, 0.75), (STROKES, 0.7), (FACETS, 0.5), (PLANES, 0.6), (RINGS, 0.7), (FIGURES, 0.1), (SWEEPS, 0.5)],
)
def test_a_touch_is_even_within_and_differs_from_its_neighbour(coat, most):
    # Of smooth noise, which has all steps in between, it is 0.85: worms follow its contours.
    for channel in coat[:3]:
        steps = np.abs(np.diff(brushwork.grain(SIDE)[channel])).ravel()
        assert np.median(steps) < most * steps.mean()


def test_strokes_are_longer_than_dots_and_facets_larger_than_both():
    def alike(channel: int) -> float:
        """The share of places that are of the same touch as one four places away, in the four directions."""
        values = brushwork.grain(SIDE)[channel]
        away = [np.roll(values, by, (0, 1)) for by in ((0, 4), (4, 0), (3, 3), (3, -3))]
        return float(np.mean([np.abs(values - other) < 0.3 for other in away]))

    dots, strokes, facets = (np.mean([alike(n) for n in coat[:3]]) for coat in (DOTS, STROKES, FACETS))
    assert 1.1 * dots < strokes < 0.8 * facets


def _commonest(channel: int) -> np.ndarray:
    """Where the commonest value is."""
    values, counts = np.unique(brushwork.grain(SIDE)[channel], return_counts=True)
    return np.isclose(brushwork.grain(SIDE)[channel], values[counts.argmax()], atol=1e-3)


@pytest.mark.parametrize("coat", [FIGURES, SWEEPS])
def test_figures_and_sweeps_have_lines_of_ink_on_a_bare_ground(coat):
    bare = np.all([_commonest(channel) for channel in coat], axis=0)
    assert 0.1 < bare.mean() < 0.5
    ink = brushwork.grain(SIDE)[coat[3]]
    drawn = ink > ink.max() / 2
    assert 0.05 < drawn.mean() < 0.3
    colours = np.all([_commonest(channel) for channel in coat[:3]], axis=0)
    full = drawn & (ink > 0.99 * ink.max())
    assert colours[full].mean() > 0.8, "ink has no colour"


def test_planes_have_a_thin_line_around_them():
    line = brushwork.grain(SIDE)[PLANES[3]]
    drawn = line > line.max() / 2
    assert 0.1 < drawn.mean() < 0.4
    eroded = drawn & np.roll(drawn, 2, 0) & np.roll(drawn, 2, 1) & np.roll(drawn, (2, 2), (0, 1))
    assert eroded.mean() < drawn.mean() / 3


def test_rings_are_seen_alike_from_all_sides():
    """Their fourth channel has as much of every direction, and more of the rings' width than of others."""
    rings = brushwork.grain(2 * SIDE)[RINGS[3]]
    power = np.abs(np.fft.fftshift(np.fft.fft2(rings))) ** 2
    down, right = np.indices(power.shape) - SIDE
    distance, angle = np.hypot(down, right), np.arctan2(down, right) % np.pi
    band = (distance > 2 * SIDE / 3.3) & (distance < 2 * SIDE / 2.1)
    sectors = [power[band & (angle // (np.pi / 4) == n)].mean() for n in range(4)]
    assert max(sectors) < 1.3 * min(sectors)
    assert np.mean(sectors) > 3 * power[distance > 2 * SIDE / 2.1].mean()
