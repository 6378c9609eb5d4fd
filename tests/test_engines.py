"""Every engine that is present paints the same picture, whatever its size."""

import builtins
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace

import av
import numpy as np
import pytest

import engines
from engines import EngineBuildError, EngineUnavailable, InferenceError, Look, Style
from engines.openvino import OpenVinoEngine
from tests.packs import animegan, fast_neural_style, golden, tiny_model, tiny_pack


def present(name: str) -> bool:
    with TemporaryDirectory() as folder:
        try:
            engines.load(name, style=tiny_pack(Path(folder) / "tiny")).close()
        except EngineUnavailable:
            return False
    return True


PRESENT = [name for name in engines.NAMES if present(name)]


@pytest.fixture(scope="module")
def style(tmp_path_factory):
    return tiny_pack(tmp_path_factory.mktemp("packs") / "tiny")


@pytest.mark.parametrize("name", engines.NAMES)
def test_it_is_here_and_conforms_below_or_says_why_not(style, name):
    try:
        engines.load(name, style=style).close()
    except EngineUnavailable as error:
        if name in (*engines.PREFERENCE, "torch:cpu"):
            raise
        pytest.skip(str(error))
    assert name in PRESENT


@pytest.fixture(scope="module", params=PRESENT)
def engine(request, style):
    """Each engine of this machine, in float32."""
    with engines.load(request.param, style=style, precision="float32") as engine:
        yield engine


@pytest.fixture(scope="module")
def reference(style):
    with engines.load("onnxruntime", style=style) as engine:
        yield engine


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 9), (7, 5), (353, 289), (640, 360)])
def test_any_size_comes_back_exactly(engine, reference, size):
    image = picture(*size)
    painted = engine(image, Look())
    assert painted.shape == image.shape
    assert painted.dtype == np.uint8
    agrees, difference = engines.agreement(painted, reference(image, Look()), "float32")
    assert agrees, difference
    assert not np.array_equal(painted, image)


def test_strength_0_gives_back_every_byte(engine):
    image = picture(123, 77)
    assert np.array_equal(engine(image, Look(strength=0)), image)


def test_looks_take_effect_from_call_to_call(engine, reference):
    image = picture(64, 48)
    looks = [
        Look({"warm": 1}),
        Look({"cold": 1}),
        Look({"warm": 7, "cold": 3}),
        Look({"cold": 1}, 0.5),
        Look(),
    ]
    painted = [engine(image, look) for look in looks]
    for picture_, look in zip(painted, looks, strict=True):
        agrees, difference = engines.agreement(picture_, reference(image, look), "float32")
        assert agrees, f"{look}: {difference}"
    assert not np.array_equal(painted[0], painted[1])
    assert np.array_equal(painted[0], painted[4])


def test_a_result_outlives_the_next_call(engine):
    first = engine(picture(64, 48, 1), Look())
    kept = first.copy()
    engine(picture(64, 48, 2), Look())
    assert np.array_equal(first, kept)


def test_a_batch_is_its_pictures(engine):
    batch = np.stack([picture(50, 30, seed) for seed in range(3)])
    painted = engine.infer(batch, Look())
    assert painted.shape == batch.shape
    for image, result in zip(batch, painted, strict=True):
        assert np.array_equal(result, engine(image, Look()))


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    """A style with a canvas, and a scene that is larger than a picture of it."""
    return tiny_pack(tmp_path_factory.mktemp("packs") / "carried", carried=True), picture(200, 160, 5)


@pytest.mark.parametrize("moved", [(0.0, 0.0), (5.3, -11.4), (-8.0, 16.0), (37.0, 2.0), (-1000.0, 3333.0)])
@pytest.mark.parametrize("name", PRESENT)
def test_a_scene_that_has_moved_is_painted_as_before_only_elsewhere(carried, name, moved):
    style, scene = carried
    right, down = (round(pixels) for pixels in moved)
    # As if the scene went on for ever: what is seen of it, before and after.
    wide = np.pad(scene, ((4000, 4000), (4000, 4000), (0, 0)), "wrap") if abs(right) > 99 else None
    if wide is None:
        before, after = scene[40:104, 50:140], scene[40 - down : 104 - down, 50 - right : 140 - right]
    else:
        before = after = scene[40:104, 50:140]
    with engines.load(name, style=style, precision="float32") as engine:
        first, second = engine(before, Look(moved=(0, 0))), engine(after, Look(moved=moved))
        fixed = engine(after, Look())
    assert second.shape == after.shape
    if wide is not None:
        # The same picture, on another place of the canvas.
        assert not np.array_equal(second, first)
        return
    # Without what lies at an edge in one of the two.
    ys, xs = slice(max(0, down) + 8, 64 + min(0, down) - 8), slice(max(0, right) + 8, 90 + min(0, right) - 8)
    there = first[ys.start - down : ys.stop - down, xs.start - right : xs.stop - right]
    apart = np.abs(second[ys, xs].astype(int) - there)
    assert apart.max() <= 1
    if (right, down) != (0, 0):
        assert np.abs(fixed[ys, xs].astype(int) - there).mean() > 5, "a canvas that stays is another painting"


