"""Each ONNX operator that torch executes gives what ONNX Runtime gives."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from engines import EngineUnavailable, Look, bundled
from engines.onnx_operators import MAKERS, OWN, UnsupportedNode
from engines.onnx_to_torch import Program
from engines.style import Style

SHAPE = (1, 9, 13, 3)


def graph(nodes, constants, opset):
    """A model of `nodes`, to "stylized", with the inputs and output of a pack; serialised."""
    value = helper.make_tensor_value_info
    inputs = [
        value("image", TensorProto.UINT8, ["n", "h", "w", 3]),
        value("mix", TensorProto.FLOAT, [3]),
        value("strength", TensorProto.FLOAT, [1]),
        value("origin", TensorProto.INT64, [2]),
    ]
    known = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    made = helper.make_graph(nodes, "graph", inputs, [onnx.ValueInfoProto(name="stylized")], known)
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(proto, data_prop=True).SerializeToString()


def model(nodes, weights, opset):
    """`nodes` from the float planes "x" [1, 3, 9, 13] to "y", with the inputs and output of a pack."""
    begins = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "sixteenth"], ["small"]),
        helper.make_node("Sub", ["small", "middle"], ["x"]),
    ]
    constants = {**weights, "sixteenth": np.float32(1 / 16), "middle": np.float32(7)}
    return graph([*begins, *nodes, helper.make_node("Identity", ["y"], ["stylized"])], constants, opset)


def both(nodes, weights, opset, strength=0.5, origin=(3, -7)):
    """What torch and ONNX Runtime make of the same picture."""
    import onnxruntime

    content = model(nodes, weights, opset)
    rng = np.random.default_rng(1)
    inputs = {
        "image": rng.integers(0, 256, SHAPE, np.uint8),
        "mix": np.array([0.5, 0.2, 0.3], np.float32),
        "strength": np.array([strength], np.float32),
        "origin": np.array(origin, np.int64),
    }
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    expected = session.run(None, inputs)[0]
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        other = torch.full_like(tensors["image"], 77)
        image = tensors.pop("image")
        others = {"mix": tensors["mix"].flip(0), "strength": torch.ones(1), "origin": torch.tensor([11, 5])}
        settled = Program(content, torch.device("cpu")).settle(other, others)
        return settled.picture(image, settled.look(tensors)).numpy(), expected


def node(kind, *inputs, outputs=("y",), **attributes):
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


RNG = np.random.default_rng(2)
KERNEL = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
BACK = RNG.normal(size=(3, 4, 3, 4)).astype(np.float32)
FOUR, THREE = RNG.normal(size=4).astype(np.float32), RNG.uniform(0.5, 2, 3).astype(np.float32)


HALF = np.array([1, 1, 0.5, 0.5], np.float32)


def ints(*numbers):
    return np.array(numbers, np.int64)


CASES = {
    "conv": ([node("Conv", "x", "w", "b", strides=[2, 1], pads=[1, 1, 1, 1])], {"w": KERNEL, "b": FOUR}),
    "conv with uneven padding": ([node("Conv", "x", "w", pads=[0, 1, 2, 1])], {"w": KERNEL}),
    "conv SAME_UPPER": ([node("Conv", "x", "w", strides=[2, 2], auto_pad="SAME_UPPER")], {"w": KERNEL}),
    "conv SAME_LOWER": ([node("Conv", "x", "w", strides=[2, 2], auto_pad="SAME_LOWER")], {"w": KERNEL}),
    "conv by channel": ([node("Conv", "x", "w", group=3, dilations=[2, 1])], {"w": KERNEL[:3, :1]}),
    "transposed conv": (
        [node("ConvTranspose", "x", "w", "b", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 0])],
        {"w": BACK, "b": FOUR},
    ),
    "transposed conv cut unevenly": (
        [node("ConvTranspose", "x", "w", strides=[2, 2], pads=[0, 1, 1, 2])],
        {"w": BACK},
    ),
    "pad with a level": (
        [node("Pad", "x", "p", "v")],
        {"p": ints(0, 0, 1, 2, 0, 0, 3, 0), "v": np.float32(5)},
    ),
    "pad reflect": ([node("Pad", "x", "p", mode="reflect")], {"p": ints(0, 0, 1, 2, 0, 0, 3, 4)}),
    "pad edge": ([node("Pad", "x", "p", mode="edge")], {"p": ints(0, 0, 1, 2, 0, 1, 3, 0)}),
    "pad edge of chosen axes": (
        [node("Pad", "x", "p", "", "a", mode="edge")],
        {"p": ints(1, 2, 3, 4), "a": ints(-1, 2)},
    ),
    "resize nearest": ([node("Resize", "x", "", "s")], {"s": np.array([1, 1, 2, 3], np.float32)}),
    "resize nearest by a fraction": (
        [node("Resize", "x", "", "s", nearest_mode="floor", coordinate_transformation_mode="asymmetric")],
        {"s": np.array([1, 1, 1.7, 0.6], np.float32)},
    ),
    # Nine times as much is not quite eleven, and is eleven in float32.
    "resize nearest by what is nearly a fraction": (
        [node("Resize", "x", "", "s", nearest_mode="floor", coordinate_transformation_mode="asymmetric")],
        {"s": np.array([1, 1, 11 / 9, 17 / 13], np.float32)},
    ),
    "resize linear": (
        [node("Resize", "x", "", "", "s", mode="linear")],
        {"s": ints(1, 3, 18, 20)},
    ),
    "resize linear with aligned corners": (
        [node("Resize", "x", "", "s", mode="linear", coordinate_transformation_mode="align_corners")],
        {"s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "resize to the size of another": (
        [
            node("Shape", "x", outputs=["shape"], start=2),
            node("Mul", "shape", "two", outputs=["sides"]),
            node("Shape", "x", outputs=["first"], end=2),
            node("Concat", "first", "sides", outputs=["sizes"], axis=0),
            node("Resize", "x", "", "", "sizes"),
        ],
        {"two": ints(2)},
    ),
    "instance norm": ([node("InstanceNormalization", "x", "s", "b")], {"s": THREE, "b": THREE - 1}),
    "batch norm": ([node("BatchNormalization", "x", "s", "s", "m", "s")], {"s": THREE, "m": THREE - 1}),
    "softmax and sum": (
        [node("Softmax", "x", outputs=["a"], axis=1), node("ReduceSum", "a", "s", keepdims=0)],
        {"s": ints(3)},
    ),
    "instance norm of a single pixel": (
        [
            node("ReduceMean", "x", "a", outputs=["pixel"]),
            node("InstanceNormalization", "pixel", "s", "b"),
        ],
        {"a": ints(2, 3), "s": THREE, "b": THREE - 1},
    ),
    "mean": ([node("ReduceMean", "x", "a")], {"a": ints(2, 3)}),
    "mean and sum over no axes": (
        [
            node("ReduceMean", "x", "none", outputs=["a"], noop_with_empty_axes=1),
            node("ReduceSum", "a", outputs=["b"], noop_with_empty_axes=1),
            node("ReduceMean", "x", "none", outputs=["c"]),
            node("Add", "b", "c"),
        ],
        {"none": ints()},
    ),
    "clip without bounds": ([node("Clip", "x")], {}),
    "power of a whole number": (
        [
            node("Cast", "x", outputs=["a"], to=TensorProto.INT64),
            node("Pow", "a", "two", outputs=["b"]),
            node("Div", "b", "three", outputs=["c"]),
            node("Cast", "c", to=TensorProto.FLOAT),
        ],
        {"two": np.array([2], np.float32), "three": ints(3)},
    ),
    "global pool": ([node("GlobalAveragePool", "x")], {}),
    "average pool": ([node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], {}),
    "max pool": ([node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2])], {}),
    "max pool of distant pixels": ([node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 3])], {}),
    "activations": (
        [
            node("LeakyRelu", "x", outputs=["a"], alpha=0.3),
            node("Sigmoid", "a", outputs=["b"]),
            node("Reciprocal", "b", outputs=["g"]),
            node("Neg", "g", outputs=["c"]),
            node("Exp", "c", outputs=["d"]),
            node("Tanh", "d", outputs=["e"]),
            node("PRelu", "x", "slope", outputs=["f"]),
            node("Add", "e", "f"),
        ],
        {"slope": THREE[:, None, None]},
    ),
    "rounding": (
        [
            node("Round", "x", outputs=["a"]),
            node("Floor", "x", outputs=["b"]),
            node("Ceil", "x", outputs=["c"]),
            node("Abs", "x", outputs=["d"]),
            node("Sqrt", "d", outputs=["e"]),
            node("Pow", "e", "three", outputs=["f"]),
            node("Min", "a", "f", "c", outputs=["g"]),
            node("Max", "g", "b", outputs=["h"]),
            node("Clip", "h", "low", "high", outputs=["i"]),
            node("Div", "i", "three"),
        ],
        {"three": np.float32(3), "low": np.float32(-5), "high": np.float32(4)},
    ),
    "split and concat": (
        [node("Split", "x", "s", outputs=["a", "b"], axis=1), node("Concat", "b", "a", axis=1)],
        {"s": ints(1, 2)},
    ),
    "slice": (
        [node("Slice", "x", "s", "e", "a", "t")],
        {"s": ints(-7, 1), "e": ints(1000, -1), "a": ints(2, 3), "t": ints(2, 3)},
    ),
    "slice backwards": (
        [
            node("Slice", "x", "s", "e", "a", "t", outputs=["b"]),
            node("Slice", "pads", "last", "first", "zero", "back", outputs=["p"]),
            node("Pad", "b", "p"),
        ],
        {
            "s": ints(100, 1, -2),
            "e": ints(-(2**62), 9, 2),
            "a": ints(1, 2, -1),
            "t": ints(-1, 3, -2),
            "pads": ints(1, 2, 0, 0, 3, 4, 0, 0),
            "last": ints(-1),
            "first": ints(-(2**63) + 1),
            "zero": ints(0),
            "back": ints(-1),
        },
    ),
    "tile": ([node("Tile", "x", "r")], {"r": ints(1, 2, 1, 3)}),
    "gather": ([node("Gather", "x", "i", axis=1)], {"i": ints(-1, 0, 1, 0)}),
    "gather elements": (
        [node("GatherElements", "x", "i", axis=2)],
        {"i": np.random.default_rng(0).integers(-3, 3, (1, 2, 4, 3))},
    ),
    "space to depth and back": (
        [
            node("Pad", "x", "p", outputs=["even"]),
            node("SpaceToDepth", "even", outputs=["deep"], blocksize=2),
            node("DepthToSpace", "deep", outputs=["a"], blocksize=2),
            node("DepthToSpace", "deep", outputs=["b"], blocksize=2, mode="CRD"),
            node("Sub", "a", "b"),
        ],
        {"p": ints(0, 0, 0, 0, 0, 0, 1, 1)},
    ),
    "shapes": (
        [
            node("Unsqueeze", "x", "last", outputs=["a"]),
            node("Squeeze", "a", "last", outputs=["b"]),
            node("Expand", "b", "twice", outputs=["c"]),
            node("Reshape", "c", "shape", outputs=["d"]),
            node("Dropout", "d"),
        ],
        {"last": ints(-1), "twice": ints(2, 1, 1, 1), "shape": ints(0, -1, 13)},
    ),
    "constants": (
        [
            node("Constant", outputs=["a"], value_floats=[1.0, 2.0, 3.0]),
            node("Reshape", "a", "shape", outputs=["b"]),
            node("ConstantOfShape", "shape", outputs=["c"]),
            node("Add", "b", "c", outputs=["d"]),
            node("Add", "x", "d"),
        ],
        {"shape": ints(3, 1, 1)},
    ),
}


def check(nodes, weights, opset=18):
    painted, expected = both(nodes, weights, opset)
    assert painted.shape == expected.shape
    np.testing.assert_allclose(painted, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0


@pytest.mark.parametrize("case", CASES)
def test_an_operator(case):
    check(*CASES[case])


def test_older_spellings():
    """Before opset 11 to 13, what are inputs now were attributes."""
    cut = {"starts": [1], "ends": [8], "axes": [2]}
    nodes = [
        node("Pad", "x", outputs=["a"], mode="reflect", pads=[0, 0, 1, 1, 0, 0, 1, 1]),
        node("Slice", "a", outputs=["b"], **cut),
        node("Upsample", "b", "s", outputs=["c"], mode="nearest"),
        node("Clip", "c", outputs=["d"], min=-3.0, max=3.0),
        node("Unsqueeze", "d", outputs=["e"], axes=[0]),
        node("Squeeze", "e", outputs=["f"], axes=[0]),
        node("ReduceMean", "f", outputs=["g"], axes=[1]),
        node("Split", "g", outputs=["h", "i"], axis=2, split=[7, 7]),
        node("Sub", "h", "i"),
    ]
    check(nodes, {"s": np.array([1, 1, 2, 2], np.float32)}, opset=9)


@pytest.mark.parametrize("given", [{}, {"axis": 2}, {"axis": -1}])
def test_softmax_over_all_axes_behind(given):
    """Before opset 13, as if there were no more than two."""
    check([node("Softmax", "x", **given)], {}, opset=12)


@pytest.mark.parametrize(
    ("made", "opset", "named"),
    [
        (node("Resize", "x", "", "s", mode="linear", antialias=1), 18, "Resize with antialias"),
        (node("Resize", "x", "", "s2", axes=[2, 3]), 18, "Resize along chosen axes"),
        (
            node("BatchNormalization", "x", *["three"] * 4, outputs=["y", "m", "v"], training_mode=1),
            18,
            "BatchNormalization as in training",
        ),
        (node("AveragePool", "x", kernel_shape=[2, 2], dilations=[2, 2]), 19, "AveragePool with dilations"),
    ],
)
def test_what_an_operator_is_not_known_to_do_is_named(made, opset, named):
    with pytest.raises(UnsupportedNode, match=f"^{named}$"):
        both([made], {"s": HALF, "s2": HALF[2:], "three": THREE}, opset)


def test_parts_before_they_were_counted():
    """Before opset 18, `Split` made as many equal parts as it has outputs."""
    nodes = [
        node("Split", "x", outputs=["a", "b", "c"], axis=1),
        node("Concat", "c", "a", "b", axis=1),
    ]
    check(nodes, {}, opset=13)


def test_sizes_of_opset_10():
    check([node("Resize", "x", "s", mode="nearest")], {"s": np.array([1, 1, 2, 3], np.float32)}, opset=10)


def test_bounds_that_change_with_the_look():
    nodes = [
        node("Reshape", "strength", "scalar", outputs=["low"]),
        node("Clip", "x", "low"),
    ]
    check(nodes, {"scalar": np.zeros(0, np.int64)})


@pytest.mark.parametrize("fmod", [0, 1])
def test_what_lies_behind_the_picture_moves_with_the_look(fmod):
    """Rows of a table by a place that the look decides, of either sign and beyond the table's end."""
    nodes = [
        node("Shape", "x", outputs=["shape"]),
        node("Gather", "shape", "two", outputs=["height"]),
        node("Range", "zero", "height", "one", outputs=["rows"]),
        node("Gather", "origin", "one", outputs=["first"]),
        node("Add", "rows", "first", outputs=["places"]),
        node("Mod", "places", "eleven", outputs=["within"], fmod=fmod),
        node("Gather", "table", "within", outputs=["behind"], axis=2),
        node("Add", "x", "behind"),
    ]
    numbers = {"zero": 0, "one": 1, "two": 2, "eleven": 11}
    table = RNG.normal(size=(1, 3, 11, 1)).astype(np.float32)
    check(nodes, {"table": table, **{name: np.array(n, np.int64) for name, n in numbers.items()}})


