"""The torch engine's work on CUDA, over stand-ins on the CPU that record and replay as CUDA graphs do."""

import threading
import tracemalloc
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import engines
from engines import EngineBuildError, Look, Style
from engines.cuda import CAPTURING
from engines.onnx_to_torch import Compiled, Program
from engines.torch import TorchEngine, _OnCuda
from pipeline.colour import Colour, encodable
from pipeline.gpu_video import DevicePainter
from pipeline.nv12 import Planes
from tests.packs import tiny_pack


class Recording(TorchDispatchMode):
    """Notes every operation, with its arguments and results."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.done.append((function, args, kwargs or {}, result))
        return result


class Graph:
    """Replays what was recorded into the memory that it was recorded with, and nothing else."""

    def __init__(self):
        self.replays = 0

    def replay(self):
        self.replays += 1
        for function, args, kwargs, result in self.recording.done:
            again = function(*args, **kwargs)
            several = isinstance(result, (tuple, list))
            pairs = zip(again, result, strict=True) if several else [(again, result)]
            for new, old in pairs:
                if new.data_ptr() != old.data_ptr():
                    # A product of matrices drops an axis of its result in place.
                    old.view(new.shape).copy_(new)


SPUN = []
"""What was waited for in a loop that takes a CPU core."""


class Event:
    def __init__(self, blocking=False):
        self.stream = None
        self.blocking = blocking

    def record(self, stream):
        self.stream = stream

    def synchronize(self):
        assert self.stream is not None, "waits for something that was recorded"
        self.stream.finished = True
        if not self.blocking:
            SPUN.append(self)


class Stream:
    """One of the 32 that PyTorch gives in turn, whoever has them."""

    given = 0
    current = threading.local()

    def __init__(self, device):
        self.number = Stream.given % 32
        Stream.given += 1
        self.finished = True
        self.waited_for = []

    def wait_stream(self, other):
        self.waited_for.append(other)

    def synchronize(self):
        self.finished = True
        SPUN.append(self)

    @classmethod
    @contextmanager
    def entered(cls, stream):
        before = getattr(cls.current, "stream", None)
        cls.current.stream = stream
        yield
        cls.current.stream = before


@pytest.fixture
def _cuda(monkeypatch):
    @contextmanager
    def graph(captured, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        assert CAPTURING.locked()
        captured.recording = Recording()
        with captured.recording:
            yield

    monkeypatch.setattr("engines.torch._idle", defaultdict(deque))
    monkeypatch.setattr(Stream, "given", 0)
    SPUN.clear()
    default = Stream(None)
    for name, stand_in in {
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": graph,
        "stream": Stream.entered,
        "default_stream": lambda device=None: default,
        "current_stream": lambda device: getattr(Stream.current, "stream", None) or default,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    for name in ("zeros", "empty"):
        make = getattr(torch, name)

        def unpinned(*shape, make=make, pin_memory=False, **options):
            return make(*shape, **options)

        monkeypatch.setattr(torch, name, unpinned)


def picture(seed, size=(64, 48)):
    return np.random.default_rng(seed).integers(0, 256, (1, size[1], size[0], 3), np.uint8)


@pytest.mark.usefixtures("_cuda")
@pytest.mark.parametrize("name", ["tiny", "live"])
def test_what_is_recorded_is_all_that_a_picture_and_a_look_need(tmp_path, name):
    style = tiny_pack(tmp_path / "tiny") if name == "tiny" else Style.load(name)
    first, last = style.styles[0], style.styles[-1]
    looks = [
        Look({first: 1}),
        Look({first: 1}),
        Look({last: 1}),
        Look({first: 1, last: 1}, 0.5),
        Look({first: 1}),
        *([Look({first: 1}, moved=(16.0, -32.0))] if style.carried else []),
    ]
    program = Program(style.model(), torch.device("cpu"))
    painter = _OnCuda(program, (1, 48, 64, 3), style.place((64, 48), Look()).inputs, torch.device("cpu"))
    replayed = painter._look_graph.replays, painter._graph.replays
    painted = []
    with engines.load("onnxruntime", style=style) as reference:
        for seed, look in enumerate(looks):
            inputs = style.place((64, 48), look).inputs
            painted.append(painter(picture(seed), inputs))
            expected = reference._infer(picture(seed), inputs)[0]
            agrees, difference = engines.agreement(painted[-1][0], expected, "float32")
            assert agrees, f"{seed}: {difference}"
        kept = [each.copy() for each in painted]
        lying_there = torch.from_numpy(picture(9))
        left_there = painter.on_device(lying_there, inputs)
        assert np.array_equal(left_there.numpy(), painter(picture(9), inputs))
        painter(picture(10), inputs)
        assert not np.array_equal(left_there.numpy(), painter._stylized.numpy())
    assert all(np.array_equal(a, b) for a, b in zip(painted, kept, strict=True)), (
        "results are the caller's own"
    )
    SPUN.clear()
    painter(picture(11), inputs)
    assert SPUN == [], "a core would be taken from decoder and encoder"
    assert painter._graph.replays - replayed[1] == len(looks) + 4
    assert painter._look_graph.replays - replayed[0] == len(looks) - 1, "only when the look has changed"


@pytest.mark.usefixtures("_cuda")
def test_what_was_prepared_for_frames_on_the_device_paints_those_of_the_host(tmp_path, monkeypatch):
    image = picture(1)[0]
    with TorchEngine(tiny_pack(tmp_path / "tiny"), "cpu") as engine:
        monkeypatch.setattr("engines.torch._OnCpu", _OnCuda)
        there = DevicePainter(engine, (64, 48), Colour())(
            Planes.of(encodable(image, Colour(), "nv12")), Look()
        )
        assert not there.y.is_inference()
        assert engine(image, Look()).shape == image.shape
        with torch.inference_mode():
            small = engine.paint_on_device(torch.from_numpy(image[:32, :32].copy()), Look())
        assert np.array_equal(engine(image[:32, :32], Look()), small.numpy())


@pytest.mark.usefixtures("_cuda")
def test_the_same_algorithms_are_taken_by_every_process_that_paints_a_film(tmp_path, monkeypatch):
    settings = []
    really = torch.backends.cudnn.flags
    monkeypatch.setattr(
        torch.backends.cudnn, "flags", lambda **flags: settings.append(flags) or really(**flags)
    )
    for hint in ("throughput", "latency"):
        engine = TorchEngine(tiny_pack(tmp_path / hint), "cpu", hint=hint)
        engine.torch_device = torch.device("cuda")

        def here(program, shape, inputs, device, **options):
            return _OnCuda(program, shape, inputs, torch.device("cpu"), **options)

        with monkeypatch.context() as on_cuda:
            on_cuda.setattr("engines.torch._OnCuda", here)
            (painter,) = engine._plain_painters((1, 16, 16, 3), engine.style.place((16, 16), Look()).inputs)
        assert isinstance(painter, _OnCuda)
    alike, fastest = settings
    assert (alike["benchmark"], alike["deterministic"]) == (False, True)
    assert (fastest["benchmark"], fastest["deterministic"]) == (True, False)


def test_memory_goes_back_when_no_graph_is_captured(tmp_path, monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(CAPTURING.locked()))
    engine = TorchEngine(tiny_pack(tmp_path / "tiny"), "cpu")
    engine(picture(1)[0], Look())
    engine.close()
    assert emptied == [], "there is no GPU"
    engine.torch_device = torch.device("cuda")
    engine.close()
    assert emptied == [True]
    assert not CAPTURING.locked()
    with CAPTURING:
        engine.close()
    assert emptied == [True], "who compiles is not waited for"


def test_what_cannot_be_compiled_at_all_is_known_before_a_film_begins(tmp_path, monkeypatch, caplog):
    def no_compiler(*arguments, **options):
        assert CAPTURING.locked()
        raise RuntimeError("Failed to find C compiler\nand more")

    engine = TorchEngine(tiny_pack(tmp_path / "tiny"), "cpu", hint="throughput")
    monkeypatch.setattr(
        "engines.onnx_to_torch.Program", lambda *arguments, fused: SimpleNamespace(fused=fused)
    )
    with monkeypatch.context() as broken:
        broken.setattr(torch, "compile", no_compiler)
        assert engine._fusing(b"") is None
    assert caplog.messages == ["torch:cpu paints without fused kernels: Failed to find C compiler"]
    monkeypatch.setattr(torch, "compile", lambda function: function)
    assert engine._fusing(b"").fused


@pytest.fixture
def fusing(tmp_path, monkeypatch):
    """Makes engines that have fused kernels to compile, which paint what `plain` of them do not."""
    monkeypatch.setattr("engines.torch.SMALLEST", 64 * 48)
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    engines_made = []

    def make(hint="latency", compiled=lambda settled: settled):
        style = tiny_pack(tmp_path / f"tiny{len(engines_made)}")
        engine = TorchEngine(style, "cpu")
        engine.precision, engine.streams, engine._waits = "float16", 2, hint == "throughput"
        engine._fused = Program(style.model(), torch.device("cpu"))

        def take(shape, inputs):
            image = torch.zeros(shape, dtype=torch.uint8)
            given = {name: torch.from_numpy(value) for name, value in inputs.items()}
            with torch.no_grad():
                return compiled(Compiled(engine._fused.settle(image, given), image, given))

        monkeypatch.setattr(engine, "_compiled", take)
        # Only what is asked for from now on is on the GPU that is none.
        monkeypatch.setattr("engines.torch._OnCpu", _OnCuda)
        engines_made.append(engine)
        return engine

    yield make
    for engine in engines_made:
        engine.close()


def fused(engine, size=(64, 48)):
    """Of the painters for a size, which paint by fused kernels."""
    (painters,) = [made for shape, made in engine._painters.items() if shape[1:3] == size[::-1]]
    return [isinstance(painter._settled, Compiled) for painter in painters.queue]


def compiled_for(size):
    """Wait until the thread that compiles for that size is done."""
    for thread in threading.enumerate():
        if thread.name == f"compile {size}":
            thread.join(10)


@pytest.mark.usefixtures("_cuda")
def test_a_file_waits_for_the_fused_kernels(fusing):
    engine = fusing("throughput")
    before = engine(picture(1)[0], Look())
    assert fused(engine) == [True, True]
    assert np.array_equal(engine(picture(1)[0], Look()), before)
    engine(picture(2, (32, 32))[0], Look())
    assert fused(engine, (32, 32)) == [False, False], "it is too small to be worth it"


@pytest.mark.usefixtures("_cuda")
def test_live_video_is_painted_until_the_fused_kernels_are_ready(fusing):
    ready, started = threading.Event(), threading.Event()

    def slow(compiled):
        started.set()
        assert ready.wait(10)
        return compiled

    engine = fusing(compiled=slow)
    before = engine(picture(1)[0], Look())
    assert started.wait(10)
    assert fused(engine) == [False, False]
    assert np.array_equal(engine(picture(1)[0], Look()), before)
    ready.set()
    compiled_for("64x48")
    assert fused(engine) == [True, True]
    assert np.array_equal(engine(picture(1)[0], Look()), before)


@pytest.mark.usefixtures("_cuda")
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (RuntimeError("no compiler here\nand more"), "no compiler here"),
        (None, "they paint something else (PSNR"),
    ],
)
def test_fused_kernels_that_fail_or_paint_something_else_are_left_and_that_is_said(
    fusing, caplog, wrong, reason
):
    def broken(compiled):
        if wrong:
            raise wrong
        right = compiled._compiled
        compiled._compiled = lambda image, *values: 255 - right(image, *values)
        return compiled

    engine = fusing("latency", broken)
    painted = engine(picture(1)[0], Look())
    compiled_for("64x48")
    assert fused(engine) == [False, False]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"torch:cpu paints 64x48 without fused kernels: {reason}")
    assert "and more" not in record.getMessage()
    assert np.array_equal(engine(picture(1)[0], Look()), painted)
    film = fusing("throughput", broken)
    with pytest.raises(EngineBuildError) as raised:
        film(picture(1)[0], Look())
    assert str(raised.value).startswith(f"torch:cpu cannot paint tiny1 at 64x48 by fused kernels: {reason}")
    assert str(raised.value).endswith("; --precision float32 needs none")


@pytest.mark.usefixtures("_cuda")
def test_no_graph_is_captured_while_the_compiler_may_wait_for_the_device(fusing, monkeypatch):
    locked = []
    monkeypatch.setattr(torch, "compile", lambda graph, **_: locked.append(CAPTURING.locked()) or graph)
    engine = fusing()
    shape, inputs = (1, 48, 64, 3), engine.style.place((64, 48), Look()).inputs
    compiled = TorchEngine._compiled(engine, shape, inputs)
    assert isinstance(compiled, Compiled)
    assert locked == [True]
    assert not CAPTURING.locked()


@pytest.mark.usefixtures("_cuda")
def test_fused_kernels_are_compared_on_one_picture_of_noise(fusing, monkeypatch):
    """Of 8K, all the built-in frames would be gigabytes."""
    compared = []
    monkeypatch.setattr("engines.torch.agreement", lambda *given: compared.append(given) or (True, ""))
    engine, shape = fusing("throughput"), (1, 192, 256, 3)
    inputs = engine.style.place((256, 192), Look()).inputs
    tracemalloc.start()
    try:
        engine._fusing_painters(shape, inputs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    ((painted, expected, _),) = compared
    assert np.array_equal(painted, expected)
    assert painted.shape == shape
    assert peak < 40 * painted.size


@pytest.mark.usefixtures("_cuda")
def test_a_graph_is_captured_on_a_stream_that_no_living_painter_has(tmp_path):
    style, device = tiny_pack(tmp_path / "tiny"), torch.device("cpu")
    program = Program(style.model(), device)

    def painter():
        return _OnCuda(program, (1, 16, 16, 3), style.place((16, 16), Look()).inputs, device)

    kept, before = painter(), Stream(device)
    with Stream.entered(before):
        assert painter()._stream.waited_for == [torch.cuda.default_stream(), before], (
            "there its memory was filled"
        )
    numbers = {painter()._stream.number for _ in range(40)}
    assert len(numbers) == 1, "of one that is gone is taken again"
    assert kept._stream.number not in numbers
    others = [painter() for _ in range(8)]
    assert len({each._stream.number for each in (kept, *others)}) == 9


@pytest.mark.usefixtures("_cuda")
def test_threads_that_paint_what_lies_there_have_streams_of_their_own(tmp_path):
    together = threading.Barrier(2)
    with TorchEngine(tiny_pack(tmp_path / "tiny"), "cpu") as engine:
        with engine.own_stream():
            assert getattr(Stream.current, "stream", None) is None, "there are none on the CPU"
        engine.torch_device = torch.device("cuda")

        def paint(_):
            with engine.own_stream():
                stream = Stream.current.stream
                stream.finished = False
                together.wait(10)
                assert not stream.finished
            assert stream.finished
            return stream.number

        seen = set()
        for _ in range(40):
            with ThreadPoolExecutor(2) as pool:
                numbers = set(pool.map(paint, range(2)))
            assert len(numbers) == 2
            seen |= numbers
        assert len(seen) == 2, "threads come and go, and memory is kept for each stream"
        assert SPUN == []
        engine.torch_device = torch.device("cpu")


@pytest.mark.usefixtures("_cuda")
def test_a_decoder_has_its_planes_back_when_they_have_been_copied(monkeypatch):
    decoded = [torch.full((4, 6), 1, dtype=torch.uint8), torch.full((2, 3, 2), 2, dtype=torch.uint8)]
    done = []

    class Plane:
        def __init__(self, tensor):
            self.tensor = tensor

        def __dlpack__(self):
            done.append(("lent", Stream.current.stream))
            return self.tensor.__dlpack__()

    default = torch.cuda.default_stream()
    default.synchronize = lambda: done.append(("waited for", default))
    frame = SimpleNamespace(format=SimpleNamespace(name="cuda"), planes=[Plane(each) for each in decoded])
    planes = Planes.of(frame)
    assert done == [("lent", default), ("lent", default), ("waited for", default)]
    for copy, plane in zip((planes.y, planes.cbcr), decoded, strict=True):
        assert torch.equal(copy, plane)
        assert copy.data_ptr() != plane.data_ptr()
