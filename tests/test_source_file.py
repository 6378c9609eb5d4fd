"""What is read: every frame, exactly when it is shown, and the sound beside it."""

import os
import re
from fractions import Fraction
from functools import partial
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
from av.codec.context import Flags
from av.codec.hwaccel import HWAccel

from pipeline.colour import Colour
from pipeline.errors import SourceError
from pipeline.frame import Frame
from pipeline.sources.demuxer import packets_of
from pipeline.sources.file import FileSource
from pipeline.sources.hdr import ToneMapper
from pipeline.sources.index import read_index
from pipeline.sources.timeline import Timeline
from pipeline.sources.truncation import is_truncated
from pipeline.verify import differences, read_contents
from tests.videos import bar, copy, make_video, picture, read_video


def read(path, **options):
    with FileSource(path, **options) as source:
        items = list(source)
    return (
        source.info,
        [item for item in items if isinstance(item, Frame)],
        [item for item in items if not isinstance(item, Frame)],
    )


def test_every_frame_with_its_pts_and_all_the_sound(tmp_path):
    path = make_video(tmp_path / "a.mp4", frames=30)
    info, frames, packets = read(path)
    assert (info.width, info.height, info.rate, info.frames) == (96, 64, 25, 30)
    assert [frame.pts for frame in frames] == [512 * index for index in range(30)]
    assert [frame.duration for frame in frames] == [512] * 30
    assert frames[3].time == Fraction(3, 25)
    expected = read_video(path)
    assert [bytes(packet) for packet in packets] == [packet[3] for packet in expected.packets]
    assert packets
    for index, frame in enumerate(frames):
        assert bar(frame.image) == 4 + index * 5 % 84
        assert np.abs(frame.image.astype(int) - picture(index)).mean() < 3


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_variable_rate_a_late_start_and_gaps(tmp_path, suffix):
    pts = [1000, 1040, 1090, 1100, 1500, 1501, 3000]
    path = make_video(tmp_path / f"a.{suffix}", pts, time_base=Fraction(1, 1000), audio=False)
    _, frames, _ = read(path)
    assert [frame.time for frame in frames] == [Fraction(at, 1000) for at in pts]


def test_the_sound_can_be_left_out(tmp_path):
    info, _, packets = read(make_video(tmp_path / "a.mp4"), audio=False)
    assert info.tracks == ()
    assert packets == []


def test_a_start_in_the_middle(tmp_path):
    path = make_video(tmp_path / "a.mp4", frames=30)
    _, frames, _ = read(path, start=17 * 512)
    assert [frame.pts for frame in frames] == [512 * index for index in range(17, 30)]
    assert bar(frames[0].image) == 4 + 17 * 5 % 84
    _, frames, _ = read(path, start=5 * 512, end=9 * 512)
    assert [frame.pts for frame in frames] == [512 * index for index in range(5, 9)]


def test_colour_and_aspect_are_told(tmp_path):
    path = make_video(tmp_path / "a.mp4", colour=(5, 2, 5, 6), aspect=Fraction(4, 3), metadata={"title": "Ä"})
    info, frames, _ = read(path)
    assert info.colour == Colour(5, 2, 5, 6)
    assert info.sample_aspect_ratio == Fraction(4, 3)
    assert info.metadata["title"] == "Ä"
    assert "major_brand" not in info.metadata
    assert np.abs(frames[0].image.astype(int) - picture(0)).mean() < 3


def test_odd_sizes_and_ten_bits(tmp_path):
    path = make_video(tmp_path / "a.mkv", codec="ffv1", size=(97, 65), pix_fmt="yuv420p10le", audio=False)
    info, frames, _ = read(path)
    assert (info.width, info.height) == (97, 65)
    assert frames[5].image.shape == (65, 97, 3)
    assert bar(frames[5].image) == 29


def test_a_stream_without_pts_counts_them(tmp_path):
    path = make_video(tmp_path / "a.h264", frames=10, audio=False)
    _, frames, _ = read(path)
    assert len(frames) == 10
    steps = {b.pts - a.pts for a, b in pairwise(frames)}
    assert steps == {frames[0].duration}