AFFINE = [
    node("Mul", "mix", "strength", outputs=["weights"]),
    node("Unsqueeze", "weights", "zero", outputs=["row"]),
    node("MatMul", "row", "scales", outputs=["scale"]),
    node("Unsqueeze", "scale", "sides", outputs=["scale4"]),
    node("MatMul", "row", "shifts", outputs=["shift"]),
    node("Unsqueeze", "shift", "sides", outputs=["shift4"]),
    node("Mul", "conv", "scale4", outputs=["scaled"]),
    node("Add", "scaled", "shift4", outputs=["shifted"]),
    node("Relu", "shifted"),
]
STYLES = {
    "zero": ints(0),
    "sides": ints(2, 3),
    "scales": RNG.normal(size=(3, 4)).astype(np.float32),
    "shifts": RNG.normal(size=(3, 4)).astype(np.float32) * 5,
}


@pytest.mark.parametrize(("kind", "weight"), [("Conv", KERNEL), ("ConvTranspose", BACK)])
@pytest.mark.parametrize("bias", [True, False])
def test_what_the_look_does_to_a_convolution_is_folded_into_its_weights(kind, weight, bias):
    inputs = ["x", "w", *(["b"] if bias else [])]
    nodes = [node(kind, *inputs, outputs=["conv"]), *AFFINE]
    weights = {**STYLES, "w": weight, **({"b": FOUR} if bias else {})}
    check(nodes, weights)
    kinds = [each.kind for each in Program(model(nodes, weights, 18), torch.device("cpu"))._nodes]
    assert kinds[-4:] == [f"Scale{kind}", "Shift", kind, "Identity"]
    assert "Relu" not in kinds


