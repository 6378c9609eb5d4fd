"""An engine that paints something else than the reference is not used, and what was found is remembered."""

import dataclasses
import json
import logging

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from platformdirs import user_cache_path

import engines
from engines import EngineBuildError, ParityError, Style, parity
from engines.onnxruntime import OnnxRuntimeEngine
from engines.plan_cache import PlanCache
from tests.packs import golden, tiny_pack


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def remembered():
    """The files of the verdicts so far."""
    return list((user_cache_path("fauve", appauthor=False) / "parity").rglob("*.json"))


@pytest.fixture
def style(tmp_path):
    return tiny_pack(tmp_path / "tiny")


def with_half(style: Style, half: bytes) -> Style:
    """`style` with a float16 model, which is `half`."""
    files = {**style.files, "half.onnx": half}
    models = {**style.models, "float16": "half.onnx"}
    return Style(style.name, style.title, style.styles, models, style.multiple, files=files)


class Counted(OnnxRuntimeEngine):
    """Takes the smallest model where it is not told, as engines on GPUs do, and counts its pictures."""

    painted = 0

    def __init__(self, style, provider="cpu", *, precision="auto", **options):
        if precision == "auto":
            precision = next(each for each in ("int8", "float16", "float32") if each in style.models)
        super().__init__(style, precision=precision, **options)

    def __call__(self, image, look):
        Counted.painted += 1
        return super().__call__(image, look)


@pytest.fixture
def _counted(monkeypatch):
    monkeypatch.setattr(engines.onnxruntime, "OnnxRuntimeEngine", Counted)
    Counted.painted = 0


def nudged(style: Style, gain: float) -> bytes:
    """The style's graph with other weights: another picture."""
    model = onnx.load_model_from_string(style.model())
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "up")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(gain), "up"))
    return model.SerializeToString()


@pytest.mark.usefixtures("_counted")
def test_it_is_compared_once_and_remembered(style):
    right = with_half(style, nudged(style, 1.0001))
    with engines.load("onnxruntime", style=right) as engine:
        assert engine.precision == "float16"
    assert Counted.painted == len(list(parity.trials(style.styles, (8, 8))))
    engines.load("onnxruntime", style=right).close()
    assert Counted.painted == 6, "the second load paints nothing"
    engines.load("onnxruntime", style=right, anew=True).close()
    assert Counted.painted == 12
    (said,) = [json.loads(path.read_text()) for path in remembered()]
    assert said["agrees"] is True
    assert said["difference"].startswith("PSNR ")
    assert "onnxruntime" in said["engine"]
    assert "float16" in said["engine"]


@pytest.mark.usefixtures("_counted")
def test_what_is_remembered_counts_for_that_model_and_precision_only(style):
    engines.load("onnxruntime", style=with_half(style, nudged(style, 1.0001))).close()
    engines.load("onnxruntime", style=with_half(style, nudged(style, 1.0002))).close()
    assert Counted.painted == 12
    engines.load("onnxruntime", style=with_half(style, nudged(style, 1.0002)), precision="float32").close()
    assert len(remembered()) == 3


@pytest.mark.usefixtures("_counted")
def test_after_int8_comes_the_next_precision(style, caplog):
    half = with_half(style, nudged(style, 1.0001))
    files = {**half.files, "int8.onnx": nudged(style, 0.9)}
    wrong = dataclasses.replace(half, models={**half.models, "int8": "int8.onnx"}, files=files)
    with engines.load("onnxruntime", style=wrong) as engine:
        assert engine.precision == "float16"
    assert "in int8 paints something else than the reference of tiny (PSNR " in caplog.text
    assert "dB); it paints in float16" in caplog.text
    with pytest.raises(ParityError, match="in int8 paints something else"):
        engines.load("onnxruntime", style=wrong, precision="int8")


@pytest.mark.usefixtures("_counted")
def test_a_16_bit_model_that_is_too_far_off_is_replaced_by_float32_and_said(style, caplog):
    wrong = with_half(style, nudged(style, 0.9))
    for _ in range(2):
        caplog.clear()
        with engines.load("onnxruntime", style=wrong) as engine:
            assert engine.precision == "float32"
        assert "in float16 paints something else than the reference of tiny (PSNR " in caplog.text
        assert "it paints in float32" in caplog.text
    with pytest.raises(ParityError, match="in float16 paints something else than the reference of tiny"):
        engines.load("onnxruntime", style=wrong, precision="float16")


