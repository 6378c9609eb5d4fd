"""TensorRT's engine over `tests/nvidia.py`, against the real bindings, and, with a GPU, on it."""

import ast
import importlib
import inspect
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from click.testing import CliRunner

import engines
from engines import EngineBuildError, EngineUnavailable, InferenceError, Look, Style
from engines.plan_cache import PlanCache, SizeRange
from pipeline.commands.doctor import doctor
from pipeline.commands.engine import engine as engine_command
from pipeline.commands.engine import shown
from tests import nvidia
from tests.conftest import gpu
from tests.packs import animegan, tiny_pack
from tests.parts import BINDINGS, needs_bindings


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """The engine's module and the machine that it runs on, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return nvidia.install(monkeypatch)


@pytest.fixture
def trt(installed):
    return installed[0]


@pytest.fixture
def machine(installed):
    yield installed[1]
    assert not getattr(installed[1].contexts, "stack", []), "a context is left in the test's thread"


@pytest.fixture
def style(tmp_path):
    return tiny_pack(tmp_path / "tiny")


@pytest.fixture
def reference(style):
    with engines.load("onnxruntime", style=style, precision="float32") as reference:
        yield reference


def picture(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def ignore(done, left):
    pass


@pytest.mark.parametrize("precision", ["float32", "auto"])
@pytest.mark.parametrize("name", engines.bundled())
def test_the_golden_picture(trt, machine, name, precision):
    style = Style.load(name)
    golden = style.golden()
    with trt.TensorRtEngine(style, precision=precision) as engine:
        # Plainly, and then as a CUDA graph.
        for _ in range(2):
            painted = engine(golden.image, golden.look)
            agrees, difference = engines.agreement(painted, golden.stylized, engine.precision)
            assert agrees, difference
    assert engine.precision == ("float16" if precision == "auto" else "float32")
    assert engine.device == "NVIDIA Test GPU"


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (353, 289), (640, 360), (360, 640)])
def test_any_size_and_look_comes_back_exactly(trt, machine, style, reference, size):
    image = picture(*size)
    with trt.TensorRtEngine(style) as engine:
        for look in (Look(), Look({"cold": 1}, 0.5), Look({"warm": 7, "cold": 3}), Look(strength=0)):
            painted = engine(image, look)
            agrees, difference = engines.agreement(painted, reference(image, look), "float32")
            assert agrees, difference
            assert painted.shape == image.shape
    assert np.array_equal(painted, image)
    assert len(machine.built) == 1


def test_a_result_outlives_the_next_calls_and_the_engine(trt, machine, style):
    with trt.TensorRtEngine(style) as engine:
        results = [engine(picture(64, 64, seed), Look()) for seed in range(4)]
        kept = [result.copy() for result in results]
        for seed in range(4, 8):
            engine(picture(64, 64, seed), Look())
    for result, copy in zip(results, kept, strict=True):
        assert np.array_equal(result, copy)
    assert len({result.tobytes() for result in results}) == 4


def test_a_batch_is_its_pictures(trt, machine, style, reference):
    batch = np.stack([picture(50, 70, seed) for seed in range(3)])
    with trt.TensorRtEngine(style) as engine:
        painted = engine.infer(batch, Look())
    for image, result in zip(batch, painted, strict=True):
        assert engines.agreement(result, reference(image, Look()), "float32")[0]


def test_buffers_are_made_once_for_a_size_and_all_are_given_back(trt, machine, style):
    with trt.TensorRtEngine(style) as engine:
        engine(picture(64, 64), Look())
        # The picture in and out, the mix and the strength, on both sides, and what TensorRT works with.
        assert len(machine.live) == 9
        addresses = set(machine.live)
        engine(picture(64, 64, 1), Look())
        assert set(machine.live) == addresses
        for width in range(64, 64 + 8 * 10, 8):
            engine(picture(width, 64), Look())
        assert len(machine.live) == 9 * trt.SIZES_KEPT
    assert machine.live == {}


def test_a_size_is_captured_as_a_graph_after_a_plain_run(trt, machine, style):
    with trt.TensorRtEngine(style) as engine:
        for _ in range(5):
            engine(picture(64, 64), Look())
        assert (machine.executed, machine.launched) == (2, 4)
        engine(picture(72, 64), Look())
        assert (machine.executed, machine.launched) == (4, 4)


def test_without_graphs_it_says_so_and_paints_all_the_same(trt, machine, style, reference, caplog):
    machine.refuse["capture"] = True
    image = picture(64, 64)
    with trt.TensorRtEngine(style) as engine:
        for _ in range(3):
            painted = engine(image, Look())
    assert engines.agreement(painted, reference(image, Look()), "float32")[0]
    assert (machine.executed, machine.launched) == (3, 0)
    message = "without a CUDA graph, a little slower: tensorrt: CUDA's driver says CUDA_ERROR_STREAM_CAPTURE_"
    assert message in caplog.text


def test_two_pictures_are_in_flight_from_any_threads(trt, machine, style, reference):
    images = [picture(64 + 8 * (index % 3), 64, index) for index in range(24)]
    expected = [reference(image, Look()) for image in images]
    with trt.TensorRtEngine(style, hint="throughput") as engine:
        assert engine.streams == 2
        # Threads that come and go, as those of a folder's videos do.
        for _ in range(3):
            with ThreadPoolExecutor(2) as pool:
                painted = list(pool.map(lambda image: engine(image, Look()), images))
            for one, other in zip(painted, expected, strict=True):
                assert engines.agreement(one, other, "float32")[0]
        assert len(machine.live) <= 9 * 2 * 3
        assert len(machine.built) == 1
    assert machine.live == {}
    with trt.TensorRtEngine(style) as engine:
        assert engine.streams == 1


def test_it_leaves_the_context_that_a_thread_had_before(trt, machine, style):
    """Torch in the same process has the primary context, or another one, on the thread."""
    seen = []

    def work():
        others = object()
        machine.contexts.stack = [others]
        with trt.TensorRtEngine(style) as engine:
            engine(picture(64, 64), Look())
            machine.refuse["execute"] = "no"
            with pytest.raises(InferenceError):
                engine(picture(72, 64), Look())
        seen.append(machine.contexts.stack == [others])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
    assert machine.live == {}


def test_a_plan_is_built_once_and_found_again(trt, machine, style, caplog):
    with trt.TensorRtEngine(style) as engine:
        engine(picture(640, 360), Look())
    assert "building a plan of tiny around 640x360 in float32" in caplog.text
    ((model, bounds, timings),) = machine.built
    assert bounds == [(1, 64, 64, 3), (1, 360, 640, 3), (1, 1280, 1280, 3)]
    assert timings == b""
    assert model == trt.without_bytes(style.model())
    caplog.clear()
    with trt.TensorRtEngine(style, build=False) as engine:
        for size in ((640, 360), (1280, 720), (720, 1280), (64, 64)):
            engine(picture(*size), Look())
    assert len(machine.built) == 1
    assert caplog.text == ""


def test_a_plan_that_a_trial_asks_for_is_best_at_the_size_of_the_strokes(trt, machine):
    style = Style.load("live")
    golden = style.golden()
    with trt.TensorRtEngine(style) as engine:
        engine(golden.image, golden.look)
        engine(picture(856, 480), Look())
    assert [bounds[1] for _, bounds, _ in machine.built] == [(1, 496, 880, 3)]
    assert machine.built[0][1][0] == (1, 64, 64, 3)


def test_a_size_outside_the_plan_has_another_built_and_says_so(trt, machine, style, caplog):
    with trt.TensorRtEngine(style) as engine:
        engine(picture(64, 64), Look())
        caplog.clear()
        engine(picture(1288, 64), Look())
        assert "1288x64 is outside the plan in use, 64x64 to 1280x1280" in caplog.text
        assert [bounds[2] for _, bounds, _ in machine.built] == [(1, 1280, 1280, 3), (1, 1288, 1288, 3)]
        assert machine.built[1][2] == b"measured ", "the second build knows what the first has measured"
        caplog.clear()
        engine(picture(64, 64), Look())
        engine(picture(72, 72), Look())
        assert caplog.text == ""
    assert len(PlanCache().plans()) == 2


def test_timings_of_another_version_are_not_used(trt, machine, style):
    cache = PlanCache()
    cache.write_timings(trt.target(style, "float32"), b"of another version")
    trt.build(style, (64, 64), tell=ignore)
    assert machine.built[0][2] == b""
    assert cache.timings(trt.target(style, "float32")) == b"measured "


def test_a_plan_that_is_damaged_or_gone_is_built_anew(trt, machine, style, caplog):
    plan = trt.build(style, (640, 360), tell=ignore)
    file = PlanCache().folder / f"{plan.digest}.plan"
    for damage in (lambda: file.write_bytes(b"garbage"), file.unlink):
        damage()
        caplog.clear()
        with trt.TensorRtEngine(style) as engine:
            engine(picture(640, 360), Look())
        assert "a kept plan cannot be used" in caplog.text
        assert file.exists()
    assert len(machine.built) == 3


def test_a_plan_that_fails_on_a_full_gpu_is_kept(trt, machine, style):
    plan = trt.build(style, (640, 360), tell=ignore)
    machine.refuse["deserialize"] = "Error Code 2: OutOfMemory (Requested size was 7340032 bytes.)"
    machine.free = 100 << 20
    for build in (True, False):
        with (
            trt.TensorRtEngine(style, build=build) as engine,
            pytest.raises(InferenceError, match=r"memory is full, painting 640x360 \(0\.1 of 16\.0 GiB free"),
        ):
            engine(picture(640, 360), Look())
    # Nor does it go where a build in its place fails.
    machine.free = 900 << 20
    with (
        trt.TensorRtEngine(style) as engine,
        pytest.raises(EngineBuildError, match=r"building for pictures up to 1280x1280 needs about 1\.2 GiB"),
    ):
        engine(picture(640, 360), Look())
    machine.refuse.clear()
    with trt.TensorRtEngine(style) as engine:
        engine(picture(640, 360), Look())
    assert PlanCache().plans() == [plan]
    assert len(machine.built) == 1


def test_a_plan_is_of_the_graph_that_is_built(trt, machine, style, monkeypatch):
    trt.build(style, (640, 360), tell=ignore)
    rewritten = trt.without_bytes
    monkeypatch.setattr(trt, "without_bytes", lambda model: rewritten(rewritten(model)))
    with pytest.raises(EngineUnavailable, match="no plan of tiny in float32"):
        trt.TensorRtEngine(style, build=False)


@pytest.mark.parametrize("carried", [False, True])
def test_a_plan_is_best_at_what_the_graph_is_given(trt, machine, tmp_path, carried):
    style = tiny_pack(tmp_path / "this", native_height=64, carried=carried)
    with trt.TensorRtEngine(style) as engine:
        for _ in range(2):
            engine(picture(640, 360), Look(moved=(0.0, 0.0)))
    ((_, bounds, _),) = machine.built
    place = style.place((640, 360), Look(moved=(0.0, 0.0)))
    width, height = 640 + place.left + place.right, 360 + place.top + place.bottom
    assert bounds[1] == (1, height, width, 3)
    assert trt.build(style, (640, 360), tell=ignore) == PlanCache().plans()[0], "as by `fauve engine build`"
    assert len(machine.built) == 1


def test_a_size_has_the_best_of_the_kept_plans_and_a_damaged_one_does_not_count(trt, machine, style, caplog):
    small, large = (trt.build(style, size, tell=ignore) for size in ((320, 240), (1280, 720)))
    with trt.TensorRtEngine(style) as engine:
        for size, plan in (((320, 240), small), ((1280, 720), large), ((640, 360), small)):
            engine(picture(*size), Look())
            assert engine._plan == plan
            assert engine._compiled._bounds[1] == [1, *plan.sizes.best[::-1], 3]
        (PlanCache().folder / f"{large.digest}.plan").write_bytes(b"garbage")
        engine(picture(1272, 720), Look())
        assert engine._plan == small
        PlanCache().clean()
        engine(picture(1264, 720), Look())
    assert len(machine.built) == 2
    assert caplog.text == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda trt: setattr(trt.trt, "__version__", "11.5.0"),
        lambda trt: setattr(trt.gpu(), "name", "another GPU"),
        lambda trt: setattr(trt.gpu(), "compute_capability", "10.0"),
        lambda trt: setattr(trt, "OPTIONS", "level 5"),
    ],
)
def test_another_version_gpu_or_option_needs_another_plan(trt, machine, style, change):
    first = trt.build(style, (640, 360), tell=ignore)
    assert trt.build(style, (640, 360), tell=ignore) == first
    assert len(machine.built) == 1
    change(trt)
    with pytest.raises(EngineUnavailable, match="no plan of tiny in float32"):
        trt.TensorRtEngine(style, build=False)
    trt.build(style, (640, 360), tell=ignore)
    assert len(machine.built) == 2


def test_each_precision_has_its_own_plan(trt, machine, style):
    live, precisions = Style.load("live"), ["float32", "float16", "int8"]
    plans = [trt.build(live, (640, 360), asked, tell=ignore) for asked in ("float32", "auto", "int8")]
    assert [plan.target.precision for plan in plans] == precisions
    assert [model for model, _, _ in machine.built] == [
        trt.without_bytes(live.model(precision)) for precision in precisions
    ]
    with pytest.raises(EngineUnavailable, match=r"has no int8 model; there is float32$"):
        trt.TensorRtEngine(style, precision="int8")
    with pytest.raises(EngineUnavailable, match="has no bfloat16 model"):
        trt.build(live, (640, 360), "bfloat16", tell=ignore)


def test_progress_rises_to_the_end_and_knows_what_is_left(trt, machine, style, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(trt.time, "monotonic", lambda: next(clock))
    told = []
    trt.build(style, (64, 64), tell=lambda done, left: told.append((done, left)))
    # Two steps of a phase, within each of which another has four.
    assert [done for done, _ in told] == [1 / 8, 2 / 8, 3 / 8, 4 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1, 1]
    for number, (done, left) in enumerate(told, 1):
        assert left == pytest.approx(number / done - number)
    assert told[-1][1] == 0


def test_a_build_that_nobody_asked_for_says_how_far_it_is(trt, machine, style, monkeypatch, caplog):
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(trt.time, "monotonic", lambda: next(clock))
    with trt.TensorRtEngine(style) as engine:
        engine(picture(64, 64), Look())
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * len(caplog.records)
    said = [record.getMessage() for record in caplog.records if "of the plan built" in record.getMessage()]
    assert len(said) >= 3
    assert said[-1].startswith("tensorrt: 100 % of the plan built, 0 s left")


def test_ctrl_c_ends_a_build_and_leaves_nothing(trt, machine, style):
    steps = []

    def tell(done, left):
        steps.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trt.build(style, (64, 64), tell=tell)
    assert steps == [1 / 8], "TensorRT goes on to build"
    assert PlanCache().plans() == []
    assert machine.built == []
    trt.build(style, (64, 64), tell=ignore)


def test_ctrl_c_in_the_waiting_thread_ends_it_too(trt, machine, style, monkeypatch):
    begun = threading.Event()
    steps = []

    def interrupted(futures, timeout):
        begun.wait(5)
        raise KeyboardInterrupt

    def during_build():
        steps.append(1)
        begun.set()
        # As long as it takes until the build is told.
        while progress and progress[0].stopped is None:
            pass

    progress = []
    made = trt.Progress

    def remembered(tell):
        progress.append(made(tell))
        return progress[0]

    machine.during_build = during_build
    monkeypatch.setattr(trt, "Progress", remembered)
    monkeypatch.setattr(trt, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trt.build(style, (64, 64), tell=ignore)
    assert steps == [1]
    assert PlanCache().plans() == []


def test_a_build_behind_ends_with_what_it_was_for(trt, machine, style):
    stop = threading.Event()
    stop.set()
    machine.during_build = lambda: time.sleep(0.3)  # longer than it takes to look at what stops it
    engine = trt.TensorRtEngine(style, stop=stop)
    with pytest.raises(EngineBuildError, match="the build of tiny was given up"):
        engine(picture(64, 64), Look())
    engine.close()
    assert PlanCache().plans() == []


def test_a_load_that_nobody_waits_for_any_more_is_given_up(trt, machine, style):
    stop = threading.Event()
    stop.set()
    machine.during_build = lambda: time.sleep(0.3)
    with pytest.raises(EngineBuildError, match="the build of tiny was given up"):
        engines.load("tensorrt", style=style, behind=True, stop=stop)
    assert PlanCache().plans() == []


def test_a_build_that_does_not_fit_is_refused_before_it_begins(trt, machine, style):
    machine.free = 900 << 20
    with pytest.raises(EngineBuildError) as raised:
        trt.build(style, (64, 64), tell=ignore)
    assert str(raised.value) == (
        "tensorrt: building for pictures up to 1280x1280 needs about 1.2 GiB of the GPU's memory, and 0.9 "
        "are free: close what else uses the GPU"
    )
    with pytest.raises(EngineBuildError, match="or build for a smaller size: --size 1280x720"):
        trt.build(style, (3840, 2160), tell=ignore)
    machine.free = 2 << 30
    trt.build(style, (64, 64), tell=ignore)
    with pytest.raises(EngineBuildError, match=r"up to 3840x3840 needs about 3\.\d GiB"):
        trt.build(style, (3840, 2160), tell=ignore)
    assert len(machine.built) == 1


def test_a_full_gpu_is_one_line_and_passes(trt, machine, style):
    trt.build(style, (64, 64), tell=ignore)
    with trt.TensorRtEngine(style) as engine:
        machine.free = 100_000
        with pytest.raises(InferenceError) as raised:
            engine(picture(640, 360), Look())
        assert str(raised.value) == (
            "tensorrt: the GPU's memory is full, painting 640x360 (0.0 of 16.0 GiB free): close what else "
            "uses the GPU, or paint at a smaller size"
        )
        assert machine.live == {}, "what it had taken so far is given back"
        machine.free = 8 << 30
        engine(picture(640, 360), Look())


def test_what_cuda_says_is_in_the_error(trt, machine, style):
    with trt.TensorRtEngine(style) as engine:
        engine(picture(64, 64), Look())

        def fails(self):
            raise nvidia.LogicError("cuEventSynchronize failed: an illegal memory access\nand more")

        (execution,) = engine._idle[(64, 64)]
        execution._done.synchronize = lambda: fails(None)
        expected = "^tensorrt: painting 64x64: cuEventSynchronize failed: an illegal memory access$"
        with pytest.raises(InferenceError, match=expected):
            engine(picture(64, 64), Look())
        assert engine._idle[(64, 64)] == [], "an execution that failed is not used again"


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("parse", EngineBuildError, "tensorrt refuses tiny: Pad 'node_pad_3': no such mode"),
        ("build", EngineBuildError, "tensorrt cannot build tiny: no such mode"),
        ("builder", EngineUnavailable, "tensorrt does not start: no such mode"),
        ("execute", InferenceError, "tensorrt failed: no such mode"),
    ],
)
def test_what_tensorrt_says_is_in_the_error(trt, machine, style, what, kind, message):
    machine.refuse[what] = "no such mode"
    with trt.TensorRtEngine(style) as engine:
        with pytest.raises(kind) as raised:
            engine(picture(64, 64), Look())
        assert str(raised.value) == message
        machine.refuse.clear()
        engine(picture(64, 64), Look())
    assert machine.live == {}


def test_a_model_of_fixed_size_has_a_plan_for_it(trt, machine, tmp_path):
    path = tmp_path / "anime.onnx"
    path.write_bytes(animegan((64, 96)))
    style = engines.load_style(path)
    image = picture(96, 64)
    with trt.TensorRtEngine(style) as engine, engines.load("onnxruntime", style=style) as reference:
        assert engines.agreement(engine(image, Look()), reference(image, Look()), "float32")[0]
    (plan,) = PlanCache().plans()
    assert plan.sizes == SizeRange.only((96, 64))


def test_auto_takes_it_only_with_a_plan(trt, machine, style, caplog):
    with engines.load(style=style) as engine:
        assert engine.name == "openvino"
    assert caplog.messages[0] == (
        "engine tensorrt does not run: tensorrt: no plan of tiny in float32 has been built for this GPU yet; "
        "`fauve engine build` does that"
    )
    trt.build(style, (640, 360), tell=ignore)
    with engines.load(style=style, hint="throughput") as engine:
        assert (engine.name, engine.streams) == ("tensorrt", 2)


def test_by_name_it_is_built_where_nothing_forbids_it(trt, machine, style):
    with engines.load("tensorrt", style=style) as engine:
        engine(picture(64, 64), Look())
    assert len(machine.built) == 1
    with pytest.raises(EngineUnavailable, match="no engine 'tensorrt:1'"):
        engines.load("tensorrt:1", style=style)


def test_the_doctor_builds_nothing(trt, machine):
    style = Style.load("live")
    probe = engines.probe("tensorrt", style)
    assert (probe.runs, machine.built) == (False, [])
    assert "no plan of live in float16" in probe.reason
    trt.build(style, (1280, 720), tell=ignore)
    probe = engines.probe("tensorrt", style)
    assert (probe.runs, probe.device, probe.precision) == (True, "NVIDIA Test GPU", "float16")
    told = json.loads(CliRunner().invoke(doctor, ["--json"]).output)
    assert {entry["name"]: entry["runs"] for entry in told["engines"]}["tensorrt"]
    assert "auto takes tensorrt" in CliRunner().invoke(doctor).output


@pytest.mark.parametrize("missing", ["tensorrt", "pycuda", "cuda.bindings"])
def test_what_is_not_installed_is_named_with_what_installs_it(monkeypatch, trt, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "engines.tensorrt")
    with pytest.raises(
        EngineUnavailable, match=rf"\({missing}|import of {missing}.*pip install \"fauve\[tens"
    ):
        engines.load("tensorrt", style="live")


def test_without_a_gpu_it_is_unavailable_and_auto_does_not_speak_of_it(monkeypatch, style, caplog):
    monkeypatch.setattr("engines.cuda.gpus", lambda: 0)
    monkeypatch.setattr(engines, "gpus", lambda: 0)
    with pytest.raises(
        EngineUnavailable, match=r"finds no GPU here; with one, pip install \"fauve\[tensorrt\]\""
    ):
        engines.load("tensorrt", style=style)
    with engines.load(style=style) as engine:
        assert engine.name == "openvino"
    assert caplog.text == ""


def test_plans_from_the_command_line(trt, machine, tmp_path):
    def fauve(*arguments):
        result = CliRunner().invoke(engine_command, arguments)
        assert result.exit_code == 0, result.output
        return result.output

    folder = tmp_path / "cache/fauve/plans"
    assert fauve("list") == f"plans: 0, in {folder}\n"
    built = fauve("build", "live", "--size", "1920x1080")
    assert built == "live: float16 plan for 64x64 to 1936x1936 on NVIDIA Test GPU; it took 0 s\n"
    assert fauve("build", "live", "--size", "1920x1080").endswith("on NVIDIA Test GPU; it is there already\n")
    lines = [
        json.loads(line) for line in fauve("build", "live", "--precision", "float32", "--json").splitlines()
    ]
    assert [line["event"] for line in lines] == ["progress"] * 10 + ["done"]
    assert (lines[0]["done"], lines[9]["done"], lines[9]["eta"]) == (0.125, 1.0, 0)
    assert lines[10]["sizes"]["best"] == [1296, 736]
    listed = fauve("list").splitlines()
    assert listed[0].split()[:5] == ["live", "float16", "best", "at", "1936x1104,"]
    assert listed[1].split()[:5] == ["live", "float32", "best", "at", "1296x736,"]
    assert listed[1].endswith("NVIDIA Test GPU (9.0), TensorRT 11.4.0")
    told = json.loads(fauve("list", "--json"))
    assert told["folder"] == str(folder)
    assert [plan["target"]["precision"] for plan in told["plans"]] == ["float16", "float32"]
    assert told["plans"][1]["bytes"] > 1_000_000
    assert fauve("clean").endswith(f" MiB removed from {folder}\n")
    assert json.loads(fauve("list", "--json"))["plans"] == []


def test_people_see_a_bar(monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with shown("live") as tell:
        tell(0.5, 90.0)
    told = capfd.readouterr().err
    assert "50%" in told
    assert "90 s left" in told


SOURCE = Path(engines.__file__).with_name("tensorrt.py")


def named(module):
    """What `SOURCE` names of `module`: {"BuilderFlag": {"TF32"}, "Builder": set()}."""
    names = {}
    for node in ast.walk(ast.parse(SOURCE.read_text("utf-8"))):
        chain = []
        while isinstance(node, ast.Attribute):
            chain.insert(0, node.attr)
            node = node.value
        if chain and isinstance(node, ast.Name) and node.id == module:
            members = names.setdefault(chain[0], set())
            if chain[1:]:
                members.add(".".join(chain[1:]))
    return names


def public(thing):
    return {name for name in vars(thing) if not name.startswith("_")} if isinstance(thing, type) else set()


def ask(bindings, *arguments, names=None):
    """What `tests/bindings.py` says over these bindings."""
    libraries = [BINDINGS / "stubs", BINDINGS / "lean/tensorrt_lean_libs"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [BINDINGS / bindings, Path(__file__).parents[1]])),
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
    }
    answer = subprocess.run(
        [sys.executable, "-m", "tests.bindings", *arguments],
        input=json.dumps({name: sorted(members) for name, members in (names or {}).items()}),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


def takes(real, ours):
    """Whether one of the real overloads is called with such parameters."""
    return any(names[: len(ours)] == ours and required <= len(ours) for names, required in real)


@needs_bindings()
@pytest.mark.parametrize("bindings", ["tensorrt-10", "tensorrt-11"])
def test_the_real_tensorrt_has_all_that_is_named(bindings):
    names = named("trt")
    names.pop("__version__")
    assert set(names) <= {thing.__name__ for thing in nvidia.TENSORRT}, "what the other tests run over"
    for thing in nvidia.TENSORRT:
        names.setdefault(thing.__name__, set()).update(public(thing))
    for made in ("Builder", "OnnxParser", "Runtime"):
        names[made].add("__init__")
    real = json.loads(ask(bindings, "tensorrt_bindings", names=names))
    assert [name for name, members in real.items() if members is None] == []
    missing = [f"{name}.{member}" for name in real for member in names[name] if real[name][member] is None]
    assert missing == []
    different = []
    for thing in nvidia.TENSORRT:
        for member in names[thing.__name__]:
            ours = getattr(thing, member, None)
            overloads = real[thing.__name__][member]
            if inspect.isfunction(ours) and not takes(overloads, parameters(ours)):
                different.append(f"{thing.__name__}.{member}{tuple(parameters(ours))}: {overloads}")
    assert different == []
    assert len(names["IBuilderConfig"]) > 7


@needs_bindings()
@pytest.mark.parametrize("bindings", ["tensorrt-10", "tensorrt-11"])
def test_tensorrt_calls_what_the_engine_overrides(trt, bindings):
    overridden = {"ILogger": ["log"], "IProgressMonitor": ["phase_start", "step_complete", "phase_finish"]}
    real = json.loads(ask(bindings, "tensorrt_bindings", names=overridden))
    for base, ours in (("ILogger", trt.Messages), ("IProgressMonitor", trt.Progress)):
        for method in overridden[base]:
            assert real[base][method] == [[parameters(getattr(ours, method)), mock.ANY]]


@needs_bindings()
def test_a_builder_that_is_no_builder_and_a_log_that_tells_why():
    for bindings in ("tensorrt-10", "tensorrt-11"):
        told = ask(bindings, "--refused", "tensorrt_bindings")
        assert told == "tensorrt does not start: it gives no reason\n"
    if gpu():
        pytest.skip("the lean runtime has nothing to complain of where a GPU is")
    assert "CUDA initialization failure with error" in ask("lean", "--refused", "tensorrt_lean_bindings")


@needs_bindings()
def test_the_real_driver_has_all_that_is_named():
    names = named("driver")
    assert set(names) == {thing.__name__ for thing in nvidia.DRIVER}
    for thing in nvidia.DRIVER:
        names[thing.__name__] |= public(thing)
    real = json.loads(ask("cuda", "cuda.bindings.driver", names=names))
    assert [name for name, members in real.items() if members is None or None in members.values()] == []
    for function in filter(inspect.isfunction, nvidia.DRIVER):
        assert takes(real[function.__name__][""], parameters(function)), function.__name__


@needs_bindings()
def test_pycuda_binds_all_that_is_named():
    (source,) = BINDINGS.glob("pycuda-*/src/wrapper/wrap_cudadrv.cpp")
    text = source.read_text("utf-8")
    helpers = r'(?:DEF_SIMPLE_METHOD|DEF_SIMPLE_FUNCTION|DECLARE_EXC)\({}\b|(?:def|add_property|value)\("{}"'
    classes = re.split(r'py::(?:class_|enum_)<[^;]*?>\s*(?:wrp)?\s*\(\s*"(\w+)"', text)
    bound = {"": text, **dict(zip(classes[1::2], classes[2::2], strict=True))}
    names = named("cuda")
    names["DeviceAllocation"] = {"free"}
    for thing in nvidia.PYCUDA:
        names.setdefault(thing.__name__, set()).update(public(thing))
    names.pop("Error")
    assert {"Context", "Device", "Event", "Stream", "MemoryError", "event_flags", "mem_alloc"} <= set(names)
    for name, members in names.items():
        if name not in bound:
            assert re.search(helpers.format(name, name), text), name
        for member in members:
            assert re.search(helpers.format(member, member), bound[name]), f"{name}.{member}"


@pytest.fixture(scope="module")
def on_the_gpu():
    """The engine's real module."""
    try:
        return importlib.import_module("engines.tensorrt")
    except EngineUnavailable as error:
        # It is not in what the tests install; but what is there and cannot be loaded is wrong.
        if not isinstance(error.__cause__, ModuleNotFoundError):
            raise
        pytest.skip(str(error))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("name", engines.bundled())
def test_on_the_gpu_it_paints_the_golden_picture(on_the_gpu, tmp_path, name, precision):
    style = Style.load(name)
    golden = style.golden()
    cache = PlanCache(tmp_path)
    with on_the_gpu.TensorRtEngine(style, precision=precision, cache=cache, hint="throughput") as engine:
        for _ in range(3):
            painted = engine(golden.image, golden.look)
            agrees, difference = engines.agreement(painted, golden.stylized, precision)
            assert agrees, difference
        assert np.array_equal(engine(golden.image, Look(strength=0)), golden.image)
        images = [picture(640, 360, seed) for seed in range(8)]
        alone = [engine(image, golden.look) for image in images]
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(lambda image: engine(image, golden.look), images))
        for one, other in zip(alone, together, strict=True):
            assert np.array_equal(one, other)
        executions = [execution for idle in engine._idle.values() for execution in idle]
        assert all(execution._graph is not None for execution in executions), "no CUDA graph was captured"
    (plan,) = cache.plans()
    assert on_the_gpu.build(style, plan.sizes, precision, tell=ignore, cache=cache) == plan
