"""High dynamic range in and out: the painting in ten bits, with the source's highlights."""

from fractions import Fraction

import av
import numpy as np
import pytest

from pipeline.colour import FULL, LIMITED
from pipeline.hdr import (
    HLG,
    PQ,
    gain_of,
    high_luminance,
    hlg_scene,
    lift,
    pq_luminance,
    pq_signal,
    small_size,
)
from pipeline.hdr_metadata import Mastering, mastering_of
from pipeline.sources.file import FileSource
from pipeline.sources.hdr import LuminanceReader, ToneMapper
from tests.packs import tiny_pack
from tests.test_cli import assert_one_line, fauve
from tests.videos import picture


@pytest.fixture
def pack(tmp_path):
    tiny_pack(tmp_path / "tiny")
    return tmp_path / "tiny"


def scene(transfer, width=384, height=192, frames=6):
    """Frames in yuv420p10le: a dark room with soft shapes, and a lamp as bright as the transfer can be."""
    y, x = np.mgrid[:height, :width]
    for index in range(frames):
        signal = 0.25 + 0.12 * np.sin(x / 17 + index / 5) * np.cos(y / 13)
        lamp = np.exp(-((x - 120 - 4 * index) ** 2 + (y - 80) ** 2) / 900)
        signal = np.clip(signal + lamp * (0.62 if transfer == PQ else 0.7), 0, 1)
        frame = av.VideoFrame(width, height, "yuv420p10le")
        chroma = np.sin(x / 40)[::2, ::2] * 40
        planes = [signal * 876 + 64, 512 + chroma, 512 - chroma]
        for plane, values in zip(frame.planes, planes, strict=True):
            rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
            rows[:, : plane.width] = np.rint(values)
            plane.update(rows.tobytes())
        frame.pts, frame.time_base = index, Fraction(1, 25)
        frame.colorspace, frame.color_range = 9, 1
        frame.color_primaries, frame.color_trc = 9, transfer
        yield frame


def hdr_video(path, transfer, params="", **size):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25)
        for frame in scene(transfer, **size):
            if not stream.width or stream.width != frame.width:
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p10le"
                context = stream.codec_context
                context.options = {"x265-params": "log-level=error:lossless=1" + params}
                context.colorspace, context.color_range = 9, 1
                context.color_primaries, context.color_trc = 9, transfer
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def luma(frame):
    frame = frame.reformat(format="yuv420p10le", src_color_range=1, dst_color_range=1)
    return np.frombuffer(frame.planes[0], np.uint16).reshape(frame.height, -1)[:, : frame.width].astype(int)


