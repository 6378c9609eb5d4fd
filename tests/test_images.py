"""Pictures, animations and what is transparent, in and out."""

import errno
import io
import json
import os
import struct
import sys
import time
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engines import Look, load
from pipeline.batch import plan
from pipeline.colour import Colour, over
from pipeline.errors import SinkError, SourceError
from pipeline.frame import Frame
from pipeline.render import _transparent_codecs
from pipeline.sinks.animation import apng_lasting
from pipeline.sinks.container import muxer_of
from pipeline.sinks.images import ImageSink, images_done
from pipeline.sources.demuxer import numbered
from pipeline.sources.file import FileSource
from tests.packs import tiny_pack
from tests.test_cli import assert_one_line, fauve, invoke, stops_after
from tests.test_orientation import exif
from tests.test_source_file import cut, rewritten
from tests.videos import RATE, bar, make_video, picture, read_video

__all__ = ["stops_after"]

KINDS = ["png", "jpg", "tif", "webp"]


@pytest.fixture
def pack(tmp_path):
    tiny_pack(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def video(tmp_path):
    return make_video(tmp_path / "in.mp4", frames=30, audio=False)


def frames_of(path, **options):
    with FileSource(path, tracks=False, **options) as source:
        return source.info, [item for item in source if isinstance(item, Frame)]


def run(*arguments):
    result = fauve("run", *arguments)
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_of_pictures_out_and_in(tmp_path, video, pack, kind):
    (tmp_path / "out").mkdir()
    run(video, "-o", tmp_path / "out" / f"f%04d.{kind}", "--style", pack, "--strength", "0")
    written = sorted((tmp_path / "out").glob("f*"))
    assert [path.name for path in written] == [f"f{number:04d}.{kind}" for number in range(1, 31)]
    first = cv2.imread(str(written[4]), cv2.IMREAD_UNCHANGED)
    assert first.shape == (64, 96, 3)
    assert first.dtype == (np.uint16 if kind == "tif" else np.uint8)
    run(tmp_path / "out" / f"f%04d.{kind}", "-o", tmp_path / "b.mp4", "--style", pack, "--strength", "0")
    after = read_video(tmp_path / "b.mp4")
    assert after.times == [Fraction(index, 25) for index in range(30)]
    assert [bar(image) for image in after.images] == [bar(picture(index)) for index in range(30)]
    wrong = np.abs(after.images[0].astype(int) - picture(0)).mean()
    assert wrong < 3


def test_a_sequence_has_the_rate_that_is_asked_for(tmp_path, pack):
    for index in range(1, 11):
        cv2.imwrite(str(tmp_path / f"{index:03d}.png"), picture(index)[..., ::-1])
    run(tmp_path / "%03d.png", "-o", tmp_path / "b.mp4", "--style", pack, "--fps", "50", "--strength", "0")
    after = read_video(tmp_path / "b.mp4")
    assert after.times == [Fraction(index, 50) for index in range(10)]
    assert [bar(image) for image in after.images] == [bar(picture(index)) for index in range(1, 11)]


@pytest.mark.parametrize("kind", KINDS)
def test_one_picture(tmp_path, pack, kind):
    cv2.imwrite(str(tmp_path / f"a.{kind}"), picture(3, 97, 65)[..., ::-1])
    run(tmp_path / f"a.{kind}", "-o", tmp_path / f"b.{kind}", "--style", pack)
    painted = cv2.imread(str(tmp_path / f"b.{kind}"))[..., ::-1]
    with load("onnxruntime", style=pack) as engine:
        expected = engine(picture(3, 97, 65), Look())
    assert np.abs(painted.astype(int) - expected).mean() < 8
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{kind}", f"b.{kind}", "tiny"]


def test_sixteen_bits_in_and_out(tmp_path, pack):
    cv2.imwrite(str(tmp_path / "a.tif"), picture(3)[..., ::-1].astype(np.uint16) * 257)
    run(tmp_path / "a.tif", "-o", tmp_path / "b.tif", "--style", pack, "--strength", "0")
    after = cv2.imread(str(tmp_path / "b.tif"), cv2.IMREAD_UNCHANGED)
    assert after.dtype == np.uint16
    assert np.abs(after[..., ::-1].astype(int) - picture(3).astype(int) * 257).max() <= 257


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tag", range(10))
def test_a_photograph_comes_out_as_its_exif_says(tmp_path, tag, order):
    """Turned and mirrored in all eight ways; 0 and 9 are none."""
    _, content = cv2.imencode(".jpg", picture(3, 96, 64)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    tagged = content[:2].tobytes() + exif(order, 0x0112, tag) + content[2:].tobytes()
    (tmp_path / "a.jpg").write_bytes(tagged)
    before = cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1]
    with FileSource(tmp_path / "a.jpg") as source:
        (after,) = [item.image for item in source if isinstance(item, Frame)]
    # OpenCV is the independent reader: it turns and mirrors what it reads.
    assert after.shape == before.shape == ((96, 64, 3) if 5 <= tag <= 8 else (64, 96, 3))
    assert np.abs(after.astype(int) - before).mean() < 4


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names of text")
def test_names_that_are_no_text(tmp_path, pack):
    """EXIF and animations are read by OpenCV, which takes UTF-8 alone."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    _, content = cv2.imencode(".jpg", picture(1)[..., ::-1])
    turned = content[:2].tobytes() + exif("<", 0x0112, 6) + content[2:].tobytes()
    (tmp_path / "a.jpg").write_bytes(turned)
    video = make_video(tmp_path / "in.mp4", frames=5, audio=False)
    run(video, "-o", tmp_path / "a.webp", "--style", pack, "--strength", "0")
    for kind in ("jpg", "webp"):
        (tmp_path / f"a.{kind}").rename(folder / os.fsdecode(b"caf\xe9." + kind.encode()))
    result = run(folder, "-o", out, "--style", pack)
    assert "caf\\udce9.jpg: 1 frame painted" in result.stdout
    assert "caf\\udce9.webp: 5 frames painted" in result.stdout
    assert sorted(os.listdir(os.fsencode(out))) == [b"caf\xe9.jpg", b"caf\xe9.webp"]
    painted = np.frombuffer((out / os.fsdecode(b"caf\xe9.jpg")).read_bytes(), np.uint8)
    assert cv2.imdecode(painted, cv2.IMREAD_COLOR).shape == (96, 64, 3)


def test_more_frames_than_one_do_not_go_into_one_picture(tmp_path, video, pack):
    result = fauve("run", video, "-o", tmp_path / "b.png", "--style", pack)
    assert_one_line(result, "more frames than one", "b%05d.png writes them all")
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "tiny"}
    (tmp_path / "b.png").write_text("precious")
    result = fauve("run", video, "-o", tmp_path / "b.png", "--style", pack, "--force")
    assert_one_line(result, "more frames than one")
    assert (tmp_path / "b.png").read_text() == "precious"


def test_pictures_do_not_lose_the_shape_of_pixels_unless_a_size_is_asked_for(tmp_path, pack):
    video = make_video(tmp_path / "in.mp4", frames=2, aspect=Fraction(4, 3))
    arguments = (video, "-o", tmp_path / "%d.png", "--style", pack)
    assert_one_line(fauve("run", *arguments), "pixels are 4/3 times as wide as high; give --size 128x64")
    assert not list(tmp_path.glob("*.png"))
    run(*arguments, "--size", "128x64")
    assert cv2.imread(str(tmp_path / "2.png")).shape == (64, 128, 3)


def test_pictures_that_are_there_stay_unless_forced(tmp_path, video, pack):
    (tmp_path / "f0001.png").write_text("precious")
    result = fauve("run", video, "-o", tmp_path / "f%04d.png", "--style", pack)
    assert_one_line(result, "f0001.png: there is a file already")
    assert (tmp_path / "f0001.png").read_text() == "precious"
    run(video, "-o", tmp_path / "f%04d.png", "--style", pack, "--force")
    assert len(list(tmp_path.glob("f*.png"))) == 30


@pytest.mark.parametrize(
    ("video", "output"),
    [
        ("%04d.png", "%04d.png"),
        ("%04d.png", "link/%04d.png"),
        ("link/%04d.png", "%4d.png"),
        ("0002.png", "%04d.png"),
        ("0002.png", "link/0002.png"),
    ],
)
def test_source_pictures_are_never_replaced(tmp_path, video, output):
    for index in range(1, 4):
        (tmp_path / f"{index:04d}.png").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(SinkError, match="itself; give another name or folder"):
        plan([tmp_path / video], tmp_path / output)
    none = [(tmp_path / "none" / "%d.png", tmp_path / "out" / "%d.png")]
    assert plan([none[0][0]], none[0][1]) == none
    pair = (tmp_path / video, tmp_path / f"o{Path(output).name}")
    assert plan([pair[0]], pair[1]) == [pair]


def test_forced_source_pictures_stay(tmp_path, pack):
    cv2.imwrite(str(tmp_path / "0001.png"), picture(1)[..., ::-1])
    before = (tmp_path / "0001.png").read_bytes()
    result = fauve("run", tmp_path / "%04d.png", "-o", tmp_path / "%04d.png", "--style", pack, "--force")
    assert_one_line(result, "itself; give another name or folder")
    assert (tmp_path / "0001.png").read_bytes() == before


@pytest.mark.parametrize("options", [[], ["--fps", "10"]])
def test_a_sequence_goes_on_where_it_was(tmp_path, video, pack, options):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        run(video, "-o", tmp_path / folder / "%03d.png", "--style", pack, *options)
    whole = sorted(path.name for path in (tmp_path / "a").glob("*.png"))
    for name in whole[7:]:
        (tmp_path / "b" / name).unlink()
    kept = (tmp_path / "b" / whole[6]).stat().st_mtime_ns
    run(video, "-o", tmp_path / "b" / "%03d.png", "--style", pack, "--resume", *options)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [".%03d.png.json", *whole]
    assert (tmp_path / "b" / whole[6]).stat().st_mtime_ns == kept
    for name in whole:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    result = run(video, "-o", tmp_path / "b" / "%03d.png", "--style", pack, "--resume", *options)
    assert f"{len(whole)} frames" in result.stdout
    asked = ["-o", tmp_path / "b" / "%03d.png", "--style", pack, "--resume", *options, "--strength", "0.5"]
    with pytest.raises(SinkError, match=r"the earlier run had look .*; give the same, or --force"):
        invoke(video, *asked)


def assert_goes_on(video, pack, *options):
    """Numbered pictures of which all behind the fifth are gone come out the same again."""
    folder = video.parent
    asked = [video, "-o", folder / "%03d.png", "--style", pack, "--engine", "onnxruntime", *options]
    invoke(*asked)
    pictures = {path: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    for path in list(pictures)[5:]:
        path.unlink()
    invoke(*asked, "--resume")
    assert pictures == {path: path.read_bytes() for path in folder.glob("*.png")}


@pytest.mark.parametrize("options", [[], ["--fps", "10"], ["--steady", "0.5"]])
@pytest.mark.parametrize("damaged", [{2, 3}, {5, 6, 9}])
def test_a_sequence_goes_on_behind_what_is_damaged(tmp_path, video, pack, damaged, options):
    broken = rewritten(video, tmp_path / "a.mp4", lambda number, whole: b"?" if number in damaged else whole)
    assert_goes_on(broken, pack, *options)


def test_an_avi_that_tells_no_times_goes_on_too(tmp_path, pack):
    video = make_video(tmp_path / "a.avi", time_base=Fraction(1, RATE), audio=False)
    assert_goes_on(video, pack)


def test_pictures_of_which_nothing_is_known_are_not_gone_on_with(tmp_path):
    path = tmp_path / "f%02d.png"
    assert images_done(path, {"look": 1}) == 0
    sink = ImageSink(path, {"look": 1})
    for index in range(3):
        sink.write(Frame(picture(index), index, 1, Fraction(1, 25)))
    sink.close()
    assert images_done(path, {"look": 1}) == 3
    with pytest.raises(SinkError, match=r"the earlier run had look 1 and not 2; give the same, or --force"):
        images_done(path, {"look": 2})
    with pytest.raises(SinkError, match="there is a file already"):
        ImageSink(path, {"look": 2})
    assert images_done(path, {"look": 1}) == 3
    (tmp_path / ".f%02d.png.json").unlink()
    with pytest.raises(SinkError, match=r"3 pictures are there, and nothing tells .* --force starts over"):
        images_done(path, {"look": 1})


def write_pictures(sink, numbers):
    for index in numbers:
        sink.write(Frame(picture(index), index, 1, Fraction(1, 25)))
    sink.close()


def test_what_force_began_and_ctrl_c_stopped_is_of_one_style(tmp_path, caplog):
    path = tmp_path / "f%02d.png"
    write_pictures(ImageSink(path, {"style": "old"}), range(6))
    old = [(tmp_path / f"f{number:02d}.png").read_bytes() for number in range(1, 7)]
    time.sleep(0.02)  # a file system's clock may be no finer
    write_pictures(ImageSink(path, {"style": "new"}, force=True), range(10, 12))
    assert "f%02d.png: numbers from 3 on are another run's; this one has 2" in caplog.text
    # Those of before are there still, and are neither taken for done nor in the way.
    assert images_done(path, {"style": "new"}) == 2
    write_pictures(ImageSink(path, {"style": "new"}, done=2), range(12, 16))
    assert images_done(path, {"style": "new"}) == 6
    new = [(tmp_path / f"f{number:02d}.png").read_bytes() for number in range(1, 7)]
    assert not set(old) & set(new)


def _box(kind, *content):
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


def _tiled(path):
    """A photograph of two tiles side by side, as phones take it (ISO/IEC 23008-12)."""
    make_video(path.with_suffix(".mp4"), frames=5, codec="libx265", size=(64, 64), audio=False)
    content = path.with_suffix(".mp4").read_bytes()
    at = content.index(b"hvcC") - 4
    header = content[at : at + int.from_bytes(content[at : at + 4])]
    with av.open(str(path.with_suffix(".mp4"))) as film:
        tile = bytes(next(film.demux(video=0)))
    items = [(1, b"hvc1", tile), (2, b"hvc1", tile), (3, b"grid", struct.pack(">4B2H", 0, 0, 0, 1, 128, 64))]
    zero = bytes(4)

    def parts(begin):
        places, kinds = [], []
        for number, kind, data in items:
            places.append(struct.pack(">3H2I", number, 0, 1, begin, len(data)))
            kinds.append(_box(b"infe", b"\2\0\0\0", struct.pack(">2H4sx", number, 0, kind)))
            begin += len(data)
        sizes = [_box(b"ispe", zero, struct.pack(">2I", *size)) for size in ((64, 64), (128, 64))]
        owners = struct.pack(">I HB2B HB2B HBB", 3, 1, 2, 0x81, 2, 2, 2, 0x81, 2, 3, 1, 3)
        meta = _box(
            b"meta",
            zero,
            _box(b"hdlr", zero, zero, b"pict", bytes(13)),
            _box(b"pitm", zero, struct.pack(">H", 3)),
            _box(b"iloc", zero, b"\x44\0", struct.pack(">H", len(items)), *places),
            _box(b"iinf", zero, struct.pack(">H", len(items)), *kinds),
            _box(b"iref", zero, _box(b"dimg", struct.pack(">4H", 3, 2, 1, 2))),
            _box(b"iprp", _box(b"ipco", header, *sizes), _box(b"ipma", zero, owners)),
        )
        return _box(b"ftyp", b"heic", zero, b"mif1heic") + meta

    begin = len(parts(0)) + 8
    path.write_bytes(parts(begin) + _box(b"mdat", *(data for _, _, data in items)))
    return path


def test_a_photograph_of_tiles_is_refused_and_not_painted_as_one_of_them(tmp_path):
    path = _tiled(tmp_path / "in.heic")
    with av.open(str(path)) as container:
        assert [(each.width, each.height) for each in container.streams.video] == [(64, 64)] * 2
    with pytest.raises(SourceError, match=r"in\.heic: its picture is in tiles"):
        FileSource(path)


def test_a_picture_on_a_disk_that_is_read_only_is_an_error_of_one_line(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    sink = ImageSink(tmp_path / "out.png", {})
    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(SinkError, match=r"out\.png: cannot be written: Read-only"):
        sink.write(Frame(picture(0), 0, 1, Fraction(1, 25)))
    sink.abort()


def test_a_picture_that_is_there_is_found_before_anything_is_painted(tmp_path):
    path = tmp_path / "f%02d.png"
    (tmp_path / "f25.png").write_text("precious")
    with pytest.raises(SinkError, match=r"f25.png: there is a file already"):
        ImageSink(path, {})
    assert [file.name for file in tmp_path.iterdir()] == ["f25.png"]
    # One that comes later stays, too, and the earlier run's are counted up to it.
    (tmp_path / "f25.png").unlink()
    sink = ImageSink(path, {})
    write_pictures(sink, range(2))
    (tmp_path / "f03.png").write_text("precious")
    with pytest.raises(SinkError, match=r"f03.png: there is a file already"):
        write_pictures(sink, range(2, 4))
    assert (tmp_path / "f03.png").read_text() == "precious"


def test_a_number_has_zeros_before_it_as_ffmpeg_writes_them(tmp_path):
    write_pictures(ImageSink(tmp_path / "%5d.png", {}), range(2))
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["00001.png", "00002.png"]
    assert list(numbered(tmp_path / "%5d.png")) == [1, 2]


def test_ctrl_c_tells_of_the_pictures_that_are_there(tmp_path, video, pack, stops_after, caplog):
    asked = (video, "-o", tmp_path / "%03d.png", "--style", pack, "--engine", "onnxruntime")
    stops_after(7)
    with pytest.raises(KeyboardInterrupt, match=r"^stopped$"):
        invoke(*asked)
    assert "%03d.png: 7 pictures are done; --resume goes on from there" in caplog.text
    assert len(list(tmp_path.glob("*.png"))) == 7
    stops_after(23)
    invoke(*asked, "--resume")
    assert len(list(tmp_path.glob("*.png"))) == 30


def test_pictures_out_of_a_pipe(tmp_path, pack):
    make_video(tmp_path / "in.mkv", frames=12)
    with open(tmp_path / "in.mkv", "rb") as pipe:
        result = fauve(
            "run", "-", "-o", tmp_path / "%02d.png", "--style", pack, "--strength", "0", stdin=pipe
        )
    assert result.returncode == 0, result.stderr
    after = [cv2.imread(str(tmp_path / f"{number:02d}.png"))[..., ::-1] for number in range(1, 13)]
    assert [bar(image) for image in after] == [bar(picture(index)) for index in range(12)]
    assert len(list(tmp_path.glob("*.png"))) == 12


def test_what_is_stopped_of_numbered_pictures_goes_on_beside_them(tmp_path, pack, stops_after):
    for index in range(1, 131):
        cv2.imwrite(str(tmp_path / f"{index:03d}.png"), picture(index)[..., ::-1])
    output = tmp_path / "out.mp4"
    asked = (tmp_path / "%03d.png", "-o", output, "--style", pack, "--engine", "onnxruntime", "--resume")
    stops_after(125)
    with pytest.raises(KeyboardInterrupt):
        invoke(*asked)
    before = (tmp_path / "007.png").read_bytes()
    (tmp_path / "007.png").write_bytes((tmp_path / "008.png").read_bytes() + bytes(1))
    with pytest.raises(SinkError, match="the earlier run had video"):
        invoke(*asked)
    (tmp_path / "007.png").write_bytes(before)
    # Its time is another now, but that of no other file.
    os.utime(tmp_path / "007.png", ns=(0, (tmp_path / "006.png").stat().st_mtime_ns))
    stops_after(10)
    invoke(*asked)
    assert len(read_video(output).times) == 130


def test_numbered_pictures_at_a_rate_are_finished_the_second_time(tmp_path, pack, capsys):
    for index in range(1, 7):
        cv2.imwrite(str(tmp_path / f"{index:04d}.png"), picture(index)[..., ::-1])
    asked = (tmp_path / "%04d.png", "-o", tmp_path / "out.mp4", "--style", pack, "--engine", "onnxruntime")
    invoke(*asked, "--fps", "24", "--resume")
    invoke(*asked, "--fps", "24", "--resume")
    assert "out.mp4: finished before" in capsys.readouterr().out
    other = make_video(tmp_path / "12.mp4", frames=12, rate=48)
    with pytest.raises(SinkError, match="frames: 12 at 48 fps, 6 in the output"):
        invoke(other, *asked[1:], "--fps", "48", "--resume")
    told = fauve("verify", tmp_path / "%04d.png", tmp_path / "out.mp4")
    assert (told.returncode, told.stdout) == (0, f"{tmp_path / 'out.mp4'}: 6 frames, nothing differs\n")


def test_damaged_packets_are_counted_when_pictures_are_written(tmp_path, pack):
    video = make_video(tmp_path / "a.mkv", frames=40, audio=False)
    damaged = rewritten(
        video, tmp_path / "in.mkv", lambda n, data: bytes(len(data)) if n in (20, 21) else data
    )
    result = run(damaged, "-o", tmp_path / "%02d.png", "--style", pack, "--json")
    done = json.loads(result.stdout.splitlines()[-1])
    assert done["damaged_packets"] == 2
    assert done["frames"] == len(list(tmp_path.glob("*.png"))) < 40


@pytest.mark.parametrize("output", ["out.mp4", "out.gif", "%02d.png"])
def test_a_file_whose_end_is_missing_is_not_called_complete(tmp_path, pack, capsys, output):
    frames = cut(make_video(tmp_path / "in.mp4", frames=60), tmp_path / "cut.mp4", 30)
    arguments = (tmp_path / "cut.mp4", "-o", tmp_path / output, "--style", pack)
    invoke(*arguments)
    told = capsys.readouterr().out
    assert f"{frames} frames painted as" in told
    assert "; the end of the video is missing" in told
    invoke(*arguments, "--json", "--force")
    done = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (done["frames"], done["damaged_packets"], done["cut_short"]) == (frames, 1, True)


def test_one_picture_of_a_folder_is_not_written_as_numbered_ones(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "50%done.png").touch()
    with pytest.raises(
        SinkError, match=r"out.50%done\.png: would be numbered pictures, .*; rename .*in.50%done"
    ):
        plan([tmp_path / "in"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "in" / "50%done.png").rename(tmp_path / "in" / "50%done.mp4")
    assert plan([tmp_path / "in"], tmp_path / "out") == [
        (tmp_path / "in" / "50%done.mp4", tmp_path / "out" / "50%done.mp4")
    ]


def test_a_folder_of_pictures(tmp_path, pack):
    (tmp_path / "in").mkdir()
    for kind in KINDS:
        cv2.imwrite(str(tmp_path / "in" / f"{kind}.{kind}"), picture(3)[..., ::-1])
    run(tmp_path / "in", "-o", tmp_path / "out", "--style", pack)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{k}.{k}" for k in sorted(KINDS)]


@pytest.mark.parametrize("kind", ["gif", "apng", "webp"])
def test_animations_out_and_in(tmp_path, pack, kind):
    pts = [0, 100, 200, 300, 700, 800, 900, 1400]
    video = make_video(tmp_path / "in.mkv", pts, time_base=Fraction(1, 1000), audio=False)
    run(video, "-o", tmp_path / f"a.{kind}", "--style", pack, "--strength", "0")
    run(tmp_path / f"a.{kind}", "-o", tmp_path / "b.mkv", "--style", pack, "--strength", "0", "--verify")
    after = read_video(tmp_path / "b.mkv")
    assert after.times == [Fraction(at, 1000) for at in pts]
    assert [bar(image) for image in after.images] == [bar(picture(index)) for index in range(8)]
    assert np.abs(after.images[3].astype(int) - picture(3)).mean() < 8


FOR_EVER = {
    "gif": b"NETSCAPE2.0\3\1\0\0\0",
    "apng": b"acTL" + struct.pack(">II", 4, 0),
    "webp": b"ANIM\6\0\0\0\xff\xff\xff\xff\0\0",
}


@pytest.mark.parametrize("kind", ["gif", "apng", "webp"])
def test_an_animation_holds_its_last_picture_as_long_and_begins_anew(tmp_path, pack, kind):
    """FFmpeg shows the last picture of .apng and .webp for the time of another, and them once."""
    video = make_video(tmp_path / "in.mkv", [0, 100, 200, 700], time_base=Fraction(1, 1000), audio=False)
    # The last picture of the video itself is shown for 40 ms, the mean of the others is 233.
    run(video, "-o", tmp_path / f"a.{kind}", "--style", pack, "--verify")
    assert FOR_EVER[kind] in (tmp_path / f"a.{kind}").read_bytes()


@pytest.mark.parametrize("seconds", [Fraction(1, 1000), Fraction(2), Fraction(70), Fraction(10**6)])
def test_how_long_an_apng_picture_can_last(seconds):
    with av.open(io.BytesIO(), "w", format="apng") as container:
        stream = container.add_stream("apng", rate=25)
        stream.width, stream.height, stream.pix_fmt = 8, 8, "rgb24"
        picture = av.VideoFrame.from_ndarray(np.zeros((8, 8, 3), np.uint8), format="rgb24")
        content = bytes([*stream.encode(picture), *stream.encode(None)][0])
    changed = apng_lasting(content, seconds)
    at = content.index(b"fcTL")
    delay = Fraction(*struct.unpack(">HH", changed[at + 24 : at + 28]))
    assert delay == min(seconds, 65535)
    assert zlib.crc32(changed[at : at + 30]) == int.from_bytes(changed[at + 30 : at + 34], "big")
    assert (changed[:at], changed[at + 34 :]) == (content[:at], content[at + 34 :])


def test_an_animation_has_no_sound_and_cannot_be_resumed(tmp_path, pack):
    video = make_video(tmp_path / "in.mp4", frames=3)
    assert (
        "cannot hold audio (aac); track 1 is left out"
        in run(video, "-o", tmp_path / "a.gif", "--style", pack).stderr
    )
    result = fauve("run", video, "-o", tmp_path / "b.gif", "--style", pack, "--resume")
    assert_one_line(result, "written in one go")


CIRCLES = 8


def transparent(path, codec, pixels, **options):
    """A circle that wanders over nothing, and a band that is half there."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pixels
        stream.options = {key: str(value) for key, value in options.items()}
        for index in range(CIRCLES):
            image = np.dstack([picture(index, 128, 96), alpha_of(index)])
            frame = av.VideoFrame.from_ndarray(image, format="rgba").reformat(format=pixels)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def alpha_of(index):
    alpha = np.zeros((96, 128), np.uint8)
    cv2.circle(alpha, (30 + 8 * index, 40), 24, 255, -1)
    alpha[80:] = 128
    return alpha


SOURCES = {
    "mov": ("prores_ks", "yuva444p10le", {"profile": 4}),
    "webm": ("libvpx-vp9", "yuva420p", {"auto-alt-ref": 0, "b": "2M"}),
    "mkv": ("ffv1", "bgra", {}),
    "apng": ("apng", "rgba", {}),
}


@pytest.fixture(params=SOURCES)
def ghost(request, tmp_path):
    codec, pixels, options = SOURCES[request.param]
    return transparent(tmp_path / f"ghost.{request.param}", codec, pixels, **options)


def test_what_is_transparent_is_read(ghost):
    info, frames = frames_of(ghost)
    assert info.alpha
    assert len(frames) == CIRCLES
    for index, frame in enumerate(frames):
        assert np.abs(frame.alpha.astype(int) - alpha_of(index)).mean() < 2
        seen = alpha_of(index) == 255
        assert np.abs(frame.image.astype(int) - picture(index, 128, 96))[seen].mean() < 6


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.mov", ["--codec", "prores"]),
        ("out.mkv", ["--codec", "ffv1"]),
        ("out.webm", []),
        ("out.apng", []),
        ("out.webp", []),
        ("out%02d.png", []),
    ],
)
def test_what_is_transparent_stays_so(tmp_path, ghost, pack, name, options):
    result = run(ghost, "-o", tmp_path / name, "--style", pack, "--strength", "0", *options)
    assert result.stderr == ""
    info, frames = frames_of(tmp_path / name)
    assert info.alpha
    assert len(frames) == CIRCLES
    for index, frame in enumerate(frames):
        assert np.abs(frame.alpha.astype(int) - alpha_of(index)).mean() < 2.5
        seen = alpha_of(index) == 255
        assert np.abs(frame.image.astype(int) - picture(index, 128, 96))[seen].mean() < 8


