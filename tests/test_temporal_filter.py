"""Strokes go along with what moves; what stands still, comes new or is cut to is shown as it is painted."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from engines import Look
from pipeline.flicker import Flicker
from pipeline.scaling import resize
from pipeline.temporal_filter import FORGOTTEN, TemporalFilter, memory
from tests.videos import panned

SIZE = (128, 96)
LOOK = Look({"dots": 1.0})


def canvas(size=SIZE):
    """Strokes that stay where they are on the screen."""
    rng = np.random.default_rng(1)
    return cv2.resize(rng.integers(0, 80, (size[1] // 4, size[0] // 4, 3)).astype(np.uint8), size)


def paint(image):
    """Its lights and darks under strokes."""
    return (image // 2 + canvas((image.shape[1], image.shape[0]))).astype(np.uint8)


def video(frames=20, size=SIZE, begins=40):
    return [panned(begins + index, *size) for index in range(frames)]


def shown(images, amount, size=SIZE, look=LOOK):
    steady = TemporalFilter(amount, size)
    return [steady(image, paint(image), look) for image in images]


def flicker(images, paintings):
    counted = Flicker()
    for before, after in pairwise(zip(images, paintings, strict=True)):
        counted.add(before, after)
    return counted.score


@pytest.mark.parametrize(("amount", "most"), [(0.5, 0.6), (0.75, 0.4)])
def test_strokes_go_along_with_what_moves(amount, most):
    images = video()
    assert max(np.abs(a.astype(int) - b).mean() for a, b in pairwise(images)) > 3
    bare = flicker(images, [paint(image) for image in images])
    assert bare > 0.1
    assert flicker(images, shown(images, amount)) < most * bare


@pytest.mark.parametrize("size", [SIZE, (256, 192), (64, 48)])
def test_a_still_scene_is_shown_as_it_is_painted(size):
    image = panned(40, *SIZE)
    for painting in shown([image] * 12, 0.75, size):
        assert np.array_equal(painting, paint(image))


def test_what_the_noise_of_a_camera_does_to_a_painting_is_averaged():
    rng, image = np.random.default_rng(0), panned(40, *SIZE)
    noisy = [np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8) for _ in range(30)]
    bare, steady = ([each.astype(float) for each in shown(noisy, amount)[10:]] for amount in (0.0, 0.75))
    assert np.std(steady, axis=0).mean() < 0.6 * np.std(bare, axis=0).mean()
    assert np.abs(np.mean(steady, axis=0) - np.mean(bare, axis=0)).mean() < 1


def test_nothing_is_mixed_in_over_a_cut():
    first = video(4)
    second = [255 - image[::-1] for image in first]
    assert np.abs(first[-1].astype(int) - second[0]).mean() > 40
    found = shown([*first, *second], 0.9)
    assert np.abs(found[4].astype(int) - paint(second[0])).mean() < 2
    assert np.array_equal(found[0], paint(first[0]))


def test_nothing_is_left_of_what_has_gone():
    image = panned(40, *SIZE)
    # A dark figure over a light ground.
    ground = 200 + image // 8
    figure = ground.copy()
    figure[24:72, 40:88] = image[24:72, 40:88] // 8
    found = shown([figure, figure, ground], 0.9)[-1]
    there = np.s_[24:72, 40:88]
    gone = np.abs(paint(figure)[there].astype(int) - paint(ground)[there]).mean()
    assert gone > 80
    # Other strokes of the ground may be there.
    assert np.abs(found[there].astype(int) - paint(ground)[there]).mean() < 0.1 * gone


@pytest.mark.parametrize(
    "look",
    [replace(LOOK, strength=0.5), Look({"dots": 0.8, "facets": 0.2}), Look({"facets": 3.0}), Look()],
)
def test_a_look_that_changes_at_once_changes_at_once(look):
    steady = TemporalFilter(0.9, SIZE)
    images = video(6)
    for image in images[:5]:
        steady(image, paint(image), LOOK)
    white = np.full_like(images[5], 255)
    assert np.array_equal(steady(images[5], white, look), white)


def test_a_look_that_fades_keeps_what_was_shown():
    steady = TemporalFilter(0.5, SIZE)
    image = panned(40, *SIZE)
    white, black = np.full_like(image, 255), np.zeros_like(image)
    steady(image, white, Look({"dots": 7.0}))
    assert np.all(steady(image, black, Look({"dots": 9.5, "facets": 0.5}, 0.95)) == 128)


def test_strength_0_is_the_input():
    images = video(4)
    steady = TemporalFilter(0.9, SIZE)
    steady(images[0], paint(images[0]), replace(LOOK, strength=0.05))
    for image in images[1:]:
        assert steady(image, image, replace(LOOK, strength=0)) is image
    assert np.array_equal(steady(images[0], paint(images[0]), LOOK), paint(images[0])), (
        "nothing is left of it"
    )


def test_what_is_forgotten_is_not_mixed_in():
    images = video(3)
    steady = TemporalFilter(0.9, SIZE)
    for image in images[:2]:
        steady(image, paint(image), LOOK)
    steady.forget()
    assert np.array_equal(steady(images[2], paint(images[2]), LOOK), paint(images[2]))


def test_detail_beyond_its_size_is_that_of_the_painting():
    large = (512, 384)
    images = video(10, large)
    found = shown(images, 0.75, SIZE)[-1]
    painting = paint(images[-1])
    assert found.shape == painting.shape
    assert not np.array_equal(found, painting)
    fine = [cv2.Laplacian(each, cv2.CV_32F) for each in (found, painting)]
    coarse = [resize(each, (32, 24)).astype(int) for each in (found, painting)]
    assert np.abs(fine[0] - fine[1]).mean() < 0.2 * np.abs(fine[1]).mean()
    assert np.abs(coarse[0] - coarse[1]).mean() < 12


@pytest.mark.parametrize("size", [(1, 1), (2, 90), (31, 64)])
def test_where_no_motion_can_be_found_it_is_shown_as_it_is_painted(size):
    images = [cv2.resize(image, size) for image in video(3)]
    steady = TemporalFilter(0.9, size)
    for image in images:
        assert np.array_equal(steady(image, 255 - image, LOOK), 255 - image)


@pytest.mark.parametrize("amount", [0.3, 0.5, 0.75, 0.9])
def test_what_came_before_its_memory_does_not_show(amount):
    steps = memory(amount)
    assert amount**steps <= FORGOTTEN < amount ** (steps - 1)
    images = video(steps + 3, (64, 48))
    whole, late = (shown(images[begin:], amount, (64, 48))[-1].astype(int) for begin in (0, 2))
    assert np.abs(whole - late).max() <= 1
    assert memory(0) == 0


@pytest.mark.parametrize("amount", [-0.1, 0.91, 1, float("nan")])
def test_there_is_no_room_for_more(amount):
    with pytest.raises(ValueError, match=r"a painting takes 0 to 0\.9 of what was shown"):
        TemporalFilter(amount, SIZE)
