"""Each promise, broken on purpose, is found; a kept one is not."""

import dataclasses
from fractions import Fraction

import av
import numpy as np
import pytest

from pipeline.colour import Colour
from pipeline.errors import SourceError
from pipeline.hdr import high_colour
from pipeline.orientation import Orientation
from pipeline.sinks.images import ImageSink
from pipeline.sources.file import FileSource
from pipeline.sources.index import read_index
from pipeline.verify import differences, read_contents
from tests.test_tracks import rich
from tests.videos import copy, make_video, picture, read_video, turn

__all__ = ["rich"]


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return read_contents(make_video(folder / "a.mp4", frames=20, metadata={"title": "A"}))


def test_what_is_read(contents):
    assert contents.times == tuple(Fraction(index, 25) for index in range(20))
    assert Fraction(20, 25) in contents.ends
    assert (contents.size, contents.aspect) == ((96, 64), 1)
    assert [track.kind for track in contents.tracks] == ["audio"]
    assert len(contents.tracks[0].digests) > 20
    assert "aac" in contents.holds
    assert "subrip" not in contents.holds


def test_a_file_and_itself(contents):
    assert differences(contents, contents) == []


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_what_the_pipeline_writes(tmp_path, rich, suffix):
    copy(rich, tmp_path / f"out.{suffix}")
    assert differences(read_contents(rich), read_contents(tmp_path / f"out.{suffix}")) == []


def test_a_turned_source_whose_output_is_upright(tmp_path):
    path = turn(make_video(tmp_path / "in.mp4", frames=5, aspect=Fraction(4, 3)), (0, 1, -1, 0))
    copy(path, tmp_path / "out.mp4")
    before, after = read_contents(path), read_contents(tmp_path / "out.mp4")
    assert before.size == after.size == (64, 96)
    assert after.aspect == Fraction(3, 4)
    assert differences(before, after) == []


@pytest.mark.parametrize(
    ("name", "codec"), [("in.mp4", "aac"), ("in.mkv", "pcm_s16le"), ("in.mkv", "wavpack")]
)
def test_sound_that_had_to_be_encoded_anew_is_no_difference(tmp_path, name, codec):
    # The last packet of WavPack has more than a tenth of a second in it, and tells no duration.
    path = make_video(tmp_path / name, frames=55, audio_codec=codec)
    copy(path, tmp_path / "out.webm")
    assert differences(read_contents(path), read_contents(tmp_path / "out.webm")) == []


def changed_track(contents, **changes):
    return (dataclasses.replace(contents.tracks[0], **changes),)


def shifted(times, at, by):
    return (*times[:at], times[at] + by, *times[at + 1 :])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda c: {"times": c.times[:-1]}, "frames: 20 in the source, 19 in the output"),
        (lambda c: {"times": (*c.times, c.times[-1])}, "frames: 20 in the source, 21 in the output"),
        (
            lambda c: {"times": shifted(c.times, 7, Fraction(1, 12800))},
            "frames: 1 are moved, the first is number 7: 0.2800 s became 0.2801 s",
        ),
        (lambda c: {"ends": (Fraction(21, 25),)}, "end: at 0.8000 s in the source, 0.8400 s in the output"),
        (lambda c: {"size": (64, 96)}, "size: 96x64 in the source, 64x96 in the output"),
        (lambda c: {"aspect": Fraction(4, 3)}, "pixel aspect: 1 in the source, 4/3 in the output"),
        (lambda c: {"orientation": Orientation(True)}, "orientation"),
        (lambda c: {"colour": Colour(1, 1)}, "colour matrix: 6 in the source, 1 in the output"),
        (lambda c: {"colour": Colour(6, 2)}, "colour range: 1 in the source, 2 in the output"),
        (lambda c: {"title": ""}, "title: A in the source,  in the output"),
        (lambda c: {"tracks": ()}, "audio tracks: 1 in the source, 0 in the output"),
        (
            lambda c: {"tracks": changed_track(c, digests=(b"", *c.tracks[0].digests[1:]))},
            "of them the same in the output",
        ),
        (
            lambda c: {"tracks": changed_track(c, times=shifted(c.tracks[0].times, 3, Fraction(1, 100)))},
            "audio 0 packets: 1 are moved, the first is number 2",
        ),
        (lambda c: {"chapters": ((0, 1, "Eins"),)}, "chapters: 0 in the source, 1 in the output"),
    ],
)
def test_every_broken_promise_is_a_line(contents, change, line):
    found = differences(contents, dataclasses.replace(contents, **change(contents)))
    assert len(found) == 1
    assert line in found[0]


def test_a_language_that_is_lost(contents):
    german = dataclasses.replace(contents, tracks=changed_track(contents, language="deu"))
    assert differences(german, contents) == ["audio 0: language deu became und"]


@pytest.fixture(scope="module")
def standard(tmp_path_factory):
    """SD in the colours of television, with sound and a title."""
    folder = tmp_path_factory.mktemp("standard")
    return make_video(folder / "in.mp4", frames=8, colour=(6, 1, 6, 6), metadata={"title": "A"})


