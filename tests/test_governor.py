"""The working size follows what the machine can do, by a made-up clock."""

import sys
import threading

import numpy as np
import pytest

from pipeline.governor import STEPS, Governor

PERIOD = 1 / 30

STEPPING = 0.9
"""Seconds from a decision until the new size is painted alone: it is made ready, and faded in."""


def play(governor, seconds, cost, *, fixed=0.0, start=0.0, latency=None, noise=None):
    """Frames for `seconds`, each of which costs `cost` at full size and `fixed` at any; the steps taken.

    Frames that come while one is painted are left out, as in a live run, but for one that waits.

    Returns:
        the time of each decision, the step, and the frames painted.
    """
    taken, now, painted, settled, step = [], start, 0, None, governor.step
    waiting = start
    while now < start + seconds:
        now = max(now, waiting)
        spent = fixed + cost * STEPS[step] ** 2
        if noise is not None:
            spent *= noise()
        now += spent
        painted += 1
        missed = int((now - waiting) / PERIOD) - 1
        waiting += max(1, 1 + missed) * PERIOD
        if settled is not None:
            if now < settled:
                continue
            settled, step = None, governor.step
            governor.settle(now)
            continue
        governor.painted(spent, fixed, now)
        if missed > 0:
            governor.missed(now)
        if latency is not None:
            governor.shown(latency * governor.scale**2, now)
        if governor.decide(now):
            taken.append((round(now - start, 2), governor.step))
            settled = now + STEPPING
    return taken, painted


def test_a_fast_machine_stays_at_full_size():
    assert play(Governor(PERIOD), 60, 0.02)[0] == []


@pytest.mark.parametrize("fixed", [0.0, 0.003, 0.006])
@pytest.mark.parametrize("load", [1.6, 2.0, 3.0])
@pytest.mark.parametrize("unsteady", [False, True])
def test_an_overloaded_machine_finds_its_size_in_one_step_and_soon(fixed, load, unsteady):
    generator, governor = np.random.default_rng(1), Governor(PERIOD)

    def noise():
        return generator.gamma(60, 1 / 60) if unsteady else 1.0

    play(governor, 10, 0.02, fixed=fixed, noise=noise)
    assert governor.step == 0
    # Bringing a picture to its size takes longer, too, and is no less for a smaller one.
    taken, painted = play(governor, 30, 0.02 * load, fixed=fixed * load, start=10, noise=noise)
    # It may find later that there is room for more, but never that it must go further down.
    assert max(step for _, step in taken) == taken[0][1], taken
    assert taken[0][0] + STEPPING < 2
    assert load * (fixed + 0.02 * governor.scale**2) < PERIOD
    assert painted > 0.95 * 30 * 30


def test_it_goes_no_further_down_than_it_must():
    governor = Governor(PERIOD)
    play(governor, 30, 0.04, fixed=0.006)
    larger = STEPS[governor.step - 1]
    assert governor.step > 0
    assert 0.006 + 0.04 * larger**2 > 0.85 * PERIOD


@pytest.mark.parametrize("cost", [0.02, 0.035, 0.05, 0.08])
def test_the_rate_of_the_source_is_held(cost):
    generator = np.random.default_rng(1)
    governor = Governor(PERIOD)
    play(governor, 20, cost, fixed=0.005, noise=lambda: generator.uniform(0.85, 1.15))
    taken, painted = play(
        governor, 60, cost, fixed=0.005, start=20, noise=lambda: generator.uniform(0.85, 1.15)
    )
    assert painted > 0.98 * 60 * 30, taken


def test_a_machine_that_stumbles_is_given_room():
    """One frame in six takes three times as long, so that the rate is not held at what fits otherwise."""
    generator = np.random.default_rng(1)

    def noise():
        return 3.0 if generator.random() < 1 / 6 else 1.0

    governor = Governor(PERIOD)
    play(governor, 60, 0.03, noise=noise)
    _, painted = play(governor, 60, 0.03, start=60, noise=noise)
    assert painted > 0.97 * 60 * 30


def test_a_hiccup_changes_nothing():
    governor, number = Governor(PERIOD), iter(range(10**6))

    def noise():
        return {100: 18.0, 101: 4.0}.get(next(number) % 300, 1.0)

    assert play(governor, 120, 0.022, noise=noise)[0] == []


def test_a_slow_source_is_no_overload():
    """A camera in the dark gives half the frames that it promised; none is left out."""
    governor, now = Governor(PERIOD), 0.0
    for _ in range(600):
        now += 2 * PERIOD
        governor.painted(0.8 * PERIOD, 0.0, now)
        assert not governor.decide(now)


@pytest.mark.parametrize("cost", [0.04, 0.05, 0.06])
def test_it_does_not_swing(cost):
    generator = np.random.default_rng(1)
    taken, _ = play(Governor(PERIOD), 300, cost, fixed=0.004, noise=lambda: generator.uniform(0.8, 1.2))
    assert len([step for at, step in taken if at > 60]) <= 4, taken


def test_it_comes_back_when_the_load_is_gone():
    governor = Governor(PERIOD)
    play(governor, 20, 0.08, fixed=0.004)
    assert governor.step >= 3
    taken, _ = play(governor, 120, 0.015, fixed=0.004, start=20)
    assert governor.step == 0
    # One by one, and none of them at once.
    assert [step for _, step in taken] == list(reversed(range(len(taken))))
    assert min(np.diff([at for at, _ in taken])) > 2.5


def test_it_keeps_a_latency():
    governor = Governor(PERIOD, target=0.06)
    play(governor, 20, 0.02, latency=0.1)
    assert 0.1 * governor.scale**2 < 0.06


def test_the_smallest_step_is_the_end():
    governor = Governor(PERIOD)
    play(governor, 200, 10.0)
    assert governor.step == len(STEPS) - 1


def test_what_was_measured_before_a_step_does_not_count_for_it():
    governor = Governor(PERIOD)
    play(governor, 5, 0.02)
    begin = 10.0
    while not governor.decide(begin):
        begin += 0.05
        governor.painted(0.05, 0.0, begin)
    step = governor.step
    for now in np.arange(begin, begin + 5, 0.05):
        governor.painted(0.05, 0.0, now)
        governor.missed(now)
        governor.shown(0.5, now)
        assert not governor.decide(now)
    governor.settle(begin + 5)
    for now in np.arange(begin + 5, begin + 7, PERIOD):
        governor.painted(0.8 * PERIOD, 0.0, now)
        assert not governor.decide(now)
    assert governor.step == step


def test_a_frame_may_be_shown_while_it_decides():
    governor, over = Governor(PERIOD, 0.1), threading.Event()

    def show():
        while not over.is_set():
            governor.shown(0.05, 20.0)
            governor.missed(20.0)

    outputs = threading.Thread(target=show)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        governor.painted(0.01, 0.0, 0.0)
        outputs.start()
        for _ in range(2000):
            governor.painted(0.01, 0.0, 20.0)
            assert governor.decide(20.0) is False
    finally:
        sys.setswitchinterval(before)
        over.set()
        outputs.join()
