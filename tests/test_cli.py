"""The command as people type it, in a process of its own."""

import _thread
import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import click
import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper

from engines import Look, Style, bundled, load
from pipeline import cli, stream
from pipeline.batch import plan
from pipeline.commands.doctor import versions
from pipeline.commands.options import Dimensions, Rate
from pipeline.commands.preview import preview, sample
from pipeline.commands.run import run
from pipeline.errors import SinkError, SourceError
from pipeline.sinks.parts import GRID, Parts
from tests.packs import animegan, serialized, tiny_pack
from tests.videos import bar, make_video, picture, read_video

FAUVE = [sys.executable, "-m", "pipeline.cli"]


def fauve(*arguments, input=None, env=None, within=120, **options):
    """What became of a command; one that hangs tells where."""
    command = [*FAUVE, *map(str, arguments)]
    streams = {} if input is None else {"stdin": subprocess.PIPE}
    streams |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = {**(os.environ if env is None else env), "PYTHONFAULTHANDLER": "1"}
    with subprocess.Popen(command, env=env, **streams, **options) as process:
        try:
            output, errors = process.communicate(input, timeout=within)
        except subprocess.TimeoutExpired:
            ended = process.poll()
            process.send_signal(signal.SIGABRT)
            try:
                output, errors = process.communicate(timeout=10)
            except subprocess.TimeoutExpired as held:  # by a process that it left behind
                output, errors = held.output, held.stderr
            pytest.fail(f"{' '.join(command)} hung (exit code {ended}):\n{output}\n{errors}")
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def invoke(*arguments):
    """`fauve run` in this process; what it raises comes out."""
    with run.make_context("run", list(map(str, arguments))) as context:
        run.invoke(context)


@pytest.fixture
def stops_after(monkeypatch):
    """Has every run stopped, as by Ctrl-C, when so many frames are painted."""

    def after(frames):
        left = iter(range(frames))

        def run_and_stop(source, paint, sinks, **options):
            def paint_some(image, look):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return paint(image, look)

            return stream.run(source, paint_some, sinks, **options)

        monkeypatch.setattr("pipeline.render.run", run_and_stop)

    return after


