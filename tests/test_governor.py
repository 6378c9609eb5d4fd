"""The working size follows what the machine can do, by a made-up clock."""

import sys
import threading

from pipeline.governor import STEPS, Governor

PERIOD = 1 / 30


def play(governor, seconds, cost, *, start=0.0, latency=None):
    """Frames for `seconds`, each of which costs `cost` at full size; the steps taken, with their times."""
    taken, now = [], start
    while now < start + seconds:
        spent = cost * governor.scale**2
        now += max(PERIOD, spent)
        governor.painted(spent, now)
        if latency is not None:
            governor.shown(latency * governor.scale**2, now)
        if governor.decide(now):
            taken.append((round(now - start, 2), governor.step))
    return taken


def test_a_fast_machine_stays_at_full_size():
    assert play(Governor(PERIOD), 60, 0.02) == []


def test_an_overloaded_machine_finds_a_size_within_two_seconds():
    governor = Governor(PERIOD)
    play(governor, 10, 0.025)
    assert governor.step == 0
    taken = play(governor, 60, 0.05, start=10)
    first = [step for at, step in taken if at <= 2]
    assert first, taken
    assert 0.05 * STEPS[first[-1]] ** 2 < PERIOD
    assert 0.05 * STEPS[governor.step] ** 2 < PERIOD


def test_it_does_not_swing():
    governor = Governor(PERIOD)
    taken = play(governor, 300, 0.05)
    late = [step for at, step in taken if at > 60]
    assert len(late) <= 6, taken


def test_it_comes_back_when_the_load_is_gone():
    governor = Governor(PERIOD)
    play(governor, 20, 0.08)
    assert governor.step >= 3
    play(governor, 120, 0.015, start=20)
    assert governor.step == 0


def test_it_keeps_a_latency():
    governor = Governor(PERIOD, target=0.06)
    play(governor, 20, 0.02, latency=0.1)
    assert 0.1 * governor.scale**2 < 0.06


def test_the_smallest_step_is_the_end():
    governor = Governor(PERIOD)
    play(governor, 120, 10.0)
    assert governor.step == len(STEPS) - 1


def test_a_frame_may_be_shown_while_it_decides():
    governor, over = Governor(PERIOD, 0.1), threading.Event()

    def show():
        while not over.is_set():
            governor.shown(0.05, 20.0)

    outputs = threading.Thread(target=show)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        governor.decide(0.0)
        outputs.start()
        for _ in range(2000):
            governor.painted(0.01, 20.0)
            assert governor.decide(20.0) is False
    finally:
        sys.setswitchinterval(before)
        over.set()
        outputs.join()
