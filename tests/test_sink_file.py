"""What is written: every frame with its pts, the sound byte for byte, under its name or not at all."""

import os
import re
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest

from engines.cuda import gpus
from pipeline.colour import BT709, FULL, LIMITED, Colour
from pipeline.errors import SinkError
from pipeline.frame import Frame, VideoInfo
from pipeline.sinks.encoders import ENCODERS, choose
from pipeline.sinks.file import FileSink, put_in_place
from pipeline.sinks.images import ImageSink
from pipeline.sources.file import FileSource
from pipeline.verify import read_contents
from tests.videos import bar, copy, make_video, picture, read_video

WITHOUT_ENCODER = r"\b(A30|A100|H100|H200|H800|GH200|B100|B200)\b"
"""NVIDIA's GPUs for data centres, which compute and decode."""

INFO = VideoInfo(96, 64, Fraction(25), Fraction(1, 12800), Colour())


def copied(source_path, path, way="parts", crf=10, **options):
    copy(source_path, path, way, crf=crf, **options)
    return read_video(source_path), read_video(path)


@pytest.mark.parametrize("way", ["parts", "stream"])
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "m4v"])
def test_every_frame_and_all_the_sound_come_back(tmp_path, suffix, way):
    before, after = copied(make_video(tmp_path / "a.mp4", frames=60), tmp_path / f"b.{suffix}", way)
    assert after.times == before.times
    assert len(after.times) == 60
    assert [bar(image) for image in after.images] == [bar(image) for image in before.images]
    assert [packet[3] for packet in after.packets] == [packet[3] for packet in before.packets]
    if suffix != "mkv":  # Matroska rounds times to milliseconds
        assert after.durations[-1] * after.time_base == before.durations[-1] * before.time_base
        assert [packet[:3] for packet in after.packets] == [packet[:3] for packet in before.packets]
        assert abs(after.duration - before.duration) <= 1000  # FFmpeg writes its own to the millisecond
    for a, b in zip(before.images, after.images, strict=True):
        assert np.abs(a.astype(int) - b).mean() < 2