@pytest.fixture
def pack(tmp_path):
    tiny_pack(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def video(tmp_path):
    return make_video(tmp_path / "in.mp4", frames=40)


def assert_one_line(result, *words):
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("fauve: ")
    for word in words:
        assert word in lines[0]


def test_a_video_in_and_a_painted_video_out(tmp_path, video, pack):
    result = fauve("run", video, "-o", tmp_path / "out.mp4", "--style", pack)
    assert result.returncode == 0, result.stderr
    assert "40 frames painted as Tiny" in result.stdout
    assert result.stderr == ""
    before, after = read_video(video), read_video(tmp_path / "out.mp4")
    assert after.times == before.times
    assert len(after.times) == 40
    assert after.packets == before.packets
    assert after.packets
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "tiny"]
    with load("onnxruntime", style=pack) as engine:
        painted = engine(before.images[7], Look())
    assert np.abs(after.images[7].astype(int) - painted).mean() < 4
    assert np.abs(after.images[7].astype(int) - before.images[7]).mean() > 15


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("rate", [120, 240, 1000])
def test_slow_motion_keeps_every_frame_and_its_time(tmp_path, pack, rate, suffix):
    # Matroska counts in milliseconds: 8 or 9 of them at 120 a second.
    unit = 1000 if suffix == ".mkv" else rate * 100
    pts = [round(Fraction(index * unit, rate)) for index in range(130)]
    video = make_video(tmp_path / f"in{suffix}", pts, rate=rate, time_base=Fraction(1, unit))
    path = tmp_path / f"out{suffix}"
    result = fauve("run", video, "-o", path, "-s", pack, "--strength", 0, "--crf", 5, "--verify")
    assert result.returncode == 0, result.stderr
    before, after = read_video(video), read_video(path)
    assert before.times == [Fraction(at, unit) for at in pts]
    assert after.times == before.times
    for one, other in zip(before.images, after.images, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 1.5


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_memory_is_bounded_at_8k(tmp_path, pack):
    frames = 24
    video, path = tmp_path / "in.mp4", tmp_path / "out.mp4"
    arguments = ["run", video, "-o", path, "--style", pack, "--preset", "ultrafast"]
    script = (
        "import os, pathlib, re, subprocess, sys\n"
        # What runs beside it, such as a live test, has its time.
        "os.nice(19)\n"
        "subprocess.run([sys.executable, '-c', sys.argv.pop()], check=True)\n"
        "from pipeline.cli import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    status = pathlib.Path('/proc/self/status').read_text()\n"
        "    print(re.search(r'VmHWM:\\s*(\\d+)', status)[1])"
    )
    make = (
        "import av, cv2\n"
        "from tests.videos import picture\n"
        "image = cv2.resize(picture(0, 960, 540), (7680, 4320))\n"
        "frame = av.VideoFrame.from_ndarray(image, format='rgb24')\n"
        f"with av.open({str(video)!r}, 'w') as container:\n"
        "    stream = container.add_stream('libx264', rate=25)\n"
        "    stream.width, stream.height, stream.pix_fmt = 7680, 4320, 'yuv420p'\n"
        "    stream.codec_context.options = {'preset': 'ultrafast'}\n"
        "    (packet,) = [*stream.encode(frame), *stream.encode(None)]\n"
        f"    for index in range({frames}):\n"
        "        packet.pts, packet.dts, packet.time_base = index, index, stream.codec_context.time_base\n"
        "        container.mux(packet)\n"
    )
    command = [sys.executable, "-c", script, *map(str, arguments), make]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    # A picture has 100 MB; all of them would have 2.4 GB, in and out 4.8 GB.
    assert int(result.stdout.split()[-1]) < 4 << 20, "in kB"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (7680, 4320)
        packets = [packet for packet in container.demux(stream) if packet.size]
    assert sorted(packet.pts * packet.time_base for packet in packets) == [
        Fraction(index, 25) for index in range(frames)
    ]


def test_strength_0_gives_back_the_video(tmp_path, video, pack):
    result = fauve("run", video, "-o", tmp_path / "out.mp4", "--style", pack, "--strength", 0, "--crf", 5)
    assert result.returncode == 0, result.stderr
    before, after = read_video(video), read_video(tmp_path / "out.mp4")
    for a, b in zip(before.images, after.images, strict=True):
        assert bar(a) == bar(b)
        assert np.abs(a.astype(int) - b).mean() < 1.5


def test_a_mix_of_styles(tmp_path, video, pack):
    for name, mix in (("warm", "warm=1"), ("cold", "cold=1"), ("both", "warm=0.5,cold=0.5")):
        result = fauve("run", video, "-o", tmp_path / f"{name}.mp4", "--style", pack, "--mix", mix)
        assert result.returncode == 0, result.stderr
    warm, cold, both = (
        np.stack(read_video(tmp_path / f"{name}.mp4").images).mean((0, 1, 2))
        for name in ("warm", "cold", "both")
    )
    assert np.abs(both - (warm + cold) / 2).max() < 6
    assert np.abs(warm - cold).max() > 12


def test_detail_changes_the_strokes_and_not_the_size(tmp_path, pack):
    video = make_video(tmp_path / "big.mp4", frames=2, size=(480, 320), audio=False)
    images = {}
    for detail in ("0.5", "1", "full"):
        result = fauve("run", video, "-o", tmp_path / f"{detail}.mp4", "--style", pack, "--detail", detail)
        assert result.returncode == 0, result.stderr
        images[detail] = read_video(tmp_path / f"{detail}.mp4").images[0].astype(int)
        assert images[detail].shape == (320, 480, 3)
    assert np.abs(images["0.5"] - images["full"]).mean() > np.abs(images["1"] - images["full"]).mean() > 0


def test_an_onnx_model_of_somebody_else(tmp_path, video):
    (tmp_path / "anime.onnx").write_bytes(animegan())
    result = fauve("run", video, "-o", tmp_path / "out.mp4", "--style", tmp_path / "anime.onnx")
    assert result.returncode == 0, result.stderr
    assert "NHWC (found), values in -1..1 (found), any size" in result.stderr
    assert len(read_video(tmp_path / "out.mp4").images) == 40


def test_json_for_machines(tmp_path, video, pack):
    result = fauve("run", video, "-o", tmp_path / "out.mp4", "--style", pack, "--json")
    assert result.returncode == 0, result.stderr
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert {event["event"] for event in events[:-1]} <= {"progress"}
    assert events[-1]["event"] == "done"
    assert events[-1]["frames"] == 40
    assert events[-1]["output"] == str(tmp_path / "out.mp4")


def test_json_of_an_error(tmp_path, pack):
    result = fauve("run", tmp_path / "none.mp4", "-o", tmp_path / "out.mp4", "--style", pack, "--json")
    assert result.returncode == 2
    assert json.loads(result.stdout) == {
        "event": "error",
        "message": f"{tmp_path / 'none.mp4'}: no such file",
    }


def test_quiet_says_nothing(tmp_path, video, pack):
    result = fauve("run", video, "-o", tmp_path / "out.mp4", "--style", pack, "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_terminal_gets_a_bar_with_frames_and_fps(tmp_path, pack):
    video = make_video(tmp_path / "long.mp4", frames=300, size=(320, 240), audio=False)
    ours, theirs = pty.openpty()
    command = [*FAUVE, "run", str(video), "-o", str(tmp_path / "out.mp4"), "--style", str(pack)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    assert process.wait(60) == 0
    assert b"/300" in shown
    assert b"fps" in shown


@pytest.mark.parametrize("name", ["-x.mp4", "a b.mp4", 'it\'s "ü".mp4', "100%d.mp4", "a:b.mp4"])
def test_odd_file_names(tmp_path, pack, name):
    make_video(tmp_path / name, frames=3)
    result = fauve("run", "--style", pack, "-o", "out " + name, "--", name, cwd=tmp_path, env=with_path())
    assert result.returncode == 0, result.stderr
    assert len(read_video(tmp_path / ("out " + name)).images) == 3


def with_path():
    return {**os.environ, "PYTHONPATH": os.getcwd()}


def run_apart(program, folder):
    """What `program`, a text, does in a Python of its own that starts in `folder`."""
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env=with_path(),
    )


def test_a_missing_file(tmp_path, pack):
    result = fauve("run", tmp_path / "none.mp4", "-o", tmp_path / "out.mp4", "--style", pack)
    assert_one_line(result, "none.mp4", "no such file")


def test_a_file_that_is_no_video(tmp_path, pack):
    (tmp_path / "a.mp4").write_text("hello")
    assert_one_line(
        fauve("run", tmp_path / "a.mp4", "-o", tmp_path / "out.mp4", "--style", pack), "a.mp4", "not a video"
    )
    assert not (tmp_path / "out.mp4").exists()


def test_an_output_that_exists(tmp_path, video, pack):
    (tmp_path / "out.mp4").write_text("precious")
    assert_one_line(fauve("run", video, "-o", tmp_path / "out.mp4", "--style", pack), "out.mp4", "--force")
    assert (tmp_path / "out.mp4").read_text() == "precious"
    assert fauve("run", video, "-o", tmp_path / "out.mp4", "--style", pack, "--force").returncode == 0
    assert len(read_video(tmp_path / "out.mp4").images) == 40


def test_the_video_itself_as_its_output(video, pack):
    before = video.read_bytes()
    assert_one_line(fauve("run", video, "-o", video, "--style", pack, "--force"), "is the video itself")
    assert video.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--style", "pointilism"], ["no style 'pointilism'"]),
        (["--strength", "2"], ["strength must be within 0 and 1"]),
        (["--mix", "warm"], ["'warm'"]),
        (["--mix", "hot=1"], ["no style 'hot' in this pack; there is warm, cold"]),
        (["--detail", "0"], ["'0'"]),
        (["--detail", "nan"], ["'nan'"]),
        (["--steady", "nan"], ["'nan' is not a number from 0 to 0.9"]),
        (["--steady", "1"], ["--steady"]),
        (["--engine", "abacus"], ["no engine 'abacus'"]),
        (["--engine", "onnxruntime", "--precision", "bfloat16"], ["no bfloat16"]),
        (["--layout", "nchw"], [".onnx"]),
        (["--crf", "99"], ["--crf"]),
        (["--codec", "h265", "--size", "48x24"], ["h265 takes pictures of 32 lines and columns or more"]),
        (["--codec", "av1", "--size", "200x16"], ["av1 takes pictures of 32 lines and columns or more"]),
        (["--wings"], ["--wings"]),
    ],
)
def test_options_that_make_no_sense(tmp_path, video, pack, arguments, words):
    result = fauve("run", video, "-o", tmp_path / "out.mp4", "--style", pack, *arguments)
    assert_one_line(result, *words)
    assert not (tmp_path / "out.mp4").exists()


