"""When a training of the frugality benchmark has gained nothing for a thousand steps."""

from benchmarks.frugality import EVERY, GAIN, LEAST_STEPS, WINDOW, plateaus


def curve(totals):
    return [{"step": EVERY * number, "total": total} for number, total in enumerate(totals, 1)]


def test_what_gains_has_no_plateau():
    assert plateaus(curve([0.9**number for number in range(60)])) == []


def test_what_gains_nothing_is_halved_after_each_window_but_not_before_the_least_steps():
    found = plateaus(curve([1.0] * 40))
    assert found == [LEAST_STEPS, LEAST_STEPS + WINDOW, *range(LEAST_STEPS + 2 * WINDOW, 10_001, WINDOW)]


def test_a_gain_that_is_too_small_counts_for_nothing_and_one_that_is_not_ends_a_plateau():
    flat = [1.0] * (LEAST_STEPS // EVERY)
    within = WINDOW // EVERY
    assert plateaus(curve([*flat, *[1 - GAIN / 2] * within])) == [LEAST_STEPS, LEAST_STEPS + WINDOW]
    assert plateaus(curve([*flat, *[1 - 2 * GAIN] * within])) == [LEAST_STEPS]


def test_a_training_that_goes_on_finds_what_it_has_found_before():
    totals = [1 / number for number in range(1, 30)] + [1 / 30] * 20
    found = plateaus(curve(totals))
    assert found
    for length in range(len(totals)):
        part = plateaus(curve(totals[:length]))
        assert part == found[: len(part)]
