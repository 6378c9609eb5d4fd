"""A camera is followed, and nothing else is."""

import pickle
from fractions import Fraction

import cv2
import numpy as np
import pytest

from engines import Look
from pipeline.colour import Colour
from pipeline.frame import Frame, VideoInfo
from pipeline.motion import LINES, Followed, Motion, camera_motion, small_grey
from pipeline.scaling import scaled
from pipeline.sources import Source

RNG = np.random.default_rng(7)

WIDTH, HEIGHT = 320, 240


def texture(width: int, height: int, grain: int = 6, seed: int = 3) -> np.ndarray:
    """Something to see everywhere, uint8 [h, w, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 226, (height // grain, width // grain, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


SCENE = texture(3 * WIDTH, 3 * HEIGHT)


def seen(x: float, y: float) -> np.ndarray:
    """The scene by a camera that has turned it right and down by so many pixels."""
    shift = np.float32([[1, 0, x - WIDTH], [0, 1, y - HEIGHT]])
    return cv2.warpAffine(SCENE, shift, (WIDTH, HEIGHT))


def followed(images) -> list[tuple[float, float]]:
    motion, held = Motion(), []
    for image in images:
        motion = motion.of(image)
        held.append(motion.moved)
    return held


@pytest.mark.parametrize("speed", [(4.0, 0.0), (-3.0, 2.0), (0.0, -7.5), (1.3, 0.9), (0.25, -0.2)])
def test_a_camera_that_pans_is_followed(speed):
    frames = 40
    held = followed(seen(speed[0] * n, speed[1] * n) for n in range(frames))
    assert held[0] == (0.0, 0.0)
    # A picture of 240 lines: half a pixel is one of the painting's. It may lag by what it moves in a picture.
    lag = 0.8 + max(map(abs, speed))
    for n, (x, y) in enumerate(held):
        assert abs(x - speed[0] * n) < lag + 0.01 * n, n
        assert abs(y - speed[1] * n) < lag + 0.01 * n, n
    steps = np.diff(held[8:], axis=0)
    assert np.abs(steps - speed).max() < 0.15, "as fast as the scene, without a jolt"


def test_it_comes_to_rest_with_the_camera():
    held = followed(seen(0.9 * min(n, 20), 0) for n in range(40))
    assert len(set(held[32:])) == 1
    assert abs(held[-1][0] - 18) < 0.5


def test_what_stands_still_stays_exactly_where_it_is():
    held = followed(
        np.clip(seen(0, 0) + RNG.normal(0, 4, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8) for _ in range(60)
    )
    assert set(held) == {(0.0, 0.0)}


def test_a_hand_that_trembles_moves_no_canvas():
    held = followed(seen(*RNG.uniform(-0.3, 0.3, 2)) for _ in range(40))
    assert set(held) == {(0.0, 0.0)}


def before_a_wall(n: int, *, wall: np.ndarray) -> np.ndarray:
    """Somebody who walks about in the middle of a picture."""
    picture = wall.copy()
    left = 70 + 4 * n
    picture[60:, left : left + 110] = texture(110, HEIGHT - 60, seed=9)
    return picture


@pytest.mark.parametrize("wall", [np.full((HEIGHT, WIDTH, 3), 180, np.uint8), texture(WIDTH, HEIGHT)])
def test_who_walks_before_a_camera_is_not_followed(wall):
    assert set(followed(before_a_wall(n, wall=wall) for n in range(25))) == {(0.0, 0.0)}


def test_a_cut_moves_nothing():
    shots = [seen(0, 0)] * 3 + [texture(WIDTH, HEIGHT, grain=15, seed=1)] * 3
    assert set(followed(shots)) == {(0.0, 0.0)}


def test_a_zoom_moves_nothing_that_lies_in_the_middle():
    def zoomed(n: int) -> np.ndarray:
        scale = 1 + 0.02 * n
        to = np.float32([[scale, 0, WIDTH / 2 - scale * 480], [0, scale, HEIGHT / 2 - scale * 360]])
        return cv2.warpAffine(SCENE, to, (WIDTH, HEIGHT))

    assert max(max(map(abs, held)) for held in followed(map(zoomed, range(15)))) < 3


def test_nothing_to_see_is_no_motion():
    grey = np.full((LINES, 200), 90, np.uint8)
    assert camera_motion(grey, grey) == (0.0, 0.0)


@pytest.mark.parametrize("size", [(1, 1), (31, 400), (16, 16)])
def test_too_small_a_picture_is_not_looked_at(size):
    assert set(followed(RNG.integers(0, 256, (4, size[1], size[0], 3), np.uint8))) == {(0.0, 0.0)}


def test_it_goes_on_in_another_process_as_if_it_had_not_stopped():
    images = [seen(2.3 * n, -1.1 * n) for n in range(20)]
    motion = Motion()
    for image in images[:9]:
        motion = motion.of(image)
    motion, held = pickle.loads(pickle.dumps(motion)), []
    for image in images[9:]:
        motion = motion.of(image)
        held.append(motion.moved)
    assert held == followed(images)[9:]


class Film(Source):
    """Pictures and packets in turn."""

    def __init__(self, images):
        self.images, self.closed = images, False
        self.info = VideoInfo(WIDTH, HEIGHT, Fraction(25), Fraction(1, 25), Colour())

    def __iter__(self):
        for n, image in enumerate(self.images):
            self.lost, self.dropped = f"lost {n}", n
            yield Frame(image, n, 1, self.info.time_base)
            yield f"packet {n}"

    def close(self):
        self.closed = True


def test_a_source_is_followed_frame_by_frame():
    images = [seen(3.0 * n, 0) for n in range(6)]
    film = Film(images)
    source = Followed(film)
    items = list(source)
    frames = items[::2]
    assert items[1::2] == [f"packet {n}" for n in range(6)]
    assert [frame.pts for frame in frames] == list(range(6))
    assert all(frame.image is image for frame, image in zip(frames, images, strict=True))
    assert [frame.moved for frame in frames] == followed(images)
    assert source.motion.moved == frames[-1].moved
    assert (source.lost, source.dropped) == ("lost 5", 5)
    source.close()
    assert film.closed


def test_at_the_working_size_a_scene_moves_by_fewer_pixels():
    looks = []

    def paint(image, look):
        looks.append(look)
        return image

    image = np.zeros((120, 200, 3), np.uint8)
    scaled(paint, (100, 40), (200, 120), carried=True)(image, Look({"a": 1}, 0.5, (10.0, -9.0)))
    scaled(paint, (100, 40), (200, 120), carried=True)(image, Look({"a": 1}, 0.5))
    assert looks == [Look({"a": 1}, 0.5, (5.0, -3.0)), Look({"a": 1}, 0.5)]


def test_between_two_pixels_the_scene_is_moved_back_for_the_engine_and_on_again():
    told = []

    def paint(image, look):
        told.append((image, look))
        return 255 - image

    image = texture(90, 70)
    for source, moved in (((90, 70), (7.25, -3.375)), ((180, 140), (14.5, -6.75))):
        whole = cv2.resize(image, source, interpolation=cv2.INTER_CUBIC)
        painted = scaled(paint, (90, 70), source, carried=True)(whole, Look(moved=moved))
        given, look = told.pop()
        assert look.moved == (7.25, -3.375)
        # By a quarter to the left, and by three eighths up.
        matrix = np.float32([[1, 0, -0.25], [0, 1, 0.375]])
        small = image if source == (90, 70) else cv2.resize(whole, (90, 70), interpolation=cv2.INTER_AREA)
        expected = cv2.warpAffine(small, matrix, (90, 70), flags=cv2.INTER_CUBIC)
        np.testing.assert_allclose(given[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1)
        assert np.abs(painted.astype(int) - (255 - whole))[8:-8, 8:-8].mean() < 4
    for source in ((90, 70), (180, 140)):
        whole = cv2.resize(image, source, interpolation=cv2.INTER_CUBIC)
        still = scaled(paint, (90, 70), source)(whole, Look())
        whole_pixels = Look(moved=(7.0 * source[0] / 90, -3.01 * source[1] / 70))
        for carried, look in ((True, whole_pixels), (False, Look(moved=(7.4, -3.3)))):
            found = scaled(paint, (90, 70), source, carried=carried)(whole, look)
            assert np.array_equal(found, still), "by whole pixels, or without a canvas, as if nothing moved"
        untouched = scaled(paint, (90, 70), source, carried=True)(whole, Look(strength=0, moved=(7.4, -3.3)))
        # By the engine at its own size; at another one nobody is asked.
        given_back = still if source == (90, 70) else whole
        assert np.array_equal(untouched, given_back), "strength 0 gives back every byte"


def test_larger_pictures_are_made_small():
    assert small_grey(np.zeros((720, 1280, 3), np.uint8)).shape == (LINES, 284)
    assert small_grey(np.zeros((90, 100, 3), np.uint8)).shape == (90, 100)