def test_ctrl_c_says_so_and_keeps_what_is_painted(tmp_path, pack):
    video = make_video(tmp_path / "long.mp4", frames=1200, size=(320, 180), audio=False)
    command = [*FAUVE, "run", str(video), "-o", str(tmp_path / "out.mp4"), "--style", str(pack), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    frames = 0
    while frames < GRID + 20:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        frames = json.loads(line).get("frame", 0)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 2
    kept, stopped = error.splitlines()
    assert re.search(r"out\.mp4: \d*[1-9]\d* frames are done; --resume goes on from there$", kept)
    assert stopped == "fauve: stopped; no output was written"
    assert time.monotonic() - began < 25
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.mp4.parts", "long.mp4", "tiny"]


def test_help_imports_nothing_heavy():
    program = (
        "import sys; sys.argv = ['fauve', '--help']\n"
        "from pipeline.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'av', 'cv2', 'numpy', 'openvino', 'onnxruntime', 'onnx', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    for verb in ("run", "verify", "preview", "styles", "doctor", "train", "export"):
        assert f"  {verb} " in result.stdout


def test_a_runtime_that_is_still_at_work_does_not_crash_the_end(pack):
    program = (
        "import sys, threading\n"
        "import click, numpy\n"
        "from engines import Look, load\n"
        "from pipeline import cli\n"
        "@click.command()\n"
        "def show():\n"
        f"    engine = load('openvino', style={str(pack)!r})\n"
        "    image, painted = numpy.zeros((96, 96, 3), numpy.uint8), threading.Semaphore(0)\n"
        "    def paint():\n"
        "        while True:\n"
        "            engine(image, Look())\n"
        "            painted.release()\n"
        "    for _ in range(3): threading.Thread(target=paint, daemon=True).start()\n"
        "    for _ in range(30): painted.acquire()\n"
        "    print('the show is over')\n"
        "    sys.exit(2)\n"
        "cli.COMMANDS['show'] = ('__main__:show', '')\n"
        "sys.argv = ['fauve', 'show']\n"
        "cli.main()\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (2, "the show is over\n", "")


@pytest.mark.parametrize("verb", ["run", "verify", "preview", "styles", "doctor", "train", "export"])
def test_every_verb_has_help(verb):
    result = fauve(verb, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Usage: ")


def test_it_paints_where_torch_cannot_be_imported(tmp_path, video, pack):
    program = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'tensorrt', 'pycuda'): sys.modules[name] = None\n"
        f"sys.argv = ['fauve', 'run', {str(video)!r}, '-o', 'out.mp4', '-s', {str(pack)!r}]\n"
        "from pipeline.cli import main\n"
        "main()\n"
    )
    result = run_apart(program, tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(read_video(tmp_path / "out.mp4").images) == 40


def test_what_makes_styles_names_the_extra_that_it_needs(tmp_path):
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "sys.argv = ['fauve', 'evaluate', 'live', '--photos', '.', '--paintings', '.']\n"
        "from pipeline.cli import main\n"
        "main()\n"
    )
    result = run_apart(program, tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith('fauve: fauve evaluate needs pip install "fauve[train]" (')
    assert result.stderr.count("\n") == 1


def test_help_tells_every_default():
    def commands(command):
        return command.commands.values() if isinstance(command, click.Group) else [command]

    silent = [
        (command.name, option.name)
        for verb in cli.COMMANDS
        for command in commands(cli.fauve.get_command(click.Context(cli.fauve), verb))
        for option in command.params
        if isinstance(option, click.Option)
        and not option.is_flag
        and isinstance(option.default, str | int | float)
        if option.default != "" and not option.show_default and "default" not in option.help
    ]
    assert silent == []


def test_styles_lists_the_paintings():
    result = fauve("styles")
    table = json.loads(fauve("styles", "--json").stdout)
    assert result.returncode == 0, result.stderr
    assert [pack["name"] for pack in table] == bundled()
    for pack in table:
        for credit in pack["styles"]:
            assert f"{credit['artist']}, {credit['title']}, {credit['year']}" in result.stdout
            years = [Path(other).stem.split("_")[2] for other in credit["others"]]
            listed = result.stdout.partition(f"{credit['name']}: ")[2].splitlines()[1 : len(years) + 1]
            assert [line.rpartition(", ")[2] for line in listed] == years
    assert "        and Munch, The Scream, 1893\n" in result.stdout


def test_doctor_tells_what_runs_and_why_the_rest_does_not():
    result = fauve("doctor")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert any(line.startswith("runs  openvino ") for line in lines)
    assert any(line.startswith("runs  onnxruntime ") for line in lines)
    assert "auto takes openvino" in lines
    report = json.loads(fauve("doctor", "--json").stdout)
    assert report["versions"]["av"] == av.__version__
    for probe in report["engines"]:
        assert probe["runs"] or probe["reason"]


def test_doctor_tells_of_onnx_runtime_whichever_package_brings_it(monkeypatch):
    installed = {"onnxruntime-gpu": "1.2.3"}
    monkeypatch.setattr("engines.parity.version_of", lambda package: installed.get(package, ""))
    assert versions()["onnxruntime"] == "onnxruntime-gpu 1.2.3"
    assert versions()["torch"] == ""


def test_doctor_on_one_engine_fails_unless_that_one_runs():
    result = fauve("doctor", "--engine", "onnxruntime", "--precision", "float16")
    assert result.returncode == 0, result.stderr
    line = result.stdout.splitlines()[-1]
    assert re.fullmatch(r"runs  onnxruntime +float16 on .+, PSNR \d\d\.\d dB", line), line
    assert "auto takes" not in result.stdout
    refused = fauve("doctor", "--engine", "onnxruntime", "--precision", "bfloat16")
    assert refused.returncode == 1
    assert "no    onnxruntime         onnxruntime has no bfloat16" in refused.stdout
    unknown = fauve("doctor", "--engine", "cudnn", "--json")
    assert unknown.returncode == 1
    assert "no engine 'cudnn'" in json.loads(unknown.stdout)["engines"][0]["reason"]


def test_doctor_takes_what_it_asks_for_of_an_onnx_model(tmp_path):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list("nchw")) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    path = tmp_path / "any.onnx"
    path.write_bytes(serialized(graph))
    asked = fauve("doctor", "--style", path, "--engine", "onnxruntime")
    assert (asked.returncode, asked.stderr.count("--layout nchw")) == (2, 1)
    told = fauve("doctor", "--style", path, "--engine", "onnxruntime", "--layout", "nchw")
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[-1].startswith("runs  onnxruntime ")


def test_preview_makes_a_sheet(tmp_path, pack):
    video = make_video(tmp_path / "a.mp4", frames=40, size=(192, 128), audio=False)
    arguments = ["--style", pack, "--strength", "0", "--strength", "1", "--frames", "3", "--height", "128"]
    result = fauve("preview", video, "-o", tmp_path / "sheet.png", *arguments)
    assert result.returncode == 0, result.stderr
    sheet = cv2.imread(str(tmp_path / "sheet.png"))[..., ::-1].astype(int)
    assert sheet.shape == (28 + 3 * 132, 5 * 196, 3)
    cell = [[sheet[28 + row * 132 :, column * 196 :][:128, :192] for column in range(5)] for row in range(3)]
    for row in cell:
        # The columns: the input, then warm and cold, each at strength 0 and at 1.
        assert np.abs(row[0] - row[1]).mean() < 1
        assert np.abs(row[0] - row[3]).mean() < 1
        assert np.abs(row[0] - row[2]).mean() > 10
        assert np.abs(row[2] - row[4]).mean() > 4
    bars = [bar(row[0]) for row in cell]
    assert bars == [4 + index * 5 % 180 for index in (6, 20, 33)]


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.ts", {}), ("a.h264", {"audio": False}), ("a.avi", {"audio": False}), ("a.mkv", {"frames": 2})],
)
def test_a_sheet_has_the_middles_of_equal_parts_of_any_kind_of_file(tmp_path, name, options):
    options = {"frames": 60, **options}
    images = sample(make_video(tmp_path / name, **options), 3)
    middles = {60: (10, 30, 50), 2: (0, 1)}[options["frames"]]
    expected = [4 + index * 5 % 84 for index in middles]
    # What does not tell when its frames are shown is read through, and every so many are taken.
    near = 0 if name in ("a.ts", "a.mkv") else 25
    assert len(images) == len(middles)
    assert all(abs(bar(image) - place) <= near for image, place in zip(images, expected, strict=True))


def test_what_a_pipe_cannot_do_is_said_before_it_is_painted(tmp_path, pack):
    for verb, output in (("run", "out.mp4"), ("preview", "out.png")):
        more = ["--verify"] if verb == "run" else []
        result = fauve(verb, "-", "-o", output, "--style", pack, *more, cwd=tmp_path, input="")
        assert_one_line(result, "standard input")
    assert not (tmp_path / "out.mp4").exists()


def test_names_that_are_too_long_and_gifs_that_are_too_fast(tmp_path, pack):
    long = "x" * 300 + ".mp4"
    assert_one_line(fauve("run", long, "-o", "out.mp4", "--style", pack, cwd=tmp_path), "File name too long")
    fast = make_video(tmp_path / "fast.mp4", frames=12, rate=120, time_base=Fraction(1, 12000))
    result = fauve("run", fast, "-o", tmp_path / "out.gif", "--style", pack)
    assert_one_line(result, "100 pictures a second at most, not 120; give --fps 50")


def test_a_track_that_is_announced_and_sends_nothing_is_left_out(tmp_path, pack):
    silent = tmp_path / "silent.ts"
    with av.open(str(silent), "w") as container:
        film, sound = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=44100)
        film.width, film.height, film.pix_fmt = 96, 64, "yuv420p"
        for index in range(12):
            container.mux(film.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
        container.mux(film.encode(None))
        assert sound.index == 1
    result = fauve("run", silent, "-o", tmp_path / "out.mkv", "--style", pack)
    assert result.returncode == 0, result.stderr
    assert "track 1 has no sound in it, and is left out" in result.stderr
    assert len(read_video(tmp_path / "out.mkv").times) == 12


@pytest.mark.parametrize("name", ["out.webp", "out.apng"])
def test_animations_at_30_fps_are_what_they_are(tmp_path, pack, name):
    video = make_video(tmp_path / "in.mp4", frames=15, rate=30, time_base=Fraction(1, 15360), audio=False)
    result = fauve("run", video, "-o", tmp_path / name, "--style", pack, "--verify")
    assert result.returncode == 0, result.stderr


def test_preview_keeps_a_file_that_is_there(tmp_path, video, pack):
    (tmp_path / "sheet.png").write_text("precious")
    assert_one_line(fauve("preview", video, "-o", tmp_path / "sheet.png", "--style", pack), "--force")
    assert_one_line(fauve("preview", video, "-o", tmp_path / "sheet.gif", "--style", pack), ".png")


def test_preview_of_a_picture_and_where_it_cannot_be_written(tmp_path, pack, capsys):
    def sheet_of(output, *options):
        arguments = [tmp_path / "a.png", "-o", tmp_path / output, "--style", pack, *options]
        with preview.make_context("preview", list(map(str, arguments))) as context:
            preview.invoke(context)

    cv2.imwrite(str(tmp_path / "a.png"), picture(1))
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(SinkError, match="is the video itself"):
        sheet_of("a.png", "--force")
    assert (tmp_path / "a.png").read_bytes() == before
    with pytest.raises(SinkError, match="there is no folder"):
        sheet_of("none/sheet.png", "--engine", "abacus")
    sheet_of("sheet.jpg", "--engine", "onnxruntime", "--height", "16")
    assert "sheet.jpg: 1 frame, 4 columns" in capsys.readouterr().out


def test_a_sheet_replaces_no_picture_of_the_sequence_that_it_shows(tmp_path, pack):
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    before = (tmp_path / "1.png").read_bytes()
    arguments = ["-o", tmp_path / "1.png", "--style", pack, "--force"]
    assert_one_line(fauve("preview", tmp_path / "%d.png", *arguments), "1.png: has pictures of", "itself")
    assert (tmp_path / "1.png").read_bytes() == before


def test_a_folder_that_may_not_be_entered_is_said_in_one_line(tmp_path):
    # Root may enter any.
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "stat = Path.stat\n"
        "def refused(path, **options):\n"
        "    if path.name != 'out.png': return stat(path, **options)\n"
        "    raise PermissionError(13, 'Permission denied', str(path))\n"
        "Path.stat = refused\n"
        "sys.argv = ['fauve', 'preview', 'in.mp4', '-o', 'out.png']\n"
        "from pipeline.cli import main\n"
        "main()\n"
    )
    result = run_apart(program, tmp_path)
    assert (result.returncode, result.stderr) == (2, "fauve: out.png: Permission denied\n")


