"""Somebody else's ONNX stylizer, wrapped so that it follows the packs' contract.

Takes graphs with one float picture in and one out, such as fast-neural-style (NCHW, 0..255) and AnimeGAN
(NHWC, -1..1). What such a graph leaves unsaid is read from its shapes and layers, or given by the caller.
"""

import operator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

from engines.errors import StyleError
from engines.style import LARGEST, Credit, Layout, Size, Style, ValueRange, check_contract, read_graph

MULTIPLE = 32
"""What width and height are padded to for a graph of dynamic size: enough for five halvings."""

NATIVE_HEIGHT = 480
"""Most such networks were trained on pictures of about this height."""

OLDEST_OPSET = 9
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
PASSING = ("Identity", "Cast", "Transpose", "Slice", "Pad")
"""Operators that leave values as they are."""

ARITHMETIC = {"Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": operator.truediv}
ACTIVATIONS = {"Tanh": (-1.0, 1.0), "Sigmoid": (0.0, 1.0)}
"""The bounds of what they give."""

SCALE_AND_OFFSET: dict[ValueRange, tuple[float, float]] = {
    "0..255": (1.0, 0.0),
    "0..1": (255.0, 0.0),
    "-1..1": (127.5, 127.5),
}
"""What a value in the range is multiplied by and then what is added to reach 0..255."""


def load_foreign(path: Path, *, layout: Layout | None = None, value_range: ValueRange | None = None) -> Style:
    """Read the ONNX model at `path` and wrap it into a style; `notes` says what was assumed.

    The strength, which such a graph does not have, blends the painting with the input.

    Raises:
        StyleError: no ONNX model, or not one that takes a picture and gives one, or nothing in it tells its
            layout.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise StyleError(f"{path}: larger than {LARGEST >> 20} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise StyleError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return _wrapped(content, path, layout, value_range)
    except StyleError:
        raise
    except Exception as error:  # onnx lets through what it meets in damaged models
        raise StyleError(f"{path}: damaged, or no ONNX model: {error}") from error


def _wrapped(content: bytes, path: Path, layout: Layout | None, value_range: ValueRange | None) -> Style:
    graph = read_graph(content, str(path))
    source, target = _picture(graph, path, inputs=True), _picture(graph, path, inputs=False)

    said = {"layout": "given" if layout else "found", "range": "given" if value_range else "found"}
    layout = layout or _layout(source) or _layout(target) or _layout_of_first_layer(graph, source.name)
    if layout is None:
        raise StyleError(f"{path}: nothing in it tells its layout; give --layout nchw or --layout nhwc")
    output_range = value_range or _output_range(graph, target.name)
    if output_range is None:
        output_range, said["range"] = "0..255", "assumed"
    input_range = value_range or _input_range(graph, source.name) or output_range

    wrapped = _wrap(
        content, str(path), source, target, layout, _layout(target) or layout, input_range, output_range
    )
    check_contract(wrapped, 1, str(path))
    size = _size(source, layout)
    sizes = "{}x{} only".format(*size) if size else "any size"
    return Style(
        name=path.stem,
        title=path.stem,
        styles=(path.stem,),
        models={"float32": "model.onnx"},
        multiple=MULTIPLE,
        native_height=NATIVE_HEIGHT,
        size=size,
        credits=(Credit(path.stem, path.name, "unknown", 0, "unknown"),),
        notes=(
            f"{layout.upper()} ({said['layout']}), values in {input_range} ({said['range']}), {sizes}; "
            f"if colours or shapes are wrong, give --layout or --range"
        ),
        files={"model.onnx": wrapped},
    )


def _picture(graph: Any, path: Path, *, inputs: bool) -> Any:
    """The graph's only input or output, a float picture."""
    stored = {tensor.name for tensor in graph.initializer}  # older models list their weights as inputs
    values = [value for value in (graph.input if inputs else graph.output) if value.name not in stored]
    side = "input" if inputs else "output"
    if len(values) != 1:
        raise StyleError(f"{path}: has {len(values)} {side}s; a stylizer takes one picture and gives one")
    tensor = values[0].type.tensor_type
    if tensor.elem_type not in FLOATS:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise StyleError(f"{path}: its {side} is {kind}; a stylizer's is float")
    dims = _dims(values[0])
    if dims and (len(dims) != 4 or dims[0] > 1 or (3 not in (dims[1], dims[3]) and dims[1] and dims[3])):
        raise StyleError(
            f"{path}: its {side} has the shape {dims}; a picture is [1, 3, h, w] or [1, h, w, 3]"
        )
    return values[0]


