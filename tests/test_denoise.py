"""Noise reduction over time: it quietens what stands still and leaves no trail of what moves."""

import av
import numpy as np
import pytest

from pipeline.sources.denoise import NoiseReduction
from tests.packs import tiny_pack
from tests.test_live import report, start

HEIGHT, WIDTH = 96, 160


def scene(square=None):
    """A gradient, with a bright square at the column `square`."""
    image = np.tile(np.linspace(40, 200, WIDTH)[None, :, None], (HEIGHT, 1, 3))
    if square is not None:
        image[30:60, square : square + 20] = 230, 60, 60
    return image


def noisy(image, deviation, rng):
    return (image + rng.normal(0, deviation, image.shape)).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("deviation", [1, 2, 4])
def test_what_stands_still_holds_still(deviation):
    rng, reduce = np.random.default_rng(0), NoiseReduction()
    frames = [noisy(scene(), deviation, rng) for _ in range(30)]
    shown = [reduce(frame) for frame in frames]
    before, after = (np.std(np.array(each[10:], np.float32), 0).mean() for each in (frames, shown))
    assert after < 0.5 * before
    assert np.abs(np.mean(shown[10:], 0) - scene()).mean() < 1


def test_what_moves_leaves_no_trail():
    rng, reduce = np.random.default_rng(0), NoiseReduction()
    for at in range(0, 120, 4):
        shown = reduce(noisy(scene(at), 2, rng)).astype(float)
    assert np.abs(shown[35:55, at + 5 : at + 15] - [230, 60, 60]).mean() < 4
    behind = np.abs(shown[35:55, at - 20 : at - 6] - scene()[35:55, at - 20 : at - 6])
    assert behind.mean() < 4


def test_a_cut_is_a_cut():
    rng, reduce = np.random.default_rng(0), NoiseReduction()
    for _ in range(10):
        reduce(noisy(scene(), 2, rng))
    other = noisy(255 - scene()[:, ::-1] / 2, 2, rng)
    assert np.abs(reduce(other).astype(int) - other).mean() < 0.5


def test_pictures_of_one_pixel_and_of_another_size_pass():
    reduce = NoiseReduction()
    for shape in ((1, 1, 3), (1, 1, 3), (5, 7, 3), (5, 7, 3)):
        assert reduce(np.full(shape, 9, np.uint8)).shape == shape


@pytest.mark.parametrize("option", ["--denoise", "--no-denoise"])
def test_a_live_run_has_it_when_asked(tmp_path, option):
    tiny_pack(tmp_path / "tiny")
    rng, path = np.random.default_rng(0), tmp_path / "still.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25, width=WIDTH, height=HEIGHT, pix_fmt="bgr0")
        for _ in range(150):  # six seconds, of which a slow machine may drop most
            frame = av.VideoFrame.from_ndarray(noisy(scene(), 3, rng), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    shown = tmp_path / "shown.mkv"
    done, _ = report(
        start(path, option, "-s", tmp_path / "tiny", "--strength", "0", "-o", shown, "--json", "--fixed")
    )
    with av.open(str(shown)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert len(frames) == done["frames"] > 12
    deviation = np.std(np.array(frames[10:], np.float32), 0).mean()
    assert (deviation < 1) == (option == "--denoise")