@pytest.mark.parametrize("suffix", ["avi", "mpg"])
def test_pictures_whose_time_is_guessed_are_all_there(tmp_path, suffix, caplog):
    """FFmpeg writes both without times of showing, or with wrong ones, where there are B-frames."""
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264" if suffix == "avi" else "mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.codec_context.options = {"bf": "2"}
        video.bit_rate = 3_000_000
        for index in range(160):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    _, frames, _ = read(path)
    assert [bar(frame.image) for frame in frames] == [bar(picture(index)) for index in range(160)]
    steps = [b.pts - a.pts for a, b in pairwise(frames)]
    assert all(step > 0 for step in steps)
    # What is late does not make the whole longer.
    assert frames[-1].time - frames[0].time <= Fraction(163, 25)
    assert "pictures go back in time, and follow on those before them" in caplog.text
    assert read_index(path) is None
    copy(path, tmp_path / "out.mkv")
    before, after = read_contents(path), read_contents(tmp_path / "out.mkv")
    assert len(before.times) == len(after.times) == 160
    assert differences(before, after) == []


def test_what_is_late_follows_on_and_time_catches_up():
    timeline = Timeline()
    shown = [timeline.show(pts, 40) for pts in (0, 40, 40, 40, 80, 120, None, 90, 200)]
    assert shown == [0, 40, 60, 80, 100, 120, 160, 180, 200]
    assert timeline.late == 4


def numbered_pictures(folder, name, numbers):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        cv2.imwrite(str(folder / (name % number)), picture(number)[..., ::-1])
    return folder / name.replace("%%", "%")


@pytest.mark.parametrize(
    ("folder", "name", "first"),
    [("100% [x]:y", "50%%_%04d.png", 1), ("s", "%d.png", 9), ("s", "f%03d.png", 1001)],
)
def test_pictures_are_numbered_from_anywhere_in_any_folder(tmp_path, folder, name, first):
    path = numbered_pictures(tmp_path / folder, name, range(first, first + 12))
    (tmp_path / folder / "00012.png").write_text("another")
    _, frames, _ = read(path)
    assert [bar(frame.image) for frame in frames] == [bar(picture(first + index)) for index in range(12)]
    assert [frame.time for frame in frames] == [Fraction(index, 25) for index in range(12)]


@pytest.mark.parametrize("missing", [2, 4, 8, 28])
def test_a_picture_that_is_missing_is_named(tmp_path, missing):
    path = numbered_pictures(tmp_path, "%04d.png", sorted({*range(1, 30)} - {missing}))
    with pytest.raises(
        SourceError, match=rf"%04d\.png: number {missing} is missing between {missing - 1} and"
    ):
        FileSource(path)
    with pytest.raises(SourceError, match=r"x%d\.png: no such file"):
        FileSource(tmp_path / "x%d.png")


def test_names_that_mean_something_to_ffmpeg(tmp_path):
    for name in ("a:b.mp4", "-x.mp4", "100%d.mp4", 'it\'s "ü" .mp4', "concat:x.mp4"):
        _, frames, _ = read(make_video(tmp_path / name, frames=3, audio=False))
        assert len(frames) == 3


def audio_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def cover_art(path):
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(
            cover.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24").reformat(format="yuvj420p"))
        )
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("missing.mp4", lambda path: None, "no such file"),
        ("folder.mp4", lambda path: path.mkdir(), "a folder"),
        ("empty.mp4", lambda path: path.touch(), "the file is empty"),
        ("text.mp4", lambda path: path.write_text("not a video\n" * 100), "not a video"),
        (
            "noise.mp4",
            lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
            "not a video",
        ),
        ("sound.m4a", audio_only, "there is no video in it, only audio"),
        ("cover.mp4", cover_art, "there is no video in it"),
    ],
)
def test_what_is_no_video_is_named(tmp_path, name, make, message):
    path = tmp_path / name
    make(path)
    with pytest.raises(SourceError, match=message) as caught:
        FileSource(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mp4")

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(SourceError, match="may not be read"):
        FileSource(path)


def test_a_video_whose_frames_are_all_damaged(tmp_path):
    path = make_video(tmp_path / "a.mkv", frames=30, audio=False)
    content = bytearray(path.read_bytes())
    middle = content.index(b"\x1f\x43\xb6\x75")
    content[middle + 40 : -400] = bytes(len(content) - 440 - middle)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"decoded|damaged"):
        FileSource(path)


def test_a_file_of_which_the_end_is_missing_is_painted_as_far_as_it_goes_and_named(tmp_path, caplog):
    whole = make_video(tmp_path / "whole.mkv", frames=100)
    with FileSource(whole) as source:
        assert sum(isinstance(item, Frame) for item in source) == 100
    assert not caplog.records
    content = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    with FileSource(tmp_path / "cut.mkv") as source:
        frames = sum(isinstance(item, Frame) for item in source)
    assert 20 < frames < 80
    assert re.search(r"cut.mkv: ends at [12]\.\d s, and its header says 4\.\d s; it is damaged", caplog.text)


