"""Frames that stay where they are decoded, over NV12 in host memory: the same pictures, packets and ends."""

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import engines
from engines import Look
from pipeline import gpu_video
from pipeline.colour import BT709, FULL, LIMITED, Colour, Decoded, encodable, rgb_from_yuv, yuv_from_rgb
from pipeline.commands.run import run
from pipeline.errors import SourceError
from pipeline.frame import Frame
from pipeline.gpu_video import DevicePainter, DeviceSource, resized, upsampled
from pipeline.motion import small_grey
from pipeline.nv12 import TOLERANCE, Planes, nv12, rgb
from pipeline.progress import VideoProgress
from pipeline.render import PartPainting, Render
from pipeline.scaling import resize, shifted, upsample
from pipeline.sources.demuxer import open_input
from pipeline.sources.file import FileSource
from tests.packs import tiny_pack
from tests.videos import make_video, panned

torch = pytest.importorskip("torch", reason="the torch engine needs torch")
TorchDispatchMode = pytest.importorskip("torch.utils._python_dispatch").TorchDispatchMode


def painting(seed, size):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None].float()


def array(x):
    return x[0].permute(1, 2, 0).byte().numpy()


def furthest(a, b):
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize("colour", [Colour(), Colour(range=FULL), Colour(matrix=6)])
def test_colours_are_those_of_the_cpu(colour):
    frame = encodable(painting(0, (96, 64)), colour, "nv12")
    planes = Planes.of(frame)
    image = rgb(planes, torch.from_numpy(rgb_from_yuv(colour)))
    expected = Decoded().image(frame, colour)
    assert furthest(array(image), expected) <= TOLERANCE
    assert np.abs(array(image).astype(int) - expected).mean() < 0.2
    back = nv12(image, torch.from_numpy(yuv_from_rgb(colour))).frame(colour, "nv12")
    expected = encodable(array(image), colour, "nv12")
    for plane, right in zip(back.planes, expected.planes, strict=True):
        assert furthest(np.frombuffer(plane, np.uint8), np.frombuffer(right, np.uint8)) <= 1
    assert (back.colorspace, back.color_range) == (colour.matrix, colour.range)
    planar = Planes.of(frame).frame(colour, "yuv420p")
    assert furthest(planar.to_ndarray(), frame.reformat(format="yuv420p").to_ndarray()) == 0


def test_planes_are_copies_and_the_decoder_has_its_own_back():
    frame = encodable(painting(0, (96, 64)), Colour(), "nv12")
    planes = Planes.of(frame)
    before = planes.y.clone()
    plane = frame.planes[0]
    plane.update(bytes(plane.buffer_size))
    assert torch.equal(planes.y, before)


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1088), (400, 320)])
def test_pictures_are_scaled_as_on_the_cpu(size):
    image, working = painting(0, size), (640, 352)
    small = resize(image, working)
    assert furthest(array(resized(tensor(image), working)), small) <= TOLERANCE
    painted = painting(1, working)
    found = array(upsampled(tensor(painted), tensor(small), tensor(image)))
    expected = upsample(painted, small, image)
    assert furthest(found, expected) <= TOLERANCE
    assert np.abs(found.astype(int) - expected).mean() < 0.3


def test_what_has_odd_sides_is_halved_as_on_the_cpu():
    image = np.random.default_rng(0).integers(0, 256, (1038, 1014, 3), np.uint8)
    assert furthest(array(resized(tensor(image), (240, 120))), resize(image, (240, 120))) <= TOLERANCE


@pytest.mark.parametrize("rest", [(0.25, -0.5), (-0.0625, 0.4375)])
def test_pictures_are_moved_by_parts_of_a_pixel_as_on_the_cpu(rest):
    image = painting(0, (200, 120))
    found, expected = array(gpu_video.shifted(tensor(image), *rest)), shifted(image, *rest)
    inside = np.s_[3:-3, 3:-3]
    assert furthest(found[inside], expected[inside]) <= TOLERANCE
    assert np.abs(found.astype(int) - expected).mean() < 0.3


