"""Style packs and third-party graphs that the tests make for themselves, without torch."""

import io
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.style import Credit, Style, write_pack


def tiny_model(styles: int = 2, gain: float = 1.0, *, carried: bool = False) -> bytes:
    """A graph under the packs' contract: blurs at half size, with a colour of its own for each style.

    Args:
        carried: paint on a canvas that moves with the scene, too.
    """
    rng = np.random.default_rng(3)
    weights = {
        "down": rng.uniform(0.5 / 48, 1.5 / 48, (6, 3, 4, 4)).astype(np.float32) * gain,
        "up": rng.uniform(0.7 / 24, 1.3 / 24, (6, 3, 4, 4)).astype(np.float32),
        "colours": rng.uniform(-60, 60, (styles, 3)).astype(np.float32),
        "shape": np.array([1, 3, 1, 1], np.int64),
        "black": np.array(0, np.float32),
        "white": np.array(255, np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "down"], ["half"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["half"], ["relu"]),
        node("ConvTranspose", ["relu", "up"], ["blurred"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("MatMul", ["mix", "colours"], ["colour"]),
        node("Reshape", ["colour", "shape"], ["shift"]),
        node("Add", ["blurred", "shift"], ["painted"]),
        *(canvas(node, weights) if carried else []),
        node("Sub", ["covered" if carried else "painted", "planes"], ["residual"]),
        node("Mul", ["residual", "strength"], ["weighted"]),
        node("Add", ["planes", "weighted"], ["y"]),
        node("Round", ["y"], ["rounded"]),
        node("Clip", ["rounded", "black", "white"], ["clipped"]),
        node("Transpose", ["clipped"], ["pixels"], perm=[0, 2, 3, 1]),
        node("Cast", ["pixels"], ["stylized"], to=TensorProto.UINT8),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            value("image", TensorProto.UINT8, ["n", "h", "w", 3]),
            value("mix", TensorProto.FLOAT, [styles]),
            value("strength", TensorProto.FLOAT, [1]),
            *([value("origin", TensorProto.INT64, [2])] if carried else []),
        ],
        [value("stylized", TensorProto.UINT8, ["n", "h", "w", 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return serialized(graph)


CANVAS = 40
"""Side of the tiny model's canvas, in pixels, after which it repeats."""


def canvas(node, weights: dict[str, np.ndarray]) -> list[onnx.NodeProto]:
    """What lays noise over "painted", at the place that "origin" says in blocks of 8 pixels."""
    rng = np.random.default_rng(4)
    weights["grain"] = rng.uniform(-50, 50, (1, 3, CANVAS, CANVAS)).astype(np.float32)
    numbers = {"none": 0, "one": 1, "two": 2, "three": 3, "block": 8, "side": CANVAS}
    weights.update({name: np.array(number, np.int64) for name, number in numbers.items()})
    nodes = [node("Shape", ["painted"], ["sides"])]
    last = "grain"
    for axis, at in (("two", "none"), ("three", "one")):
        nodes += [
            node("Gather", ["sides", axis], [f"length{axis}"]),
            node("Range", ["none", f"length{axis}", "one"], [f"along{axis}"]),
            node("Gather", ["origin", at], [f"blocks{axis}"]),
            node("Mul", [f"blocks{axis}", "block"], [f"first{axis}"]),
            node("Add", [f"along{axis}", f"first{axis}"], [f"places{axis}"]),
            node("Mod", [f"places{axis}", "side"], [f"within{axis}"]),
            node("Gather", [last, f"within{axis}"], [f"grain{axis}"], axis=int(numbers[axis])),
        ]
        last = f"grain{axis}"
    return [*nodes, node("Add", ["painted", last], ["covered"])]


def serialized(graph: onnx.GraphProto, opset: int = 18) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def golden(image: np.ndarray, stylized: np.ndarray, styles: int) -> bytes:
    content = io.BytesIO()
    mix, strength = np.eye(styles, dtype=np.float32)[0], np.array([1], np.float32)
    np.savez(content, image=image, stylized=stylized, mix=mix, strength=strength)
    return content.getvalue()


def tiny_pack(folder: Path, *, multiple: int = 8, native_height: int = 96, carried: bool = False) -> Style:
    """A pack of two styles, "warm" and "cold", written to `folder`; `carried` as of `tiny_model`."""
    return write_pack(
        folder,
        name=folder.name,
        title="Tiny",
        credits=[
            Credit("warm", "A Warm Painting", "Nobody", 1900),
            Credit("cold", "A Cold Painting", "Nobody", 1901),
        ],
        files={"model.onnx": tiny_model(2, carried=carried)},
        models={"float32": "model.onnx"},
        multiple=multiple,
        native_height=native_height,
        license="CC0-1.0",
    )


def fast_neural_style(size: tuple[int, int] | None = None, opset: int = 9) -> bytes:
    """Johnson et al. in its published shape: NCHW, 0..255 in and out, no activation at the end."""
    h, w = size or ("h", "w")
    return _stylizer(
        [1 if size else "n", 3, h, w],
        [("conv", 3, 8, 9, 1), ("relu",), ("conv", 8, 16, 3, 2), ("relu",), ("up",), ("conv", 16, 3, 9, 1)],
        opset,
    )


def animegan(size: tuple[int, int] | None = None, opset: int = 13) -> bytes:
    """AnimeGANv3 in its published shape: NHWC, -1..1 in and out, tanh at the end."""
    h, w = size or ("h", "w")
    return _stylizer(
        [1 if size else "n", h, w, 3],
        [("nchw",), ("conv", 3, 8, 7, 1), ("relu",), ("up",), ("conv", 8, 3, 7, 2), ("tanh",), ("nhwc",)],
        opset,
    )


def _stylizer(shape, layers, opset: int) -> bytes:
    rng = np.random.default_rng(5)
    nodes, weights, last = [], [], "input"
    for index, (kind, *numbers) in enumerate(layers):
        name = f"{kind}{index}"
        if kind == "conv":
            inputs, outputs, kernel, stride = numbers
            weight = rng.normal(0, (1 / (inputs * kernel * kernel)) ** 0.5, (outputs, inputs, kernel, kernel))
            weights.append(numpy_helper.from_array(weight.astype(np.float32), name + "_w"))
            pads = [0, 0, kernel // 2, kernel // 2, 0, 0, kernel // 2, kernel // 2]
            if opset < 11:
                nodes.append(helper.make_node("Pad", [last], [name + "_p"], mode="reflect", pads=pads))
            else:
                weights.append(numpy_helper.from_array(np.array(pads, np.int64), name + "_pads"))
                nodes.append(helper.make_node("Pad", [last, name + "_pads"], [name + "_p"], mode="reflect"))
            nodes.append(helper.make_node("Conv", [name + "_p", name + "_w"], [name], strides=[stride] * 2))
        elif kind == "up":
            scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), name + "_s")
            weights.append(scales)
            if opset < 10:
                nodes.append(helper.make_node("Upsample", [last, name + "_s"], [name], mode="nearest"))
            else:
                nodes.append(helper.make_node("Resize", [last, "", name + "_s"], [name], mode="nearest"))
        elif kind in ("nchw", "nhwc"):
            perm = [0, 3, 1, 2] if kind == "nchw" else [0, 2, 3, 1]
            nodes.append(helper.make_node("Transpose", [last], [name], perm=perm))
        else:
            nodes.append(helper.make_node(kind.capitalize(), [last], [name]))
        last = name
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "stylizer",
        [value("input", TensorProto.FLOAT, shape)],
        [value(last, TensorProto.FLOAT, shape)],
        weights,
    )
    return serialized(graph, opset)
