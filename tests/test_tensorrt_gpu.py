"""TensorRT's engine on a real GPU, with the real pycuda and driver: its contexts, streams, memory and graphs.

TensorRT alone is that of `tests/nvidia.py`, whose networks copy bytes on the GPU.
"""

import importlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import engines
from engines import InferenceError, Look
from tests import nvidia
from tests.packs import tiny_pack

pytestmark = pytest.mark.gpu

SIZES = [(640, 360), (320, 240), (96, 64), (64, 64)]

LOOKS = [Look(), Look({"cold": 1}, 0.5), Look({"warm": 7, "cold": 3}, 0.75)]

LEAKED = 16 << 20
"""Bytes: less than what a single execution has on the GPU, and more than what the driver may keep."""


@pytest.fixture
def installed(monkeypatch, tmp_path):
    for module in ("pycuda.driver", "cuda.bindings.driver"):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            pytest.skip(f"no {module} here ({error})")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return nvidia.install_tensorrt(monkeypatch, int(os.environ.get("FAUVE_TEST_FILLS", "100")))


@pytest.fixture
def trt(installed):
    context = current()
    yield installed[0]
    assert current() == context, "another context is left in the test's thread"


@pytest.fixture
def machine(installed):
    return installed[1]


@pytest.fixture
def style(tmp_path):
    return tiny_pack(tmp_path / "tiny")


@pytest.fixture
def allocations(trt, monkeypatch):
    """What was taken of the GPU's memory, and of the memory that it copies from and to."""
    taken = []
    for name in ("mem_alloc", "pagelocked_empty"):
        really = getattr(trt.cuda, name)

        def noted(*arguments, _really=really):
            made = _really(*arguments)
            taken.append(getattr(made, "base", made))
            return made

        monkeypatch.setattr(trt.cuda, name, noted)
    return taken


def current():
    """The CUDA context of this thread, as a number."""
    code, context = sys.modules["cuda.bindings.driver"].cuCtxGetCurrent()
    return int(context) if code.name == "CUDA_SUCCESS" else 0


def picture(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)


def right(style, image, look):
    """What the GPU makes of a picture whose sides need no margin."""
    place = style.place((image.shape[1], image.shape[0]), look)
    assert not any((place.top, place.bottom, place.left, place.right))
    return nvidia.enqueued(image, place.inputs)


def freed(trt, memory):
    """Whether memory was given back: nobody can do that twice."""
    try:
        memory.free()
    except trt.cuda.Error:
        return True
    return False


def test_pictures_of_any_size_and_look_come_back_exactly(trt, machine, style):
    with trt.TensorRtEngine(style) as engine:
        assert engine.device == engines.tensorrt.gpu().name
        for size in (*SIZES, *reversed(SIZES)):
            for seed, look in enumerate(LOOKS):
                image = picture(size, seed)
                assert np.array_equal(engine(image, look), right(style, image, look)), (size, look)
        executions = [execution for idle in engine._idle.values() for execution in idle]
        assert len(executions) == len(SIZES)
        assert all(execution._graph is not None for execution in executions), "no CUDA graph was captured"
    # Plainly and into the graph; later pictures launch that.
    assert machine.executed == 2 * len(SIZES)


def test_without_graphs_they_come_back_as_well(trt, machine, style, monkeypatch):
    refused = (trt.driver.CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,)
    monkeypatch.setattr(trt.driver, "cuStreamBeginCapture", lambda *_: refused)
    with trt.TensorRtEngine(style) as engine:
        for seed, look in enumerate(LOOKS):
            image = picture(SIZES[0], seed)
            assert np.array_equal(engine(image, look), right(style, image, look))
    assert machine.executed == len(LOOKS)


def test_a_result_outlives_the_next_calls_and_the_engine(trt, style):
    images = [picture((640, 360), seed) for seed in range(6)]
    with trt.TensorRtEngine(style) as engine:
        results = [engine(image, Look()) for image in images]
    for image, result in zip(images, results, strict=True):
        assert np.array_equal(result, right(style, image, Look()))


def test_threads_that_come_and_go_each_get_their_own_picture(trt, style):
    tasks = [(picture(SIZES[n % 2], n), LOOKS[n % 3]) for n in range(48)]
    contexts = []
    with trt.TensorRtEngine(style, hint="throughput") as engine:

        def paint(task):
            before = current()
            painted = engine(*task)
            contexts.append(current() == before)
            return painted

        for threads in (2, 8, 2):
            with ThreadPoolExecutor(threads) as pool:
                painted = list(pool.map(paint, tasks))
            for task, result in zip(tasks, painted, strict=True):
                assert np.array_equal(result, right(style, *task))
    assert contexts == [True] * 3 * len(tasks), "the thread's own context is gone"