def test_a_convolution_that_is_read_twice_stays_as_it_is():
    nodes = [
        node("Conv", "x", "w", outputs=["conv"]),
        *AFFINE[:-1],
        node("Relu", "shifted", outputs=["relu"]),
        node("Add", "relu", "conv"),
    ]
    check(nodes, {**STYLES, "w": KERNEL})


def test_an_operator_that_is_not_known_is_named():
    nodes = [node("Hardmax", "x", outputs=["a"]), node("Erf", "a")]
    with pytest.raises(EngineUnavailable, match="torch does not know the operator Erf, Hardmax"):
        Program(model(nodes, {}, 18), torch.device("cpu"))


@pytest.mark.parametrize("kind", ["Relu", "Shift"])
def test_an_operator_of_another_domain_is_not_taken_for_one_that_is_known(kind):
    proto = onnx.load_model_from_string(model([node("Relu", "x")], {}, 18))
    relu = next(each for each in proto.graph.node if each.op_type == "Relu")
    relu.op_type, relu.domain = kind, "com.example"
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(EngineUnavailable, match=f"torch does not know the operator com.example.{kind}"):
        Program(proto.SerializeToString(), torch.device("cpu"))


def test_the_other_name_of_onnx_s_own_domain():
    proto = onnx.load_model_from_string(model([node("Softmax", "x")], {}, 12))
    proto.opset_import[0].domain = "ai.onnx"
    softmax = next(each for each in Program(proto.SerializeToString(), torch.device("cpu"))._nodes[::-1][1:])
    assert softmax.attributes == {"axis": 1, "behind": True}, "as opset 12 has it"