def test_alpha_goes_with_another_size_and_rate(tmp_path, ghost, pack):
    options = ["--codec", "ffv1", "--size", "64x48", "--fps", "50"]
    run(ghost, "-o", tmp_path / "out.mkv", "--style", pack, *options)
    _, frames = frames_of(tmp_path / "out.mkv")
    assert len(frames) == 2 * CIRCLES
    for index, frame in enumerate(frames):
        expected = cv2.resize(alpha_of(index // 2), (64, 48), interpolation=cv2.INTER_AREA)
        assert np.abs(frame.alpha.astype(int) - expected).mean() < 3


def test_gif_is_there_or_not(tmp_path, ghost, pack):
    run(ghost, "-o", tmp_path / "out.gif", "--style", pack, "--strength", "0")
    _, frames = frames_of(tmp_path / "out.gif")
    for index, frame in enumerate(frames):
        expected = np.where(alpha_of(index) >= 128, 255, 0)
        assert (frame.alpha != expected)[:78].mean() < 0.02


def test_where_it_cannot_be_transparent_it_is_laid_over_a_colour(tmp_path, ghost, pack):
    options = ["--style", pack, "--strength", "0", "--background", "#ff8000", "--crf", "5"]
    result = run(ghost, "-o", tmp_path / "out.mp4", *options)
    assert "out.mp4: cannot be transparent, and is laid over #ff8000" in result.stderr
    after = read_video(tmp_path / "out.mp4")
    for index, image in enumerate(after.images):
        expected = over(picture(index, 128, 96), alpha_of(index), (255, 128, 0))
        assert np.abs(image.astype(int) - expected).mean() < 6


@pytest.mark.parametrize(("codec", "holds"), [("vp9", False), ("ffv1", True)])
def test_an_mp4_is_transparent_in_the_codecs_that_it_keeps_an_alpha_of(tmp_path, ghost, pack, codec, holds):
    options = ["--style", pack, "--strength", "0", "--background", "#ff8000", "--codec", codec]
    result = run(ghost, "-o", tmp_path / "out.mp4", *options)
    info, frames = frames_of(tmp_path / "out.mp4")
    assert info.alpha == holds
    assert len(frames) == CIRCLES
    if holds:
        assert result.stderr == ""
        for index, frame in enumerate(frames):
            assert np.abs(frame.alpha.astype(int) - alpha_of(index)).mean() < 2.5
        return
    assert "laid over #ff8000; --codec ffv1 can be" in result.stderr
    for index, frame in enumerate(frames):
        expected = over(picture(index, 128, 96), alpha_of(index), (255, 128, 0))
        assert np.abs(frame.image.astype(int) - expected).mean() < 8


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("out.webm", "--codec vp9"),
        ("out.mov", "--codec prores"),
        ("out.mkv", "--codec vp9 and --codec prores and --codec ffv1"),
        ("out.ts", ".mov and .mkv"),
    ],
)
def test_only_what_the_container_holds_is_named(name, others):
    assert " and ".join(_transparent_codecs(muxer_of(Path(name)))) == others


