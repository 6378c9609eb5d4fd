"""When a training of the frugality benchmark has gained nothing for a thousand steps, and that it goes on."""

import cv2
import numpy as np
import torch
from torch import nn

from benchmarks import frugality
from benchmarks.frugality import EVERY, GAIN, LEAST_STEPS, WINDOW, plateaus
from training.data import held_out
from training.stylization import Material


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


def test_a_training_that_was_stopped_goes_on_at_its_checkpoint(tmp_path, monkeypatch):
    steps, weights = [], []

    class Counting:
        def __init__(self, recipe, material, device):
            self.generator = nn.Linear(1, 1)
            nn.init.zeros_(self.generator.weight)
            self.generator.macs_per_pixel = lambda: 1000.0
            self.parts = {"generator": self.generator, "average": self.generator}

        def batch(self, step):
            return None

        def step(self, step, batch):
            steps.append(step)
            self.generator.weight.data += 1
            weights.append(float(self.generator.weight.detach()))

        def objective(self, photos):
            return {"style": 1 / len(steps)}

    photo = next(name for name in (f"{index}.png" for index in range(99)) if held_out(tmp_path / name))
    cv2.imwrite(str(tmp_path / photo), np.zeros((72, 96, 3), np.uint8))
    material, device = Material(tmp_path, tmp_path), torch.device("cpu")
    monkeypatch.setattr(frugality, "EVERY", 1)
    for most in (2, 5):
        monkeypatch.setattr(frugality, "MOST_STEPS", most)
        found = frugality.train(Counting, material, tmp_path / "run", 1e-3, device)
    assert steps == weights == [1, 2, 3, 4, 5]
    assert [point["step"] for point in found["curve"]] == [1, 2, 3, 4, 5]
