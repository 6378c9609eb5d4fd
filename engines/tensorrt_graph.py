"""A style's graph as TensorRT takes it."""

import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE = "image"


def without_bytes(model: bytes) -> bytes:
    """The serialised `model` with a cast of its picture before everything else, and no bytes within.

    TensorRT has bytes at the inputs and outputs of a network only, each with a cast to or from float16 or
    float32 right behind or before it (NVIDIA, TensorRT API, `DataType.UINT8`), while the packs pad and
    reshape bytes, which is faster on CPUs. Of signed ones it takes quantised weights alone (`DataType.INT8`);
    what is gathered or cast of others, of one byte or two, the grain of a canvas, is made floating point
    here. All of it is exact in float16, so that no result changes.
    """
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    uint8 = {IMAGE}
    kinds: set[int] = set()
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in uint8:
            kinds.update(attribute.i for attribute in node.attribute if attribute.name == "to")
        elif node.op_type != "Shape" and node.input and node.input[0] in uint8:
            uint8.update(node.output)
    kind = TensorProto.FLOAT16 if kinds == {TensorProto.FLOAT16} else TensorProto.FLOAT
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == IMAGE:
                node.input[index] = "pixels_of_image"
    read = {node.input[0] for node in graph.node if node.op_type in ("Cast", "Gather")}
    for initializer in graph.initializer:
        if initializer.data_type in (TensorProto.INT8, TensorProto.INT16) and initializer.name in read:
            values = numpy_helper.to_array(initializer).astype(helper.tensor_dtype_to_np_dtype(kind))
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    nodes = [helper.make_node("Cast", [IMAGE], ["pixels_of_image"], name="cast_image", to=kind), *graph.node]
    # What is noted of the tensors in between says that they are bytes.
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    rewritten: bytes = proto.SerializeToString()
    return rewritten


def working_memory(model: bytes, size: tuple[int, int]) -> int:
    """Bytes that the layer of `model` with the largest inputs and outputs holds at `size` (width, height)."""
    proto = onnx.load_model_from_string(model)
    picture = next(value for value in proto.graph.input if value.name == IMAGE)
    for dim, side in zip(picture.type.tensor_type.shape.dim, (1, size[1], size[0], 3), strict=True):
        dim.dim_value = side
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    held = {
        value.name: _bytes(value.type.tensor_type)
        for value in [*graph.input, *graph.value_info, *graph.output]
    }
    return max(sum(held.get(name, 0) for name in {*node.input, *node.output}) for node in graph.node)


def _bytes(tensor: onnx.TypeProto.Tensor) -> int:
    """Bytes of a tensor, 0 if a side of it is not known."""
    count = helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
    for dim in tensor.shape.dim:
        count *= dim.dim_value
    return int(count)