@pytest.mark.parametrize(
    ("name", "way", "codec"),
    [
        ("out.mp4", "parts", "ffv1"),
        ("out.mkv", "parts", "ffv1"),
        ("out.gif", "stream", None),
        ("out.apng", "stream", None),
        ("out.webp", "stream", None),
    ],
)
def test_what_an_output_has_no_place_for_is_no_difference(tmp_path, standard, name, way, codec):
    copy(standard, tmp_path / name, way, codec)
    before, after = read_contents(standard), read_contents(tmp_path / name)
    assert len(before.times) == len(after.times) == 8
    assert differences(before, after) == []
    lost = dataclasses.replace(after, times=after.times[1:])
    assert "frames: 8 in the source, 7 in the output" in differences(before, lost)


@pytest.mark.parametrize("kind", ["gif", "apng", "webp"])
def test_an_animation_begins_with_its_first_picture(tmp_path, kind):
    late = make_video(tmp_path / "in.mkv", [400, 500, 600, 900], time_base=Fraction(1, 1000))
    copy(late, tmp_path / f"out.{kind}", "stream")
    before, after = read_contents(late), read_contents(tmp_path / f"out.{kind}")
    assert (before.times[0], after.times[0]) == (Fraction(2, 5), 0)
    assert differences(before, after) == []
    moved = dataclasses.replace(after, times=(*after.times[:3], after.times[3] + 1))
    assert "frames: 1 are moved, the first is number 3" in differences(before, moved)[0]


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
def test_pictures_are_compared_by_what_they_hold(tmp_path, standard, kind):
    video = make_video(tmp_path / "in.mp4", frames=8, rate=30, colour=(6, 1, 6, 6))
    sink = ImageSink(tmp_path / f"%02d.{kind}", {})
    with FileSource(video, tracks=False) as source:
        for frame in source:
            sink.write(frame)
    sink.close()
    before, after = read_contents(video), read_contents(tmp_path / f"%02d.{kind}")
    assert len(after.times) == 8
    assert differences(before, after) == []
    assert "size" in differences(dataclasses.replace(before, size=(94, 64)), after)[0]
    one = tmp_path / f"02.{kind}"
    with FileSource(one) as source:
        sink = ImageSink(tmp_path / f"out.{kind}", {})
        sink.write(next(iter(source)))
        sink.close()
    assert differences(read_contents(one), read_contents(tmp_path / f"out.{kind}")) == []


def test_full_range_goes_into_prores_as_limited_range(tmp_path, caplog):
    path = make_video(tmp_path / "in.mov", frames=4, colour=(1, 2, 1, 1), audio=False)
    copy(path, tmp_path / "out.mov", codec="prores")
    assert "prores holds limited range only" in caplog.text
    before, after = read_contents(path), read_contents(tmp_path / "out.mov")
    assert (before.colour.range, after.colour.range) == (2, 1)
    assert differences(before, after) == []
    # H.264 holds either.
    copy(make_video(tmp_path / "lost.mov", frames=4, colour=(1, 1, 1, 1), audio=False), tmp_path / "lost.mp4")
    lost = read_contents(tmp_path / "lost.mp4")
    assert differences(before, lost) == ["colour range: 2 in the source, 1 in the output"]


@pytest.mark.parametrize("colour", [Colour(9, 2, 9, 16), Colour(9, 1, 2, 16)])
def test_high_range_is_compared_with_how_it_is_written(contents, colour):
    source = dataclasses.replace(contents, colour=colour)
    kept, mapped = (
        dataclasses.replace(contents, colour=made) for made in (high_colour(16), Colour(1, 1, 1, 1))
    )
    assert differences(source, kept) == differences(source, mapped) == []
    other = dataclasses.replace(contents, colour=high_colour(18))
    assert differences(source, other) == ["colour transfer: 16 in the source, 18 in the output"]


def still_in_the_middle(index, width=96, height=64):
    return picture(5 if 5 <= index < 10 else index, width, height)


def test_a_webp_may_show_equal_pictures_as_one(tmp_path):
    path = make_video(
        tmp_path / "in.mkv", frames=14, audio=False, codec="ffv1", pix_fmt="bgr0", shown=still_in_the_middle
    )
    copy(path, tmp_path / "out.webp", "stream")
    before, after = read_contents(path), read_contents(tmp_path / "out.webp")
    assert (len(before.times), len(after.times)) == (14, 10)
    assert differences(before, after) == []
    assert differences(before, dataclasses.replace(after, times=after.times[1:])) != []
    moved = dataclasses.replace(after, times=shifted(after.times, 3, Fraction(1, 50)))
    assert differences(before, moved) != []
    apng = dataclasses.replace(after, merges=False)
    assert "frames: 14 in the source, 10 in the output" in differences(before, apng)