def _dims(value: Any) -> list[int]:
    """The shape, 0 for a dynamic side; empty when there is none."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _layout(value: Any) -> Layout | None:
    dims = _dims(value)
    if len(dims) != 4 or (dims[1] == 3) == (dims[3] == 3):
        return None
    return "nchw" if dims[1] == 3 else "nhwc"


def _size(value: Any, layout: Layout) -> Size | None:
    dims = _dims(value) or [0] * 4
    height, width = (dims[2], dims[3]) if layout == "nchw" else (dims[1], dims[2])
    return (width, height) if width and height else None


def _layout_of_first_layer(graph: Any, name: str) -> Layout | None:
    """ONNX convolutions are NCHW, so that a graph in NHWC begins with a transposition."""
    node = _reader(graph, name, skip=("Identity", "Cast", "Pad", "Mul", "Div", "Sub", "Add"))
    if node is None:
        return None
    if node.op_type == "Conv":
        return "nchw"
    perm = next((list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), [])
    return "nhwc" if node.op_type == "Transpose" and perm == [0, 3, 1, 2] else None


def _output_range(graph: Any, name: str) -> ValueRange | None:
    """The range that the last layers bring values into."""
    writers = {output: node for node in graph.node for output in node.output}
    constants = _constants(graph)
    arithmetic: list[tuple[str, float]] = []  # the last one first
    while (node := writers.pop(name, None)) is not None and node.op_type in (*PASSING, *ARITHMETIC):
        name = node.input[0]
        if node.op_type in ARITHMETIC:
            numbers = [constants.get(operand) for operand in node.input]
            large = any(number and abs(number) > 2 for number in numbers)
            if large and node.op_type != "Div" and not arithmetic:
                return "0..255"
            if node.op_type in ("Mul", "Add") and numbers[0] is not None:
                name, numbers = node.input[1], numbers[::-1]
            if numbers[1] is None or (node.op_type == "Div" and not numbers[1]):
                return None
            arithmetic.append((node.op_type, numbers[1]))
    bounds = _bounds(node, constants) if node is not None else None
    if bounds is None:
        return None
    for kind, number in reversed(arithmetic):
        bounds = [ARITHMETIC[kind](bound, number) for bound in bounds]
    for value_range in get_args(ValueRange):
        if np.allclose(sorted(bounds), [float(bound) for bound in value_range.split("..")]):
            found: ValueRange = value_range
            return found
    return None


def _bounds(node: Any, constants: dict[str, float]) -> list[float] | None:
    """What the node keeps its values between, None if it does not."""
    if node.op_type in ACTIVATIONS:
        return list(ACTIVATIONS[node.op_type])
    if node.op_type != "Clip":
        return None
    given = [constants.get(name) for name in node.input[1:]]
    given += [attribute.f for attribute in node.attribute if attribute.name in ("min", "max")]
    bounds = [bound for bound in given if bound is not None]
    return bounds if len(bounds) == 2 else None


def _input_range(graph: Any, name: str) -> ValueRange | None:
    """The range that the first layer scales values down from: 0..255, or None if it does not scale."""
    constants = _constants(graph)
    node = _reader(graph, name, skip=PASSING)
    if node is None:
        return None
    for constant in (constants.get(operand) for operand in node.input):
        if constant is None:
            continue
        divides = (node.op_type == "Div" and constant > 100) or (
            node.op_type == "Mul" and 0 < constant < 0.01
        )
        if divides or (node.op_type in ("Sub", "Add") and abs(constant) > 2):
            return "0..255"
    return None


def _reader(graph: Any, name: str, skip: tuple[str, ...]) -> Any:
    """The first node downstream of `name` that is not among `skip`."""
    for node in graph.node:
        if name in node.input:
            if node.op_type not in skip:
                return node
            name = node.output[0]
    return None


def _constants(graph: Any) -> dict[str, float]:
    """Mean of each stored tensor of up to three numbers, by name."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    tensors[node.output[0]] = attribute.t
    return {
        name: float(numpy_helper.to_array(tensor).mean())
        for name, tensor in tensors.items()
        if 0 < int(np.prod(tensor.dims)) <= 3
    }