def test_a_sheet_that_cannot_be_written_leaves_the_one_that_was_there(tmp_path, monkeypatch, pack):
    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(os, "fsync", lambda descriptor: full(os.devnull, b""))
    cv2.imwrite(str(tmp_path / "a.png"), picture(1))
    (tmp_path / "sheet.png").write_text("precious")
    arguments = [str(tmp_path / "a.png"), "-o", str(tmp_path / "sheet.png"), "--force", f"--style={pack}"]
    with (
        preview.make_context("preview", arguments) as context,
        pytest.raises(SinkError, match=r"sheet\.png: cannot be written: No space"),
    ):
        preview.invoke(context)
    assert (tmp_path / "sheet.png").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["a.png", "sheet.png", pack.name]


def test_a_sheet_names_the_pack_where_two_have_a_style_of_one_name(tmp_path, monkeypatch, pack):
    tiny_pack(tmp_path / "other")
    titles = []

    def sheet(columns, height):
        titles.extend(title for title, _ in columns)
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr("pipeline.commands.preview.sheet", sheet)
    cv2.imwrite(str(tmp_path / "a.png"), picture(1))
    for number, styles in enumerate(([pack], [pack, tmp_path / "other"])):
        given = [f"--style={style}" for style in styles]
        arguments = [tmp_path / "a.png", "-o", tmp_path / f"{number}.png", *given, "--strength", "1"]
        with preview.make_context("preview", list(map(str, arguments))) as context:
            preview.invoke(context)
    own = [f"{pack.name}/warm 1", f"{pack.name}/cold 1", "other/warm 1", "other/cold 1"]
    assert titles == ["input", "warm 1", "cold 1", "input", *own]


