"""The network that most fast-style-transfer projects run, to compare with."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def fast_style_network(height: int, width: int) -> bytes:
    """Johnson et al. 2016 (arXiv 1603.08155) as published, with random weights: NCHW, 0..255, 1.68 M weights.

    9x9 convolution to 32 channels, two halvings to 128, five residual blocks, two upsamplings, a last 9x9
    convolution, InstanceNorm after each: 154 kMAC per pixel.
    """
    rng = np.random.default_rng(0)
    nodes, weights = [], []

    def conv(source: str, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> str:
        scale = (2 / (inputs * kernel * kernel)) ** 0.5
        weight = rng.normal(0, scale, (outputs, inputs, kernel, kernel)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"{name}_w"))
        pad = kernel // 2
        nodes.append(
            helper.make_node("Conv", [source, f"{name}_w"], [name], pads=[pad] * 4, strides=[stride] * 2)
        )
        return name

    def norm(source: str, channels: int, *, relu: bool = True) -> str:
        weights.append(numpy_helper.from_array(np.ones(channels, np.float32), f"{source}_scale"))
        weights.append(numpy_helper.from_array(np.zeros(channels, np.float32), f"{source}_bias"))
        inputs = [source, f"{source}_scale", f"{source}_bias"]
        nodes.append(helper.make_node("InstanceNormalization", inputs, [f"{source}_n"]))
        if not relu:
            return f"{source}_n"
        nodes.append(helper.make_node("Relu", [f"{source}_n"], [f"{source}_r"]))
        return f"{source}_r"

    def enlarge(source: str) -> str:
        name = f"{source}_up"
        weights.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), f"{name}_s"))
        nodes.append(helper.make_node("Resize", [source, "", f"{name}_s"], [name], mode="nearest"))
        return name

    x = norm(conv("image", "in", 3, 32, 9), 32)
    x = norm(conv(x, "half", 32, 64, 3, 2), 64)
    x = norm(conv(x, "quarter", 64, 128, 3, 2), 128)
    for block in range(5):
        y = norm(conv(x, f"block{block}a", 128, 128, 3), 128)
        y = norm(conv(y, f"block{block}b", 128, 128, 3), 128, relu=False)
        nodes.append(helper.make_node("Add", [x, y], [f"block{block}"]))
        x = f"block{block}"
    x = norm(conv(enlarge(x), "up_half", 128, 64, 3), 64)
    x = norm(conv(enlarge(x), "up_full", 64, 32, 3), 32)
    x = conv(x, "stylized", 32, 3, 9)
    shape = [1, 3, height, width]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "fast_style",
        [value("image", TensorProto.FLOAT, shape)],
        [value(x, TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
