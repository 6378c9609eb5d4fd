"""The torch engine's work on CUDA, over stand-ins on the CPU that record and replay as CUDA graphs do."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import engines
from engines import Look, Style
from engines.program import Program
from engines.torch import _OnCuda
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
                    old.copy_(new)


class Event:
    def __init__(self):
        self.stream = None

    def record(self, stream):
        self.stream = stream

    def synchronize(self):
        assert self.stream is not None, "waits for something that was recorded"


@pytest.fixture
def _cuda(monkeypatch):
    @contextmanager
    def graph(captured, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        captured.recording = Recording()
        with captured.recording:
            yield

    stream = SimpleNamespace(wait_stream=lambda other: None, synchronize=lambda: None)
    for name, stand_in in {
        "Stream": lambda device: stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": graph,
        "stream": lambda stream: nullcontext(),
        "default_stream": lambda device: stream,
        "current_stream": lambda device: stream,
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
    assert painter._graph.replays - replayed[1] == len(looks) + 3
    assert painter._look_graph.replays - replayed[0] == len(looks) - 1, "only when the look has changed"