def test_a_sheet_that_is_too_large_is_refused_before_it_is_painted(tmp_path, pack):
    cv2.imwrite(str(tmp_path / "a.png"), picture(1)[:64, :96])
    arguments = [str(tmp_path / "a.png"), "-o", str(tmp_path / "sheet.png"), f"--style={pack}"]
    # An unknown engine would be refused when painting begins.
    arguments += ["--height", "4320", "--engine", "abacus", *["--strength", "1"] * 6]
    said = pytest.raises(SinkError, match=f"sheet.png: a sheet of {13 * 6484}x{28 + 4324} is too large")
    with preview.make_context("preview", arguments) as context, said:
        preview.invoke(context)


def test_a_strength_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(click.BadParameter, match="'nan' is not a number from 0 to 1"):
        preview.make_context("preview", ["a.mp4", "-o", "a.png", "--strength", "nan"])


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Rate(), "23.976023976", Fraction(24000, 1001)),
        (Rate(), "30000/1001", Fraction(30000, 1001)),
        (Rate(), "0.001", Fraction(1, 1000)),
        (Rate(), "0.0001", None),
        (Rate(), "1001", None),
        (Dimensions(), "1280x720", (1280, 720)),
        (Dimensions(), "65535x1", (65535, 1)),
        (Dimensions(), "65536x1", None),
        (Dimensions(), "2x" + "9" * 5000, None),
        (Dimensions(), "0x2", None),
    ],
)
def test_sizes_and_rates_have_bounds(kind, text, value):
    if value is None:
        with pytest.raises(click.BadParameter, match="is no"):
            kind.convert(text, None, None)
    else:
        assert kind.convert(text, None, None) == value


def test_verbose_tells_which_engine_runs(tmp_path, video, pack):
    result = fauve("--verbose", "run", video, "-o", tmp_path / "out.mp4", "--style", pack)
    assert "fauve: engine openvino runs" in result.stderr
    assert Style.load(pack).name == "tiny"


def test_verify_finds_nothing_and_then_everything(tmp_path, video, pack):
    out = tmp_path / "out.mp4"
    assert fauve("run", video, "-o", out, "--style", pack, "--verify").returncode == 0
    result = fauve("verify", video, out)
    assert (result.returncode, result.stdout) == (0, f"{out}: 40 frames, nothing differs\n"), result.stderr
    shorter = make_video(tmp_path / "shorter.mp4", frames=39, size=(98, 64))
    result = fauve("verify", video, shorter, "--json")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["frames"] == 39
    assert report["differences"][0] == "frames: 40 in the source, 39 in the output"
    assert "size: 96x64 in the source, 98x64 in the output" in report["differences"]
    assert_one_line(fauve("verify", video, tmp_path / "none.mp4"), "none.mp4")