def test_over():
    image = np.full((1, 3, 3), 100, np.uint8)
    flat = over(image, np.array([[0, 255, 51]], np.uint8), (200, 0, 50))
    assert flat.tolist() == [[[200, 0, 50], [100, 100, 100], [180, 20, 60]]]


def test_an_opaque_gif_is_not_called_transparent(tmp_path, pack):
    video = make_video(tmp_path / "in.mp4", frames=5, audio=False)
    run(video, "-o", tmp_path / "a.gif", "--style", pack)
    info, _ = frames_of(tmp_path / "a.gif")
    assert not info.alpha
    assert info.colour.matrix == Colour().matrix


@pytest.mark.parametrize("colour", ["pink-ish", "#12345", "#gggggg"])
def test_colours_that_are_none(tmp_path, video, pack, colour):
    result = fauve("run", video, "-o", tmp_path / "b.mp4", "--style", pack, "--background", colour)
    assert_one_line(result, f"'{colour}' is neither #rrggbb nor black")


def test_a_damaged_animation(tmp_path, pack):
    video = make_video(tmp_path / "in.mp4", frames=5, audio=False)
    run(video, "-o", tmp_path / "a.webp", "--style", pack)
    content = (tmp_path / "a.webp").read_bytes()
    (tmp_path / "bad.webp").write_bytes(content[:60])
    assert_one_line(
        fauve("run", tmp_path / "bad.webp", "-o", tmp_path / "b.mp4", "--style", pack), "bad.webp"
    )