def test_outputs_that_are_left_out():
    """They have the empty name, as inputs that are left out."""
    nodes = [
        node("MaxPool", "x", outputs=["a", ""], kernel_shape=[2, 2]),
        node("Dropout", "a", outputs=["b", "mask"]),
        node("Resize", "b", "", "twice"),
    ]
    check(nodes, {"twice": np.array([1, 1, 2, 2], np.float32)})


def test_an_output_before_another_may_be_left_out():
    """ONNX Runtime crashes on it."""
    image = torch.from_numpy(RNG.integers(0, 256, SHAPE, np.uint8))
    made = []
    for left_out in ("", "first"):
        nodes = [
            node("Split", "x", "parts", outputs=[left_out, "a"], axis=1),
            node("Clip", "a", "", "high"),
        ]
        content = model(nodes, {"parts": ints(1, 2), "high": np.float32(3)}, 18)
        made.append(Program(content, torch.device("cpu")).settle(image, {}).picture(image, {}))
    assert torch.equal(*made)


def test_an_output_that_is_not_made_here_is_named_when_it_is_wanted():
    nodes = [
        node("Dropout", "x", outputs=["a", "mask"]),
        node("Cast", "mask", outputs=["b"], to=TensorProto.FLOAT),
        node("Add", "a", "b"),
    ]
    with pytest.raises(UnsupportedNode, match=r"^Dropout with 2 outputs$"):
        both(nodes, {}, 18)