def test_a_folder_into_a_folder(tmp_path, pack):
    folder, out = tmp_path / "films", tmp_path / "painted"
    folder.mkdir()
    make_video(folder / "one.mp4", frames=10)
    make_video(folder / "two.mkv", frames=12)
    make_video(folder / "three.ts", frames=14)
    (folder / "broken.mp4").write_text("not a film")
    (folder / "notes.txt").write_text("not a film either")
    result = fauve("run", folder, "-o", out, "--style", pack)
    assert result.returncode == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert "broken.mp4: not a video" in lines[0]
    assert lines[1] == "fauve: 1 of 4 videos failed"
    assert sorted(path.name for path in out.iterdir()) == ["one.mp4", "three.ts", "two.mkv"]
    assert [len(read_video(out / name).images) for name in ("one.mp4", "two.mkv", "three.ts")] == [
        10,
        12,
        14,
    ]

    (folder / "broken.mp4").unlink()
    (out / "two.mkv").unlink()
    before = (out / "one.mp4").stat().st_mtime_ns
    result = fauve("run", folder, "-o", out, "--style", pack)
    assert result.returncode == 0, result.stderr
    assert f"{out / 'one.mp4'}: finished before" in result.stdout
    assert f"{out / 'two.mkv'}: 12 frames painted" in result.stdout
    assert (out / "one.mp4").stat().st_mtime_ns == before

    make_video(folder / "one.mp4", frames=11)
    result = fauve("run", folder, "-o", out, "--style", pack)
    assert result.returncode == 2
    assert "frames: 11 in the source, 10 in the output" in result.stderr
    assert "--force replaces it" in result.stderr
    assert (out / "one.mp4").stat().st_mtime_ns == before


def test_what_was_stopped_in_a_folder_goes_on_by_itself(tmp_path, pack, stops_after, capsys):
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.mp4", frames=150, audio=False)
    make_video(tmp_path / "in" / "b.mp4", frames=5)
    asked = [tmp_path / "in", "-o", tmp_path / "out", "--style", pack, "--engine", "onnxruntime"]
    stops_after(140)
    with pytest.raises(KeyboardInterrupt, match="0 of 2 videos are done; the same command goes on"):
        invoke(*asked)
    stops_after(5)
    with pytest.raises(click.exceptions.Exit):
        invoke(*asked, "--strength", "0.5")
    assert "a.mp4: the earlier run had look" in capsys.readouterr().err
    (tmp_path / "out" / "b.mp4").unlink(missing_ok=True)
    # What is left of the first, and the second.
    stops_after(30 + 5)
    invoke(*asked)
    assert "a.mp4: 150 frames painted" in capsys.readouterr().out
    assert [len(read_video(tmp_path / "out" / name).times) for name in ("a.mp4", "b.mp4")] == [150, 5]


def test_what_force_began_and_ctrl_c_stopped_goes_on(tmp_path, pack, stops_after, capsys, caplog):
    video, output = make_video(tmp_path / "in.mp4", frames=150, audio=False), tmp_path / "out.mp4"
    asked = [video, "-o", output, "--style", pack, "--engine", "onnxruntime"]
    invoke(*asked)
    before = output.read_bytes()
    stops_after(140)
    with pytest.raises(KeyboardInterrupt):
        invoke(*asked, "--strength", "0.5", "--force")
    assert "120 frames are done; --resume --force goes on from there" in caplog.text
    with pytest.raises(SinkError, match=r"120 frames of what is to replace it are painted; --resume --force"):
        invoke(*asked, "--strength", "0.5", "--resume")
    assert output.read_bytes() == before
    stops_after(30)
    invoke(*asked, "--strength", "0.5", "--resume", "--force")
    assert "150 frames painted" in capsys.readouterr().out
    assert len(read_video(output).times) == 150
    assert output.read_bytes() != before
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "out.mp4", "tiny"]


def test_a_folder_that_is_painted_again_goes_on_with_what_is_left(tmp_path, pack, stops_after, capsys):
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.mp4", frames=5, audio=False)
    make_video(tmp_path / "in" / "b.mp4", frames=150, audio=False)
    asked = [tmp_path / "in", "-o", tmp_path / "out", "--style", pack, "--engine", "onnxruntime"]
    invoke(*asked)
    other = [*asked, "--strength", "0.5", "--force"]
    stops_after(5 + 140)
    with pytest.raises(KeyboardInterrupt, match="1 of 2 videos are done; --resume --force goes on"):
        invoke(*other)
    capsys.readouterr()
    stops_after(30)
    invoke(*other, "--resume")
    told = capsys.readouterr().out
    assert "a.mp4: finished before; --force without --resume paints it again" in told
    assert "b.mp4: 150 frames painted" in told
    assert [len(read_video(tmp_path / "out" / name).times) for name in ("a.mp4", "b.mp4")] == [5, 150]
    # What is finished, but not so, is painted again.
    stops_after(155)
    invoke(*asked, "--force", "--resume")
    assert "finished before" not in capsys.readouterr().out


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_folder_goes_on_with_what_is_written_in_one_go_too(tmp_path, pack, capsys, force):
    video = make_video(tmp_path / "a.mp4", frames=5, audio=False)
    (tmp_path / "in").mkdir()
    invoke(video, "-o", tmp_path / "in" / "a.gif", "--style", pack)
    capsys.readouterr()
    invoke(tmp_path / "in", "-o", tmp_path / "out", "--style", pack, "--resume", *force)
    assert "a.gif: 5 frames painted" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm"])