def test_motion_is_looked_for_in_what_the_host_would_see():
    image = painting(0, (640, 360))
    planes = Planes.of(encodable(image, Colour(), "nv12"))
    here = small_grey(image)
    there = planes.grey(Colour())
    assert there.shape == here.shape
    assert np.abs(there.astype(int) - here).mean() < 3


@pytest.mark.parametrize("size", [(64, 48), (70, 46)])
@pytest.mark.parametrize("carried", [False, True])
def test_an_engine_paints_where_the_picture_lies(tmp_path, size, carried):
    image, style = painting(0, size), tiny_pack(tmp_path / "tiny", carried=carried)
    moved = Look({style.styles[0]: 1}, moved=(13.0, -5.0))
    looks = (Look({style.styles[0]: 1}), Look({style.styles[-1]: 1}, 0.5), moved)
    with engines.load("torch:cpu", style=style) as engine:
        for look in looks:
            found = engine.paint_on_device(torch.from_numpy(image), look)
            assert np.array_equal(found.numpy(), engine(image, look))
        tiny = image[:1, :1]
        assert np.array_equal(
            engine.paint_on_device(torch.from_numpy(tiny.copy()), looks[0]).numpy(), engine(tiny, looks[0])
        )


@pytest.fixture
def _as_if_there(monkeypatch):
    """As if memory here were a GPU's: a decoder that gives NV12 leaves it there."""
    monkeypatch.setattr(
        "pipeline.sources.file.open_on_nvidia", lambda path, rate, **_: open_input(path, rate)
    )


def nv12_video(path, **options):
    """A file whose decoder gives NV12, as NVIDIA's does."""
    return make_video(path, codec="rawvideo", pix_fmt="nv12", colour=(BT709, LIMITED, 1, 1), **options)


@pytest.fixture
def engine(tmp_path):
    style = tiny_pack(tmp_path / "tiny", native_height=64, carried=True)
    with engines.load("torch:cpu", style=style) as engine:
        engine.name = "torch:cuda"
        yield engine


def painted(engine, video, output, decoder, **options):
    render = Render(engine, Look({engine.style.styles[0]: 1}), crf=0, force=True, decoder=decoder, **options)
    report = render(video, output, lambda info: VideoProgress())
    with FileSource(output) as file:
        items = list(file)
    frames = [item for item in items if isinstance(item, Frame)]
    return report, frames, [bytes(item) for item in items if not isinstance(item, Frame)]


@pytest.mark.usefixtures("_as_if_there")
def test_a_canvas_follows_the_camera_there_as_well(tmp_path, monkeypatch, engine):
    video = nv12_video(tmp_path / "in.nut", frames=90, size=(160, 96), shown=panned)
    monkeypatch.setattr(PartPainting, "_measured", lambda self, opened: opened[1].close() or 0.0)
    expected, there, stayed = (
        [
            frame.image.astype(int)
            for frame in painted(engine, video, tmp_path / f"{n}.mp4", *how, **options)[1]
        ]
        for n, (how, options) in enumerate([(["cpu"], {}), (["cuda"], {}), (["cuda"], {"follow": False})])
    )
    assert len(there) == len(expected) == 90
    # Their small pictures differ by a level here and there, so that a canvas may lie a little elsewhere.
    assert max(np.abs(a - b).mean() for a, b in zip(there, expected, strict=True)) < 3
    assert np.mean([np.abs(a - b).mean() for a, b in zip(stayed, expected, strict=True)]) > 8


