"""Renders in parts: joined, resumed and divided, they are what an undisturbed one is."""

import errno
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import av
import click
import cv2
import numpy as np
import pytest

import engines
from engines import EngineUnavailable, Look
from engines.onnxruntime import OnnxRuntimeEngine
from pipeline.colour import Colour
from pipeline.errors import SinkError
from pipeline.frame import Frame, VideoInfo
from pipeline.motion import Followed
from pipeline.rate import ConstantRate
from pipeline.render import Render
from pipeline.scaling import stylizer
from pipeline.segments import Segment, after, missing
from pipeline.sinks.container import Container, muxer_of
from pipeline.sinks.encoders import choose
from pipeline.sinks.parts import GRID, Part, Parts, PartSink, join, one_stream
from pipeline.sources.file import FileSource
from pipeline.sources.index import Index, read_index
from pipeline.stats import Stats
from pipeline.workers import Runtime, paint_in_processes
from tests.packs import tiny_pack
from tests.test_cli import FAUVE, assert_one_line, fauve, invoke
from tests.test_source_file import rewritten
from tests.videos import bar, make_video, panned, picture, read_video

INFO = VideoInfo(96, 64, Fraction(25), Fraction(1, 12800), Colour(1, 1, 1, 1))


@pytest.fixture
def pack(tmp_path):
    tiny_pack(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """More than three parts of a variable rate, with B-frames and sound."""
    steps = random.Random(1).choices([256, 512, 768, 3000], k=3 * GRID + 60)
    pts = [5120 + sum(steps[:index]) for index in range(len(steps))]
    return make_video(tmp_path_factory.mktemp("long") / "in.mp4", pts)


def same_pictures(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.images, b.images, strict=True))


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("h264", "mp4"),
        ("h264", "ts"),
        ("h265", "mp4"),
        ("h265", "ts"),
        ("av1", "mkv"),
        ("vp9", "webm"),
        ("prores", "mov"),
        ("ffv1", "mkv"),
    ],
)
def test_parts_of_every_codec_join_without_a_seam(tmp_path, name, suffix):
    path = tmp_path / f"out.{suffix}"
    encoding = choose(name, INFO, muxer=muxer_of(path))
    parts = Parts(path)
    parts.begin({}, resume=False, force=False)
    container = Container(path, parts.joined, INFO, encoding)
    pts = [1024 + 512 * index + 100 * (index % 3 == 1) for index in range(2 * GRID + 30)]
    # Written out of order, as by several processes.
    for first in (2 * GRID, 0, GRID):
        sink = PartSink(parts, INFO, encoding)
        for index in range(first, min(first + GRID, len(pts))):
            sink.write(Frame(picture(index), pts[index], 512, INFO.time_base))
        sink.close()
    join(list(parts), container, [], INFO)
    container.close()
    after = read_video(parts.joined)
    tick = after.time_base
    assert len(after.times) == len(pts)
    start = after.times[0] if suffix == "ts" else Fraction(pts[0], 12800)
    for at, time_ in zip(pts, after.times, strict=True):
        assert abs((time_ - start) - Fraction(at - pts[0], 12800)) <= tick
    assert [bar(image) for image in after.images] == [bar(picture(index)) for index in range(len(pts))]
    with av.open(str(parts.joined)) as file:
        dts = [packet.dts for packet in file.demux(video=0) if packet.size]
    assert dts == sorted(set(dts))


def test_times_of_decoding_rise_and_come_before_those_of_showing(tmp_path):
    packets = ((0, 2, 1, True), (6, 9, 1, False), (3, 3, 1, False), (2, 1, 1, False))
    more = tuple((pts + 8, duration, size, key) for pts, duration, size, key in packets)
    (tmp_path / "x").write_bytes(b"abcd")
    stream = list(one_stream([Part(tmp_path / "x", p, "") for p in (packets, more)], Fraction(1, 25), 2))
    assert [packet.pts for packet in stream] == [0, 6, 3, 2, 8, 14, 11, 10]
    assert [packet.dts for packet in stream] == [-4, -2, 0, 2, 3, 6, 8, 10]
    assert [packet.duration for packet in stream] == [2, 2, 3, 1, 2, 9, 3, 1], "until the next is shown"
    assert [bytes(packet) for packet in stream] == [b"a", b"b", b"c", b"d"] * 2
    assert [packet.is_keyframe for packet in stream] == [True, False, False, False] * 2