@pytest.mark.parametrize("way", ["parts", "stream"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate_a_late_start_and_gaps(tmp_path, suffix, way):
    pts = [1000, 1040, 1090, 1100, 1500, 1501, 3000]
    path = make_video(tmp_path / "a.mkv", pts, time_base=Fraction(1, 1000))
    before, after = copied(path, tmp_path / f"b.{suffix}", way)
    assert after.times == [Fraction(at, 1000) for at in pts]
    assert [packet[3] for packet in after.packets] == [packet[3] for packet in before.packets]


@pytest.mark.parametrize(
    "rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(120), Fraction(15, 2)]
)
def test_rates_of_broadcast_are_exact(tmp_path, rate):
    info = VideoInfo(96, 64, rate, 1 / rate, Colour())
    sink = FileSink(tmp_path / "b.mp4", info)
    for index in range(50):
        sink.write(Frame(picture(index), index, 1, 1 / rate))
    sink.close()
    after = read_video(tmp_path / "b.mp4")
    assert after.times == [index / rate for index in range(50)]
    assert after.durations[-1] * after.time_base == 1 / rate


def test_a_tape_has_its_rate_and_not_that_of_its_clock(tmp_path):
    clip = make_video(
        tmp_path / "in.avi",
        codec="dvvideo",
        size=(720, 576),
        frames=3,
        audio=False,
        time_base=Fraction(1, 25),
    )
    with av.open(str(clip)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0)]
    (tmp_path / "in.dv").write_bytes(b"".join(packets))
    with FileSource(tmp_path / "in.dv") as source:
        assert (source.info.rate, source.info.frames) == (25, 3)
    copy(tmp_path / "in.dv", tmp_path / "out.mp4")
    assert read_video(tmp_path / "out.mp4").times == [0, Fraction(1, 25), Fraction(2, 25)]


@pytest.mark.parametrize("size", [(97, 64), (96, 65), (1, 1), (353, 289)])
def test_odd_sizes_are_exact(tmp_path, size, caplog):
    info = VideoInfo(*size, Fraction(25), Fraction(1, 25), Colour())
    sink = FileSink(tmp_path / "b.mp4", info)
    for index in range(3):
        sink.write(Frame(np.full((size[1], size[0], 3), 40 * index, np.uint8), index, 1, Fraction(1, 25)))
    sink.close()
    after = read_video(tmp_path / "b.mp4")
    assert [image.shape for image in after.images] == [(size[1], size[0], 3)] * 3
    assert after.video.codec_context.pix_fmt == "yuv444p"
    assert "is odd" in caplog.text


@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize(
    ("size", "pixels", "taken"),
    [
        ((97, 64), "yuv420p", False),
        ((97, 64), "yuv422p10le", False),
        ((96, 65), "yuv420p10le", False),
        ((96, 65), "yuv422p", False),
        ((96, 64), "yuv422p", True),
        ((97, 65), "yuv444p10le", True),
    ],
)
def test_a_pixel_format_without_a_place_for_odd_sides_is_refused(tmp_path, codec, size, pixels, taken):
    info = VideoInfo(*size, Fraction(25), Fraction(1, 25), Colour())
    if not taken:
        with pytest.raises(
            SinkError, match=rf"{codec} takes .*yuv444p.*, not {pixels} of {size[0]}x{size[1]}"
        ):
            FileSink(tmp_path / "b.mp4", info, codec=codec, pixels=pixels)
        return
    assert choose(codec, info, muxer="mp4", pixels=pixels).pixels == pixels


def test_colour_aspect_and_metadata_are_kept(tmp_path):
    path = make_video(
        tmp_path / "a.mp4", colour=(5, 2, 5, 6), aspect=Fraction(4, 3), metadata={"title": "Ä ö"}
    )
    before, after = copied(path, tmp_path / "b.mp4")
    context = after.video.codec_context
    assert (context.colorspace, context.color_range) == (5, 2)
    assert (context.color_primaries, context.color_trc) == (5, 6)
    assert after.video.sample_aspect_ratio == Fraction(4, 3)
    assert after.metadata["title"] == "Ä ö"
    assert np.abs(before.images[5].astype(int) - after.images[5]).mean() < 2


@pytest.mark.parametrize(
    ("name", "codec", "colour"),
    [
        ("b.webp", None, Colour(BT709, LIMITED)),
        ("b.webp", None, Colour(BT709, FULL)),
        ("b.mov", "prores", Colour(BT709, FULL)),
    ],
)
def test_what_has_numbers_of_its_own_is_written_in_these(tmp_path, name, codec, colour, caplog):
    wanted = [
        (0, 0, 0),
        (16, 16, 16),
        (235, 235, 235),
        (255, 255, 255),
        (255, 0, 0),
        (0, 255, 0),
        (180, 60, 30),
    ]
    image = np.array(wanted, np.uint8)[None].repeat(32, 0).repeat(32, 1)
    info = VideoInfo(image.shape[1], 32, Fraction(25), Fraction(1, 25), colour)
    sink = FileSink(tmp_path / name, info, codec=codec)
    for index in range(3):
        sink.write(Frame(image, index, 1, Fraction(1, 25)))
    sink.close()
    assert ("holds limited range only" in caplog.text) == (colour.range == FULL)
    with FileSource(tmp_path / name) as source:
        frames = [item.image for item in source if isinstance(item, Frame)]
    # What does not change, WebP keeps once.
    assert len(frames) == (1 if name == "b.webp" else 3)
    for found in frames:
        assert np.abs(found[16, 16::32].astype(int) - wanted).max() <= 4


@pytest.mark.parametrize(
    ("name", "codec", "tells"),
    [
        ("b.webm", None, False),
        ("b.webp", None, False),
        ("b.mkv", "ffv1", False),
        ("b.mkv", "h264", True),
        ("b.mp4", "vp9", True),
    ],
)
def test_no_shape_of_pixels_is_lost(tmp_path, name, codec, tells):
    shape = Fraction(64, 45)
    info = VideoInfo(160, 128, Fraction(25), Fraction(1, 25), Colour(), sample_aspect_ratio=shape)
    if not tells:
        with pytest.raises(SinkError, match=r"pixels are 64/45 times as wide as high; give --size 228x128"):
            FileSink(tmp_path / name, info, codec=codec)
        assert not os.listdir(tmp_path)
        return
    sink = FileSink(tmp_path / name, info, codec=codec)
    sink.write(Frame(np.zeros((128, 160, 3), np.uint8), 0, 1, Fraction(1, 25)))
    sink.close()
    assert read_contents(tmp_path / name).aspect == shape


def test_crf_and_preset_take_effect(tmp_path):
    path = make_video(tmp_path / "a.mp4", frames=20, audio=False)
    copied(path, tmp_path / "good.mp4", crf=5)
    copied(path, tmp_path / "small.mp4", crf=40)
    assert (tmp_path / "good.mp4").stat().st_size > 2 * (tmp_path / "small.mp4").stat().st_size


@pytest.mark.parametrize("codec", ["h264", "h265", "av1", "vp9"])
def test_every_preset_that_is_named_is_one(tmp_path, codec):
    for preset in ENCODERS[codec].presets:
        sink = FileSink(tmp_path / "b.mkv", INFO, codec=codec, preset=preset, force=True)
        sink.write(Frame(picture(0), 0, 512, INFO.time_base))
        sink.close()


def test_nothing_stands_under_the_name_before_the_end(tmp_path):
    sink = FileSink(tmp_path / "b.mp4", INFO)
    sink.write(Frame(picture(0), 0, 512, INFO.time_base))
    assert not (tmp_path / "b.mp4").exists()
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["b.mp4"]


def test_aborting_leaves_nothing(tmp_path):
    sink = FileSink(tmp_path / "b.mp4", INFO)
    sink.write(Frame(picture(0), 0, 512, INFO.time_base))
    sink.abort()
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_stays_unless_forced(tmp_path):
    (tmp_path / "b.mp4").write_text("precious")
    with pytest.raises(SinkError, match="there is a file already"):
        FileSink(tmp_path / "b.mp4", INFO)
    sink = FileSink(tmp_path / "b.mp4", INFO, force=True)
    sink.write(Frame(picture(0), 0, 512, INFO.time_base))
    assert (tmp_path / "b.mp4").read_text() == "precious"
    sink.close()
    assert len(read_video(tmp_path / "b.mp4").images) == 1


@pytest.fixture
def on_disk(monkeypatch):
    """What is done so that a power cut leaves it: inodes that are written out, and "named" for a rename."""
    done: list[int | str] = []
    fsync, replace = os.fsync, os.replace

    def written_out(descriptor):
        done.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def named(*names):
        done.append("named")
        replace(*names)

    monkeypatch.setattr(os, "fsync", written_out)
    monkeypatch.setattr(os, "replace", named)
    return done


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, on_disk):
    (tmp_path / "a").write_bytes(b"film")
    inode = (tmp_path / "a").stat().st_ino
    put_in_place(tmp_path / "a", tmp_path / "b", force=False)
    assert (tmp_path / "b").read_bytes() == b"film"
    assert on_disk == [inode, "named", *([] if os.name == "nt" else [tmp_path.stat().st_ino])]