def test_a_folder_in_another_style_is_not_called_finished(tmp_path, pack, name, capsys):
    (tmp_path / "in").mkdir()
    make_video(
        tmp_path / "in" / name, frames=5, audio=False, codec="libvpx-vp9" if name == "a.webm" else "libx264"
    )
    asked = [tmp_path / "in", "-o", tmp_path / "out", "--style", pack, "--engine", "onnxruntime"]
    invoke(*asked)
    before = (tmp_path / "out" / name).read_bytes()
    default = [] if name == "a.webm" else ["--codec", "h264", "--crf", "20"]
    for options in ([], default, ["--mix", "warm=1", "--detail", "1"]):
        invoke(*asked, *options)
        assert f"{name}: finished before; --force paints it again" in capsys.readouterr().out
    for option in ("--mix=cold=1", "--strength=0.5", "--detail=0.5", "--steady=0.5", "--crf=40"):
        with pytest.raises(
            SinkError, match=rf"{name}: is there in another style, .*steadiness, .*--force replaces it, .*-o"
        ):
            invoke(*asked, option)
    assert (tmp_path / "out" / name).read_bytes() == before
    invoke(*asked, "--strength", "0.5", "--force")
    invoke(*asked, "--strength", "0.5")
    assert "finished before;" in capsys.readouterr().out


def test_a_result_that_does_not_tell_its_style_is_finished_in_whatever_style(tmp_path, pack, capsys):
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.ts", frames=5, audio=False)
    make_video(tmp_path / "in" / "b.mp4", frames=5, audio=False)
    asked = [tmp_path / "in", "-o", tmp_path / "out", "--style", pack, "--engine", "onnxruntime"]
    invoke(*asked)
    # As a fauve that left no mark painted it.
    make_video(tmp_path / "out" / "b.mp4", frames=5, audio=False)
    capsys.readouterr()
    invoke(*asked, "--strength", "0.5")
    told = capsys.readouterr().out
    for name in ("a.ts", "b.mp4"):
        assert f"{name}: finished before in whatever style; --force paints it again" in told


def test_what_another_run_is_painting_again_is_left_alone(tmp_path, pack):
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.mp4", frames=5, audio=False)
    asked = [tmp_path / "in", "-o", tmp_path / "out", "--style", pack, "--engine", "onnxruntime"]
    invoke(*asked)
    parts = Parts(tmp_path / "out" / "a.mp4")
    parts.begin({}, resume=False, force=True)
    (parts.folder / "0.packets").write_bytes(b"painted")
    with pytest.raises(SinkError, match=r"a\.mp4: another run is writing it"):
        invoke(*asked)
    assert (parts.folder / "0.packets").read_bytes() == b"painted"
    # What a run that was killed at the very end has left goes.
    parts.end()
    os.utime(tmp_path / "out" / "a.mp4")
    invoke(*asked)
    assert os.listdir(tmp_path / "out") == ["a.mp4"]