def copy_packets(video, path):
    """Write what is in `video` in `path`'s format."""
    with av.open(str(video)) as before, av.open(str(path), "w", options={"movflags": "faststart"}) as after:
        streams = {stream: after.add_stream_from_template(stream) for stream in before.streams}
        for packet in before.demux():
            if packet.size:
                packet.stream = streams[packet.stream]
                after.mux(packet)


def cut(video, path, pictures):
    """What a download of `video` in `path`'s format has got that stopped just behind so many pictures."""
    copy_packets(video, path)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        end = packets[pictures].pos + 20
        whole = sum(packet.pos + packet.size <= end for packet in packets)
    path.write_bytes(path.read_bytes()[:end])
    return whole


@pytest.mark.parametrize(
    ("suffix", "told"),
    [
        ("mp4", r"ends at 1\.\d s, and its header says 4\.\d s"),
        ("flv", r"ends at 1\.\d s, and its header says 4\.\d s"),
        ("avi", r"ends at 1\.\d s, and its header says 4\.\d s"),
        ("mxf", r"ends at 1\.\d s, and its header says 4\.\d s"),
        ("ts", "ends within a packet"),
    ],
)
def test_all_whole_pictures_before_a_cut_are_painted_and_it_is_named(tmp_path, caplog, suffix, told):
    path = tmp_path / f"cut.{suffix}"
    # FFmpeg puts no H.264 with B-frames into .avi.
    codec, pixels = {"avi": ("mjpeg", "yuvj420p"), "mxf": ("mpeg2video", "yuv420p")}.get(
        suffix, ("libx264", "yuv420p")
    )
    base = Fraction(1, 25) if suffix == "mxf" else Fraction(1, 12800)
    video = make_video(
        tmp_path / "in.mov", frames=100, audio=False, codec=codec, pix_fmt=pixels, time_base=base
    )
    whole = cut(video, path, 30)
    with FileSource(path) as source:
        frames = sum(isinstance(item, Frame) for item in source)
        assert source.cut_short
    assert frames == len(read_contents(path).times) == whole
    assert re.search(rf"cut\.{suffix}: {told}; it is damaged, or not all of it is there", caplog.text)
    index = read_index(path)
    assert suffix == "avi" or (index is not None and len(index.times) == frames)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "flv"])
def test_an_end_is_missed_by_a_few_pictures_too(tmp_path, caplog, suffix):
    path = tmp_path / f"a.{suffix}"
    # Of these pictures FFmpeg gives one that is cut off in part.
    name, codec, pixels = ("in.flv", "flv", "yuv420p") if suffix == "flv" else ("in.mov", "mjpeg", "yuvj420p")
    video = make_video(tmp_path / name, frames=50, audio=False, codec=codec, pix_fmt=pixels)
    for pictures in (None, 46):
        caplog.clear()
        if pictures is None:
            copy_packets(video, path)
        else:
            cut(video, path, pictures)
        with FileSource(path) as source:
            frames = sum(isinstance(item, Frame) for item in source)
            assert source.cut_short == (pictures is not None)
        assert frames in ((50,) if pictures is None else (46, 47))
        assert ("ends within a packet" in caplog.text) == source.cut_short


