"""Other people's networks in their published shapes, with random weights, to compare with."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import engines
from engines import Size, Style

OPSET = 17


class _Builder:
    """Puts a network together, node by node; every method returns the name of what it gives."""

    def __init__(self, kind: type[np.floating[Any]]) -> None:
        self.kind = kind
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._rng = np.random.default_rng(0)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, kind: Any = None) -> str:
        name = f"c{len(self.weights)}"
        array = np.asarray(value, kind or self.kind)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def random(self, shape: Sequence[int], inputs: int) -> str:
        return self.constant(self._rng.normal(0, (1 / inputs) ** 0.5, shape))

    def conv(
        self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, *, reflect: bool = False
    ) -> str:
        weight = self.random((outputs, inputs, kernel, kernel), inputs * kernel * kernel)
        pad = kernel // 2
        if reflect and pad:
            pads = self.constant([0, 0, pad, pad, 0, 0, pad, pad], np.int64)
            x, pad = self.add("Pad", x, pads, mode="reflect"), 0
        return self.add("Conv", x, weight, pads=[pad] * 4, strides=[stride] * 2)

    def enlarge(self, x: str, mode: str) -> str:
        scales = self.constant([1, 1, 2, 2], np.float32)
        where = "asymmetric" if mode == "nearest" else "half_pixel"
        return self.add("Resize", x, "", scales, mode=mode, coordinate_transformation_mode=where)

    def model(self, last: str, shape: Sequence[int]) -> bytes:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.kind))
        value = helper.make_tensor_value_info
        self.nodes.append(helper.make_node("Identity", [last], ["stylized"]))
        graph = helper.make_graph(
            self.nodes,
            "network",
            [value("image", kind, shape)],
            [value("stylized", kind, shape)],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content


def fast_style_network(height: int, width: int, kind: type[np.floating[Any]] = np.float32) -> bytes:
    """Johnson et al. 2016 (arXiv 1603.08155) as published: NCHW, 0..255, 1.68 M weights.

    9x9 convolution to 32 channels, two halvings to 128, five residual blocks, two upsamplings, a last 9x9
    convolution, InstanceNorm after each: 154 kMAC per pixel.
    """
    build = _Builder(kind)

    def norm(x: str, channels: int, *, relu: bool = True) -> str:
        ones, zeros = build.constant(np.ones(channels)), build.constant(np.zeros(channels))
        x = build.add("InstanceNormalization", x, ones, zeros)
        return build.add("Relu", x) if relu else x

    x = norm(build.conv("image", 3, 32, 9), 32)
    x = norm(build.conv(x, 32, 64, 3, 2), 64)
    x = norm(build.conv(x, 64, 128, 3, 2), 128)
    for _ in range(5):
        y = norm(build.conv(x, 128, 128, 3), 128)
        x = build.add("Add", x, norm(build.conv(y, 128, 128, 3), 128, relu=False))
    x = norm(build.conv(build.enlarge(x, "nearest"), 128, 64, 3), 64)
    x = norm(build.conv(build.enlarge(x, "nearest"), 64, 32, 3), 32)
    return build.model(build.conv(x, 32, 3, 9), [1, 3, height, width])


def animegan_network(height: int, width: int, kind: type[np.floating[Any]] = np.float32) -> bytes:
    """AnimeGANv3 (github.com/TachibanaYoshino/AnimeGANv3), the tail that paints: NHWC, -1..1.

    Three halvings from 32 to 128 channels, external attention over the pixels of an eighth, three linear
    upsamplings with additive skips, a last 7x7 convolution; LADE after each, which takes mean and deviation
    from a 1x1 convolution of what it normalises.
    """
    build = _Builder(kind)

    def moments(x: str) -> tuple[str, str, str]:
        """Of each channel the mean and the deviation, and what remains without the mean."""
        mean = build.add("ReduceMean", x, axes=[2, 3])
        centred = build.add("Sub", x, mean)
        variance = build.add("ReduceMean", build.add("Mul", centred, centred), axes=[2, 3])
        return mean, build.add("Sqrt", build.add("Add", variance, build.constant(1e-5))), centred

    def layer(x: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> str:
        x = build.conv(x, inputs, outputs, kernel, stride, reflect=True)
        mean, deviation, _ = moments(build.conv(x, outputs, outputs, 1))
        _, own, centred = moments(x)
        x = build.add("Mul", build.add("Div", centred, own), deviation)
        return build.add("LeakyRelu", build.add("Add", x, mean), alpha=0.2)

    def attention(x: str, channels: int, keys: int = 128) -> str:
        memory, back = build.random((channels, keys), channels), build.random((keys, channels), keys)
        lines = build.constant([1, channels, -1], np.int64)
        flat = build.add("Reshape", build.conv(x, channels, channels, 1), lines)
        flat = build.add("MatMul", build.add("Transpose", flat, perm=[0, 2, 1]), memory)
        share = build.add("Softmax", flat, axis=1)
        total = build.add("ReduceSum", share, build.constant([2], np.int64))
        share = build.add("Div", share, build.add("Add", total, build.constant(1e-6)))
        found = build.add("Transpose", build.add("MatMul", share, back), perm=[0, 2, 1])
        found = build.conv(build.add("Reshape", found, build.add("Shape", x)), channels, channels, 1)
        return build.add("LeakyRelu", build.add("Add", found, x), alpha=0.2)

    full = layer(build.add("Transpose", "image", perm=[0, 3, 1, 2]), 3, 32, 7)
    half = layer(layer(full, 32, 32, stride=2), 32, 64)
    quarter = layer(layer(half, 64, 64, stride=2), 64, 128)
    x = attention(layer(layer(quarter, 128, 128, stride=2), 128, 128), 128)
    for skip, inputs, outputs in ((quarter, 128, 128), (half, 128, 64), (full, 64, 32)):
        x = layer(build.enlarge(x, "linear"), inputs, outputs)
        x = layer(build.add("Add", x, skip), outputs, outputs)
    x = build.add("Mul", build.conv(x, 32, 3, 7, reflect=True), build.constant(0.1))
    x = build.add("Tanh", x)
    return build.model(build.add("Transpose", x, perm=[0, 2, 3, 1]), [1, height, width, 3])


NETWORKS = {"fast style (Johnson et al.)": fast_style_network, "AnimeGANv3": animegan_network}


def as_style(name: str, size: Size) -> Style:
    """The network `name` of `NETWORKS` for pictures of `size`, wrapped as fauve does, also in float16."""
    wrapped = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in (np.float32, np.float16):
            path = Path(folder) / "network.onnx"
            path.write_bytes(NETWORKS[name](size[1], size[0], kind))
            wrapped.append(engines.load_style(path))
    whole, half = wrapped
    files = {"model.onnx": whole.model(), "model.fp16.onnx": half.model()}
    return replace(
        whole, name=name, models={"float32": "model.onnx", "float16": "model.fp16.onnx"}, files=files
    )