def test_the_transfers_are_the_standards():
    # BT.2408: PQ has 203 cd/m2 at 58 %, 1000 at 75 %; HLG has reference white at 75 %.
    assert pq_signal(np.array([203.0])) == pytest.approx(0.58, abs=0.002)
    assert pq_signal(np.array([1000.0])) == pytest.approx(0.752, abs=0.002)
    nits = np.array([0.1, 1, 100, 203, 1000, 9000])
    assert pq_luminance(pq_signal(nits).astype(np.float32)) == pytest.approx(nits, rel=0.01)
    assert hlg_scene(np.array([0.5, 1.0], np.float32)) == pytest.approx([1 / 12, 1], rel=1e-3)
    white = np.full((3, 1, 1), 512, np.uint16)
    white[0] = round(0.75 * 876 + 64)
    assert high_luminance(white, HLG)[0, 0] == pytest.approx(203, rel=0.02)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_an_even_grey_is_lifted_to_where_it_was(transfer):
    for code in (300, 450, 600, 800):
        planes = np.full((3, 24, 24), 512, np.uint16)
        planes[0] = code
        high = high_luminance(planes, transfer)
        image = np.full((96, 96, 3), 200, np.uint8)
        frame = lift(image, gain_of(high, image, transfer), "yuv420p10le")
        assert (frame.color_trc, frame.color_primaries, frame.colorspace) == (transfer, 9, 9)
        assert np.abs(luma(frame) - code).max() <= 2


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_high_range_is_read_in_its_own_range(transfer):
    signal = np.linspace(0.1, 0.9, 64)
    read = []
    for range_, codes in ((LIMITED, 64 + 876 * signal), (FULL, 1023 * signal)):
        frame = av.VideoFrame(64, 64, "yuv444p10le")
        for plane, values in zip(frame.planes, (codes, 512, 512), strict=True):
            rows = np.zeros((64, plane.line_size // 2), np.uint16)
            rows[:, :64] = np.round(values)
            plane.update(rows)
        frame.color_range, frame.color_trc, frame.colorspace = range_, transfer, 9
        read.append(LuminanceReader().read(frame))
    assert read[1] == pytest.approx(read[0], rel=0.05, abs=0.1)


@pytest.mark.parametrize("matrix", [10, 14])
def test_a_matrix_that_swscale_does_not_have_is_read_as_that_of_bt2020(matrix):
    frame = av.VideoFrame.from_ndarray(picture(0, 64, 48), format="rgb24").reformat(format="yuv420p10le")
    frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range, frame.pts = PQ, 9, 9, 1, 0
    mapper, reader = ToneMapper(frame, Fraction(1, 25)), LuminanceReader()
    mapped, luminance = mapper.map(frame).to_ndarray(), reader.read(frame)
    frame.colorspace, frame.pts = matrix, 1
    assert np.array_equal(reader.read(frame), luminance)
    assert np.array_equal(mapper.map(frame).to_ndarray(), mapped)


def test_small_sizes():
    assert small_size(3840, 2160) == (960, 540)
    assert small_size(1, 3) == (1, 1)


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("codec", ["h265", "av1", "prores", "ffv1", "h264"])
def test_the_highlights_return(tmp_path, pack, transfer, codec):
    video = hdr_video(tmp_path / "in.mkv", transfer)
    path = tmp_path / "out.mkv"
    painted = fauve(
        "run", video, "-o", path, "-s", pack, "--hdr", "keep", "--codec", codec, "--strength", "0"
    )
    assert painted.returncode == 0, painted.stderr
    assert painted.stderr == ""
    before, after = decoded(video), decoded(path)
    assert len(after) == len(before) == 6
    for source, result in zip(before, after, strict=True):
        assert (result.color_trc, result.color_primaries, result.colorspace) == (transfer, 9, 9)
        assert result.format.components[0].bits == 10
        difference = np.abs(luma(source) - luma(result))
        assert difference.mean() < 6, "of 1023"
        assert luma(result).max() > 0.93 * luma(source).max()
    assert fauve("verify", video, path).returncode == 0


DISPLAY = (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450, 50, 10_000_000)
MASTERED = (
    ":master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"
)


@pytest.mark.parametrize(
    ("name", "workers"),
    [("h265.mp4", 1), ("h265.mkv", 2), ("h264.mkv", 1), ("av1.mp4", 1), ("av1.mkv", 2)],
)
def test_the_display_it_was_graded_on_comes_along(tmp_path, pack, name, workers):
    frames = 6 if workers == 1 else 250
    video = hdr_video(tmp_path / "in.mkv", PQ, MASTERED, width=94, height=50, frames=frames)
    assert mastering_of(decoded(video)[0]) == Mastering(DISPLAY, (1000, 400))
    path = tmp_path / f"out.{name[-3:]}"
    arguments = ["--hdr", "keep", "--codec", name[:-4], "--workers", workers, "--verify"]
    painted = fauve("run", video, "-o", path, "-s", pack, *arguments)
    assert painted.returncode == 0, painted.stderr
    # H.264 says it with each key frame only.
    for frame in (frame for frame in decoded(path) if frame.key_frame):
        found = mastering_of(frame)
        assert found.light == (1000, 400)
        # AV1 counts in 1/65536, 1/256 and 1/16384.
        np.testing.assert_allclose(found.display, DISPLAY, rtol=1e-4, atol=0 if name[0] == "h" else 1)


def test_without_its_display_the_promise_is_broken(tmp_path):
    video, bare = hdr_video(tmp_path / "in.mkv", PQ, MASTERED), hdr_video(tmp_path / "bare.mkv", PQ)
    broken = fauve("verify", video, bare)
    assert broken.returncode == 1
    assert (
        "mastering display: 0.005 to 1000 cd/m2, at most 1000 and 400 in the source, nothing in"
        in broken.stdout
    )


def test_what_holds_no_display_says_so(tmp_path, pack):
    video, path = hdr_video(tmp_path / "in.mkv", PQ, MASTERED), tmp_path / "out.mov"
    arguments = ["-s", pack, "--hdr", "keep", "--codec", "prores", "--verify"]
    painted = fauve("run", video, "-o", path, *arguments)
    assert painted.returncode == 0, painted.stderr
    assert "prores cannot hold what the source says about its display (0.005 to 1000 cd/m2" in painted.stderr


def test_the_painting_is_lifted_and_keeps_its_strokes(tmp_path, pack):
    video = hdr_video(tmp_path / "in.mkv", PQ)
    path = tmp_path / "out.mp4"
    assert fauve("run", video, "-o", path, "-s", pack, "--hdr", "keep", "--verify").returncode == 0
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "hevc"
    source, result = decoded(video)[3], decoded(path)[3]
    assert luma(result).max() > 0.8 * luma(source).max()
    assert np.abs(luma(source) - luma(result)).mean() > 15, "it is painted"


def test_odd_sizes_and_workers(tmp_path, pack):
    video = hdr_video(tmp_path / "in.mkv", HLG, width=94, height=50, frames=250)
    one, two = tmp_path / "one.mkv", tmp_path / "two.mkv"
    for path, workers in ((one, 1), (two, 2)):
        done = fauve("run", video, "-o", path, "-s", pack, "--hdr", "keep", "--workers", workers)
        assert done.returncode == 0, done.stderr
    assert all(np.array_equal(luma(a), luma(b)) for a, b in zip(decoded(one), decoded(two), strict=True))


def test_what_cannot_keep_it_says_so(tmp_path, pack):
    video = hdr_video(tmp_path / "in.mkv", PQ)
    keep = ["-s", pack, "--hdr", "keep"]
    for name in ("out.gif", "out.webm"):
        assert_one_line(fauve("run", video, "-o", tmp_path / name, *keep), "no high dynamic range")
    assert_one_line(fauve("run", video, "-o", tmp_path / "a%03d.png", *keep), "no high dynamic range")
    assert not (tmp_path / "out.gif").exists()
    sdr = tmp_path / "sdr.mkv"
    assert "tone-mapped" in fauve("run", video, "-o", sdr, "-s", pack).stderr
    told = fauve("run", sdr, "-o", tmp_path / "again.mkv", *keep)
    assert told.returncode == 0
    assert "is not HDR; there is nothing to keep" in told.stderr


def test_without_keeping_nothing_is_computed(tmp_path):
    with FileSource(hdr_video(tmp_path / "in.mkv", PQ)) as source:
        assert next(iter(source)).gain is None