@pytest.mark.parametrize("name", ["b%02d.png", "b.png"])
def test_a_picture_is_on_the_disk_before_it_has_its_name(tmp_path, on_disk, name):
    sink = ImageSink(tmp_path / name, {})
    on_disk.clear()
    for index in range(3 if "%" in name else 1):
        sink.write(Frame(picture(index), index, 512, INFO.time_base))
    sink.close()
    written = [path.stat().st_ino for path in sorted(tmp_path.glob("b*.png"))]
    assert len(written) == (3 if "%" in name else 1)
    assert [inode for inode in on_disk if inode != tmp_path.stat().st_ino] == [
        step for inode in written for step in (inode, "named")
    ]


@pytest.mark.parametrize("way", ["mp4", "m4v", "mov", "mkv", "webm"])
def test_a_mark_stays_in_the_file_and_is_of_this_file_alone(tmp_path, way):
    path, mark = tmp_path / f"b.{way}", "fauve 0123456789abcdef"
    sink = FileSink(path, INFO, mark=mark)
    sink.write(Frame(picture(0), 0, 512, INFO.time_base))
    sink.close()
    with av.open(str(path)) as container:
        tags = container.streams.video[0].metadata
        assert {key.lower(): text for key, text in tags.items()}["encoder"] == mark
    copy(path, tmp_path / f"c.{way}")
    with av.open(str(tmp_path / f"c.{way}")) as container:
        assert mark not in container.streams.video[0].metadata.values()


