"""The sound of live sources: none of it is lost to rounded times, and it may change its kind."""

import io
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from pipeline.frame import Frame
from pipeline.sinks.muxer import LiveEncoding, Muxer
from pipeline.sources.live import LiveSource, open_source
from pipeline.sources.pattern import PatternSource
from pipeline.sources.resampler import SoundResampler
from pipeline.sources.sound import WithSound

RATE = 48_000


def tone(count, *, rate=RATE, layout="stereo", format="fltp"):
    wave = np.sin(np.arange(count) * 2 * np.pi * 440 / rate)
    wave = wave * 0.4 if format == "fltp" else wave * 10_000
    channels = av.AudioLayout(layout).nb_channels
    samples = np.repeat(wave[None], channels, 0).astype(np.float32 if format == "fltp" else np.int16)
    frame = av.AudioFrame.from_ndarray(samples, format=format, layout=layout)
    frame.sample_rate = rate
    return frame


def follow(pieces):
    """Whether each piece begins where the one before it ends."""
    return all(b.samples.pts == a.samples.pts + a.samples.samples for a, b in pairwise(pieces))


def test_times_in_milliseconds_make_neither_gaps_nor_overlaps():
    counted, pieces = SoundResampler(), []
    for index in range(500):
        pieces += counted.pieces(tone(1024), 7 + round(index * 1024 / RATE, 3))
    assert pieces[0].samples.pts == 7 * RATE
    assert follow(pieces)
    assert sum(piece.samples.samples for piece in pieces) == 500 * 1024


@pytest.mark.parametrize(("off", "begins"), [(0.04, 1024), (-0.04, 1024), (0.06, 3904), (-0.06, -1856)])
def test_only_what_is_far_off_is_believed(off, begins):
    counted = SoundResampler()
    list(counted.pieces(tone(1024), 0))
    (piece,) = counted.pieces(tone(1024), 1024 / RATE + off)
    assert piece.samples.pts == begins


def test_each_kind_is_made_the_same():
    counted, pieces, at = SoundResampler(), [], Fraction(0)
    kinds = [
        ("stereo", RATE, "fltp"),
        ("mono", RATE, "fltp"),
        ("stereo", 44_100, "fltp"),
        ("5.1", RATE, "fltp"),
        ("mono", 16_000, "s16p"),
        ("stereo", RATE, "fltp"),
    ]
    for layout, rate, format in kinds:
        for _ in range(20):
            pieces += counted.pieces(tone(rate // 50, rate=rate, layout=layout, format=format), float(at))
            at += Fraction(1, 50)
    assert {
        (piece.samples.layout.name, piece.samples.sample_rate, piece.samples.format.name) for piece in pieces
    } == {("stereo", RATE, "fltp")}
    assert follow(pieces)
    # All but what two resamplers kept for what would have come.
    assert 0 <= at * RATE - sum(piece.samples.samples for piece in pieces) < 100


def film(format, *, seconds=1.5, rate=RATE, layout="stereo", begins=0.0):
    """A film in memory, 25 pictures a second, with a tone in AAC."""
    written = io.BytesIO()
    options = {"output_ts_offset": str(begins)} if begins else {}
    with av.open(written, "w", format=format, options=options) as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10"}
        sound = container.add_stream("aac", rate=rate, layout=layout)
        for number in range(round(25 * seconds)):
            picture = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), number * 6 % 256, np.uint8), format="rgb24"
            )
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(video.encode(picture))
            samples = tone(rate // 25, rate=rate, layout=layout)
            samples.pts, samples.time_base = number * (rate // 25), Fraction(1, rate)
            container.mux(sound.encode(samples))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return written.getvalue()


def record(source, path):
    """Record a live source to its end; the pieces of sound that it gave."""
    muxer = Muxer(str(path), str(path), "mp4", source.info, LiveEncoding(latency=False))
    pieces = []
    for item in source:
        if isinstance(item, Frame):
            muxer.write(item)
        else:
            pieces.append(item)
            muxer.mux(item)
    muxer.close()
    source.close()
    return pieces


@pytest.mark.parametrize(
    ("format", "rate"), [("matroska", RATE), ("flv", RATE), ("flv", 44_100), ("mpegts", 44_100)]
)
def test_a_recording_has_all_the_sound_of_a_container_that_rounds(tmp_path, format, rate):
    source_path, path = tmp_path / "in", tmp_path / "show.mp4"
    source_path.write_bytes(film(format, rate=rate))
    pieces = record(open_source(str(source_path)), path)
    assert follow(pieces)
    given = sum(piece.samples.samples for piece in pieces)
    assert given > 1.4 * RATE
    with av.open(str(path)) as container:
        decoded = [(frame.pts, frame.samples) for frame in container.decode(audio=0)]
    assert all(at + count == following for (at, count), (following, _) in pairwise(decoded))
    # AAC begins with 1024 samples of nothing, and its last packet is filled up.
    assert given <= sum(count for _, count in decoded) < given + 2 * 1024


KINDS = pytest.mark.parametrize("layouts", [("mono", "stereo"), ("stereo", "mono"), ("stereo", "5.1")])


def changing(path, layouts):
    """A broadcast of 1.2 s at `path`, whose sound changes its kind in the middle."""
    parts = [
        film("mpegts", seconds=0.6, layout=layout, begins=0.6 * index) for index, layout in enumerate(layouts)
    ]
    path.write_bytes(b"".join(parts))
    return path


@KINDS
def test_sound_that_changes_its_kind_goes_on(tmp_path, layouts):
    source_path, path = changing(tmp_path / "in.ts", layouts), tmp_path / "show.mp4"
    pieces = record(open_source(str(source_path)), path)
    assert sum(piece.samples.samples for piece in pieces) > 1.1 * RATE
    with av.open(str(path)) as container:
        loud = [np.abs(frame.to_ndarray()).max() > 0.1 for frame in container.decode(audio=0)]
    assert sum(loud) * 1024 > RATE


@KINDS
def test_sound_beside_the_picture_of_another_place_may_change_its_kind(tmp_path, layouts):
    source = WithSound(PatternSource((64, 48)), str(changing(tmp_path / "in.ts", layouts)))
    given = 0
    for item in source:
        if isinstance(item, Frame):
            assert item.time < 20, f"only {given} samples came"
        elif (given := given + item.samples.samples) > RATE:
            break
    source.close()


@pytest.mark.parametrize("seconds", [3600, 15])
def test_another_programme_whose_times_are_far_ahead_is_shown_at_once(tmp_path, seconds):
    source_path = tmp_path / "in.ts"
    source_path.write_bytes(film("mpegts", seconds=0.6) + film("mpegts", seconds=0.6, begins=seconds))
    opened = []

    def connect():
        opened.append(1)
        if len(opened) > 1:
            source._items.close()
        return av.open(str(source_path))

    source = LiveSource("a stream", connect)
    frames, pieces = [], []
    for item in source:
        if isinstance(item, Frame):
            assert item.captured_at or item.time < 20, f"only {len(frames)} came"
            frames += [item] * (item.captured_at is not None)
        else:
            pieces.append(item)
    source.close()
    assert len(frames) + source.dropped == 30
    times = [float(frame.time) for frame in frames]
    assert times == sorted(times)
    assert times[-1] - times[0] < 5
    begins = [piece.samples.pts for piece in pieces]
    assert max(begins) - min(begins) < 5 * RATE
    assert sum(piece.samples.samples for piece in pieces) > RATE