def test_others_work_in_python_while_the_gpu_paints(trt, machine, style):
    """pycuda waits without the interpreter's lock."""
    machine.fills *= 10
    image, steps, stop = picture((640, 360)), [0], threading.Event()

    def count():
        while not stop.is_set():
            steps[0] += 1

    with trt.TensorRtEngine(style) as engine:
        engine(image, Look())
        engine(image, Look())
        event = engine._idle[(640, 360)][0]._done
        counter = threading.Thread(target=count)
        counter.start()
        try:
            painted = [engine(image, Look()) for _ in range(5)]
        finally:
            stop.set()
            counter.join()
    assert event is not None
    assert steps[0] > 100
    assert all(np.array_equal(each, right(style, image, Look())) for each in painted)


def test_all_that_was_taken_is_given_back(trt, style, allocations):
    def once():
        with trt.TensorRtEngine(style, hint="throughput") as engine, ThreadPoolExecutor(2) as pool:
            for width in range(64, 64 + 8 * 6, 8):
                list(pool.map(lambda seed, size=(width, 64): engine(picture(size, seed), Look()), range(4)))

    def free():
        with trt.gpu().current(InferenceError, "asking for its memory"):
            return trt.cuda.mem_get_info()[0]

    once()
    # Others may take and give back of the same GPU meanwhile.
    lost = []
    for _ in range(6):
        before = free()
        once()
        once()
        lost.append(before - free())
        if lost[-1] < LEAKED:
            break
    assert min(lost) < LEAKED
    assert len(allocations) > 100
    with trt.gpu().current(InferenceError, "giving back its memory"):
        left = [memory for memory in allocations if not freed(trt, memory)]
    assert left == []


def test_a_full_gpu_is_one_line_and_passes(trt, machine, style, allocations):
    image = picture((640, 360))
    trt.build(style, (640, 360), tell=lambda done, left: None)
    with trt.TensorRtEngine(style) as engine:
        enough, machine.scratch = machine.scratch, 1 << 50
        with pytest.raises(
            InferenceError, match=r"memory is full, painting 640x360 \(\d+\.\d of \d+\.\d GiB"
        ):
            engine(image, Look())
        machine.scratch = enough
        with trt.gpu().current(InferenceError, "giving back its memory"):
            assert all(freed(trt, memory) for memory in allocations)
        assert np.array_equal(engine(image, Look()), right(style, image, Look()))


def test_torch_beside_it_in_the_same_process(trt, style):
    """Before, during and after; both capture graphs meanwhile."""
    torch = pytest.importorskip("torch", reason="needs torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch does not reach the GPU")
    a = torch.arange(512 * 512, device="cuda").reshape(512, 512).remainder(7).double()
    product = (a @ a).cpu()
    stop, wrong, done = threading.Event(), [], [0]

    def multiply():
        with torch.cuda.stream(torch.cuda.Stream()):
            while not stop.is_set():
                junk = torch.empty(1 << 20, device="cuda")
                if not torch.equal((a @ a).cpu(), product):
                    wrong.append(done[0])
                del junk
                done[0] += 1

    def paint_with_torch():
        with (
            engines.load("torch:cuda", style=style, precision="float32") as engine,
            engines.load("onnxruntime", style=style, precision="float32") as reference,
        ):
            for size in SIZES:
                for look in LOOKS:
                    painted, expected = engine(picture(size), look), reference(picture(size), look)
                    agrees, difference = engines.agreement(painted, expected, "float32")
                    assert agrees, difference

    with ThreadPoolExecutor(2) as pool, trt.TensorRtEngine(style, hint="throughput") as engine:
        others = [pool.submit(multiply), pool.submit(paint_with_torch)]
        try:
            for seed in range(4):
                for size in SIZES:
                    image = picture(size, seed)
                    painted = engine(image, LOOKS[seed % 3])
                    assert np.array_equal(painted, right(style, image, LOOKS[seed % 3]))
            others[1].result(120)
        finally:
            stop.set()
        others[0].result(60)
    assert done[0] > 1
    assert wrong == []
    assert torch.equal((a @ a).cpu(), product)


AT_EXIT = """
import sys, threading
import numpy as np, pytest
from engines import Look, Style
from tests import nvidia
trt, machine = nvidia.install_tensorrt(pytest.MonkeyPatch(), 2)
style = Style.load(sys.argv[1])
def paint():
    global engine
    engine = trt.TensorRtEngine(style)
    for seed in range(3):
        engine(np.zeros((64, 64, 3), np.uint8), Look())
if sys.argv[2] == "thread":
    thread = threading.Thread(target=paint)
    thread.start()
    thread.join()
else:
    paint()
if sys.argv[3] == "closed":
    engine.close()
print("painted")
"""


@pytest.mark.parametrize("closed", ["closed", "open"])
@pytest.mark.parametrize("where", ["thread", "main"])
def test_a_process_ends_without_complaint(trt, style, tmp_path, where, closed):
    ended = subprocess.run(
        [sys.executable, "-c", AT_EXIT, str(tmp_path / "tiny"), where, closed],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (0, "painted\n"), ended.stderr
    assert "PyCUDA" not in ended.stderr
    assert "Error" not in ended.stderr