def xray(path, depth=np.uint16):
    """A ramp of 16 steps from 1000 to 2500 in 16 bits, as a detector gives it: dark all over in eight."""
    ramp = np.repeat(np.arange(1000, 2600, 100, dtype=depth), 8)
    cv2.imwrite(str(path), np.tile(ramp, (64, 1)))
    return path


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_a_window_says_what_is_seen_of_sixteen_bits(tmp_path, pack, kind):
    options = ["--style", pack, "--strength", "0", "--window", "801", "--level", "1600.5"]
    result = run(xray(tmp_path / f"a.{kind}"), "-o", tmp_path / "b.png", *options)
    assert result.stderr == ""
    after = cv2.imread(str(tmp_path / "b.png"))
    assert (after == after[:1, :, :1]).all()
    # DICOM's linear function: 1200 is black, 2000 is white, 1600 between them.
    expected = [0, 0, 0, 32, 64, 96, 128, 159, 191, 223, 255, 255, 255, 255, 255, 255]
    assert after[0, ::8, 0].tolist() == expected


def test_sixteen_grey_bits_are_seen_whole_where_nobody_says_more_and_come_out_in_colour(tmp_path, pack):
    source = xray(tmp_path / "a.png")
    result = run(source, "-o", tmp_path / "b.png", "--style", pack, "--strength", "0")
    assert result.stderr.count("grey in 16 bits, seen with --window 1501 --level 1750.5") == 1
    after = cv2.imread(str(tmp_path / "b.png"))
    assert after[0, ::8, 0].tolist() == [17 * step for step in range(16)]
    run(source, "-o", tmp_path / "c.png", "--style", pack)
    painted = cv2.imread(str(tmp_path / "c.png"))
    with load("onnxruntime", style=pack) as engine:
        expected = engine(np.ascontiguousarray(after[..., ::-1]), Look())
    assert np.abs(painted[..., ::-1].astype(int) - expected).max() <= 2
    assert np.ptp(painted[32, 64]) > 20


def test_a_stack_of_grey_pictures_keeps_the_window_of_its_first(tmp_path, pack):
    xray(tmp_path / "1.png")
    cv2.imwrite(str(tmp_path / "2.png"), np.full((64, 128), 1750, np.uint16))
    run(tmp_path / "%d.png", "-o", tmp_path / "out%d.png", "--style", pack, "--strength", "0")
    assert cv2.imread(str(tmp_path / "out2.png"))[0, 0].tolist() == [128, 128, 128]


def test_a_window_is_refused_where_there_is_nothing_to_choose(tmp_path, pack, video):
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.zeros((64, 64), np.uint8))
    colour = tmp_path / "colour.png"
    cv2.imwrite(str(colour), np.zeros((64, 64, 3), np.uint16))
    window = ["--style", pack, "--window", "100", "--level", "50"]
    for source, name in ((grey, "grey.png"), (colour, "colour.png"), (video, "in.mp4")):
        result = fauve("run", source, "-o", tmp_path / "out.mp4", *window)
        assert_one_line(result, name, "--window is for pictures of one channel and more than 8 bits")
    result = fauve("run", grey, "-o", tmp_path / "out.png", "--style", pack, "--window", "100")
    assert_one_line(result, "--window and --level go together")