@pytest.mark.usefixtures("_as_if_there")
@pytest.mark.parametrize("faster", [True, False, None])
def test_a_video_stays_on_the_device_where_that_is_faster(tmp_path, monkeypatch, caplog, engine, faster):
    video = nv12_video(tmp_path / "in.nut", frames=90, size=(160, 96))
    _, expected, sound = painted(engine, video, tmp_path / "host.mp4", "cpu")
    taken = []
    really = DevicePainter.__call__
    monkeypatch.setattr(DevicePainter, "__call__", lambda *args: taken.append(1) or really(*args))
    if faster is not None:
        seconds = iter([1.0, 2.0] if faster else [2.0, 1.0])
        monkeypatch.setattr(
            PartPainting, "_measured", lambda self, opened: opened[1].close() or next(seconds)
        )
    report, frames, same = painted(engine, video, tmp_path / "device.mp4", "cuda")
    assert report["frames"] == len(frames) == 90
    assert [frame.pts for frame in frames] == [frame.pts for frame in expected]
    assert same == sound
    assert len(sound) > 50
    assert max(furthest(a.image, b.image) for a, b in zip(frames, expected, strict=True)) <= 2 * TOLERANCE
    said = "frames are copied from the GPU and back: that is faster here" in caplog.text
    if faster is None:
        assert len(taken) in (70, 70 + 90), "as many as were measured, or all as well"
        assert said == (len(taken) == 70)
    else:
        assert (len(taken), said) == ((90, False) if faster else (0, True))


