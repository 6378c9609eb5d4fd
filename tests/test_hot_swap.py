"""What is ready paints at once, and what loads slowly takes over between two frames."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import engines
from engines import EngineBuildError, EngineUnavailable, InferenceError, Look
from engines.hot_swap import Behind
from engines.torch import TorchEngine
from pipeline.controls import Controls, Scene
from pipeline.deck import Deck
from tests.packs import tiny_pack

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def style(tmp_path_factory):
    return tiny_pack(tmp_path_factory.mktemp("packs") / "tiny")


@pytest.fixture(autouse=True)
def _told(caplog):
    caplog.set_level(logging.INFO, "fauve")


def wait_for(what, seconds=10):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


class Slow:
    """Loads torch on the CPU when it is let; knows which sizes it has painted."""

    def __init__(self, style, error=None):
        self.style, self.error = style, error
        self.go, self.asked = threading.Event(), threading.Event()
        self.engine, self.sizes, self.closed = None, [], False

    def __call__(self, stop):
        self.asked.set()
        assert self.go.wait(10)
        if self.error:
            raise self.error
        self.engine = engines.load("torch:cpu", style=self.style)
        infer, close = self.engine._infer, self.engine.close

        def noted(batch, inputs):
            assert not self.closed
            self.sizes.append(batch.shape)
            return infer(batch, inputs)

        def closed():
            self.closed = True
            close()

        self.engine._infer, self.engine.close = noted, closed
        return self.engine


def first(style):
    """An engine that is ready, and tells when it has been closed."""
    engine = engines.load("onnxruntime", style=style)
    infer, close = engine._infer, engine.close
    engine.closed = threading.Event()

    def checked(*arguments):
        assert not engine.closed.is_set()
        return infer(*arguments)

    def closed():
        engine.closed.set()
        close()

    engine._infer, engine.close = checked, closed
    return engine


def test_it_paints_at_once_and_swaps_when_the_other_is_ready(style, caplog):
    ready, slow = first(style), Slow(style)
    with Behind(ready, [("torch:cpu", slow)]) as engine:
        assert not slow.asked.is_set(), "the first picture comes first"
        before = engine(IMAGE, Look())
        assert slow.asked.wait(10)
        assert (engine.name, engine.precision) == ("onnxruntime", "float32")
        for _ in range(3):
            assert np.array_equal(engine(IMAGE, Look()), before)
        slow.go.set()
        wait_for(lambda: engine.name == "torch:cpu")
        assert slow.sizes == [(1, 48, 64, 3)], "warmed up at the size in use"
        assert ready.closed.wait(10)
        after = engine(IMAGE, Look())
        assert len(slow.sizes) == 2
        agrees, difference = engines.agreement(after, before, "float32")
        assert agrees, difference
    assert slow.closed
    assert "engine torch:cpu takes over from onnxruntime, float32 on" in caplog.text


def test_a_size_that_comes_while_another_is_warmed_is_painted_before_the_swap(style):
    slow, warming, go_on = Slow(style), threading.Event(), threading.Event()
    slow.go.set()

    def held_up(stop):
        engine = slow(stop)
        infer = engine._infer

        def waits(*arguments):
            warming.set()
            assert go_on.wait(10)
            return infer(*arguments)

        engine._infer = waits
        return engine

    with Behind(first(style), [("torch:cpu", held_up)]) as engine:
        engine(IMAGE, Look())
        assert warming.wait(10)
        for side in (16, 32, 40):
            engine(IMAGE[:side, :side], Look())
        assert engine.name == "onnxruntime"
        go_on.set()
        wait_for(lambda: engine.name == "torch:cpu")
        assert slow.sizes == [(1, 48, 64, 3), (1, 40, 40, 3), (1, 32, 32, 3)], "the last two are in use"


def test_one_that_fails_is_one_line_and_the_next_one_takes_over(style, caplog):
    broken, slow = Slow(style, EngineUnavailable("no plan\tcan be built")), Slow(style)
    broken.go.set()
    with Behind(first(style), [("tensorrt", broken), ("torch:cpu", slow)]) as engine:
        before = engine(IMAGE, Look())
        assert slow.asked.wait(10)
        warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert warned == ["engine tensorrt does not take over from onnxruntime: no plan\tcan be built"]
        assert np.array_equal(engine(IMAGE, Look()), before)
        slow.go.set()
        wait_for(lambda: engine.name == "torch:cpu")


def test_one_that_cannot_paint_the_size_in_use_is_closed_and_not_used(style, caplog):
    slow = Slow(style)
    slow.go.set()

    def broken(stop):
        engine = slow(stop)

        def fail(*arguments):
            raise InferenceError("out of memory at 64x48")

        engine._infer = fail
        return engine

    with Behind(first(style), [("torch:cpu", broken)]) as engine:
        engine(IMAGE, Look())
        wait_for(lambda: slow.closed)
        engine(IMAGE, Look())
        assert engine.name == "onnxruntime"
    assert "engine torch:cpu does not take over from onnxruntime: out of memory at 64x48" in caplog.text


def test_one_that_comes_after_the_end_is_closed(style, monkeypatch):
    monkeypatch.setattr("engines.hot_swap.PATIENCE", 0.01)
    ready, slow = first(style), Slow(style)
    engine = Behind(ready, [("torch:cpu", slow)])
    engine(IMAGE, Look())
    engine.close()
    assert ready.closed.is_set()
    slow.go.set()
    wait_for(lambda: slow.closed)
    assert engine.name == "onnxruntime"


def test_one_that_is_being_built_at_the_end_is_told_to_give_up(style, caplog):
    told = threading.Event()

    def build(stop):
        assert stop.wait(10)
        told.set()
        raise EngineBuildError("given up")

    engine = Behind(first(style), [("tensorrt", build)])
    engine(IMAGE, Look())
    engine.close()
    assert told.is_set()
    assert "does not take over" not in caplog.text, "nobody waits for it any more"


def test_one_that_fails_in_an_unknown_way_is_said_and_the_next_one_takes_over(style, caplog):
    slow = Slow(style)
    slow.go.set()

    def broken(stop):
        raise NotADirectoryError("no cache")

    with Behind(first(style), [("tensorrt", broken), ("torch:cpu", slow)]) as engine:
        engine(IMAGE, Look())
        wait_for(lambda: engine.name == "torch:cpu")
    assert "engine tensorrt does not take over from onnxruntime: no cache" in caplog.text


def test_no_picture_is_lost_or_torn_when_several_threads_paint(style):
    ready, slow = first(style), Slow(style)
    with Behind(ready, [("torch:cpu", slow)]) as engine, ThreadPoolExecutor(4) as pool:
        expected = engine(IMAGE, Look())
        painted = []

        def paint(index):
            if index == 40:
                slow.go.set()
            painted.append(engine(IMAGE, Look()))

        index = 0
        while engine.name != "torch:cpu" or index < 200:
            list(pool.map(paint, range(index, index + 20)))
            index += 20
        assert ready.closed.wait(10)
        assert len(painted) == index
        assert all(engines.agreement(each, expected, "float32")[0] for each in painted)


def test_auto_begins_with_what_is_ready_where_there_is_a_gpu(style, monkeypatch, caplog):
    monkeypatch.setattr(engines, "gpus", lambda: 1)
    monkeypatch.setattr(engines, "ON_NVIDIA", ("torch:cpu",))
    with engines.load("auto", style=style, precision="float32", behind=True) as engine:
        assert engine.name == "openvino"
        engine(IMAGE, Look())
        wait_for(lambda: engine.name == "torch:cpu")
    with engines.load("auto", style=style, precision="float32") as engine:
        assert engine.name == "torch:cpu", "a file has one engine from its first frame to its last"
    monkeypatch.setattr(engines, "PREFERENCE", ())
    with engines.load("auto", style=style, precision="float32", behind=True) as engine:
        assert isinstance(engine, TorchEngine), "nothing else runs here"
    with engines.load("onnxruntime", style=style, behind=True) as engine:
        engine(IMAGE, Look())
        assert not isinstance(engine, Behind), "an engine asked for by name is that one"


def test_a_deck_goes_on_while_the_engine_changes_under_it(style):
    ready, slow = first(style), Slow(style)
    controls = Controls("tiny", style.styles, Look())
    deck = Deck(lambda pack: Behind(ready, [("torch:cpu", slow)]), "tiny", (64, 48), controls)
    before = deck(IMAGE, Scene(Look()))
    slow.go.set()
    while deck.engine.name != "torch:cpu":
        assert np.abs(deck(IMAGE, Scene(Look())).astype(int) - before).max() <= 2
    assert np.abs(deck(IMAGE, Scene(Look())).astype(int) - before).max() <= 2
    assert (deck.problem, deck.restarted) == ("", 0)
    deck.close()
    assert slow.closed
