from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from engines import Look
from pipeline.scaling import resample, resize, scaled, stylizer, upsample, working_size


@pytest.mark.parametrize(
    ("native_height", "source", "detail", "expected"),
    [
        (480, (1920, 1080), 1.0, (856, 480)),
        (480, (3840, 2160), 1.0, (856, 480)),
        (480, (1080, 1920), 1.0, (480, 856)),
        (480, (3840, 2160), 2.0, (1704, 960)),
        (480, (1920, 1080), "full", (1920, 1080)),
        (480, (640, 360), 1.0, (640, 360)),
        (480, (1920, 1080), 4.0, (1920, 1080)),
        (480, (4000, 8), 1.0, (4000, 8)),
        # For a style of large pictures, a smaller source is enlarged.
        (960, (1920, 1080), 1.0, (1704, 960)),
        (960, (1280, 720), 1.0, (1704, 960)),
        (960, (1280, 720), 4.0, (1704, 960)),
        (960, (1280, 720), 0.5, (856, 480)),
        (960, (1280, 720), "full", (1280, 720)),
        (960, (640, 480), 1.0, (1280, 960)),
        (960, (640, 480), 0.5, (640, 480)),
        (960, (640, 360), 1.0, (1280, 720)),
        (960, (4000, 8), 1.0, (8000, 16)),
        (960, (3840, 2160), 2.0, (3416, 1920)),
        (960, (1000, 960), 1.5, (1000, 960)),
    ],
)
def test_working_size_keeps_the_strokes_size(native_height, source, detail, expected):
    assert working_size(source, native_height, multiple=8, detail=detail) == expected


def test_what_is_painted_larger_comes_back_as_fine_as_it_was_and_strength_0_as_the_input():
    engine = Painter(native_height=960)
    image = np.full((480, 640, 3), 90, np.uint8)
    image[::2] = 150
    painted = stylizer(engine, (640, 480))(image, Look())
    assert engine.seen == [(960, 1280, 3)]
    assert np.abs(painted[8:-8].astype(int) - (255 - image[8:-8])).mean() < 12
    assert np.array_equal(stylizer(engine, (640, 480))(image, Look(strength=0)), image)


@pytest.mark.parametrize("detail", [0.0, -1.0, float("nan")])
def test_detail_must_be_above_zero(detail):
    with pytest.raises(ValueError, match="detail"):
        working_size((1920, 1080), 480, 8, detail)


class Painter:
    """An engine that inverts, and remembers what it was given."""

    def __init__(self, native_height, size=None):
        self.style = SimpleNamespace(native_height=native_height, multiple=8, size=size, carried=False)
        self.seen = []

    def __call__(self, image, look):
        self.seen.append(image.shape)
        return 255 - image


def photograph(width, height):
    """A shaded disc with a hard edge on a gradient: something to keep sharp."""
    across = np.linspace(40, 160, width, dtype=np.float32)[None].repeat(height, 0)
    image = np.stack([across, across[:, ::-1], np.full_like(across, 90)], -1).astype(np.uint8)
    return cv2.circle(image, (width // 2, height // 2), height // 3, (230, 200, 60), -1)


@pytest.mark.parametrize("size", [(1280, 720), (353, 289), (1919, 1079)])
def test_the_picture_comes_back_at_the_exact_size(size):
    engine = Painter(native_height=96)
    image = photograph(*size)
    painted = stylizer(engine, size)(image, Look())
    assert painted.shape == image.shape
    assert painted.dtype == np.uint8
    assert min(engine.seen[0][:2]) == 96


def test_full_detail_is_the_engine_itself():
    engine = Painter(native_height=96)
    assert stylizer(engine, (1280, 720), "full") is engine


def test_a_graph_of_fixed_size_decides_the_working_size():
    engine = Painter(native_height=96, size=(64, 64))
    image = photograph(320, 180)
    assert stylizer(engine, (320, 180), "full")(image, Look()).shape == image.shape
    assert engine.seen == [(64, 64, 3)]


def psnr(a, b):
    """In luminance, which is what the upsampling sharpens and what eyes see sharply."""
    a, b = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (a, b))
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize(("painter", "gain"), [(lambda x: 255 - x, 6), (lambda x: x // 2 + 60, 6)])
def test_edges_of_the_input_come_back_sharp(painter, gain):
    image = photograph(640, 360)
    small = resize(image, (160, 90))
    plain = cv2.resize(painter(small), (640, 360), interpolation=cv2.INTER_CUBIC)
    guided = upsample(painter(small), small, image)
    assert psnr(guided, painter(image)) > psnr(plain, painter(image)) + gain


def test_strokes_that_the_input_knows_nothing_of_are_left_alone():
    rng = np.random.default_rng(0)
    image = np.full((360, 640, 3), 128, np.uint8)
    small = resize(image, (160, 90))
    strokes = rng.integers(0, 256, small.shape, np.uint8)
    plain = cv2.resize(strokes, (640, 360), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(upsample(strokes, small, image), plain)


def test_noise_of_the_input_is_not_carried_into_the_painting():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3, (360, 640, 3))
    image = np.clip(128 + noise, 0, 255).astype(np.uint8)
    small = resize(image, (160, 90))
    assert upsample(small, small, image).std() < 0.4 * image.std()


def inverted(image, look):
    return cv2.addWeighted(255 - image, look.strength, image, 1 - look.strength, 0)


def test_what_is_left_of_the_input_has_all_its_detail():
    size, source = (160, 96), (480, 288)
    image = np.random.default_rng(0).integers(0, 256, (*source[::-1], 3), np.uint8)
    paint = scaled(inverted, size, source)
    assert np.array_equal(paint(image, Look(strength=0.0)), image)
    assert np.abs(paint(image, Look(strength=0.01)).astype(int) - image).max() <= 4
    small = resize(image, size)
    full = upsample(255 - small, small, image)
    assert np.array_equal(paint(image, Look()), full)
    half = paint(image, Look(strength=0.5)).astype(int)
    # On the way between the two, but for what a picture of bytes rounds and clips.
    assert np.abs(half - (image.astype(int) + full) / 2).mean() < 2


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [(720, 405), (426, 720), (1280, 405), (640, 360), (1920, 400)])
def test_no_moire_comes_of_fine_stripes_at_another_shape(size, axis):
    width, height = 1280, 720
    stripes = np.indices((height, width))[axis] % 2 * 255
    image = np.repeat(stripes[..., None], 3, 2).astype(np.uint8)
    found = resample(image, size)
    assert found.shape == (size[1], size[0], 3)
    shrinks = size[1 - axis] < (height, width)[axis]
    assert (found.std() < 30) == shrinks
    assert abs(found.mean() - 127.5) < 2