@pytest.mark.parametrize("detail", [1.0, "full"])
def test_a_picture_is_painted_on_a_stream_of_its_thread(monkeypatch, engine, detail):
    within, done = [], []

    @contextmanager
    def own_stream():
        within.append(True)
        yield
        within.pop()

    class Noted(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            done.append(bool(within))
            return function(*args, **(kwargs or {}))

    paint = DevicePainter(engine, (160, 96), Colour(), detail)
    planes = Planes.of(encodable(painting(0, (160, 96)), Colour(), "nv12"))
    paint(planes, Look())
    monkeypatch.setattr(engine, "own_stream", own_stream)
    with Noted():
        paint(planes, Look(moved=(1.5, 0.25)))
    assert len(done) > 20
    assert all(done)


@pytest.mark.usefixtures("_as_if_there")
def test_what_the_device_cannot_is_done_on_copies_and_said(tmp_path, caplog, engine):
    video = nv12_video(tmp_path / "in.nut", frames=6)
    planar = make_video(tmp_path / "planar.mp4", frames=6)
    cases = [
        (video, {"size": (48, 32)}, "--fps or --size works on copies"),
        (video, {"score": True}, "--score works on copies"),
        (video, {"steady": 0.5}, "--steady works on copies"),
        (video, {"codec": "ffv1"}, "ffv1 of bgr0 works on copies"),
        (planar, {}, "NVIDIA's decoder does not take this h264"),
    ]
    for number, (source, options, reason) in enumerate(cases):
        render = Render(engine, Look(), decoder="cuda", **options)
        report = render(source, tmp_path / f"{number}.mkv", lambda info: VideoProgress())
        assert report["frames"] == 6
        assert f"{source}: its frames are copied from the GPU and back: {reason}" in caplog.text


@pytest.mark.usefixtures("_as_if_there")
def test_a_picture_that_changes_its_size_is_scaled_back_and_an_interlaced_one_refused(
    tmp_path, caplog, engine
):
    path = nv12_video(tmp_path / "in.nut", frames=3, size=(160, 96))
    colour, frames = Colour(), []
    with DeviceSource(path) as source:
        source._size = (80, 48)
        frames = [item for item in source if isinstance(item, Frame)]
        with pytest.raises(SourceError, match=r"in.nut: is interlaced, which needs copies; leave out --deco"):
            source._deinterlaced(SimpleNamespace(interlaced_frame=True))
    assert caplog.text.count("the picture changes from 80x48 to 160x96") == 1
    assert len(frames) == 3
    paint = DevicePainter(engine, (80, 48), colour)
    assert [tuple(paint(frame.image, Look()).y.shape) for frame in frames] == [(48, 80)] * 3


@pytest.mark.usefixtures("_as_if_there")
def test_what_fails_while_it_is_measured_leaves_nothing_behind(tmp_path, monkeypatch, engine):
    def stopped(self, opened):
        opened[1].close()
        raise KeyboardInterrupt

    monkeypatch.setattr(PartPainting, "_measured", stopped)
    video = nv12_video(tmp_path / "in.nut", frames=3)
    with pytest.raises(KeyboardInterrupt):
        painted(engine, video, tmp_path / "out.mp4", "cuda")
    assert {path.name for path in tmp_path.iterdir()} == {"in.nut", "tiny"}


@pytest.fixture
def on_gpu(tmp_path):
    with engines.load(
        "torch:cuda", style=tiny_pack(tmp_path / "tiny", native_height=96), precision="float32"
    ) as engine:
        yield engine


def gpu_clip(path, **options):
    options = {"frames": 40, "size": (256, 192), "colour": (BT709, LIMITED, 1, 1)} | options
    return make_video(path, **options)


@pytest.fixture
def staying(monkeypatch):
    """Has the frames stay on the GPU where they can; gives where each picture lay that was painted there."""
    lay = []
    really = DevicePainter.__call__

    def noted(self, planes, look):
        painted = really(self, planes, look)
        lay.append((planes.y.device.type, painted.cbcr.device.type))
        return painted

    def measured(self, opened):
        opened[1].close()
        return 1.0 if isinstance(opened[0], DeviceSource) else 2.0

    monkeypatch.setattr(DevicePainter, "__call__", noted)
    monkeypatch.setattr(PartPainting, "_measured", measured)
    return lay


@pytest.mark.gpu
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_gpu_gives_its_frames_as_planes(on_gpu, tmp_path, codec):
    """PyTorch's context is there first, with other flags than FFmpeg would give it."""
    video = gpu_clip(tmp_path / "in.mp4", codec=codec)
    with FileSource(video) as host, DeviceSource(video) as source:
        expected = [item for item in host if isinstance(item, Frame)]
        frames = [item for item in source if isinstance(item, Frame)]
        colour = source.info.colour
        assert colour == host.info.colour
    # Copies: the decoder has used its own again for later frames by now.
    matrix = torch.from_numpy(rgb_from_yuv(colour)).cuda()
    assert [(frame.pts, frame.duration) for frame in frames] == [
        (frame.pts, frame.duration) for frame in expected
    ]
    for frame, right in zip(frames, expected, strict=True):
        assert frame.image.y.is_cuda
        assert furthest(array(rgb(frame.image, matrix).cpu()), right.image) <= TOLERANCE
    # And back to FFmpeg, as an encoder on the GPU is given them.
    lent = frames[7].image.frame(colour, "cuda")
    assert (lent.format.name, lent.sw_format.name) == ("cuda", "nv12")
    there = Planes.of(lent.reformat(format="nv12"))
    assert torch.equal(there.y, frames[7].image.y.cpu())
    assert torch.equal(there.cbcr, frames[7].image.cbcr.cpu())


@pytest.mark.gpu
def test_a_gpu_keeps_its_frames(on_gpu, tmp_path, caplog, staying):
    video = gpu_clip(tmp_path / "in.mp4")
    _, expected, sound = painted(on_gpu, video, tmp_path / "host.mp4", "cpu")
    assert staying == []
    report, frames, same = painted(on_gpu, video, tmp_path / "device.mp4", "cuda")
    assert staying == [("cuda", "cuda")] * 40
    assert "are copied" not in caplog.text
    assert (report["frames"], same) == (40, sound)
    assert [frame.pts for frame in frames] == [frame.pts for frame in expected]
    assert max(furthest(a.image, b.image) for a, b in zip(frames, expected, strict=True)) <= 2 * TOLERANCE


@pytest.mark.gpu
def test_a_gpu_measures_both_ways_with_one_engine(on_gpu, tmp_path):
    """What is prepared for the first way, which leaves the frames there, paints those of the other."""
    video = gpu_clip(tmp_path / "in.mp4", frames=90)
    _, expected, sound = painted(on_gpu, video, tmp_path / "host.mp4", "cpu")
    report, frames, same = painted(on_gpu, video, tmp_path / "device.mp4", "cuda")
    assert (report["frames"], len(frames), same) == (90, 90, sound)
    assert max(furthest(a.image, b.image) for a, b in zip(frames, expected, strict=True)) <= 2 * TOLERANCE
    with engines.load("torch:cuda", style=on_gpu.style, precision="float32") as fresh:
        report, frames, _ = painted(fresh, video, tmp_path / "fresh.mp4", "cuda")
    assert report["frames"] == len(frames) == 90


@pytest.mark.gpu
def test_a_canvas_follows_the_camera_on_a_gpu(tmp_path, caplog, staying):
    video = gpu_clip(tmp_path / "in.mp4", frames=90, size=(160, 96), shown=panned)
    style = tiny_pack(tmp_path / "tiny", native_height=64, carried=True)
    with engines.load("torch:cuda", style=style, precision="float32") as engine:
        _, expected, _ = painted(engine, video, tmp_path / "host.mp4", "cpu")
        _, frames, _ = painted(engine, video, tmp_path / "device.mp4", "cuda")
    assert len(staying) == len(frames) == len(expected) == 90
    apart = [np.abs(a.image.astype(int) - b.image).mean() for a, b in zip(frames, expected, strict=True)]
    assert max(apart) < 3


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"codec": "libx265", "pix_fmt": "yuv420p10le"}, "it has more than 8 bits (p010le)"),
        ({"codec": "libvpx-vp9", "size": (257, 193)}, "NV12 has no odd sides, and it is 257x193"),
        ({"codec": "ffv1"}, "NVIDIA's decoder does not take this ffv1"),
    ],
)
def test_what_cannot_stay_on_a_gpu_is_copied_and_said(on_gpu, tmp_path, caplog, staying, options, reason):
    video = gpu_clip(tmp_path / "in.mkv", frames=10, **options)
    _, expected, _ = painted(on_gpu, video, tmp_path / "host.mkv", "cpu")
    report, frames, _ = painted(on_gpu, video, tmp_path / "device.mkv", "cuda")
    assert (report["frames"], staying) == (10, [])
    assert f"its frames are copied from the GPU and back: {reason}" in caplog.text
    assert [frame.pts for frame in frames] == [frame.pts for frame in expected]
    assert max(furthest(a.image, b.image) for a, b in zip(frames, expected, strict=True)) <= 2 * TOLERANCE