@pytest.mark.parametrize("content", [b"", bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067ff"), b"RIFF"])
@pytest.mark.parametrize("kind", ["mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "nut"])
def test_what_tells_no_length_is_not_called_cut_off(tmp_path, kind, content):
    path = tmp_path / "a"
    # The size of a Matroska file that was piped is all ones, that of an .avi, too.
    path.write_bytes(content + b"\xff" * 4)
    assert not is_truncated(path, kind)


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("a.mpg", "mpeg1video", "mp2"),
        ("a.vob", "mpeg2video", "mp2"),
        ("a.wmv", "wmv2", "mp2"),
        ("a.ogv", "libvpx", "flac"),
        ("a.ts", "libx264", "aac"),
    ],
)
def test_a_file_that_tells_no_duration_is_known_by_how_it_ends(tmp_path, caplog, name, codec, sound):
    path = make_video(tmp_path / name, frames=50, codec=codec, time_base=Fraction(1, 25), audio_codec=sound)
    content = path.read_bytes()
    # In the middle of what any of them divides a file into.
    for size in (len(content), len(content) // 5 * 4 // 2048 * 2048 + 999):
        caplog.clear()
        path.write_bytes(content[:size])
        with FileSource(path) as source:
            assert sum(isinstance(item, Frame) for item in source) > 0
            assert source.cut_short == (size < len(content))
        assert ("ends within a packet" in caplog.text) == source.cut_short


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_by_its_name_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "in.mkv")
    with pytest.raises(SourceError, match=r"in.mkv: is a pipe; give - in its place, and < .*in.mkv"):
        FileSource(tmp_path / "in.mkv")


def test_damaged_packets_are_left_out_and_counted(tmp_path, caplog):
    path = make_video(tmp_path / "a.ts", frames=60, audio=False)
    whole = read_video(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 188 * 188
    content[middle : middle + 188 * 12] = b"".join(
        bytes(content[at : at + 4]) + b"\x00" * 184 for at in range(middle, middle + 188 * 12, 188)
    )
    path.write_bytes(content)
    with FileSource(path) as source:
        frames = list(source)
    assert 0 < len(frames) <= 60
    assert {frame.time for frame in frames} <= set(whole.times)


def rewritten(source, path, change, **options):
    """The video track of `source` in `path`, each packet's content changed."""
    with av.open(str(source)) as before, av.open(str(path), "w", options=options) as after:
        stream = before.streams.video[0]
        copied = after.add_stream_from_template(stream)
        for number, packet in enumerate(before.demux(stream)):
            if not packet.size:
                continue
            changed = av.Packet(change(number, bytes(packet)))
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.is_keyframe, changed.stream = packet.is_keyframe, copied
            after.mux(changed)
    return path


def test_an_encrypted_video(tmp_path):
    video = make_video(tmp_path / "a.mp4", frames=10, audio=False)
    keys = {"encryption_key": "76a6c65c5ea762046bd749a2e632ccbb", "encryption_kid": "0" * 32}
    path = rewritten(
        video, tmp_path / "b.mp4", lambda _, content: content, encryption_scheme="cenc-aes-ctr", **keys
    )
    with pytest.raises(SourceError, match=r"b\.mp4: is encrypted, and has no key in it; decrypt it first"):
        FileSource(path)


@pytest.mark.parametrize("damaged", [{46}, {47}, {48}, {49}, {45, 48}, {47, 48, 49}])
def test_no_picture_behind_a_damaged_one_is_lost_at_the_end(tmp_path, damaged):
    video = make_video(tmp_path / "a.mkv", frames=50, audio=False, codec="mpeg4")
    path = rewritten(
        *(video, tmp_path / "b.mkv"),
        lambda number, content: b"\xff" * len(content) if number in damaged else content,
    )
    with FileSource(path) as source:
        frames = [item for item in source if isinstance(item, Frame)]
        assert source.damaged == len(damaged)
    expected = [40 * number for number in range(50) if number not in damaged]
    assert [frame.pts for frame in frames] == expected
    assert [time * 1000 for time in read_contents(path).times] == expected


def test_a_track_that_begins_behind_all_that_is_looked_into_costs_no_picture(tmp_path):
    def piece(first, **options):
        pts = [3600 * (first + number) for number in range(25)]
        path = make_video(tmp_path / "piece.ts", pts, time_base=Fraction(1, 90000), **options)
        return path.read_bytes()

    # FFmpeg looks into the first 5 MB and the last 250 KB; packets of this kind hold nothing.
    nothing = b"\x47\x1f\xff\x10" + b"\xff" * 184
    path = tmp_path / "in.ts"
    path.write_bytes(
        b"".join(
            (piece(0, audio=False), nothing * 30_000, piece(25), nothing * 3_000, piece(50, audio=False))
        )
    )
    assert len(list(FileSource(path))) == 75
    assert len(read_contents(path).times) == 75


def test_a_track_that_begins_later_is_said_to_be_left_out(caplog):
    class Container:
        def demux(self, streams):
            yield from streams
            raise IndexError("list index out of range")

    assert list(packets_of(Container(), [1, 2], "in.ts")) == [1, 2]
    assert "in.ts: a track that begins later than the others is left out" in caplog.text


def test_a_long_run_of_damage_is_an_error_and_a_short_one_is_not(tmp_path, monkeypatch, caplog):
    video = make_video(tmp_path / "a.mkv", frames=60, audio=False)
    for first, last in ((20, 26), (20, 50)):
        path = rewritten(
            *(video, tmp_path / f"{last}.mkv"),
            lambda number, content, of=range(first, last): bytes(len(content)) if number in of else content,
        )
        monkeypatch.setattr("pipeline.sources.file.LONGEST_DAMAGE", 10)
        if last == 26:
            _, frames, _ = read(path)
            assert 40 < len(frames) <= 60 - 6
            assert "damaged packets were left out" in caplog.text
        else:
            with pytest.raises(
                SourceError, match=r"more than 10 packets in a row before 1\.\d s are damaged"
            ):
                read(path)


def combed(image):
    """How much neighbouring lines differ beyond what lines two apart do."""
    lines = image.astype(int).mean(-1)
    return np.abs(lines[2:-2:2] - (lines[1:-3:2] + lines[3:-1:2]) / 2).mean()


def interlaced_video(path, frames=12):
    """A bar that moves from field to field, coded as interlaced MPEG-2."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.bit_rate = 2_000_000
        stream.codec_context.options = {"flags": "+ilme+ildct", "bf": "0"}
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=96, height=64, format=av.VideoFormat("yuv420p"), time_base=Fraction(1, 25)
        )
        field = graph.add("setfield", "tff")
        source.link_to(field)
        field.link_to(graph.add("buffersink"))
        graph.configure()
        for index in range(frames):
            image = picture(2 * index)
            image[1::2] = picture(2 * index + 1)[1::2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            graph.vpush(frame)
            woven = graph.vpull()
            woven.pict_type = 0
            container.mux(stream.encode(woven))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_interlaced_frames_are_made_whole_and_said(tmp_path, suffix, caplog):
    path = interlaced_video(tmp_path / f"a.{suffix}")
    woven = read_video(path)
    _, frames, _ = read(path)
    assert "is interlaced" in caplog.text
    assert len(caplog.records) == 1
    assert [frame.time for frame in frames] == woven.times
    assert len(frames) == 12
    assert combed(woven.images[5]) > 3 * combed(frames[5].image)


def test_a_size_that_changes_is_brought_back_and_said(tmp_path, caplog):
    make_video(tmp_path / "a.h264", frames=6, audio=False)
    make_video(tmp_path / "b.h264", frames=6, size=(192, 128), audio=False)
    path = tmp_path / "c.h264"
    path.write_bytes((tmp_path / "a.h264").read_bytes() + (tmp_path / "b.h264").read_bytes())
    info, frames, _ = read(path)
    assert (info.width, info.height) == (96, 64)
    assert [frame.image.shape for frame in frames] == [(64, 96, 3)] * 12
    assert [bar(frame.image) for frame in frames[:6]] == [4 + 5 * index for index in range(6)]
    assert "changes from 96x64 to 192x128" in caplog.text
    assert len(caplog.records) == 1


def one_stream(tmp_path, *parts):
    """Raw H.264 or HEVC of several videos, one after the other."""
    path = tmp_path / f"all{parts[0].suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def images(path):
    return [frame.image for frame in read(path)[1]]


def test_a_matrix_and_a_range_that_change_are_each_read_as_their_own(tmp_path):
    tags = {"a": (1, 1, 1, 1), "b": (6, 2, 6, 6)}
    parts = [
        make_video(tmp_path / f"{name}.h264", frames=4, audio=False, colour=colour)
        for name, colour in tags.items()
    ]
    whole = images(one_stream(tmp_path, *parts))
    assert len(whole) == 8
    for image, index in zip(whole, [0, 1, 2, 3] * 2, strict=True):
        assert np.abs(image.astype(int) - picture(index)).mean() < 2.5


def test_interlaced_video_that_changes_its_pixel_format_is_read_right(tmp_path):
    parts = []
    for number, pixels in enumerate(("yuv420p", "yuv422p10le")):
        part = tmp_path / f"{number}.h264"
        with av.open(str(part), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
            stream.codec_context.flags |= Flags.interlaced_dct | Flags.interlaced_me
            stream.codec_context.options = {"preset": "ultrafast", "crf": "4", "x264-params": "tff=1"}
            for index in range(4):
                frame = av.VideoFrame.from_ndarray(picture(0), format="rgb24").reformat(format=pixels)
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        parts.append(part)
    whole = images(one_stream(tmp_path, *parts))
    assert len(whole) == 8
    for image in whole:
        assert np.abs(image.astype(int) - picture(0)).mean() < 4


def pq(nits):
    """The signal of a luminance (SMPTE ST 2084)."""
    y = (np.asarray(nits) / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def hdr_video(path, transfer, signal):
    """Grey columns of the given signals, ten bits, BT.2020."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16 * len(signal), 64, "yuv420p10le"
        context = stream.codec_context
        context.options = {"x265-params": "log-level=error:lossless=1"}
        context.colorspace, context.color_range = 9, 1
        context.color_primaries, context.color_trc = 9, transfer
        for index in range(3):
            frame = av.VideoFrame(stream.width, 64, "yuv420p10le")
            luma, *chroma = (np.frombuffer(plane, np.uint16) for plane in frame.planes)
            codes = np.rint(np.asarray(signal) * 876 + 64).astype(np.uint16)
            luma.reshape(64, -1)[:, : stream.width] = np.repeat(codes, 16)
            for plane in chroma:
                plane[:] = 512
            frame.pts, frame.time_base = index, Fraction(1, 25)
            frame.colorspace, frame.color_range = 9, 1
            frame.color_primaries, frame.color_trc = 9, transfer
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("transfer", "signal"),
    [(16, pq([0, 1, 10, 50, 100, 203, 400, 1000, 4000, 10000])), (18, np.linspace(0, 1, 10))],
)
def test_high_dynamic_range_is_tone_mapped_and_said(tmp_path, transfer, signal, caplog):
    path = hdr_video(tmp_path / "a.mkv", transfer, signal)
    info, frames, _ = read(path)
    assert info.colour == Colour(1, 1, 1, 1)
    assert "is HDR" in caplog.text
    assert len(frames) == 3
    columns = frames[1].image[32, 8::16].astype(int)
    assert np.ptp(columns, axis=1).max() <= 2, "grey stays grey"
    grey = columns.mean(1)
    assert (np.diff(grey) > 4).all(), "no part is cut off"
    assert grey[0] <= 1
    assert grey[-1] >= 250
    if transfer == 16:
        assert 90 < grey[4] < 150, "100 nits, the white of the old range, is a middle tone"


@pytest.mark.parametrize("first", ["standard", "high"])
def test_what_is_high_of_a_film_that_changes_is_tone_mapped(tmp_path, monkeypatch, caplog, first):
    made, mapped = [], []

    class Quick(ToneMapper):
        """What takes FFmpeg seconds to prepare."""

        def __init__(self, like, time_base):
            self._form = (like.width, like.height, like.format.name)
            made.append(like.width)

        def map(self, frame):
            mapped.append((frame.width, frame.color_trc))
            return frame.reformat(format="gbrp")

    monkeypatch.setattr("pipeline.sources.file.ToneMapper", Quick)
    signal = pq([0, 10, 100, 1000])
    high, wide = (hdr_video(tmp_path / f"{n}.hevc", 16, np.tile(signal, n)) for n in (1, 2))
    standard = hdr_video(tmp_path / "standard.hevc", 1, signal)
    path = one_stream(tmp_path, *((standard, high, wide) if first == "standard" else (high, wide, standard)))
    assert len(images(path)) == 9
    assert made == [64, 128]
    assert mapped == [(64, 16)] * 3 + [(128, 16)] * 3
    assert "is HDR" in caplog.text
    if first == "high":
        with FileSource(path) as source:
            source.keep_hdr()
            with pytest.raises(SourceError, match="changes its range at"):
                list(source)


def test_dolby_vision_that_nobody_else_can_show_is_refused(tmp_path):
    path = make_video(tmp_path / "a.mp4", codec="libx265", frames=5, audio=False)
    path.write_bytes(path.read_bytes().replace(b"hev1", b"dvh1"))
    with pytest.raises(SourceError, match="profile 5"):
        FileSource(path)


def test_a_recording_that_jumps_back_goes_on(tmp_path, caplog):
    first = make_video(tmp_path / "a.ts", frames=50, time_base=Fraction(1, 25))
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() * 3)
    _, frames, packets = read(path)
    assert len(frames) == 150
    steps = [b.time - a.time for a, b in pairwise(frames)]
    assert set(steps) - {Fraction(1, 25)} <= {steps[49], steps[99]}
    assert all(0 < step < Fraction(1, 5) for step in steps)
    times = [packet.pts * packet.time_base for packet in packets]
    assert all(a < b for a, b in pairwise(times))
    assert abs((times[-1] - times[0]) - (frames[-1].time - frames[0].time)) < Fraction(1, 10)
    assert "jumps back in time 2 times" in caplog.text


def test_a_recording_whose_tracks_get_other_numbers_goes_on(tmp_path, caplog):
    path = tmp_path / "joined.ts"
    for number in range(2):
        pts = [25 * number + index for index in range(25)]
        piece = make_video(tmp_path / "piece.mp4", pts, time_base=Fraction(1, 25), codec="mpeg2video")
        renumbered = {"mpegts_start_pid": str(256 + 44 * number)}
        part = tmp_path / "part.ts"
        with av.open(str(piece)) as source, av.open(str(part), "w", options=renumbered) as target:
            tracks = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
            for packet in source.demux():
                if packet.size:
                    packet.stream = tracks[packet.stream.index]
                    target.mux(packet)
        with path.open("ab") as joined:
            joined.write(part.read_bytes())
    _, frames, packets = read(path)
    assert len(frames) == 50
    assert all(a.time < b.time for a, b in pairwise(frames))
    assert packets[-1].pts * packets[-1].time_base > frames[45].time, "its sound, too"
    assert "left out" not in caplog.text


def test_pictures_shown_for_long_in_matroska_are_no_jump(tmp_path, caplog):
    """The first of them have no time of decoding there, and B-frames are decoded before they are shown."""
    times = [12800 * 5 * index for index in range(8)]
    path = make_video(tmp_path / "slides.mkv", times, audio=False)
    with av.open(str(path)) as container:
        decoded = [packet.dts for packet in container.demux() if packet.size]
    assert decoded[0] is None
    assert decoded[-1] is not None
    assert [frame.time for frame in read(path)[1]] == [5 * index for index in range(8)]
    assert read_index(path).times == tuple(5000 * index for index in range(8))
    assert caplog.text == ""


def test_pictures_that_tell_wrong_how_long_they_last_are_no_jump(tmp_path, caplog):
    """Matroska made of an .mp4 with B-frames has the times between its pictures in the order of decoding."""
    times = [0, 40, 5000, 5040, 5080]
    path = tmp_path / "in.webm"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libvpx-vp9", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.codec_context.time_base = video.time_base = Fraction(1, 1000)
        packets = []
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24").reformat(format="yuv420p")
            frame.pts = time
            packets += video.encode(frame)
        for packet, duration in zip([*packets, *video.encode(None)], [40, 40, 4960, 40, 40], strict=True):
            packet.duration = duration
            container.mux(packet)
    assert [frame.time * 1000 for frame in read(path)[1]] == times
    assert read_index(path).times == tuple(times)
    assert caplog.text == ""


def test_a_recording_that_jumps_back_by_little_goes_on_too(tmp_path, caplog):
    """A broadcast whose receiver gave a third of a second twice: less than containers mix up elsewhere."""
    content = make_video(tmp_path / "a.ts", frames=100, time_base=Fraction(1, 25)).read_bytes()
    units = [content[at : at + 188] for at in range(0, len(content), 188)]
    # Where a picture begins: a unit that starts a PES packet of the first stream.
    begins = [at for at, unit in enumerate(units) if unit[1] & 0x40 and unit[1:3] == b"\x41\x00"]
    path = tmp_path / "twice.ts"
    path.write_bytes(b"".join(units[: begins[60]] + units[begins[48] :]))
    _, frames, packets = read(path)
    # Pictures whose references are missing at the seam cannot be decoded.
    assert len(frames) > 100
    assert all(a.time < b.time for a, b in pairwise(frames))
    times = [packet.pts * packet.time_base for packet in packets]
    assert all(a < b for a, b in pairwise(times))
    assert abs((times[-1] - times[0]) - (frames[-1].time - frames[0].time)) < Fraction(1, 5)
    assert "jumps back in time 1 times" in caplog.text
    copy(path, tmp_path / "out.mkv")
    assert differences(read_contents(path), read_contents(tmp_path / "out.mkv")) == []


def test_a_gpu_that_decodes_is_asked_for_only_where_there_is_one(tmp_path, monkeypatch, caplog):
    path = make_video(tmp_path / "a.mp4", frames=3)
    monkeypatch.setattr("pipeline.sources.demuxer.gpus", lambda: 0)
    with pytest.raises(SourceError, match="--decoder cuda: NVIDIA's driver finds no GPU here"):
        FileSource(path, decoder="cuda")
    monkeypatch.setattr("pipeline.sources.demuxer.gpus", lambda: 1)

    def other(kind, device=None):
        make = partial(HWAccel, kind, device)
        monkeypatch.setattr("pipeline.sources.demuxer.HWAccel", lambda *_, **options: make(**options))

    other("cuda", "99")
    with pytest.raises(SourceError, match=r"a.mp4: NVIDIA's decoder does not start \(.+\); without"):
        FileSource(path, decoder="cuda")
    with pytest.raises(SourceError, match=r"b.mp4: no such file"):
        FileSource(tmp_path / "b.mp4", decoder="cuda")
    # A device that does not decode this.
    other("qsv")
    read(make_video(tmp_path / "c.mp4", frames=3, pix_fmt="yuv422p"), decoder="cuda")
    assert caplog.text.count("c.mp4: NVIDIA's decoder does not take this h264; the CPU decodes") == 1
    _, frames, _ = read(path, decoder="cuda")
    assert "a.mp4: NVIDIA's decoder does not take this h264; the CPU decodes" in caplog.text
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames, read(path)[1], strict=True))