def _wrap(
    content: bytes,
    where: str,
    source: Any,
    target: Any,
    layout: Layout,
    output_layout: Layout,
    input_range: ValueRange,
    output_range: ValueRange,
) -> bytes:
    """The model between uint8 pictures, with a strength."""
    model = onnx.load_model_from_string(content)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise StyleError(
            f"{where}: ONNX opset {opset} is too old; export it with opset {OLDEST_OPSET} or later"
        )
    graph = model.graph
    # Told ahead, since it comes to what is stored only after the graphs within, which read that, too.
    stored = {tensor.name: f"model/{tensor.name}" for tensor in graph.initializer}
    compose.add_prefix_graph(graph, "model/", inplace=True, name_map=stored)
    floating, uint8 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
    constants: list[Any] = []

    def constant(name: str, value: float) -> str:
        constants.append(helper.make_tensor(name, floating, [], [value]))
        return name

    scale, offset = SCALE_AND_OFFSET[input_range]
    before = [
        helper.make_node("Cast", ["image"], ["pixels"], to=floating),
        helper.make_node("Sub", ["pixels", constant("input_offset", offset)], ["centred"]),
        helper.make_node("Div", ["centred", constant("input_scale", scale)], ["scaled"]),
    ]
    last = "scaled"
    if layout == "nchw":
        before.append(helper.make_node("Transpose", [last], ["planes"], perm=[0, 3, 1, 2]))
        last = "planes"
    kind = source.type.tensor_type.elem_type
    before.append(helper.make_node("Cast", [last], [f"model/{source.name}"], to=kind))

    after = [helper.make_node("Cast", [f"model/{target.name}"], ["painted"], to=floating)]
    last = "painted"
    if output_layout == "nchw":
        after.append(helper.make_node("Transpose", [last], ["interleaved"], perm=[0, 2, 3, 1]))
        last = "interleaved"
    scale, offset = SCALE_AND_OFFSET[output_range]
    after += [
        helper.make_node("Mul", [last, constant("output_scale", scale)], ["unscaled"]),
        helper.make_node("Add", ["unscaled", constant("output_offset", offset)], ["levels"]),
        helper.make_node("Min", ["levels", constant("white", 255.0)], ["below_white"]),
        helper.make_node("Max", ["below_white", constant("black", 0.0)], ["bounded"]),
        # The mix has one weight, 1; taking it in keeps it among the inputs of every runtime.
        helper.make_node("Mul", ["mix", "strength"], ["share"]),
        helper.make_node("Sub", ["bounded", "pixels"], ["change"]),
        helper.make_node("Mul", ["change", "share"], ["weighted"]),
        helper.make_node("Add", ["pixels", "weighted"], ["blended"]),
        helper.make_node("Add", ["blended", constant("half", 0.5)], ["raised"]),
        helper.make_node("Floor", ["raised"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["stylized"], to=uint8),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    size = _size(source, layout)
    sides: list[int | str] = ["n", size[1], size[0], 3] if size else ["n", "h", "w", 3]
    if size and _dims(source)[0]:
        sides[0] = _dims(source)[0]
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info("image", uint8, sides))
    graph.input.append(helper.make_tensor_value_info("mix", floating, [1]))
    graph.input.append(helper.make_tensor_value_info("strength", floating, [1]))
    model.ir_version = max(model.ir_version, 4)  # before that, weights had to be listed as inputs
    graph.output.append(helper.make_tensor_value_info("stylized", uint8, sides))
    wrapped: bytes = model.SerializeToString()
    return wrapped