def test_the_steps_of_a_picture_are_what_paints_it():
    style = Style.load("live")
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 16, 32, 3), np.uint8))
    inputs = {name: torch.from_numpy(value) for name, value in style.place((32, 16), Look()).inputs.items()}
    with torch.inference_mode():
        settled = Program(style.model(), torch.device("cpu")).settle(image, inputs)
        look = settled.look(inputs)
        steps = list(settled.steps(image, look))
        last, given = steps[-1]
        assert torch.equal(last(*given), settled.picture(image, look))
    assert len(steps) == len(settled._picture) > 20


def test_every_operator_is_tested_or_bundled():
    tested = {each.op_type for nodes, _ in CASES.values() for each in nodes} | {"Mod", "Range"}
    for name in bundled():
        proto = onnx.load_model_from_string(Style.load(name).model())
        tested |= {each.op_type for each in proto.graph.node}
    assert MAKERS.keys() - tested - OWN == {"Upsample", "Identity"}
    assert MAKERS.keys() > OWN
    assert all(not onnx.defs.has(kind) for kind in OWN)


class Elsewhere(torch.Tensor):
    """A tensor that lies on another device, as far as torch can tell, and is computed with here."""

    @staticmethod
    def __new__(cls, held):
        strides, offset = held.stride(), held.storage_offset()
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=strides, storage_offset=offset, dtype=held.dtype, device="meta"
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        raise AssertionError(f"{operator} outside of `Devices`")


