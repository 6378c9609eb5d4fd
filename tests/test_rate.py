from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from pipeline.frame import Frame
from pipeline.rate import ConstantRate
from pipeline.segments import missing
from pipeline.sources.file import FileSource
from pipeline.sources.index import read_index
from tests.videos import bar, make_video


def resampled(path, rate):
    with ConstantRate(FileSource(path), rate) as source:
        items = list(source)
    frames = [item for item in items if isinstance(item, Frame)]
    return source.info, frames, len(items) - len(frames)


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(50), Fraction(10), Fraction(30000, 1001)])
def test_a_second_has_as_many_frames_as_asked_for(tmp_path, rate):
    path = make_video(tmp_path / "a.mp4", frames=50)
    info, frames, packets = resampled(path, rate)
    assert info.rate == rate
    assert len(frames) == info.frames == round(2 * rate)
    assert [frame.time for frame in frames] == [index / rate for index in range(len(frames))]
    assert packets > 80
    shown = [(bar(frame.image) - 4) // 5 for frame in frames if bar(frame.image) > 4]
    assert shown[: len(shown) // 3] == sorted(shown[: len(shown) // 3])


def test_doubling_shows_each_frame_twice_and_halving_every_other(tmp_path):
    path = make_video(tmp_path / "a.mp4", frames=10, audio=False)
    with FileSource(path) as source:
        images = [frame.image for frame in source]
    _, twice, _ = resampled(path, Fraction(50))
    assert [bar(frame.image) for frame in twice] == [bar(image) for image in images for _ in (0, 1)]
    _, half, _ = resampled(path, Fraction(25, 2))
    assert [bar(frame.image) for frame in half] == [bar(image) for image in images[::2]]


@pytest.mark.parametrize("rate", [Fraction(10), Fraction(1, 1000)])
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_shorter_than_a_tick_is_shown_once(tmp_path, rate, count):
    path = make_video(tmp_path / "a.mp4", frames=count, audio=False, rate=100)
    _, frames, _ = resampled(path, rate)
    assert [(frame.pts, frame.duration, frame.time_base) for frame in frames] == [(0, 1, 1 / rate)]
    (segment,) = missing([], read_index(path), Fraction(1, 12800), rate, 4)
    _, source = segment.open(path, rate)
    with source:
        assert [frame.pts for frame in source] == [0]


def test_variable_rate_and_a_late_start(tmp_path):
    path = make_video(tmp_path / "a.mkv", [1000, 1040, 1400, 1440], time_base=Fraction(1, 1000), audio=False)
    _, frames, _ = resampled(path, Fraction(25))
    assert [frame.pts for frame in frames] == list(range(25, 37))
    same = [np.array_equal(a.image, b.image) for a, b in pairwise(frames)]
    assert same == [False] + [True] * 8 + [False] * 2