def test_float32_that_misses_the_golden_picture_is_no_engine(style, caplog):
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    files = {**style.files, "golden.npz": golden(image, 255 - image, 2)}
    wrong = Style(style.name, style.title, style.styles, style.models, style.multiple, files=files)
    for name in ("openvino", "onnxruntime", "torch:cpu"):
        with pytest.raises(ParityError, match=r"\(\d+ grey levels\)"):
            engines.load(name, style=wrong, precision="float32")
    with pytest.raises(engines.EngineUnavailable, match=r"no engine runs here: .*openvino.*; onnxruntime"):
        engines.load("auto", style=wrong)


def test_a_verdict_that_is_damaged_is_found_again(style):
    engines.load("openvino", style=style).close()
    (path,) = remembered()
    path.write_text('{"agrees": ')
    engines.load("openvino", style=style).close()
    assert json.loads(path.read_text())["agrees"] is True


def test_what_the_reference_could_not_judge_is_not_remembered(style, monkeypatch, caplog):
    class Starved:
        def __init__(self, *_, **__):
            raise engines.EngineUnavailable("no memory left")

    with monkeypatch.context() as starving, caplog.at_level(logging.INFO, "fauve"):
        starving.setattr(parity, "OnnxRuntimeEngine", Starved)
        engines.load("openvino", style=style).close()
    assert "openvino is not compared with the reference: no memory left" in caplog.text
    assert remembered() == []
    engines.load("openvino", style=style).close()
    assert len(remembered()) == 1


def test_a_verdict_holds_for_the_versions_that_it_was_found_with(style, monkeypatch):
    installed = {"openvino": "1", "onnxruntime-gpu": "1"}
    monkeypatch.setattr(parity, "version_of", lambda package: installed.get(package, ""))
    for name in ("onnxruntime", "onnxruntime:cuda", "onnxruntime:coreml", "onnxruntime:dml"):
        assert parity.version(name) == "onnxruntime-gpu 1"
    assert (parity.version("openvino:gpu"), parity.version("tensorrt")) == ("1", "")
    engines.load("openvino", style=style).close()
    for number, package in enumerate(("onnxruntime-gpu", "openvino", "onnxruntime", "triton")):
        installed[package] = "2"
        engines.load("openvino", style=style).close()
        assert len(remembered()) == min(2 + number, 4), package
    assert parity.version("onnxruntime") == "2, onnxruntime-gpu 2"
    assert parity.version("torch:cuda") == "triton 2"


def test_a_cache_that_cannot_be_written_stops_nothing(style, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.INFO, "fauve"), engines.load("openvino", style=style) as engine:
        assert engine.name == "openvino"
    assert "cannot be remembered" in caplog.text


def test_who_has_no_home_has_engines_all_the_same(style, monkeypatch, caplog):
    def homeless(*_, **__):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("engines.fact_cache.user_cache_path", homeless)
    with caplog.at_level(logging.INFO, "fauve"), engines.load("openvino", style=style, precision="float32"):
        assert "cannot be remembered: [Errno 2] no home to keep it in; set HOME" in caplog.text
    with pytest.raises(EngineBuildError, match=r"^tensorrt: .*: no home to keep it in; set HOME$"):
        PlanCache()


@pytest.mark.parametrize("size", [(1, 1), (8, 6), (160, 120)])
def test_the_frames_have_the_size_asked_for_and_differ(size):
    frames = parity.built_in(size)
    assert [frame.shape for frame in frames] == [(size[1], size[0], 3)] * 5
    assert all(np.array_equal(a, b) for a, b in zip(frames, parity.built_in(size), strict=True))
    if size != (1, 1):
        assert len({frame.tobytes() for frame in frames}) == 5


def test_every_style_and_every_frame_is_tried():
    styles = Style.load("live").styles
    tried = list(parity.trials(styles, (16, 16)))
    assert {name for _, look in tried for name in look.mix} == set(styles)
    assert len({frame.tobytes() for frame, _ in tried}) == 5


def test_the_limits():
    grey = np.full((10, 10, 3), 100, np.uint8)
    assert parity.agreement(grey, grey, "float16") == (True, "PSNR inf dB")
    assert parity.agreement(grey + 2, grey, "float32") == (True, "2 grey levels")
    assert parity.agreement(grey + 3, grey, "float32") == (False, "3 grey levels")
    assert parity.agreement(grey - 2, grey, "bfloat16") == (True, "PSNR 42.1 dB")
    assert parity.agreement(grey - 3, grey, "float16") == (False, "PSNR 38.6 dB")