class Devices(TorchDispatchMode):
    """Refuses operators of tensors on two devices, as CUDA does; `copies` are those from one to another."""

    def __init__(self):
        super().__init__()
        self.copies = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        given = (args, kwargs or {})
        leaves = tree_leaves(given)
        tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
        away = [x for x in tensors if isinstance(x, Elsewhere)]
        named = [x for x in leaves if isinstance(x, torch.device)]
        goes_away = any(x.type == "meta" for x in named) if named else bool(away)
        moves = operator.name().startswith(("aten::to.", "aten::_to_copy", "aten::_local_scalar_dense"))
        if moves and (goes_away != bool(away) or ("scalar" in operator.name() and away)):
            self.copies.append(operator)
        elif away and len(away) < len(tensors):
            # A single number from here may take part in arithmetic, but point to nothing and bound nothing.
            single = all(x.dim() == 0 for x in tensors if not isinstance(x, Elsewhere))
            if not single or "index" in operator.name() or "clamp" in operator.name():
                raise RuntimeError(f"{operator}: on two devices: {[(x.device, x.shape) for x in tensors]}")

        def here(x):
            if isinstance(x, torch.device):
                return torch.device("cpu")
            return x.held if isinstance(x, Elsewhere) else x

        args, kwargs = tree_map(here, given)
        made = operator(*args, **kwargs)
        if not goes_away or "scalar" in operator.name():
            return made
        return tree_map(lambda x: Elsewhere(x) if isinstance(x, torch.Tensor) else x, made)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("name", bundled())
def test_a_bundled_style_needs_one_device_alone(name, precision):
    import onnxruntime

    style, size = Style.load(name), (112, 80)
    image = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), np.uint8)
    chosen = (Look(), Look({style.styles[-1]: 1.0}, 1.0, (16.0, -32.0)))
    looks = [style.place(size, look).inputs for look in chosen]
    away = torch.device("meta")
    with torch.inference_mode(), Devices() as devices:
        there = torch.from_numpy(image).to(away)
        inputs = [{key: torch.from_numpy(value).to(away) for key, value in look.items()} for look in looks]
        settled = Program(style.model(precision), away).settle(there, inputs[0])
        # From here on a CUDA graph is recorded, which stands no copies from host to device or back.
        devices.copies.clear()
        painted = [settled.picture(there, settled.look(look)).held.numpy() for look in inputs]
        assert not devices.copies
    session = onnxruntime.InferenceSession(style.model("float32"), providers=["CPUExecutionProvider"])
    for found, look in zip(painted, looks, strict=True):
        expected = session.run(None, {"image": image, **look})[0]
        error = np.abs(found.astype(int) - expected)
        assert error.max() <= 1 if precision == "float32" else error.mean() < 1