@pytest.mark.parametrize("size", [(64, 48), (65, 41), (1, 1)])
def test_a_scene_that_moves_needs_one_size_of_the_graph(carried, size):
    style, _ = carried
    sizes = set()
    for moved in [(0.0, 0.0), (1.0, 7.0), (-3.0, 8.0), (9.0, -1.0), (0.49, 4000.0)]:
        place = style.place(size, Look(moved=moved))
        assert place.top < 8
        assert place.left < 8
        assert min(place.margins) >= 0
        sizes.add((size[0] + place.left + place.right, size[1] + place.top + place.bottom))
    assert len(sizes) == 1
    assert all(side % 8 == 0 for side in sizes.pop())
    still = style.place(size, Look())
    assert still.margins == (0, -size[1] % 8, 0, -size[0] % 8)
    assert still.inputs["origin"].tolist() == [0, 0]


def test_a_style_without_a_canvas_stays_where_it_is(style, engine):
    image = picture(50, 40)
    assert np.array_equal(engine(image, Look(moved=(13.0, 5.0))), engine(image, Look()))
    assert "origin" not in style.place((50, 40), Look(moved=(13.0, 5.0))).inputs


def test_a_view_of_a_larger_picture(engine):
    image = picture(128, 96)
    assert np.array_equal(engine(image[::2, ::2], Look()), engine(image[::2, ::2].copy(), Look()))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(engine, image):
    with pytest.raises(ValueError, match="an image is uint8"):
        engine(image, Look())


def test_an_unknown_style_is_refused(engine):
    with pytest.raises(ValueError, match="no style 'hot'"):
        engine(picture(8, 8), Look({"hot": 1}))


@pytest.mark.parametrize("name", engines.bundled())
@pytest.mark.parametrize("engine_name", PRESENT)
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_the_golden_picture(engine_name, name, precision):
    style = Style.load(name)
    pair = style.golden()
    with engines.load(engine_name, style=style, precision=precision) as engine:
        agrees, difference = engines.agreement(engine(pair.image, pair.look), pair.stylized, engine.precision)
    assert agrees, f"{engine.precision}: {difference}"


@pytest.mark.parametrize("name", [name for name in engines.bundled() if "int8" in Style.load(name).models])
@pytest.mark.parametrize("engine_name", ["openvino", "onnxruntime"])
def test_int8_paints_what_the_reference_does_in_every_style(engine_name, name):
    style = Style.load(name)
    image = style.golden().image
    with (
        engines.load(engine_name, style=style, precision="int8") as quantised,
        engines.load("onnxruntime", style=style, precision="float32") as whole,
    ):
        assert quantised.precision == "int8"
        for look in (*(Look({one: 1}) for one in style.styles), Look(dict.fromkeys(style.styles, 1.0), 0.7)):
            painted, expected = quantised(image, look), whole(image, look)
            agrees, difference = engines.agreement(painted, expected, "int8")
            assert agrees, f"{look}: {difference}"
            assert not np.array_equal(painted, expected)
        assert np.array_equal(quantised(image, Look(strength=0)), image)