@pytest.mark.gpu
def test_a_whole_film_by_the_command(tmp_path, caplog, staying):
    """1280x720, as it comes: painted at the pack's own size, enlarged and encoded."""
    film = Path(__file__).parents[1] / "docs" / "big_buck_bunny.mp4"
    tiny_pack(tmp_path / "tiny", native_height=480)
    found = []
    for decoder in ("cpu", "cuda"):
        output = tmp_path / f"{decoder}.mp4"
        arguments = [
            film,
            "-o",
            output,
            "-s",
            tmp_path / "tiny",
            "--engine",
            "torch:cuda",
            "--decoder",
            decoder,
        ]
        arguments += ["--precision", "float32", "--crf", "1", "--preset", "ultrafast", "--verify"]
        result = CliRunner().invoke(run, list(map(str, arguments)), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        with FileSource(output) as file:
            found.append([item for item in file if isinstance(item, Frame)])
    assert staying == [("cuda", "cuda")] * 132
    expected, frames = found
    assert [frame.pts for frame in frames] == [frame.pts for frame in expected]
    for frame, right in zip(frames, expected, strict=True):
        apart = np.abs(frame.image.astype(int) - right.image)
        # The detail that is put back is that of the film, times a slope; and the encoder rounds as well.
        assert np.percentile(apart, 99.9) <= 2 * TOLERANCE
        assert apart.mean() < 1