def test_frames_that_stay_are_decoded_in_the_context_that_pytorch_has(tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mp4", frames=3)
    asked = []
    monkeypatch.setattr("pipeline.sources.demuxer.gpus", lambda: 1)
    monkeypatch.setattr("pipeline.sources.demuxer.current_context", lambda: asked.append("context"))
    monkeypatch.setattr("pipeline.sources.demuxer.HWAccel", lambda *_, **options: asked.append(options))
    for on_device in (True, False):
        FileSource(path, decoder="cuda", on_device=on_device).close()
    context, stays, leaves = asked
    assert context == "context"
    # FFmpeg would refuse the primary one by its name, where its flags are others.
    assert (stays["is_hw_owned"], stays["options"]) == (True, {"primary_ctx": "0", "current_ctx": "1"})
    assert (leaves["is_hw_owned"], leaves["options"]) == (False, None)


def odd_h264(path, **options):
    """A file whose picture has odd sides, cropped from the even ones that H.264 has."""
    copy(make_video(path.with_suffix(".mkv"), codec="ffv1", **options), path, crf=10)
    return path


VIDEOS = {
    "h264": lambda path: make_video(path, frames=30, size=(256, 192)),
    "h264 of odd sides": lambda path: odd_h264(path, frames=30, size=(257, 193)),
    "hevc": lambda path: make_video(path, frames=30, size=(256, 192), codec="libx265"),
    "hevc in 10 bits": lambda path: make_video(
        path, frames=30, size=(256, 192), codec="libx265", pix_fmt="yuv420p10le"
    ),
    "vp9 of odd sides": lambda path: make_video(path, frames=30, size=(257, 193), codec="libvpx-vp9"),
    "irregular times": lambda path: make_video(path, [0, 512, 700, 2048, 2060, 5000], size=(256, 192)),
}
"""What makes videos that NVIDIA's decoder takes."""


@pytest.mark.gpu
@pytest.mark.parametrize("kind", VIDEOS)
def test_a_gpu_decodes_what_the_cpu_does(tmp_path, caplog, kind):
    path = VIDEOS[kind](tmp_path / "a.mp4")
    info, expected, packets = read(path)
    caplog.clear()
    same_info, frames, same = read(path, decoder="cuda")
    assert "the CPU decodes" not in caplog.text
    assert (same_info.width, same_info.height, same_info.colour) == (info.width, info.height, info.colour)
    assert [(frame.pts, frame.duration) for frame in frames] == [
        (frame.pts, frame.duration) for frame in expected
    ]
    assert list(map(bytes, same)) == list(map(bytes, packets))
    for frame, right in zip(frames, expected, strict=True):
        # What has more bits is rounded on another way.
        assert np.abs(frame.image.astype(int) - right.image).max() <= (2 if "10" in kind else 1)


@pytest.mark.gpu
def test_a_gpu_enters_a_file_in_the_middle_as_the_cpu_does(tmp_path):
    path = make_video(tmp_path / "a.mp4", frames=60, size=(256, 192))
    _, expected, _ = read(path, start=512 * 40, entry=0)
    _, frames, _ = read(path, start=512 * 40, entry=0, decoder="cuda")
    assert (
        [frame.pts for frame in frames]
        == [frame.pts for frame in expected]
        == list(range(512 * 40, 512 * 60, 512))
    )
    for frame, right in zip(frames, expected, strict=True):
        assert np.abs(frame.image.astype(int) - right.image).max() <= 1


@pytest.mark.gpu
def test_what_a_gpu_does_not_decode_the_cpu_does_and_says_so(tmp_path, caplog):
    path = make_video(tmp_path / "a.mkv", frames=5, size=(256, 192), codec="ffv1", pix_fmt="yuv422p")
    _, expected, _ = read(path)
    _, frames, _ = read(path, decoder="cuda")
    assert "NVIDIA's decoder does not take this ffv1; the CPU decodes" in caplog.text
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames, expected, strict=True))