def test_reading_can_be_stopped_between_packets(tmp_path):
    path = make_video(tmp_path / "in.mp4", frames=20)
    left = iter(range(5))

    def between():
        if next(left, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_contents(path, between=between)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "a.mp4").write_text("hello")
    with pytest.raises(SourceError, match=r"a\.mp4: not a video"):
        read_contents(tmp_path / "a.mp4")
    with pytest.raises(SourceError, match=r"none\.mp4: no such file"):
        read_contents(tmp_path / "none.mp4")


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_variable_rate_to_the_end(tmp_path, suffix):
    pts = [0, 40, 80, 120, 160, 200, 240, 280, 560, 840, 1120, 1400, 1680, 1960]
    path = make_video(tmp_path / "in.mkv", pts, time_base=Fraction(1, 1000), audio=False)
    copy(path, tmp_path / f"out.{suffix}")
    after = read_contents(tmp_path / f"out.{suffix}")
    assert Fraction(2) in after.ends
    assert differences(read_contents(path), after) == []


@pytest.mark.parametrize("pauses", [[0, 3, 6, 126, 129, 132], [0, 3, 6, 9, 12, 450, 453, 456]])
@pytest.mark.parametrize(
    ("suffix", "way"), [("mp4", "parts"), ("mp4", "stream"), ("mov", "parts"), ("mkv", "parts")]
)
def test_a_pause_just_before_the_end_is_not_added_to_it(tmp_path, suffix, way, pauses):
    """How long pictures last, .mp4 tells in the order of decoding: with B-frames that may be of another."""
    pts = [1000 * at for at in pauses]
    path = make_video(tmp_path / "in.mp4", pts, rate=30, time_base=Fraction(1, 90000), audio=False)
    before = read_video(path)
    assert any(at + lasts > pts[-1] + 3000 for at, lasts in zip(before.pts, before.durations, strict=True))
    copy(path, tmp_path / f"out.{suffix}", way)
    after = read_video(tmp_path / f"out.{suffix}")
    assert after.duration / av.time_base == pytest.approx((pts[-1] + 3000) / 90000, abs=0.002)
    assert differences(read_contents(path), read_contents(tmp_path / f"out.{suffix}")) == []


def test_an_end_is_compared_as_exactly_as_headers_tell_it(contents):
    def ending(end):
        return dataclasses.replace(contents, ends=(Fraction(end),))

    assert differences(ending("0.8"), ending("0.8009")) == []
    assert differences(ending("0.8"), ending("0.8011")) == [
        "end: at 0.8000 s in the source, 0.8011 s in the output"
    ]


def test_a_late_start_is_exact_in_mp4(tmp_path):
    path = make_video(
        tmp_path / "in.ts", [129000 + 3600 * i for i in range(10)], time_base=Fraction(1, 90000)
    )
    copy(path, tmp_path / "out.mp4")
    before, after = read_contents(path), read_contents(tmp_path / "out.mp4")
    assert after.times[0] == before.times[0] > 1
    assert differences(before, after) == []


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_broadcast_whose_clock_overflows_is_whole(tmp_path, suffix):
    begins = 2**33 - 10 * 3600
    pts = [begins + 3600 * index for index in range(30)]
    path = make_video(tmp_path / "in.ts", pts, time_base=Fraction(1, 90000), audio=False)
    copy(path, tmp_path / f"out.{suffix}")
    assert read_video(tmp_path / f"out.{suffix}").times == [Fraction(index, 25) for index in range(30)]
    assert differences(read_contents(path), read_contents(tmp_path / f"out.{suffix}")) == []
    assert read_index(path) is None


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_a_recording_that_jumps_back_is_verified_as_it_goes_on(tmp_path, suffix):
    first = make_video(tmp_path / "a.ts", frames=50, time_base=Fraction(1, 25))
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() * 3)
    result = tmp_path / f"out.{suffix}"
    copy(path, result)
    assert differences(read_contents(path), read_contents(result)) == []


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_samples_are_the_same_however_they_are_cut_into_packets(tmp_path, suffix):
    path = make_video(
        tmp_path / "in.mxf", codec="mpeg2video", audio_codec="pcm_s16le", time_base=Fraction(1, 25)
    )
    result = tmp_path / f"out.{suffix}"
    copy(path, result)
    before, after = read_contents(path), read_contents(result)
    for track in before.tracks[0], after.tracks[0]:
        assert (track.kind, track.codec) == ("audio", "pcm_s16le")
    assert differences(before, after) == []
    other = dataclasses.replace(after, tracks=(dataclasses.replace(after.tracks[0], digests=(b"x",)),))
    assert "audio 0: 1 packets in the source, 0 of them the same in the output" in differences(before, other)


def test_sound_that_begins_late_does_so_in_mp4(tmp_path):
    """Matroska counts milliseconds, MP4 samples: the beginning must be whole in both."""
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("flac", rate=44100, layout="mono")
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(picture(index, 64, 64), format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
        for at in range(0, 80_000, 4000):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), format="s16", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = 44100, at + 1014, Fraction(1, 44100)
            container.mux(sound.encode(samples))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    copy(path, tmp_path / "out.mp4")
    before, after = read_contents(path), read_contents(tmp_path / "out.mp4")
    assert before.tracks[0].times[0] == Fraction(23, 1000)
    assert differences(before, after) == []