def test_a_file_that_appears_meanwhile_stays(tmp_path):
    sink = FileSink(tmp_path / "b.mp4", INFO)
    sink.write(Frame(picture(0), 0, 512, INFO.time_base))
    (tmp_path / "b.mp4").write_text("precious")
    with pytest.raises(SinkError, match="there is a file already"):
        sink.close()
    sink.abort()
    assert (tmp_path / "b.mp4").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("b.txt", "ends with .mp4"),
        ("b", "ends with .mp4"),
        ("no/such/folder/b.mp4", "there is no folder"),
    ],
)
def test_places_that_cannot_be_written_to(tmp_path, name, message):
    with pytest.raises(SinkError, match=message):
        FileSink(tmp_path / name, INFO)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_its_place(tmp_path):
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(SinkError, match="a folder is there"):
        FileSink(tmp_path / "b.mp4", INFO, force=True)


@pytest.mark.parametrize(
    ("suffix", "before", "codec"),
    [
        ("mov", "wavpack", "aac"),
        ("webm", "aac", "opus"),
        ("webm", "pcm_s16le", "opus"),
        ("webm", "ac3", "opus"),
    ],
)
def test_sound_that_the_container_cannot_hold_is_encoded_anew(tmp_path, caplog, suffix, before, codec):
    path = make_video(tmp_path / "a.mkv", frames=50, audio_codec=before)
    _, after = copied(path, tmp_path / f"b.{suffix}")
    assert f"a .{suffix} file cannot hold {before} sound; track 1 is re-encoded" in caplog.text
    with av.open(str(tmp_path / f"b.{suffix}")) as container:
        sound = container.streams.audio[0]
        assert sound.codec_context.name.endswith(codec)
        frames = list(container.decode(sound))
    samples = np.concatenate([frame.to_ndarray().mean(0) for frame in frames])
    assert abs(len(samples) / 48000 - 2) < 0.06
    tone = np.abs(np.fft.rfft(samples[4800:52800] * np.hanning(48000)))
    assert abs(int(np.argmax(tone)) - 440) <= 1
    assert abs(float(frames[0].pts * frames[0].time_base)) < 0.03
    assert len(after.images) == 50


@pytest.mark.parametrize(
    ("suffix", "codec", "name"),
    [
        ("mp4", "h264", "h264"),
        ("mkv", "h264", "h264"),
        ("mp4", "h265", "hevc"),
        ("mkv", "h265", "hevc"),
        ("mp4", "av1", "av1"),
        ("webm", "av1", "av1"),
        ("webm", None, "vp9"),
        ("mov", "prores", "prores"),
        ("mkv", "ffv1", "ffv1"),
    ],
)
@pytest.mark.parametrize("size", [(96, 64), (97, 65)])
def test_every_codec(tmp_path, suffix, codec, name, size):
    info = VideoInfo(*size, Fraction(25), Fraction(1, 12800), Colour(1, 1, 1, 1))
    sink = FileSink(tmp_path / f"b.{suffix}", info, codec=codec)
    pts = [0, 512, 1024, 2048, 2560, 3072, 3584, 4096, 4608, 7680]
    for index, at in enumerate(pts):
        sink.write(Frame(picture(index, *size), at, 512, info.time_base))
    sink.close()
    after = read_video(tmp_path / f"b.{suffix}")
    assert after.video.codec_context.name.removeprefix("lib") in (name, "dav1d", "vpx-vp9")
    assert after.times == [Fraction(at, 12800) for at in pts]
    assert [image.shape for image in after.images] == [(size[1], size[0], 3)] * 10
    wrong = [np.abs(image.astype(int) - picture(i, *size)).mean() for i, image in enumerate(after.images)]
    assert max(wrong) < (0.01 if name == "ffv1" else 4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("b.webm", {"codec": "h264"}, "cannot hold h264; there is av1, vp9"),
        ("b.mp4", {"codec": "prores"}, "cannot hold prores; there is h264, h265, av1, vp9, ffv1"),
        ("b.mp4", {"codec": "xvid"}, "no codec 'xvid'; there is h264"),
        ("b.mov", {"codec": "prores", "crf": 20}, "prores has no quality"),
        ("b.mkv", {"codec": "ffv1", "preset": "slow"}, "ffv1 has no effort"),
        ("b.mp4", {"crf": 52}, "h264 takes 0 to 51, not 52"),
        ("b.mp4", {"preset": "turbo"}, "--preset: h264 takes ultrafast, .*, placebo; not 'turbo'"),
        ("b.webm", {"codec": "vp9", "preset": "slow"}, "--preset: vp9 takes 0, 1, .*, 8; not 'slow'"),
    ],
)
def test_codecs_and_settings_that_cannot_be(tmp_path, name, options, message):
    with pytest.raises(SinkError, match=message):
        FileSink(tmp_path / name, INFO, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "other"), [("h264_nvenc", "h264"), ("hevc_nvenc", "h265")])
