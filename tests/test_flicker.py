"""The flicker score: exact on pictures whose answer is known, and told by the runs that ask for it."""

import json
from fractions import Fraction
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from pipeline.flicker import Flicker, contrast
from pipeline.frame import Frame
from pipeline.stream import run
from tests.packs import tiny_pack
from tests.test_cli import fauve
from tests.videos import make_video


def texture(width=160, height=120):
    """Something that motion can be seen on, within 40..200."""
    noise = np.random.default_rng(7).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    large = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return (40 + large.astype(np.float32) * 160 / 255).astype(np.uint8)


def score(*pairs):
    flicker = Flicker()
    for before, after in pairs:
        flicker.add(before, after)
    return flicker


def test_a_still_painting_of_a_still_video_has_none():
    picture = texture()
    still = score(((picture, 255 - picture), (picture, 255 - picture)))
    assert (still.score, still.painting, still.video, still.pairs) == (0.0, 0.0, 0.0, 1)


def test_what_moves_with_the_video_does_not_flicker():
    wide = texture(168)
    before, after = wide[:, 4:164], wide[:, :160]
    moved = score(((before, 255 - before), (after, 255 - after)))
    assert moved.video < 2
    assert moved.score == pytest.approx(0, abs=0.01)


def test_a_painting_that_shimmers_by_eight_levels_scores_eight_over_its_contrast():
    picture = texture()
    shimmering = score(
        ((picture, picture), (picture, picture + 8)), ((picture, picture + 8), (picture, picture))
    )
    assert (shimmering.video, shimmering.painting) == (0.0, 8.0)
    assert shimmering.score == pytest.approx(8 / contrast(picture), rel=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (11, 40), (4000, 2), (12, 12)])
def test_what_is_too_small_for_motion_is_not_counted(size):
    picture = np.full((size[1], size[0], 3), 90, np.uint8)
    assert score(((picture, picture), (picture, picture))).pairs == (min(size) >= 12)


def test_the_contrast_is_the_standard_deviation_around_the_mean_colour():
    halves = np.zeros((4, 4, 3), np.uint8)
    halves[:2] = (20, 40, 60)
    assert contrast(halves) == pytest.approx(((10**2 + 20**2 + 30**2) / 3) ** 0.5)
    assert contrast(np.full((4, 4, 3), (200, 10, 90), np.uint8)) == 0


def test_a_painting_of_one_colour_has_no_score_and_a_faint_one_does_not_go_below_0():
    wide = texture(168)
    grey = np.full((120, 160, 3), 128, np.uint8)
    assert score(((wide[:, 4:164], grey), (wide[:, :160], grey))).score is None
    noisy = cv2.add(texture(), 9)
    faint = (texture() // 16).astype(np.uint8)
    assert score(((texture(), faint), (noisy, faint))).score == 0.0


def test_a_cut_is_not_counted():
    first, second = texture(), np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    assert score(((first, first), (second, second))).pairs == 0


def test_sums_of_several_parts_are_the_score_of_the_whole():
    picture = texture()
    pairs = [((picture, picture), (picture, picture + step)) for step in (2, 4, 30)]
    parts = score(pairs[0])
    parts += score(*pairs[1:])
    assert parts == score(*pairs)


class Film:
    """Three seconds of 25 frames; the painting below shimmers in some of them."""

    def __init__(self, live):
        self.info = SimpleNamespace(live=live)

    def __iter__(self):
        for index in range(75):
            yield Frame(texture(), index, 1, Fraction(1, 25))


class Nowhere:
    waiting, name, left_out = 100, "nowhere", 0

    def write(self, frame):
        pass

    def close(self):
        pass

    def abort(self):
        pass


def test_the_first_pair_and_one_a_second_are_scored():
    stats = run(
        Film(live=False),
        lambda image, look: image + 8 * look,
        [Nowhere()],
        look_at=lambda time: 0 if time < 1 else 1,
        scored=lambda look: True,
    )
    # Between 24 and 25 the look changes, which is no flicker.
    assert stats.flicker.pairs == 2
    assert stats.flicker.score == 0


def test_what_does_not_count_is_not_scored_and_nothing_is_where_nobody_asks():
    film = {"paint": lambda image, look: image, "sinks": [Nowhere()], "look_at": lambda time: time < 1}
    assert run(Film(live=False), scored=lambda look: look, **film).flicker.pairs == 1
    assert run(Film(live=False), **film).flicker is None


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flicker")
    tiny_pack(folder / "tiny")
    return make_video(folder / "in.mp4", frames=300, audio=False), folder / "tiny"


def test_run_tells_the_score(tmp_path, material):
    video, pack = material
    result = fauve("run", video, "-o", tmp_path / "a.mp4", "--style", pack, "--score", "--json")
    flicker = json.loads(result.stdout.splitlines()[-1])["flicker"]
    assert set(flicker) == {"score", "painting", "video", "contrast", "pairs"}
    assert flicker["pairs"] == 12
    assert flicker["contrast"] > 5
    told = fauve("run", video, "-o", tmp_path / "b.mp4", "--style", pack, "--score", "--workers", "2").stdout
    # Each worker's first pair, and what lies between the workers is left out.
    assert f"flicker {flicker['score']:.2f}" in told
    assert "pairs of frames)" in told
    assert "flicker" not in fauve("run", video, "-o", tmp_path / "c.mp4", "--style", pack).stdout


def test_live_tells_the_score(tmp_path, material):
    options = ["-o", tmp_path / "a.mkv", "--style", material[1], "--size", "320x180", "--duration", "2s"]
    result = fauve("live", "test:", *options, "--score", "--json")
    assert result.returncode == 0, result.stderr
    flicker = json.loads(result.stdout.splitlines()[-1])["flicker"]
    assert 1 <= flicker["pairs"] <= 2
    assert flicker["score"] >= 0