@pytest.mark.parametrize("options", [[], ["--force", "--verify"]])
def test_ctrl_c_stops_the_comparison_of_a_film_of_a_folder(tmp_path, pack, monkeypatch, options):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        make_video(tmp_path / "in" / f"{name}.mp4", frames=5, audio=False)
    asked = [tmp_path / "in", "-o", tmp_path / "out", "--style", pack, "--engine", "onnxruntime"]
    invoke(*asked)

    ended = []

    def endless(path, picture_rate=None, between=None):
        _thread.interrupt_main()
        try:
            while True:
                between()
                time.sleep(0.01)
        except KeyboardInterrupt:
            ended.append(path.name)
            raise

    monkeypatch.setattr("pipeline.render.read_contents", endless)
    with pytest.raises(KeyboardInterrupt, match="0 of 2 videos are done"):
        invoke(*asked, *options)
    assert ended == ["a.mp4"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names of text")
def test_a_name_that_is_no_text(tmp_path, pack):
    (tmp_path / "in").mkdir()
    name = os.fsdecode(b"caf\xe9.mp4")
    video, output = tmp_path / "in" / name, tmp_path / "out" / name
    make_video(tmp_path / "in.mp4", frames=5).rename(video)
    asked = ("run", tmp_path / "in", "-o", tmp_path / "out", "--style", pack)
    shown = str(output).replace("\udce9", "\\udce9")
    result = fauve(*asked)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{shown}: 5 frames painted")
    again = fauve(*asked, "--json")
    assert json.loads(again.stdout.splitlines()[-1]) == {"event": "finished before", "output": str(output)}
    assert fauve("verify", video, output).stdout == f"{shown}: 5 frames, nothing differs\n"
    assert os.listdir(os.fsencode(tmp_path / "out")) == [b"caf\xe9.mp4"]
    output.write_text("no film")
    assert_one_line(fauve(*asked), "caf\\udce9.mp4: not a video")


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(SourceError, match="cannot be read: Permission denied"):
        plan([tmp_path], tmp_path / "out")


def test_of_a_folder_only_files_are_videos(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.mov").mkdir()
    assert plan([tmp_path], tmp_path / "out") == [(tmp_path / "a.mp4", tmp_path / "out" / "a.mp4")]


@pytest.mark.parametrize(("platform", "same"), [("darwin", True), ("win32", True), ("linux", False)])
def test_names_that_differ_in_case_alone_may_be_one(tmp_path, monkeypatch, platform, same):
    monkeypatch.setattr(sys, "platform", platform)
    videos = [tmp_path / "a" / "clip.mp4", tmp_path / "b" / "Clip.mp4"]
    if same:
        with pytest.raises(SinkError, match="rename one"):
            plan(videos, tmp_path / "out")
    else:
        assert len(plan(videos, tmp_path / "out")) == 2


@pytest.mark.parametrize(("output", "words"), [("-", "takes one video"), ("out.mp4", "the name of a file")])
def test_several_videos_do_not_go_into_one_file(tmp_path, video, output, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for videos in ([video, video], [tmp_path]):
        with pytest.raises(SinkError, match=f"{output}: .*{words}"):
            invoke(*videos, "-o", output)
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4"}


def test_two_videos_that_would_have_one_name(tmp_path, pack):
    make_video(tmp_path / "a.mkv", frames=3)
    make_video(tmp_path / "a.avi", frames=3, audio=False, codec="mpeg4")
    result = fauve("run", tmp_path / "a.mkv", tmp_path / "a.avi", "-o", tmp_path / "out", "--style", pack)
    assert_one_line(result, "a.mkv: would be the result of", "rename one")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_videos(tmp_path, pack):
    (tmp_path / "empty").mkdir()
    result = fauve("run", tmp_path / "empty", "-o", tmp_path / "out", "--style", pack)
    assert_one_line(result, "a folder without videos")


@pytest.mark.parametrize(
    ("name", "options"), [("a.webm", []), ("a.mov", ["--codec", "prores"]), ("a.mkv", ["--codec", "h265"])]
)
def test_other_codecs(tmp_path, video, pack, name, options):
    result = fauve("run", video, "-o", tmp_path / name, "--style", pack, "--verify", *options)
    assert result.returncode == 0, result.stderr
    assert len(read_video(tmp_path / name).images) == 40


@pytest.mark.parametrize(
    ("codec", "pixels"),
    [
        ("h264", "yuv422p"),
        ("h264", "yuv420p10le"),
        ("h264", "nv12"),
        ("h265", "yuv444p12le"),
        ("av1", "yuv420p10le"),
        ("vp9", "yuv444p"),
        ("prores", "yuv444p10le"),
        ("ffv1", "yuv422p16le"),
    ],
)
def test_the_pixel_format_that_is_asked_for(tmp_path, video, pack, codec, pixels):
    path = tmp_path / "out.mkv"
    arguments = ["-s", pack, "--strength", 0, "--codec", codec, "--pixel-format", pixels, "--verify"]
    result = fauve("run", video, "-o", path, *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    with av.open(str(path)) as container:
        # The two orders of chroma are one in the stream.
        assert container.streams.video[0].codec_context.pix_fmt == pixels.replace("nv12", "yuv420p")
    before, after = read_video(video), read_video(path)
    assert after.times == before.times
    for one, other in zip(before.images, after.images, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 3


@pytest.mark.parametrize(
    ("output", "arguments", "words"),
    [
        ("out.mkv", ["--pixel-format", "yuv999"], ["h264 takes yuv420p, ", "not yuv999"]),
        ("out.mkv", ["--codec", "av1", "--pixel-format", "yuv444p"], ["av1 takes yuv420p, yuv420p10le, not"]),
        ("out.mkv", ["--codec", "ffv1", "--pixel-format", "yuva420p"], ["ffv1 takes", "not yuva420p"]),
        ("out.mkv", ["--pixel-format", "gray"], ["h264 takes yuv420p, ", "yuv444p10le, nv20le, not gray"]),
        ("out.gif", ["--pixel-format", "pal8"], ["no choice for gif"]),
        ("out%03d.png", ["--pixel-format", "rgb24"], ["pictures have no --pixel-format"]),
    ],
)
def test_a_pixel_format_that_cannot_be(tmp_path, video, pack, output, arguments, words):
    assert_one_line(fauve("run", video, "-o", tmp_path / output, "-s", pack, *arguments), *words)
    assert not list(tmp_path.glob("out*"))


def test_a_pipe_in_and_a_pipe_out(tmp_path, pack):
    video = make_video(tmp_path / "in.mkv", frames=40)
    command = [*FAUVE, "run", "-", "-o", "-", "--style", str(pack)]
    result = subprocess.run(command, input=video.read_bytes(), capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert b"-: 40 frames painted" in result.stderr
    (tmp_path / "out.mkv").write_bytes(result.stdout)
    before, after = read_video(video), read_video(tmp_path / "out.mkv")
    assert after.times == before.times
    assert [packet[3] for packet in after.packets] == [packet[3] for packet in before.packets]


def test_a_pipe_that_breaks(tmp_path, pack):
    video = make_video(tmp_path / "in.mkv", frames=400, size=(320, 240))
    command = [*FAUVE, "run", str(video), "-o", "-", "--style", str(pack), "--crf", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1000)
        process.stdout.close()
        error = process.stderr.read().decode()
        assert process.wait(60) == 2
    assert error == "fauve: -: cannot be written: Broken pipe\n"


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_it_paints_where_nobody_can_be_told(tmp_path, video, pack, closed):
    def without_streams(*arguments):
        command = ["sh", "-c", f'"$@" {closed}', "sh", *FAUVE, *map(str, arguments)]
        return subprocess.run(command, timeout=120).returncode

    assert without_streams("run", video, "-o", tmp_path / "out.mp4", "-s", pack) == 0
    assert len(read_video(tmp_path / "out.mp4").times) == 40
    assert without_streams("live", "test:", "-o", tmp_path / "show.mkv", "--duration", 2, "-s", pack) == 0


def test_a_closed_standard_output_takes_no_film(video, pack):
    command = ["sh", "-c", '"$@" >&-', "sh", *FAUVE, "run", str(video), "-o", "-", "-s", str(pack)]
    assert_one_line(subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120), "-: cannot be")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_what_is_said_to_a_full_disk_is_no_success():
    with open("/dev/full", "w") as full:
        command = [*FAUVE, "styles"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert_one_line(result, "its output cannot be written: No space left on device")


def test_nothing_in_the_pipe(pack):
    command = [*FAUVE, "run", "-", "-o", "-", "--style", str(pack)]
    result = subprocess.run(command, input="", capture_output=True, text=True, timeout=60)
    assert_one_line(result, "standard input: not a video")
    assert result.stdout == ""


def test_another_size_and_rate(tmp_path, video, pack):
    out = tmp_path / "out.mp4"
    result = fauve("run", video, "-o", out, "--style", pack, "--size", "192x64", "--fps", "50")
    assert result.returncode == 0, result.stderr
    after = read_video(out)
    assert [image.shape for image in after.images] == [(64, 192, 3)] * 80
    assert after.times == [Fraction(index, 50) for index in range(80)]
    assert after.video.sample_aspect_ratio == Fraction(1, 2)
    assert_one_line(
        fauve("run", video, "-o", out, "--style", pack, "--size", "big", "-f"), "'big' is no size"
    )
    assert_one_line(fauve("run", video, "-o", out, "--style", pack, "--fps", "1/0", "-f"), "'1/0' is no rate")