@pytest.mark.parametrize(("worth", "pays"), [(1e9, True), (0, False)])
def test_openvino_takes_int8_where_that_is_measured_to_be_faster_and_remembers(
    monkeypatch, tmp_path, worth, pays
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(engines.openvino, "WORTH", worth)
    monkeypatch.setattr(engines.openvino, "DISTURBED", 1e9)
    style = Style.load("live")
    compiled = []
    original = OpenVinoEngine._compile
    monkeypatch.setattr(
        OpenVinoEngine,
        "_compile",
        lambda engine, model, shape: (compiled.append((model, shape)), original(engine, model, shape))[1],
    )
    models = []
    for _ in range(2):
        with OpenVinoEngine(style) as engine:
            assert (engine.precision == "int8") == pays
        models.append([model for model, _ in compiled])
        compiled.clear()
    taken = "int8" if pays else "float32"
    assert models == [["float32", "int8", taken], []]
    # What is asked for is what it is, and another pack is tried anew.
    with OpenVinoEngine(style, precision="float32") as engine:
        assert engine.precision == "float32"
    (file,) = (tmp_path / "cache" / "fauve" / "int8").iterdir()
    assert json.loads(file.read_text())["pays"] is pays
    file.write_text("{")
    compiled.clear()
    OpenVinoEngine(style).close()
    assert [model for model, _ in compiled] == ["float32", "int8"]


@pytest.mark.parametrize("hint", ["latency", "throughput"])
def test_openvino_compiles_for_the_first_picture_alone_once_it_knows_what_it_executes(
    style, monkeypatch, tmp_path, hint
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiled = []
    original = OpenVinoEngine._compile
    monkeypatch.setattr(
        OpenVinoEngine,
        "_compile",
        lambda engine, model, shape: (compiled.append(shape), original(engine, model, shape))[1],
    )
    image = np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8)
    painted, executed = [], []
    for _ in range(2):
        with OpenVinoEngine(style, hint=hint) as engine:
            executed.append((engine.precision, engine.streams))
            painted.append(engine(image, Look()))
            executed.append((engine.precision, engine.streams))
    assert len(compiled) == 3
    assert compiled[1] == compiled[2] == (1, 16, 24, 3)
    assert len(set(executed)) == 1
    assert np.array_equal(*painted)
    (file,) = (tmp_path / "cache" / "fauve" / "executed").iterdir()
    file.write_text('{"precision": "of another version", "streams": "one"}')
    OpenVinoEngine(style, hint=hint).close()
    assert len(compiled) == 4, "what cannot be read is found out again"


def test_openvino_tells_nobody_that_it_is_imported():
    """Its telemetry forked a process beside our threads, for which the program could wait at its end."""
    code = (
        "import multiprocessing, os, pwd, sys\n"
        # A user whom the system does not know has no home, which it would look for.
        "os.environ.pop('HOME', None)\n"
        "del pwd.getpwuid\n"
        "from engines import load\n"
        "multiprocessing.Process.start = lambda self: print('a process is started')\n"
        "load('openvino', style='live').close()\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry.')])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr


CLOSED_ELSEWHERE = """
import signal, threading
from engines import Style
from engines.openvino import OpenVinoEngine

signal.signal(signal.SIGTERM, lambda *_: print("heard"))
engines = [OpenVinoEngine(Style.load("live"))]
closing = threading.Thread(target=lambda: engines.pop().close())
closing.start()
closing.join()
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")
def test_a_signal_is_heard_after_another_thread_has_closed_the_engine():
    done = subprocess.run([sys.executable, "-c", CLOSED_ELSEWHERE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_ctrl_c_while_openvino_is_imported_is_not_lost(style, monkeypatch):
    imported = builtins.__import__

    def interrupted(name, *others, **named):
        if name == "openvino":
            raise ImportError("initialization failed") from KeyboardInterrupt()
        return imported(name, *others, **named)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engines.load("auto", style=style)


def test_what_openvino_refuses_is_said_as_engines_say_it(style, monkeypatch):
    class Refusing:
        """A compiled model on a device that is gone."""

        def refuse(self, *_):
            raise RuntimeError("Exception from src/inference.cpp:1:\nthe device is gone")

        create_infer_request = get_property = refuse

    said = f"^openvino refuses {style.name} at 64x48: the device is gone$"
    with OpenVinoEngine(style, precision="float32") as engine:
        engine(picture(32, 32), Look())
        with monkeypatch.context() as patched:
            patched.setattr(engine, "_model", lambda shape: Refusing())
            with pytest.raises(EngineBuildError, match=said):
                engine(picture(64, 48), Look())
        monkeypatch.setattr(engine, "_compile", lambda model, shape: Refusing())
        with pytest.raises(EngineBuildError, match=said):
            engine(picture(64, 48), Look())


@pytest.fixture
def with_int8(style, tmp_path, monkeypatch):
    """A small style with a model that calls itself int8, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return replace(style, models={**style.models, "int8": style.models["float32"]})


def test_int8_is_measured_for_each_way_in_which_openvino_may_paint(with_int8, tmp_path, monkeypatch):
    monkeypatch.setattr(engines.openvino, "DISTURBED", 1e9)
    cache = tmp_path / "cache" / "fauve" / "int8"
    for measured, options in enumerate([{}, {"threads": 1}, {"threads": 2}, {"hint": "throughput"}], start=1):
        for _ in range(2):
            OpenVinoEngine(with_int8, **options).close()
        assert len(list(cache.iterdir())) == measured
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    OpenVinoEngine(with_int8).close()
    assert len(list(cache.iterdir())) == 5


@pytest.mark.parametrize(("fourth", "remembered"), [(0.011, True), (0.03, False)])
def test_what_is_found_of_int8_while_the_machine_is_busy_is_not_remembered(
    with_int8, tmp_path, monkeypatch, fourth, remembered
):
    clock, compile_ = [0.0], OpenVinoEngine._compile
    took = {"float32": iter([0.02] * 6), "int8": iter([0.01, 0.01, 0.01, fourth, fourth, fourth])}

    def compiled(engine, model, shape):
        def infer(picture):
            clock[0] += next(took[model])

        real = compile_(engine, model, shape)
        trial = SimpleNamespace(create_infer_request=lambda: SimpleNamespace(infer=infer))
        return trial if shape[1:3] == (360, 640) else real

    monkeypatch.setattr(OpenVinoEngine, "_compile", compiled)
    monkeypatch.setattr(engines.openvino, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert OpenVinoEngine._int8_pays(OpenVinoEngine(with_int8, precision="float32"))
    assert (tmp_path / "cache" / "fauve" / "int8").exists() == remembered


@pytest.mark.parametrize("fails", ["compiled", "run"])
def test_openvino_does_without_an_int8_model_that_it_refuses(with_int8, tmp_path, monkeypatch, caplog, fails):
    compile_ = OpenVinoEngine._compile

    def infer(picture):
        raise RuntimeError("Exception from src/core\nno such kernel")

    def compiled(engine, model, shape):
        if model != "int8":
            return compile_(engine, model, shape)
        if fails == "compiled":
            raise EngineBuildError("openvino refuses tiny at 640x360: no such kernel")
        return SimpleNamespace(create_infer_request=lambda: SimpleNamespace(infer=infer))

    monkeypatch.setattr(OpenVinoEngine, "_compile", compiled)
    with OpenVinoEngine(with_int8) as engine:
        assert engine.precision != "int8"
        assert engine(picture(16, 16), Look()).shape == (16, 16, 3)
    (said,) = caplog.messages
    assert said.startswith("openvino does without the int8 model of tiny: ")
    assert said.endswith("no such kernel")
    assert not (tmp_path / "cache" / "fauve" / "int8").exists(), "it is tried again"


def test_onnx_runtime_sends_nothing_and_keeps_no_identifier(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    words = [sys.executable, "-c", "import engines, onnxruntime"]
    subprocess.run(words, env={**environment, "XDG_CACHE_HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system gives all cores to all")
def test_onnx_runtime_paints_on_the_cores_that_it_may_use(style, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 8})
    with engines.load("onnxruntime", style=style, hint="throughput") as engine:
        assert engine.streams == 3


def test_a_pack_without_int8_says_so(style):
    with pytest.raises(EngineUnavailable, match=r"^tiny has no int8 model; there is float32$"):
        engines.load("openvino", style=style, precision="int8")


@pytest.mark.parametrize("name", engines.bundled())
def test_half_precision_in_torch(name):
    style = Style.load(name)
    image = style.golden().image
    looks = [Look(), Look({style.styles[-1]: 1}, 0.7)]
    with (
        engines.load("torch:cpu", style=style, precision="float16") as half,
        engines.load("onnxruntime", style=style, precision="float32") as whole,
    ):
        assert half.precision == "float16"
        for look in looks:
            agrees, difference = engines.agreement(half(image, look), whole(image, look), "float16")
            assert agrees, difference


def test_torch_keeps_a_few_sizes_prepared_and_paints_at_any(style, reference):
    from engines.torch import SIZES

    with engines.load("torch:cpu", style=style) as engine:
        for side in [8 * each for each in range(1, SIZES + 3)] * 2:
            image = picture(side, 16, side)
            agrees, difference = engines.agreement(engine(image, Look()), reference(image, Look()), "float32")
            assert agrees, difference
        assert len(engine._painters) == SIZES


def test_torch_names_the_operator_that_it_does_not_know(style):
    import onnx

    model = onnx.load_model_from_string(style.model())
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Softsign"
    odd = Style("odd", "Odd", style.styles, {"float32": "m"}, 8, files={"m": model.SerializeToString()})
    with pytest.raises(EngineUnavailable, match="does not know the operator Softsign, which odd has: take"):
        engines.load("torch", style=odd)


def test_torch_that_is_not_installed_is_named_with_its_package(style, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineUnavailable, match=r'pip install "fauve\[torch\]"'):
        engines.load("torch:cpu", style=style)


@pytest.mark.parametrize(
    ("name", "package", "words", "others"),
    [
        ("openvino", "openvino", r"^OpenVINO is not installed \(.*\): pip install openvino$", "onnxruntime"),
        ("onnxruntime", "onnxruntime", r"pip install --force-reinstall onnxruntime$", "openvino"),
        (
            "torch:cpu",
            "torch",
            r'^PyTorch is not installed \(.*\): pip install "fauve\[torch\]"$',
            "openvino",
        ),
    ],
)
def test_a_runtime_of_which_a_folder_is_left_is_one_that_is_not_installed(
    style, monkeypatch, name, package, words, others
):
    """As pip leaves it of ONNX Runtime where one of two distributions of it is removed."""
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    for module in ("engines.onnx_to_torch", "engines.onnx_operators"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(EngineUnavailable, match=words):
        engines.load(name, style=style)
    with engines.load("auto", style=style) as engine:
        assert engine.name == others


def test_torch_takes_the_gpu_if_there_is_one(style):
    from engines.cuda import gpus

    with engines.load("torch", style=style) as engine:
        assert engine.name == ("torch:cuda" if gpus() else "torch:cpu")


def film(size):
    """A frame of the film in `docs`."""
    with av.open(str(Path(__file__).parents[1] / "docs" / "big_buck_bunny.mp4")) as container:
        frame = next(container.decode(video=0))
        return frame.reformat(*size, format="rgb24").to_ndarray()


@pytest.mark.gpu
@pytest.mark.parametrize("size", [None, (640, 360), (427, 240)])
@pytest.mark.parametrize("name", engines.bundled())
def test_each_style_on_the_gpu_is_the_reference_s(name, size):
    """On the golden picture, or on noise and a film of a size; once plainly, and again as recorded."""
    style = Style.load(name)
    images = [style.golden().image] if size is None else [picture(*size), film(size)]
    looks = [Look({each: 1.0}) for each in style.styles]
    looks += [Look({style.styles[0]: 1, style.styles[-1]: 2}, 0.6), Look({style.styles[0]: 1}, 0.3)]
    with engines.load("onnxruntime", style=style, precision="float32") as reference:
        expected = [[reference(image, look) for image in images] for look in looks]
    for precision in ("float32", "float16"):
        with engines.load("torch:cuda", style=style, precision=precision) as engine:
            assert (engine.name, engine.precision) == ("torch:cuda", precision)
            for look, right in zip(looks, expected, strict=True):
                for image, wanted in zip(images, right, strict=True):
                    agrees, difference = engines.agreement(engine(image, look), wanted, precision)
                    assert agrees, (precision, look, difference)


@pytest.mark.gpu
@pytest.mark.parametrize("name", engines.bundled())
def test_half_precision_on_the_gpu_from_several_threads(name):
    images = [picture(640, 360, seed) for seed in range(16)]
    looks = [Look(strength=strength) for strength in (1.0, 0.5)] * 8
    style = Style.load(name)
    with (
        engines.load("torch:cuda", style=style, precision="float16", hint="throughput") as half,
        engines.load("onnxruntime", style=style, precision="float32") as whole,
    ):
        assert half.streams > 1
        with ThreadPoolExecutor(half.streams) as pool:
            painted = list(pool.map(half, images, looks))
        for result, image, look in zip(painted, images, looks, strict=True):
            agrees, difference = engines.agreement(result, whole(image, look), "float16")
            assert agrees, difference


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_a_film_has_the_same_frames_whoever_paints_it(precision):
    """As two workers would, or the run that goes on."""
    images = [picture(640, 360, seed) for seed in range(4)]
    painted = []
    for _ in range(2):
        with engines.load("torch:cuda", style="live", precision=precision, hint="throughput") as engine:
            assert engine.kernels == ("fused" if precision == "float16" else "plain")
            painted.append([engine(image, Look()) for image in images])
    assert all(np.array_equal(a, b) for a, b in zip(*painted, strict=True))


def wait_for_compilers():
    """Engines that are closed leave theirs to end."""
    for thread in threading.enumerate():
        if thread.name.startswith("compile "):
            thread.join()


@pytest.mark.gpu
def test_sizes_are_prepared_on_the_gpu_while_others_are_compiled_for(caplog):
    with engines.load("torch:cuda", style="live", precision="float16") as engine:
        for width in (640, 704, 768):
            assert engine(picture(width, 360), Look()).shape == (360, width, 3)
        wait_for_compilers()
        assert "without fused kernels" not in caplog.text
        engine(picture(640, 360), Look())


@pytest.mark.gpu
def test_an_engine_that_is_closed_leaves_the_gpu_s_memory():
    import torch

    wait_for_compilers()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    with engines.load("torch:cuda", style="live", precision="float32") as engine:
        engine(picture(1280, 720), Look())
        held = torch.cuda.memory_reserved() - before
    assert torch.cuda.memory_reserved() - before < held / 2


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_the_doctor_finds_that_the_gpu_paints(precision):
    asked = ["doctor", "--engine", "torch:cuda", "--precision", precision, "--json"]
    told = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *asked],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    (found,) = json.loads(told.stdout)["engines"]
    assert (found["name"], found["runs"]) == ("torch:cuda", True)
    assert found["precision"] == ("float16" if precision == "auto" else precision)
    assert "NVIDIA" in found["device"]
    assert found["difference"]


def test_auto_takes_the_first_that_runs(style):
    with engines.load("auto", style=style) as engine:
        assert engine.name == "openvino"


def test_auto_says_why_it_goes_on_to_the_next(style, monkeypatch, caplog):
    import engines.openvino

    def refuse(*arguments, **options):
        raise EngineUnavailable("no OpenVINO for the test")

    monkeypatch.setattr(engines.openvino, "OpenVinoEngine", refuse)
    with engines.load("auto", style=style) as engine:
        assert engine.name == "onnxruntime"
    assert "no OpenVINO for the test" in caplog.text


def test_an_engine_by_name_is_that_one_or_an_error(style):
    with pytest.raises(EngineUnavailable, match="no engine 'pytorch'; there is auto, openvino"):
        engines.load("pytorch", style=style)
    with pytest.raises(EngineUnavailable, match="onnxruntime has no bfloat16"):
        engines.load("onnxruntime", style=style, precision="bfloat16")


@pytest.mark.parametrize(
    "name", ["onnxruntime:cuda", "onnxruntime:coreml", "onnxruntime:dml", "openvino:npu"]
)
def test_a_device_that_is_not_here_is_never_replaced(style, name):
    if name in PRESENT:
        pytest.skip(f"{name} runs here")
    with pytest.raises(EngineUnavailable, match=name.partition(":")[0]):
        engines.load(name, style=style)


def test_onnx_runtime_goes_back_to_no_cpu_by_itself(style, monkeypatch, capsys):
    """It does so where a provider fails, and tells nobody but stdout."""
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime

    def failing(kind):
        def fails(*given):
            raise kind("the device was removed")

        return fails

    with engines.load("onnxruntime", style=style) as engine:
        monkeypatch.setattr(runtime.InferenceSession, "run", failing(runtime.EPFail))
        with pytest.raises(InferenceError, match="the device was removed"):
            engine(picture(16, 16), Look())
    monkeypatch.setattr(runtime.InferenceSession, "initialize_session", failing(RuntimeError))
    with pytest.raises(EngineBuildError, match="the device was removed"):
        engines.load("onnxruntime", style=style)
    assert capsys.readouterr().out == ""


def test_a_model_that_a_runtime_refuses(tmp_path, style):
    broken = Style("broken", "Broken", ("a",), {"float32": "m"}, files={"m": tiny_model(2)[:-300]})
    for name in (*engines.PREFERENCE, "torch:cpu"):
        with pytest.raises(EngineBuildError, match="refuses broken"):
            engines.load(name, style=broken)


def test_a_probe_paints_the_golden_picture(style):
    image = picture(32, 32)
    with engines.load("onnxruntime", style=style) as engine:
        right = engine(image, Look())

    def claiming(stylized):
        files = {**style.files, "golden.npz": golden(image, stylized, 2)}
        return Style(style.name, style.title, style.styles, style.models, style.multiple, files=files)

    probe = engines.probe("openvino", claiming(right))
    assert probe.runs
    assert probe.device
    assert probe.version
    probe = engines.probe("openvino", claiming(255 - right))
    assert not probe.runs
    assert "something else than the reference" in probe.reason
    probe = engines.probe("onnxruntime:cuda", claiming(right))
    assert not probe.runs
    assert probe.reason


def save(folder, content):
    path = folder / "foreign.onnx"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", [*engines.PREFERENCE, "torch:cpu"])
@pytest.mark.parametrize(
    ("make", "layout", "value_range"), [(fast_neural_style, "NCHW", "0..255"), (animegan, "NHWC", "-1..1")]
)
@pytest.mark.parametrize("size", [None, (64, 96)])
def test_third_party_graphs_paint_what_they_would_alone(tmp_path, name, make, layout, value_range, size):
    import onnxruntime

    path = save(tmp_path, make(size))
    style = engines.load_style(path)
    assert style.notes.startswith(f"{layout} (found), values in {value_range} ")
    image = picture(96, 64)
    scaled = image[None].astype(np.float32)
    scaled = scaled / 127.5 - 1 if value_range == "-1..1" else scaled
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    fed = scaled if layout == "NHWC" else scaled.transpose(0, 3, 1, 2)
    alone = session.run(None, {"input": fed})[0]
    alone = alone if layout == "NHWC" else alone.transpose(0, 2, 3, 1)
    alone = (alone + 1) * 127.5 if value_range == "-1..1" else alone
    expected = np.floor(np.clip(alone[0], 0, 255) + 0.5).astype(np.uint8)
    with engines.load(name, style=style, precision="float32") as engine:
        agrees, difference = engines.agreement(engine(image, Look()), expected, "float32")
        assert agrees, difference
        assert np.array_equal(engine(image, Look(strength=0)), image)


def test_a_third_party_graph_of_fixed_size_takes_that_size_only(tmp_path):
    style = engines.load_style(save(tmp_path, animegan((64, 96))))
    assert style.size == (96, 64)
    with (
        engines.load("onnxruntime", style=style) as engine,
        pytest.raises(ValueError, match="paints pictures of 96x64 only, not 95x64"),
    ):
        engine(picture(95, 64), Look())


def test_a_third_party_graph_of_any_size(tmp_path):
    with engines.load("onnxruntime", style=engines.load_style(save(tmp_path, fast_neural_style()))) as engine:
        assert engine(picture(353, 289), Look()).shape == (289, 353, 3)


def test_a_third_party_graph_with_graphs_within(tmp_path):
    """As exporters make them of what depends on a shape; they read what is stored outside."""
    from onnx import TensorProto, helper, numpy_helper

    value, node = helper.make_tensor_value_info, helper.make_node
    darker, same = (
        helper.make_graph([made], name, [], [value(name, TensorProto.FLOAT, None)])
        for name, made in (("a", node("Mul", ["x", "gain"], ["a"])), ("b", node("Identity", ["x"], ["b"])))
    )
    stored = [
        numpy_helper.from_array(np.float32(0.5), "gain"),
        numpy_helper.from_array(np.array(True), "chosen"),
    ]
    graph = helper.make_graph(
        [node("If", ["chosen"], ["y"], then_branch=darker, else_branch=same)],
        "branches",
        [value("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [value("y", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    style, image = engines.load_style(save(tmp_path, model.SerializeToString())), picture(64, 32)
    for name in engines.PREFERENCE:
        with engines.load(name, style=style, precision="float32") as engine:
            assert np.abs(engine(image, Look()) - image / 2).max() <= 0.5


def test_a_third_party_graph_that_goes_in_circles(tmp_path):
    import onnx

    model = onnx.load_model_from_string(fast_neural_style())
    model.graph.node.insert(0, onnx.helper.make_node("Identity", ["input"], ["input"]))
    model.graph.node.append(onnx.helper.make_node("Identity", ["output"], ["output"]))
    style = engines.load_style(save(tmp_path, model.SerializeToString()))
    with pytest.raises(EngineBuildError, match="refuses foreign"):
        engines.load("onnxruntime", style=style)


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([("Tanh",), ("Add", 1), ("Div", 2)], "0..1"),
        ([("Tanh",), ("Mul", 0.5), ("Add", 0.5)], "0..1"),
        ([("Sigmoid",), ("Mul", 2), ("Sub", 1)], "-1..1"),
        ([("Tanh",), ("Add", 1), ("Mul", 127.5)], "0..255"),
        ([("Sigmoid",)], "0..1"),
        ([("Tanh",)], "-1..1"),
        ([("Clip", 0, 1)], "0..1"),
        ([("Tanh",), ("Mul", 0.3)], None),
        ([("Tanh",), ("Div", 0)], None),
        ([("Relu",), ("Div", 2)], None),
        ([("Sigmoid",), ("Mul", 255), ("Div", 255)], "0..1"),
        ([("Add", 128), ("Div", 255)], None),
        ([("Add", 128)], "0..255"),
    ],
)
def test_the_range_is_what_the_last_layers_make_of_it(tmp_path, layers, found):
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_model_from_string(fast_neural_style())
    last = model.graph.output[0].name
    for index, (kind, *numbers) in enumerate(layers):
        names = [f"number {index} {at}" for at in range(len(numbers))]
        stored = [
            numpy_helper.from_array(np.float32(each), n) for n, each in zip(names, numbers, strict=True)
        ]
        if kind == "Clip":  # its bounds were attributes
            bounds = dict(zip(("min", "max"), map(float, numbers), strict=True))
            model.graph.node.append(helper.make_node(kind, [last], [f"layer {index}"], **bounds))
        else:
            model.graph.initializer.extend(stored)
            # A number may stand on either side.
            inputs = [*names, last] if kind == "Add" else [last, *names]
            model.graph.node.append(helper.make_node(kind, inputs, [f"layer {index}"]))
        last = f"layer {index}"
    model.graph.output[0].name = last
    notes = engines.load_style(save(tmp_path, model.SerializeToString())).notes
    said = f"values in {found} (found)" if found else "values in 0..255 (assumed)"
    assert said in notes


def test_layout_and_range_can_be_given(tmp_path):
    path = save(tmp_path, fast_neural_style())
    style = engines.load_style(path, layout="nchw", value_range="0..1")
    assert style.notes.startswith("NCHW (given), values in 0..1 (given)")


def test_a_graph_that_gives_another_size_than_it_took(tmp_path):
    import onnx

    model = onnx.load_model_from_string(tiny_model(2))
    up = next(node for node in model.graph.node if node.op_type == "ConvTranspose")
    up.attribute.extend([onnx.helper.make_attribute("output_padding", [1, 1])])
    residual = next(node for node in model.graph.node if node.output[0] == "y")
    residual.input[0] = "weighted"
    subtract = next(node for node in model.graph.node if node.output[0] == "residual")
    subtract.input[1] = "black"
    style = Style("odd", "Odd", ("a", "b"), {"float32": "m"}, 8, files={"m": model.SerializeToString()})
    for name in (*engines.PREFERENCE, "torch:cpu"):
        # Not at the first picture of a film, although there is nothing to compare with.
        with pytest.raises(InferenceError, match="cannot paint this size"):
            engines.load(name, style=style)
        assert not engines.probe(name, style).runs


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([1, 5, 8, 8], "its input has the shape"),
        ([1, 3, 8], "its input has the shape"),
        ([2, 3, 8, 8], "its input has the shape"),
    ],
)
def test_graphs_that_are_no_stylizers(tmp_path, shape, message):
    from onnx import TensorProto, helper

    from tests.packs import serialized

    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    info = [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, shape)]
    with pytest.raises(engines.StyleError, match=message):
        engines.load_style(save(tmp_path, serialized(helper.make_graph(nodes, "g", *info))))


@pytest.mark.parametrize("name", PRESENT)
def test_several_threads_paint_at_once_what_one_would(style, name):
    from concurrent.futures import ThreadPoolExecutor

    images = [picture(120 + 8 * (index % 3), 80, index) for index in range(24)]
    with engines.load(name, style=style, precision="float32") as one:
        expected = [one(image, Look()) for image in images]
    with engines.load(name, style=style, precision="float32", hint="throughput") as engine:
        assert engine.streams >= 1
        with ThreadPoolExecutor(engine.streams) as pool:
            painted = list(pool.map(lambda image: engine(image, Look()), images))
    for a, b in zip(painted, expected, strict=True):
        agrees, difference = engines.agreement(a, b, "float32")
        assert agrees, difference


@pytest.mark.parametrize("name", engines.bundled())
@pytest.mark.parametrize("engine_name", PRESENT)
def test_a_bundled_style_at_strength_0_is_the_input(engine_name, name):
    with engines.load(engine_name, style=name) as engine:
        image = picture(121, 75)
        assert np.array_equal(engine(image, Look(strength=0)), image)


@pytest.mark.parametrize("name", engines.bundled())
def test_a_quarter_of_the_light_darkens_a_painting_by_little_more_than_a_third_of_what_it_does_the_video(
    name,
):
    bright = film((320, 180))
    dim = np.round(bright * 0.25 ** (1 / 2.2)).astype(np.uint8)
    darker = float(bright.mean() - dim.mean())
    with engines.load("onnxruntime", style=name, precision="float32") as engine:
        for style in engine.style.styles:
            painted = [engine(image, Look({style: 1.0})).mean() for image in (bright, dim)]
            assert painted[0] - painted[1] < 0.35 * darker, style
