"""The coats of the canvas: touches with edges that cover it, without a seam."""

import numpy as np
import pytest

from training import brushwork

SIDE = 96
DOTS, STROKES, FACETS = range(4), range(4, 8), range(8, 12)


def test_each_channel_has_mean_0_and_deviation_1():
    grain = brushwork.grain(SIDE)
    assert grain.shape == (12, SIDE, SIDE)
    np.testing.assert_allclose(grain.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(grain.std((1, 2)), 1, atol=1e-5)


def test_it_repeats_without_a_seam():
    grain = brushwork.grain(SIDE)
    for axis in (1, 2):
        steps = np.abs(grain - np.roll(grain, 1, axis)).mean((0, 3 - axis))
        assert steps[0] < 1.5 * steps.mean(), "the first row follows on the last as on any other"


@pytest.mark.parametrize(("coat", "most"), [(DOTS, 0.75), (STROKES, 0.7), (FACETS, 0.5)])
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
