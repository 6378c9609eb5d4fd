"""The graph that TensorRT is given paints what the pack's paints, and has bytes at its ends alone."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

import engines
from engines import Style
from engines.tensorrt_graph import without_bytes, working_memory
from tests.packs import animegan, fast_neural_style, tiny_model


def painted(model, image, mix):
    options = SessionOptions()
    # As the graph says: what it makes of two graphs otherwise adds in another order, and rounds so.
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    session = InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = {"image": image, "mix": mix, "strength": np.ones(1, np.float32), "origin": np.array([3, -2])}
    return session.run(["stylized"], {each.name: inputs[each.name] for each in session.get_inputs()})[0]


def readers_and_writers_of_bytes(model):
    """Kinds of the nodes that take bytes, and of those that give them."""
    proto = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model), strict_mode=True)
    graph = proto.graph
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in [*graph.input, *graph.value_info, *graph.output]
    }
    took = [node.op_type for node in graph.node if TensorProto.UINT8 in map(kinds.get, node.input)]
    gave = [node.op_type for node in graph.node if TensorProto.UINT8 in map(kinds.get, node.output)]
    return took, gave


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("name", engines.bundled())
def test_a_bundled_style_paints_the_same_to_the_bit(name, precision):
    style = Style.load(name)
    golden = style.golden()
    height, width = (side // style.multiple * style.multiple for side in golden.image.shape[:2])
    image = np.ascontiguousarray(golden.image[None, :height, :width])
    model = style.model(precision)
    assert readers_and_writers_of_bytes(model)[0] != ["Cast"], "the packs have no need of this any more"
    rewritten = without_bytes(model)
    onnx.checker.check_model(rewritten, full_check=True)
    assert readers_and_writers_of_bytes(rewritten) == (["Cast"], ["Cast"])
    mix = golden.look.weights(style.styles)
    assert np.array_equal(painted(rewritten, image, mix), painted(model, image, mix))
    kinds = [
        {each.data_type for each in onnx.load_model_from_string(graph).graph.initializer}
        for graph in (model, rewritten)
    ]
    assert TensorProto.INT8 in kinds[0], "the packs have no need of this any more"
    assert TensorProto.INT8 not in kinds[1]
    cast = onnx.load_model_from_string(rewritten).graph.node[0]
    half = precision == "float16"
    assert helper.get_attribute_value(cast.attribute[0]) == (
        TensorProto.FLOAT16 if half else TensorProto.FLOAT
    )


@pytest.mark.parametrize("make", [tiny_model, fast_neural_style, animegan])
def test_so_does_any_other(make, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(make())
    model = path.read_bytes() if make is tiny_model else engines.load_style(path).model()
    rewritten = without_bytes(model)
    assert readers_and_writers_of_bytes(rewritten) == (["Cast"], ["Cast"])
    image = np.random.default_rng(1).integers(0, 256, (1, 32, 48, 3), np.uint8)
    mix = np.ones(2 if make is tiny_model else 1, np.float32)
    assert np.array_equal(painted(rewritten, image, mix), painted(model, image, mix))


def test_the_working_memory_is_that_of_the_largest_layer():
    # float32, 3 planes in and 3 out: "y" is their sum.
    assert working_memory(tiny_model(), (640, 480)) == 3 * 640 * 480 * 3 * 4


@pytest.mark.parametrize("name", engines.bundled())
def test_half_the_precision_takes_half_the_memory(name):
    style = Style.load(name)
    # Of a picture so large that it takes more than the canvas does.
    size = (2560, 1440)
    full, half = (working_memory(style.model(precision), size) for precision in ("float32", "float16"))
    assert half == full // 2
    assert working_memory(style.model(), (5120, 2880)) == pytest.approx(4 * full, rel=0.02)