def test_a_gpu_encodes_or_it_is_said_that_none_does(tmp_path, name, other):
    if gpus():
        pytest.skip("an NVIDIA GPU may encode here")
    said = rf"--codec {name}: no NVIDIA GPU here that encodes \(.+\); --codec {other} needs none"
    with pytest.raises(SinkError, match=said):
        FileSink(tmp_path / "b.mp4", INFO, codec=name)
    assert list(tmp_path.iterdir()) == []


def encodes():
    """Whether NVIDIA's tool tells of the GPU's encoder; it says N/A of one that has none."""
    ask = ["nvidia-smi", "--query-gpu=encoder.stats.sessionCount,name", "--format=csv,noheader"]
    count, _, name = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.partition(",")
    # Of some it counts sessions that they cannot have.
    return count.strip().isdigit() and not re.search(WITHOUT_ENCODER, name)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["h264_nvenc", "hevc_nvenc"])
def test_a_gpu_encodes(tmp_path, name):
    info = VideoInfo(256, 192, Fraction(25), Fraction(1, 12800), Colour(1, 1, 1, 1))
    try:
        sink = FileSink(tmp_path / "b.mp4", info, codec=name)
    except SinkError as error:
        if encodes():
            raise
        pytest.skip(str(error))  # not every NVIDIA GPU has an encoder
    for index in range(10):
        sink.write(Frame(picture(index, 256, 192), 512 * index, 512, info.time_base))
    sink.close()
    after = read_video(tmp_path / "b.mp4")
    wrong = [np.abs(image.astype(int) - picture(i, 256, 192)).mean() for i, image in enumerate(after.images)]
    assert len(wrong) == 10
    assert max(wrong) < 4


def test_a_film_ends_with_its_last_picture_whatever_others_tell(tmp_path):
    sink = FileSink(tmp_path / "out.mp4", INFO)
    for index, duration in enumerate([512, 51200, 512, 512]):
        sink.write(Frame(picture(index), 512 * index, duration, INFO.time_base))
    sink.close()
    assert read_video(tmp_path / "out.mp4").duration == 4 * av.time_base // 25


def test_time_that_runs_backwards_is_an_error(tmp_path):
    sink = FileSink(tmp_path / "b.mp4", INFO)
    sink.write(Frame(picture(0), 512, 512, INFO.time_base))
    with pytest.raises(SinkError, match="goes back in time"):
        sink.write(Frame(picture(1), 512, 512, INFO.time_base))
    sink.abort()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_no_space_left_is_an_error_and_not_an_end(tmp_path, monkeypatch):
    import av

    opened = av.open
    monkeypatch.setattr(av, "open", lambda name, *a, **k: opened("file:/dev/full", *a, **k))
    sink = FileSink(tmp_path / "b.mkv", INFO)

    def write():
        for index in range(300):
            noise = np.random.default_rng(index).integers(0, 256, (64, 96, 3), np.uint8)
            sink.write(Frame(noise, 512 * index, 512, INFO.time_base))
        sink.close()

    with pytest.raises(SinkError, match=r"b\.mkv: cannot be (written|finished): No space left"):
        write()
    sink.abort()
    assert list(tmp_path.iterdir()) == []