def killed_until_done(command: list[str], seed: int) -> None:
    """Run `command` with --resume, and kill it at random moments until it is through."""
    moments = random.Random(seed)
    for patience in range(20):
        process = subprocess.Popen([*command, "--resume"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            _, error = process.communicate(timeout=moments.uniform(1.0, 2.5) + 0.4 * patience)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        else:
            assert process.returncode == 0, error.decode()
            return
    pytest.fail("never done")


@pytest.mark.parametrize(("suffix", "options"), [("mp4", []), ("mkv", ["--fps", "30", "--size", "128x64"])])
def test_killed_and_resumed_it_is_the_same(tmp_path, long_video, pack, suffix, options):
    command = ["run", str(long_video), "--style", str(pack), *options]
    undisturbed, resumed = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    assert fauve(*command, "-o", undisturbed).returncode == 0
    command = [*FAUVE, *command, "-o", str(resumed)]
    stopped_after(1, command, tmp_path / f".b.{suffix}.parts")
    killed_until_done(command, seed=len(options))
    a, b = read_video(undisturbed), read_video(resumed)
    assert a.pts == b.pts
    assert len(a.pts) > 3 * GRID
    assert same_pictures(a, b)
    assert a.packets == b.packets
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{suffix}", f"b.{suffix}", "tiny"]


def stopped_after(parts, command, folder):
    """Start `command` and kill it when `parts` parts are finished."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while len(list(folder.glob("[0-9]*.json"))) < parts:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture
def stopped(tmp_path, pack):
    """A render that was killed after its first part: the command, and its output."""
    video, output = make_video(tmp_path / "in.mp4", frames=900, size=(320, 180)), tmp_path / "out.mp4"
    command = ["run", str(video), "-o", str(output), "--style", str(pack)]
    stopped_after(1, [*FAUVE, *command], tmp_path / ".out.mp4.parts")
    return command, output


def test_what_was_painted_is_not_thrown_away_by_mistake(stopped):
    command, output = stopped
    assert_one_line(fauve(*command), "an earlier run has painted", "--resume", "--force")
    assert_one_line(fauve(*command, "--resume", "--strength", "0.5"), "look [{}, 1.0] and not [{}, 0.5]")
    journal = output.with_name(".out.mp4.parts") / "journal.json"
    kept = journal.read_text()
    facts = json.loads(kept)
    name, *device = facts["engine"]
    journal.write_text(json.dumps({**facts, "engine": [name, "1.0", *device[1:]]}))
    assert_one_line(fauve(*command, "--resume"), f"engine ['{name}', '1.0', ", f" and not {facts['engine']}")
    journal.write_text(kept)
    assert not output.exists()
    assert fauve(*command, "--resume").returncode == 0
    assert len(read_video(output).times) == 900


def test_a_worker_whose_kernels_are_others_is_an_error(pack, monkeypatch):
    monkeypatch.setattr(OnnxRuntimeEngine, "kernels", "plain")
    style = engines.load_style(pack)
    for kernels in (None, "plain"):
        Runtime(style, "onnxruntime", "float32", 1, kernels).load().close()
    with pytest.raises(
        EngineUnavailable, match="onnxruntime has fused kernels in one process and plain ones"
    ):
        Runtime(style, "onnxruntime", "float32", 1, "fused").load()


def test_force_begins_anew(stopped):
    command, output = stopped
    assert fauve(*command, "--force", "--strength", "0.5", "--verify").returncode == 0
    assert len(read_video(output).times) == 900


def test_two_runs_do_not_write_one_file(tmp_path, pack):
    parts = Parts(tmp_path / "out.mp4")
    parts.begin({}, resume=False, force=False)
    video = make_video(tmp_path / "in.mp4")
    for option in ("--resume", "--force"):
        result = fauve("run", video, "-o", tmp_path / "out.mp4", "--style", pack, option)
        assert_one_line(result, "out.mp4: another run is writing it")
    parts.remove()


def test_parts_of_another_encoder_are_not_joined(tmp_path):
    path = tmp_path / "out.mp4"
    encoding = choose("h264", INFO, muxer="mp4")
    part = Part(tmp_path / "x", ((0, 1, 1, True),), "00")
    container = Container(path, tmp_path / "joined.mp4", INFO, encoding)
    with pytest.raises(SinkError, match="another version of the encoder"):
        join([part], container, [], INFO)
    container.abort()


@pytest.mark.parametrize("options", [[], ["--fps", "30"]])
def test_several_workers_make_the_same_file(tmp_path, long_video, pack, options):
    command = ["run", str(long_video), "--style", str(pack), *options]
    results = []
    for workers in (1, 3):
        output = tmp_path / f"{workers}.mp4"
        result = fauve(*command, "-o", output, "--workers", workers)
        assert result.returncode == 0, result.stderr
        results.append(read_video(output))
    a, b = results
    assert a.pts == b.pts
    assert len(a.pts) > 3 * GRID
    assert same_pictures(a, b)
    assert a.packets == b.packets


class Counted:
    """Processes that only count how many of them there are at the same time."""

    Pipe = staticmethod(multiprocessing.Pipe)

    def __init__(self):
        self.now = self.most = 0
        self.segments = []

    def Process(self, *, target, args, daemon):  # noqa: N802  as multiprocessing calls it
        sending, _, segment, _ = args
        self.segments.append(segment)
        # The one that waits closes its own end.
        connection = Connection(os.dup(sending.fileno()))

        def work():
            time.sleep(0.03)
            connection.send(Stats(encoded=10, damaged=1, cut_short=segment.start == 3))
            self.now -= 1
            connection.send(None)

        def start():
            self.now += 1
            self.most = max(self.most, self.now)
            thread.start()

        thread = threading.Thread(target=work)
        return SimpleNamespace(start=start, join=thread.join, terminate=lambda: None)


@pytest.fixture(scope="module")
def meadow(tmp_path_factory):
    """More than two parts of a camera that moves."""
    frames = 2 * GRID + 40
    path = tmp_path_factory.mktemp("meadow") / "in.mkv"
    return make_video(path, frames=frames, size=(128, 96), audio=False, shown=panned)


@pytest.mark.parametrize("options", [[], ["--fps", "30"]])
@pytest.mark.parametrize("how", ["divided", "resumed", "as pictures"])
def test_a_canvas_follows_the_camera_over_every_seam(tmp_path, meadow, how, options):
    style = str(tiny_pack(tmp_path / "tiny", carried=True) and tmp_path / "tiny")
    command = ["run", str(meadow), "--style", style, "--codec", "ffv1", *options]
    undisturbed, other = tmp_path / "a.mkv", tmp_path / "b.mkv"
    assert fauve(*command, "-o", undisturbed).returncode == 0
    if how == "divided":
        told = fauve(*command, "-o", other, "--workers", "2", "--json")
        assert told.returncode == 0
        events = [json.loads(line) for line in told.stdout.splitlines()]
        # Nobody waits for the first frame in the dark while the camera is followed.
        assert events[0]["event"] == "following"
        assert events[0]["frame"] == 0
        assert events[-1]["event"] == "done"
    elif how == "resumed":
        command = [*FAUVE, *command, "-o", str(other)]
        stopped_after(1, command, tmp_path / ".b.mkv.parts")
        killed_until_done(command, seed=1)
    else:
        (tmp_path / "p").mkdir()
        command = ["run", str(meadow), "--style", style, "-o", str(tmp_path / "p" / "%03d.png"), *options]
        assert fauve(*command).returncode == 0
        for path in sorted((tmp_path / "p").glob("*.png"))[90:]:
            path.unlink()
        told = fauve(*command, "--resume", "--json")
        assert told.returncode == 0
        assert json.loads(told.stdout.splitlines()[0])["event"] == "following"
        pictures = [cv2.imread(str(path))[..., ::-1] for path in sorted((tmp_path / "p").glob("*.png"))]
        images = read_video(undisturbed).images
        assert len(pictures) == len(images) > 2 * GRID
        # FFV1 holds YUV with a quarter of the colours.
        assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(images, pictures, strict=True)) < 4
        return
    a, b = read_video(undisturbed), read_video(other)
    assert a.pts == b.pts
    assert len(a.pts) > 2 * GRID
    assert same_pictures(a, b)


@pytest.mark.parametrize(("how", "options"), [("divided", []), ("resumed", ["--fps", "30"])])
def test_strokes_go_along_with_what_moves_over_every_seam(tmp_path, meadow, how, options):
    tiny_pack(tmp_path / "tiny", carried=True)
    command = ["run", str(meadow), "--style", str(tmp_path / "tiny"), "--codec", "ffv1", *options]
    bare, undisturbed, other = (tmp_path / f"{name}.mkv" for name in "abc")
    assert fauve(*command, "-o", bare).returncode == 0
    command += ["--steady", "0.75"]
    assert fauve(*command, "-o", undisturbed).returncode == 0
    if how == "divided":
        assert fauve(*command, "-o", other, "--workers", "2").returncode == 0
    else:
        command = [*FAUVE, *command, "-o", str(other)]
        stopped_after(1, command, tmp_path / ".c.mkv.parts")
        killed_until_done(command, seed=1)
    a, b, c = (read_video(path) for path in (bare, undisturbed, other))
    assert a.pts == b.pts == c.pts
    assert len(b.pts) > 2 * GRID
    apart = [np.abs(x.astype(int) - y).max() for x, y in zip(b.images, c.images, strict=True)]
    # The last of what a picture hangs on, some forty frames back, may round to another side.
    assert max(apart) <= 2
    assert np.mean(apart) < 0.5
    assert np.abs(a.images[GRID + 2].astype(int) - b.images[GRID + 2]).mean() > 2


@pytest.mark.parametrize("options", [[], ["--fps", "20"]])
def test_what_is_damaged_before_a_seam_is_counted_once(tmp_path, pack, capsys, options):
    video = make_video(tmp_path / "a.mkv", frames=GRID + 40, rate=20, audio=False, codec="mpeg4")
    damaged = rewritten(
        video, tmp_path / "in.mkv", lambda n, data: bytes(len(data)) if n == GRID - 5 else data
    )
    asked = (damaged, "-o", tmp_path / "out.mkv", "--style", pack, "--steady", "0.75", "--workers", "2")
    invoke(*asked, *options, "--json")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["damaged_packets"] == 1


def test_a_canvas_stays_where_it_is_if_asked(tmp_path, meadow):
    style = tiny_pack(tmp_path / "tiny", carried=True)
    results = []
    for name, option in (("a", "--follow"), ("b", "--no-follow")):
        command = [
            "run",
            meadow,
            "-o",
            tmp_path / f"{name}.mkv",
            "--style",
            tmp_path / "tiny",
            "--codec",
            "ffv1",
        ]
        assert fauve(*command, option).returncode == 0
        results.append(read_video(tmp_path / f"{name}.mkv").images)
    followed, stayed = results
    assert style.carried
    assert np.array_equal(followed[0][:80, :112], stayed[0][:80, :112])
    with FileSource(meadow, tracks=False) as file, engines.load(style=style) as engine:
        frames = [item for item in Followed(file) if isinstance(item, Frame)]
        assert max(max(map(abs, frame.moved)) for frame in frames) > 40
        paint = stylizer(engine, (128, 96))
        for n in (50, 100, 200):
            for images, look in ((followed, Look(moved=frames[n].moved)), (stayed, Look())):
                expected = paint(frames[n].image, look)
                assert np.abs(images[n].astype(int) - expected).mean() < 4, n
            assert np.abs(followed[n].astype(int) - stayed[n]).mean() > 10, n


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_there_are_never_more_workers_than_asked_for(monkeypatch, workers):
    counted, stats, told = Counted(), Stats(), []
    monkeypatch.setattr("pipeline.workers.get_context", lambda way: counted)
    segments = [Segment(start) for start in range(7)]
    paint_in_processes(None, segments, None, stats, lambda stats: told.append(stats.encoded), workers)
    assert counted.segments == segments
    assert counted.most == workers
    assert stats.encoded == told[-1] == 70
    assert (stats.damaged, stats.cut_short) == (7, True)


@pytest.mark.parametrize("rate", [None, Fraction(50), Fraction(24000, 1001)])
def test_what_has_no_index_goes_on_at_the_frame_behind(tmp_path, rate):
    path = make_video(tmp_path / "in.avi", frames=40, time_base=Fraction(1, 25), audio=False)
    assert read_index(path) is None

    def painted(segment):
        _, source = segment.open(path, rate)
        with source:
            return [(frame.pts, bar(frame.image)) for frame in source]

    whole = painted(Segment())
    done = [pts for pts, _ in whole[:15]]
    assert len(whole) >= 38
    assert painted(after(done, rate)) == whole[15:]
    for lead, first in ((4, 11), (40, 0)):
        segment = after(done, rate, lead)
        assert painted(segment) == whole[first:]
        assert (segment.first, segment.start) == (whole[first][0], whole[14][0] + 1)


def test_a_dead_worker_is_said_and_its_part_can_be_painted_again(tmp_path, pack):
    video, output = make_video(tmp_path / "in.mp4", frames=1200, size=(320, 180)), tmp_path / "out.mp4"
    command = [*FAUVE, "run", str(video), "-o", str(output), "--style", str(pack), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while len(list((tmp_path / ".out.mp4.parts").glob("[0-9]*.json"))) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    spawned = [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    subprocess.run(["kill", "-9", spawned[-1]], check=True)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "frames are done; --resume goes on" in error
    assert "a worker was killed" in error.splitlines()[-1]
    result = fauve(*command[len(FAUVE) :], "--resume", "--verify")
    assert result.returncode == 0, result.stderr


def test_a_worker_ends_with_the_run_that_started_it(tmp_path, pack):
    video, output = make_video(tmp_path / "in.mp4", frames=1500, size=(320, 180)), tmp_path / "out.mp4"
    command = [*FAUVE, "run", str(video), "-o", str(output), "--style", str(pack), "--workers", "2"]
    stopped_after(1, command, tmp_path / ".out.mp4.parts")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        running = subprocess.run(["pgrep", "-f", "spawn_main"], capture_output=True, text=True).stdout
        here = [pid for pid in running.split() if str(tmp_path) in _open_files(pid)]
        if not here:
            return
        time.sleep(0.2)
    pytest.fail(f"workers {here} go on for nobody")


def _open_files(pid):
    try:
        return " ".join(str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return ""


def test_a_video_that_cannot_be_divided_is_painted_by_one(tmp_path, pack):
    video = make_video(tmp_path / "in.mp4", frames=300, audio=False)
    with av.open(str(video)) as source, av.open(str(tmp_path / "in.h264"), "w") as raw:
        stream = raw.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                raw.mux(packet)
    result = fauve("run", tmp_path / "in.h264", "-o", tmp_path / "o.mkv", "--style", pack, "--workers", "2")
    assert result.returncode == 0, result.stderr
    assert "does not tell when its frames are shown, so that one worker paints it" in result.stderr
    assert len(read_video(tmp_path / "o.mkv").times) == 300


def test_pipes_are_neither_resumed_nor_divided(tmp_path, pack):
    video = make_video(tmp_path / "in.mp4")
    for option in (["--resume"], ["--workers", "2"]):
        assert_one_line(
            fauve("run", video, "-o", "-", "--style", pack, *option),
            "-: is written in one go, and can be neither resumed nor painted by several workers",
        )


def test_several_videos_at_the_same_time(tmp_path, pack):
    (tmp_path / "in").mkdir()
    for index in range(5):
        make_video(tmp_path / "in" / f"{index}.mp4", frames=20 + index)
    (tmp_path / "in" / "bad.mp4").write_text("no video")
    result = fauve("run", tmp_path / "in", "-o", tmp_path / "out", "--style", pack, "--jobs", "3")
    assert result.returncode == 2
    assert "bad.mp4" in result.stderr
    assert "1 of 6 videos failed" in result.stderr
    for index in range(5):
        assert len(read_video(tmp_path / "out" / f"{index}.mp4").times) == 20 + index
    assert len(list((tmp_path / "out").iterdir())) == 5


def test_a_folder_of_one_video_goes_on_like_one_of_many(tmp_path, pack):
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "one.mp4", frames=20)
    asked = ("run", tmp_path / "in", "-o", tmp_path / "out", "--style", pack)
    assert "20 frames painted" in fauve(*asked).stdout
    again = fauve(*asked)
    assert (again.returncode, again.stderr) == (0, "")
    assert "one.mp4: finished before; --force paints it again" in again.stdout
    for options, told in (
        (["--fps", "5"], r"frames: 4 at 5 fps, 20 in the output"),
        (["--codec", "h265"], r"one.mp4: is there in another style, strength, detail, .*codec or quality"),
    ):
        other = fauve(*asked, *options)
        assert other.returncode == 2
        assert re.search(told, other.stderr), other.stderr
    assert "20 frames painted" in fauve(*asked, "--force").stdout


def test_a_name_as_long_as_a_file_system_takes(tmp_path, pack):
    (tmp_path / "in").mkdir()
    name = "東" * 83 + "ab.mp4"
    assert len(name.encode()) == 255
    for video in (name, "b.mp4"):
        make_video(tmp_path / "in" / video, frames=20)
    result = fauve("run", tmp_path / "in", "-o", tmp_path / "out", "--style", pack)
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(os.listdir(tmp_path / "out")) == ["b.mp4", name]
    assert len(read_video(tmp_path / "out" / name).times) == 20
    result = fauve("run", tmp_path / "in" / name, "-o", tmp_path / (name[:-3] + "gif"), "--style", pack)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / (name[:-3] + "gif")).exists()


def test_what_nobody_thought_of_stops_one_video_and_not_all(tmp_path, pack, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        make_video(tmp_path / "in" / f"{name}.mp4", frames=10, audio=False)
    render = Render.__call__

    def fails(self, video, *others):
        if video.stem == "a":
            raise ZeroDivisionError("a bug")
        return render(self, video, *others)

    monkeypatch.setattr(Render, "__call__", fails)
    with pytest.raises(click.exceptions.Exit):
        invoke(tmp_path / "in", "-o", tmp_path / "out", "--style", pack)
    said = capsys.readouterr().err
    assert "a.mp4: ZeroDivisionError: a bug; please report it" in said
    assert "1 of 3 videos failed" in said
    assert sorted(os.listdir(tmp_path / "out")) == ["b.mp4", "c.mp4"]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX's")
def test_a_full_disk_is_said_and_no_shorter_film_is_written(tmp_path, long_video, pack, workers):
    import resource

    small = (8000, 8000)
    result = subprocess.run(
        [*FAUVE, "run", long_video, "-o", tmp_path / "out.mp4", "--style", pack, "--workers", workers],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, small),
    )
    assert_one_line(result, "out.mp4: cannot be written: File too large")
    assert os.listdir(tmp_path) == ["tiny"]


def test_a_part_that_cannot_be_begun_is_said_and_nothing_else(tmp_path):
    parts = Parts(tmp_path / "out.mp4")
    parts.begin({}, resume=False, force=False)
    parts.remove()
    sink = PartSink(parts, INFO, choose("h264", INFO, muxer="mp4"))
    with pytest.raises(SinkError, match=r"out\.mp4: cannot be written: No such file"):
        sink.write(Frame(picture(0), 0, 512, INFO.time_base))
    sink.abort()


def test_ctrl_c_stops_several_videos(tmp_path, pack):
    (tmp_path / "in").mkdir()
    for index in range(4):
        make_video(tmp_path / "in" / f"{index}.mp4", frames=1200, size=(320, 180), audio=False)
    command = ["run", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--style", str(pack), "--jobs", "2"]
    process = subprocess.Popen([*FAUVE, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "out").glob(".*.parts/*.packets")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 2
    assert error.splitlines()[-1] == "fauve: stopped; 0 of 4 videos are done; the same command goes on"
    assert not list((tmp_path / "out").glob("*.mp4"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_what_is_stopped_in_one_go_leaves_nothing(tmp_path, pack, how):
    make_video(tmp_path / "in.mp4", frames=800, size=(320, 180), audio=False)
    command = ["run", str(tmp_path / "in.mp4"), "-o", str(tmp_path / "out.gif"), "--style", str(pack)]
    process = subprocess.Popen([*FAUVE, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not any(path.stat().st_size for path in tmp_path.glob(".out*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (2, "fauve: stopped; no output was written\n")
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "tiny"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such terminals there")
@pytest.mark.parametrize(("name", "left"), [("out.gif", []), ("out.mp4", [".out.mp4.parts"])])
def test_a_closed_terminal_stops_a_run_as_ctrl_c_does(tmp_path, pack, name, left):
    import fcntl
    import pty
    import termios

    def in_terminal():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    make_video(tmp_path / "in.mp4", frames=1200, size=(320, 180), audio=False)
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [
            *FAUVE,
            "run",
            str(tmp_path / "in.mp4"),
            "-o",
            str(tmp_path / name),
            "--style",
            str(pack),
            "--quiet",
        ],
        **dict.fromkeys(("stdin", "stdout", "stderr"), inside),
        start_new_session=True,
        preexec_fn=in_terminal,
    )
    os.close(inside)
    begun = ".out.mp4.parts/*.json" if left else ".out*"
    while not any(path.stat().st_size and path.name != "journal.json" for path in tmp_path.glob(begun)):
        assert process.poll() is None
        time.sleep(0.05)
    os.close(terminal)
    assert process.wait(timeout=30) == 2
    assert sorted(os.listdir(tmp_path)) == [*left, "in.mp4", "tiny"]
    assert bool(list(Parts(tmp_path / "out.mp4"))) == bool(left)


def test_the_index_of_a_video(long_video):
    index = read_index(long_video)
    with FileSource(long_video, tracks=False) as source:
        frames = list(source)
    assert index.times == tuple(frame.pts for frame in frames)
    assert index.end == frames[-1].pts + frames[-1].duration
    assert index.keys[0] == index.times[0]


def without_its_first(path, cut, packets=7):
    """`path` as a recording that was begun in the middle of a group of pictures."""
    with av.open(str(path)) as before, av.open(str(cut), "w") as after:
        stream = before.streams.video[0]
        copied = after.add_stream_from_template(stream)
        for packet in list(before.demux(stream))[packets:-1]:
            packet.stream = copied
            after.mux(packet)
    return cut


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_what_a_recording_begins_with_and_cannot_be_decoded_is_not_in_its_index(tmp_path, suffix, codec):
    tick = Fraction(1, 25)
    whole = make_video(tmp_path / f"a.{suffix}", frames=300, codec=codec, time_base=tick, audio=False)
    video = without_its_first(whole, tmp_path / f"b.{suffix}")
    with FileSource(video, tracks=False) as source:
        times = tuple(frame.pts for frame in source)
    assert 0 < len(times) < 293
    assert read_index(video).times == times


@pytest.mark.parametrize("start", [0, 1, 250, 260, 419])
def test_a_source_that_is_entered_gives_the_same_frames(long_video, start):
    index = read_index(long_video)
    at = index.times[start]
    with FileSource(long_video, tracks=False) as source:
        whole = list(source)
    with FileSource(long_video, tracks=False, start=at, entry=index.entry(at)) as source:
        part = list(source)
    assert [frame.pts for frame in part] == list(index.times[start:])
    assert all(np.array_equal(a.image, b.image) for a, b in zip(whole[start:], part, strict=True))


@pytest.mark.parametrize("suffix", ["ts", "mpg"])
def test_what_leads_to_the_key_frame_behind_is_entered_before_it(tmp_path, suffix, caplog):
    caplog.set_level("INFO")
    video = tmp_path / f"in.{suffix}"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        # Interlaced: each frame takes from the one before it.
        stream.codec_context.options = {"g": "12", "bf": "2", "flags": "+ildct+ilme"}
        for index in range(150):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    index = read_index(video)
    with FileSource(video, tracks=False) as source:
        whole = list(source)
    for start in (48, 111, 132, 139):
        at = index.times[start]
        with FileSource(video, tracks=False, start=at, entry=index.entry(at)) as source:
            part = list(source)
        assert [frame.pts for frame in part] == list(index.times[start:])
        assert all(np.array_equal(a.image, b.image) for a, b in zip(whole[start:], part, strict=True))
    # Of a program stream only some can be entered.
    assert suffix == "mpg" or "read from its beginning" not in caplog.text


def test_stretches_begin_on_the_grid_and_cover_all():
    index = Index(tuple(range(0, 1000 * 2, 2)), tuple(range(0, 1000 * 2, 100)), 2000)
    pieces = missing([], index, Fraction(1, 50), None, 3)
    assert [(piece.start, piece.end) for piece in pieces] == [(None, 720), (720, 1440), (1440, None)]
    assert [piece.entry for piece in pieces] == [None, 600, 1300]
    assert pieces[1].after == 720
    assert [piece.first for piece in pieces] == [None, 720, 1440]
    led = missing([], index, Fraction(1, 50), None, 3, lead=400)
    assert [(piece.start, piece.end) for piece in led] == [(None, 720), (720, 1440), (1440, None)]
    assert [piece.first for piece in led] == [None, 0, 640]
    assert [(piece.after, piece.entry) for piece in led] == [(None, None), (0, None), (640, 500)]
    done = [Part(Path(), ((at, 2, 1, True), (at + 238, 2, 1, False)), "") for at in (0, 480)]
    pieces = missing(done, index, Fraction(1, 50), None, 1)
    assert [(piece.start, piece.end) for piece in pieces] == [(240, 480), (720, None)]
    assert (
        missing([Part(Path(), ((0, 2, 1, True), (1998, 2, 1, False)), "")], index, Fraction(1, 50), None, 2)
        == []
    )


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(24000, 1001), Fraction(7)])
def test_stretches_at_another_rate_give_what_the_whole_gives(long_video, rate):
    index = read_index(long_video)
    with FileSource(long_video, tracks=False) as file, ConstantRate(file, rate) as source:
        whole, time_base = [(frame.pts, frame.image) for frame in source], file.info.time_base
    pieces = []
    for segment, led in zip(
        *(missing([], index, time_base, rate, 3, lead=lead) for lead in (0, 20)), strict=True
    ):
        file, source = segment.open(long_video, rate)
        with source:
            pieces += [(frame.pts, frame.image) for frame in source]
        file, source = led.open(long_video, rate)
        with source:
            before = [frame.pts for frame in source if led.start is not None and frame.pts < led.start]
        assert len(before) == (20 if led.start else 0)
    assert [pts for pts, _ in pieces] == [pts for pts, _ in whole]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(whole, pieces, strict=True))


def test_a_folder_that_takes_no_files_is_not_called_missing(tmp_path, monkeypatch):
    """As /proc is: whatever is made there, the system knows no such file."""

    def refused(*_, **__):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(SinkError, match=r"a\.mp4: cannot be written: No such file"):
        Parts(tmp_path / "a.mp4").begin({}, resume=False, force=False)
    with pytest.raises(SinkError, match="there is no folder"):
        Parts(tmp_path / "none" / "a.mp4").begin({}, resume=False, force=False)
