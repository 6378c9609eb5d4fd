"""ONNX's operators in torch, each for inputs of known shapes.

Each operator has a maker in `MAKERS`: told a node's attributes and an example of its inputs, it returns what
computes the outputs. So shapes, axes and paddings are settled once for a size, and what runs for a picture is
tensor arithmetic alone. Semantics are those of https://onnx.ai/onnx/operators, for what networks that paint
pictures are made of.
"""

from collections.abc import Callable
from functools import partial, reduce
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from engines.convolution import Geometry

Maker = Callable[..., Callable[..., Any]]
"""Takes a node's attributes and example inputs, None for one left out; returns what takes the inputs."""


class UnsupportedNode(ValueError):
    """A node that `MAKERS` knows, used in a way that they do not."""


def numbers(value: Any) -> list[Any]:
    """A shape, axes or the like as Python's numbers, from an attribute or a static input."""
    listed: list[Any] = value.flatten().tolist() if isinstance(value, Tensor) else list(value)
    return listed


# Gathering: padding and resizing are a picture's rows and columns in another order.


def _gather(x: Tensor, rows: dict[int, Tensor]) -> Callable[[Tensor], Tensor]:
    """What takes, along each axis, the entries that `rows` lists, in one pass, keeping channels last."""
    if not rows:
        return lambda x: x
    last = x.dim() == 4 and x.stride(1) == 1 and x.shape[1] > 1
    if last:
        x = x.permute(0, 2, 3, 1)
        rows = {(0, 3, 1, 2)[axis]: index for axis, index in rows.items()}
    first, end = min(rows), max(rows)
    flat = torch.zeros((), dtype=torch.int64)
    for axis in range(first, end + 1):
        index = rows.get(axis, torch.arange(x.shape[axis]))
        flat = flat[..., None] * x.shape[axis] + index
    shape, index = flat.shape, flat.flatten().to(x.device, torch.int32)

    def gather(x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1) if last else x
        x = x.flatten(first, end).index_select(first, index)
        x = x.reshape(*x.shape[:first], *shape, *x.shape[first + 1 :])
        return x.permute(0, 3, 1, 2) if last else x

    return gather


def _pad(
    attributes: Any, x: Tensor, pads: Any = None, value: Any = None, axes: Any = None
) -> Callable[..., Any]:
    pads = numbers(attributes["pads"] if pads is None else pads)
    along = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in numbers(axes)]
    before, after = (dict(zip(along, half, strict=True)) for half in (pads[: len(along)], pads[len(along) :]))
    mode = attributes.get("mode", "constant")
    if mode == "constant":
        level = attributes.get("value", 0.0) if value is None else value.item()
        sides = [
            side for axis in reversed(range(x.dim())) for side in (before.get(axis, 0), after.get(axis, 0))
        ]
        return lambda x, *_: F.pad(x, sides, value=level)
    rows = {}
    for axis in along:
        if before[axis] or after[axis]:
            size = x.shape[axis]
            row = torch.arange(-before[axis], size + after[axis])
            if mode == "reflect":
                row = (size - 1) - ((row % max(1, 2 * size - 2)) - (size - 1)).abs()
            rows[axis] = row % size if mode == "wrap" else row.clamp(0, size - 1)
    gather = _gather(x, rows)
    return lambda x, *_: gather(x)


UPSAMPLE = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
"""What was not to be chosen before opset 11."""


def _resize(
    attributes: Any, x: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None
) -> Callable[..., Any]:
    if "axes" in attributes or attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedNode("Resize along chosen axes")
    if scales is None and sizes is None:  # as in opset 10, where it was what `Upsample` had been
        scales, attributes = roi, {**attributes, **UPSAMPLE}
    if sizes is not None and sizes.numel():
        after = numbers(sizes)
        factors = [a / b for a, b in zip(after, x.shape, strict=True)]
    else:
        factors = numbers(scales)
        # In float32, as other runtimes: 10 times 0.7 is 7 there, and less than that in float64.
        after = [int(size * np.float32(factor)) for size, factor in zip(x.shape, factors, strict=True)]
    if attributes.get("antialias", 0):
        raise UnsupportedNode("Resize with antialias")
    mode, where = (
        attributes.get("mode", "nearest"),
        attributes.get("coordinate_transformation_mode", "half_pixel"),
    )
    gathers: list[Callable[[Tensor], Tensor]] = []
    rows = {}
    for axis, (size, factor) in enumerate(zip(after, factors, strict=True)):
        if size == x.shape[axis]:
            continue
        at = _coordinates(where, size, x.shape[axis], factor)
        if mode == "nearest":
            rows[axis] = _nearest(attributes.get("nearest_mode", "round_prefer_floor"), at).clamp(
                0, x.shape[axis] - 1
            )
        elif mode == "linear":
            gathers.append(_interpolate(x, axis, at))
            x = gathers[-1](x)
        else:
            raise UnsupportedNode(f"Resize with mode {mode}")
    if mode == "nearest":
        gathers.append(_gather(x, rows))

    def resize(x: Tensor, *_: Any) -> Tensor:
        for gather in gathers:
            x = gather(x)
        return x

    return resize


def _coordinates(where: str, after: int, before: int, factor: float) -> Tensor:
    """Where each of `after` pixels lies among the `before` ones, in the float32 of other runtimes."""
    at = torch.arange(after, dtype=torch.float32)
    if where == "asymmetric":
        return at / factor
    if where == "align_corners":
        return at * ((before - 1) / max(1, after - 1))
    if where == "half_pixel" or (where == "pytorch_half_pixel" and after > 1):
        return (at + 0.5) / factor - 0.5
    if where == "pytorch_half_pixel":
        return torch.zeros(1)
    raise UnsupportedNode(f"Resize with coordinate_transformation_mode {where}")


def _nearest(mode: str, at: Tensor) -> Tensor:
    if mode == "round_prefer_floor":
        return (at - 0.5).ceil().long()
    if mode == "round_prefer_ceil":
        return (at + 0.5).floor().long()
    return (at.ceil() if mode == "ceil" else at.floor()).long()


def _interpolate(x: Tensor, axis: int, at: Tensor) -> Callable[[Tensor], Tensor]:
    low = at.floor()
    below, above = (_gather(x, {axis: row.long().clamp(0, x.shape[axis] - 1)}) for row in (low, low + 1))
    share = (at - low).to(x.device, x.dtype).view([-1 if each == axis else 1 for each in range(x.dim())])
    return lambda x: torch.lerp(below(x), above(x), share)


# Convolutions.


def _convolve(
    attributes: Any, x: Tensor, weight: Tensor, bias: Any = None, *, transposed: bool
) -> Callable[..., Any]:
    axes = x.dim() - 2
    stride = attributes.get("strides", [1] * axes)
    dilation = attributes.get("dilations", [1] * axes)
    extra = attributes.get("output_padding", [0] * axes)
    groups, relu = attributes.get("group", 1), attributes.get("relu", False)
    pads = list(attributes.get("pads", [0] * 2 * axes))
    automatic = attributes.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER") and not transposed:
        for axis in range(axes):
            size, reach = x.shape[axis + 2], dilation[axis] * (weight.shape[axis + 2] - 1) + 1
            total = max(0, (ceil(size / stride[axis]) - 1) * stride[axis] + reach - size)
            more, less = total - total // 2, total // 2
            pads[axis], pads[axis + axes] = (less, more) if automatic == "SAME_UPPER" else (more, less)
    elif automatic not in ("NOTSET", "VALID") or "output_shape" in attributes:
        raise UnsupportedNode("ConvTranspose whose padding follows from its output")
    begin, end = pads[:axes], pads[axes:]
    outside = [side for pair in reversed(list(zip(begin, end, strict=True))) for side in pair]
    even = begin == end
    # cuDNN adds the bias and cuts off below 0 in one go with the convolution.
    fused = relu and even and not transposed and axes == 2 and x.is_cuda and bias is not None

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if fused:
            done: Tensor = torch.cudnn_convolution_relu(x, weight, bias, stride, begin, dilation, groups)
            return done
        if not even and not transposed:
            x = F.pad(x, outside)
        padding = begin if even else [0] * axes
        y = torch.convolution(x, weight, bias, stride, padding, dilation, transposed, extra, groups)
        if not even and transposed:
            y = F.pad(y, [-side for side in outside])
        return y.relu_() if relu else y

    return convolve


LARGEST_INDEX = (1 << 31) - 1
"""The kernels count in 32 bits within a picture."""


def _sum_of_products(attributes: Any, x: Tensor, weight: Tensor, bias: Any = None) -> Callable[..., Any]:
    stride = attributes.get("strides", [1, 1])
    high, wide = weight.shape[2:]
    size = [
        (side - tap) // step + 1 for side, tap, step in zip(x.shape[2:], (high, wide), stride, strict=True)
    ]
    relu = attributes.get("relu", False)

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        terms = []
        for row in range(high):
            for column in range(wide):
                rows = slice(row, row + (size[0] - 1) * stride[0] + 1, stride[0])
                columns = slice(column, column + (size[1] - 1) * stride[1] + 1, stride[1])
                for channel in range(x.shape[1]):
                    seen = x[:, channel : channel + 1, rows, columns]
                    terms.append(seen * weight[:, channel, row, column].view(1, -1, 1, 1))
        y = reduce(torch.add, terms if bias is None else [*terms, bias.view(1, -1, 1, 1)])
        return y.relu() if relu else y

    return convolve


def _geometry(attributes: Any, size: tuple[int, int]) -> "Geometry":
    from engines.convolution import geometry

    transposed = attributes["transposed"]
    given = geometry(
        attributes["weight"], size, attributes["stride"], attributes["edge"], transposed=transposed
    )
    assert given is not None
    return given


def _pack(attributes: Any, weight: Tensor) -> Callable[..., Any]:
    from engines.convolution import pack

    given, more = _geometry(attributes, (64, 64)), attributes["weight"][1] - weight.shape[1]
    return lambda weight: pack(F.pad(weight, (0, 0, 0, 0, 0, more)), given)


def _fill_channel(attributes: Any, x: Tensor) -> Callable[..., Any]:
    return lambda x: F.pad(x, (0, 0, 0, 0, 0, 1)).contiguous(memory_format=torch.channels_last)


def _fused(attributes: Any, x: Tensor, packed: Tensor, bias: Tensor, other: Any = None) -> Callable[..., Any]:
    from engines.convolution import convolve

    given = _geometry(attributes, (x.shape[2], x.shape[3]))
    relu, relu_sum = attributes["relu"], attributes["relu_sum"]
    if max(prod(x.shape[1:]), prod(given.shape)) > LARGEST_INDEX:
        raise UnsupportedNode(f"a picture of {tuple(x.shape[1:])}")
    if other is None or (tuple(other.shape[1:]) == given.shape and len(other) in (1, len(x))):
        return partial(convolve, given=given, relu=relu, relu_sum=relu_sum)

    def convolve_and_add(x: Tensor, packed: Tensor, bias: Tensor, other: Tensor) -> Tensor:
        """For a sum of other shapes, which the kernel does not add."""
        y = convolve(x, packed, bias, None, given, relu=relu, relu_sum=False) + other
        return y.relu() if relu_sum else y

    return convolve_and_add


def _paint(
    attributes: Any, x: Tensor, weight: Tensor, bias: Tensor, base: Tensor, *more: Tensor
) -> Callable[..., Any]:
    from engines.convolution import paint

    given, base_given = (
        _geometry(attributes[name], (each.shape[2], each.shape[3]))
        for name, each in (("squares", x), ("base", base))
    )
    rows, columns = given.size
    painted = (len(x), 2 * rows, 2 * columns, 3)
    if base_given.size != given.size or len(base) != len(x) or tuple(more[2].shape) != painted:
        raise UnsupportedNode(f"squares of {given.size} and {base_given.size} over {tuple(more[2].shape)}")
    return partial(paint, given=given, base_given=base_given)


def _scale(
    attributes: Any, scale: Tensor, weight: Tensor, bias: Any = None, *, axis: int
) -> Callable[..., Any]:
    shape = [-1 if each == axis else 1 for each in range(weight.dim())]

    def scaled(scale: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        flat = scale.flatten()
        return weight * flat.view(shape), torch.zeros_like(flat) if bias is None else bias * flat

    return scaled


def _shift(attributes: Any, shift: Tensor, bias: Any = None) -> Callable[..., Any]:
    if bias is None:
        return lambda shift: shift.flatten().clone()
    return lambda shift, bias: shift.flatten() + bias


# Shapes, and the order of values.


def _reshape(attributes: Any, x: Tensor, shape: Tensor) -> Callable[..., Any]:
    sizes = numbers(shape)
    if not attributes.get("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return lambda x, *_: x.reshape(sizes)


def _shape(attributes: Any, x: Tensor) -> Callable[..., Any]:
    sizes = list(x.shape)[attributes.get("start", 0) : attributes.get("end")]
    return lambda x: torch.tensor(sizes, dtype=torch.int64)


def _squeeze(attributes: Any, x: Tensor, axes: Any = None) -> Callable[..., Any]:
    given = attributes.get("axes") if axes is None else axes
    along = [axis for axis, size in enumerate(x.shape) if size == 1] if given is None else numbers(given)
    return lambda x, *_: x.squeeze(tuple(along))


def _unsqueeze(attributes: Any, x: Tensor, axes: Any = None) -> Callable[..., Any]:
    given = numbers(attributes["axes"] if axes is None else axes)
    rank = x.dim() + len(given)
    old = iter(x.shape)
    new = {axis % rank for axis in given}
    sizes = [1 if axis in new else next(old) for axis in range(rank)]
    return lambda x, *_: x.view(sizes) if x.is_contiguous() else x.reshape(sizes)


def _expand(attributes: Any, x: Tensor, shape: Tensor) -> Callable[..., Any]:
    sizes = np.broadcast_shapes(tuple(x.shape), tuple(numbers(shape)))
    return lambda x, *_: x.expand(sizes)


def _tile(attributes: Any, x: Tensor, repeats: Tensor) -> Callable[..., Any]:
    counts = numbers(repeats)
    return lambda x, *_: x.repeat(counts)


def _slice(attributes: Any, x: Tensor, *bounds: Any) -> Callable[..., Any]:
    given = [numbers(bound) if bound is not None else None for bound in bounds]
    given += [attributes.get(name) for name in ("starts", "ends", "axes", "steps")[len(given) :]]
    starts, ends, axes, steps = given
    assert starts is not None
    assert ends is not None
    cuts, rows = [slice(None)] * x.dim(), {}
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, cut = axes[index] if axes else index, slice(start, end, steps[index] if steps else 1)
        if cut.step > 0:
            cuts[axis] = cut
        else:  # as exporters turn round a list of pads, and as torch does not cut
            backwards = range(*cut.indices(x.shape[axis]))
            rows[axis % x.dim()] = torch.tensor(backwards, dtype=torch.int64)
    gather = _gather(x[tuple(cuts)], rows)
    return lambda x, *_: gather(x[tuple(cuts)])


def _gather_entries(attributes: Any, x: Tensor, indices: Tensor) -> Callable[..., Any]:
    axis = attributes.get("axis", 0) % x.dim()
    size, device = x.shape[axis], x.device
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    if indices.device == device and indices.dim():
        # They may be the look's.
        return lambda x, indices: x.index_select(axis, indices.flatten() % size).reshape(shape)
    flat = (indices.flatten() % size).to(device)
    if indices.dim() == 0:
        position = int(flat)
        return lambda x, *_: x.select(axis, position)
    return lambda x, *_: x.index_select(axis, flat).reshape(shape)


def _gather_elements(attributes: Any, x: Tensor, indices: Tensor) -> Callable[..., Any]:
    axis = attributes.get("axis", 0) % x.dim()
    size = x.shape[axis]
    return lambda x, indices: x.gather(axis, indices.remainder(size))


def _split(attributes: Any, x: Tensor, sizes: Any = None) -> Callable[..., Any]:
    axis = attributes.get("axis", 0)
    given = attributes.get("split") if sizes is None else numbers(sizes)
    parts = ceil(x.shape[axis] / attributes["num_outputs"]) if given is None else given
    return lambda x, *_: tuple(x.split(parts, axis))


def _depth_to_space(attributes: Any, x: Tensor) -> Callable[..., Any]:
    block = attributes["blocksize"]
    if attributes.get("mode", "DCR") == "CRD":
        return lambda x: F.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    shape = (n, block, block, c // block**2, h, w)
    return lambda x: x.reshape(shape).permute(0, 3, 4, 1, 5, 2).reshape(n, -1, h * block, w * block)


def _space_to_depth(attributes: Any, x: Tensor) -> Callable[..., Any]:
    block, (n, c, h, w) = attributes["blocksize"], x.shape
    shape = (n, c, h // block, block, w // block, block)
    return lambda x: x.reshape(shape).permute(0, 3, 5, 1, 2, 4).reshape(n, -1, h // block, w // block)


# Numbers.

TYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
}


def _cast(attributes: Any, x: Tensor) -> Callable[..., Any]:
    kind = TYPES.get(attributes["to"])
    if kind is None:
        raise UnsupportedNode(f"Cast to {onnx.TensorProto.DataType.Name(attributes['to'])}")
    return lambda x: x.to(kind)


def _divide(attributes: Any, x: Tensor, y: Tensor) -> Callable[..., Any]:
    return torch.div if x.is_floating_point() else partial(torch.div, rounding_mode="trunc")


def _clip(attributes: Any, x: Tensor, low: Any = None, high: Any = None) -> Callable[..., Any]:
    if low is None and high is None:
        least, most = attributes.get("min"), attributes.get("max")
        return lambda x, *_: x if least is None and most is None else x.clamp(least, most)
    # The bounds may come from the look, and change with it.
    return lambda x, low=None, high=None: torch.clamp(x, low, high)


def _reduce(
    attributes: Any, x: Tensor, axes: Any = None, *, function: Callable[..., Tensor]
) -> Callable[..., Any]:
    along = numbers(attributes.get("axes", []) if axes is None else axes)
    if not along and attributes.get("noop_with_empty_axes", 0):
        return lambda x, *_: x
    along = along or list(range(x.dim()))
    keep = bool(attributes.get("keepdims", 1))
    return lambda x, *_: function(x, along, keep)


def _pool(attributes: Any, x: Tensor, *, largest: bool) -> Callable[..., Any]:
    kernel, pads = attributes["kernel_shape"], attributes.get("pads", [0, 0, 0, 0])
    stride, dilation = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    if pads[:2] != pads[2:] or attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise UnsupportedNode("a pool with uneven padding")
    ceiling = bool(attributes.get("ceil_mode", 0))
    if largest:
        return lambda x: F.max_pool2d(x, kernel, stride, pads[:2], dilation, ceiling)
    if set(dilation) != {1}:
        raise UnsupportedNode("AveragePool with dilations")
    counted = bool(attributes.get("count_include_pad", 0))
    return lambda x: F.avg_pool2d(x, kernel, stride, pads[:2], ceiling, counted)


def _softmax(attributes: Any, x: Tensor) -> Callable[..., Any]:
    axis, shape = attributes.get("axis", -1), x.shape
    if attributes.get("behind"):
        return lambda x: x.flatten(axis).softmax(-1).reshape(shape)
    return partial(torch.softmax, dim=axis)


def _instance_norm(attributes: Any, x: Tensor, scale: Tensor, bias: Tensor) -> Callable[..., Any]:
    epsilon = attributes.get("epsilon", 1e-5)
    # Not by `F.instance_norm`, which refuses the single pixel that a small picture is reduced to.
    return lambda x, scale, bias: torch.instance_norm(
        x, scale, bias, None, None, True, 0.0, epsilon, torch.backends.cudnn.enabled
    )


def _batch_norm(attributes: Any, *example: Tensor) -> Callable[..., Any]:
    if attributes.get("training_mode", 0):
        raise UnsupportedNode("BatchNormalization as in training")
    epsilon = attributes.get("epsilon", 1e-5)
    return lambda x, scale, bias, mean, var: F.batch_norm(x, mean, var, scale, bias, eps=epsilon)


def _constant(attributes: Any) -> Callable[..., Any]:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if name in attributes:
            value = attributes[name]
            tensor = value if isinstance(value, Tensor) else torch.tensor(value)
            return lambda: tensor
    raise UnsupportedNode("Constant of a rare kind")


def _filled(attributes: Any, shape: Tensor) -> Callable[..., Any]:
    value = attributes.get("value", torch.zeros(1))
    return lambda shape: torch.full(numbers(shape), value.item(), dtype=value.dtype)


def _plain(function: Callable[..., Any]) -> Maker:
    """The maker of an operator that torch has just so."""
    return lambda attributes, *example: function


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Maker:
    """The maker of an operator of two inputs that takes any number."""
    return lambda attributes, *example: lambda *inputs: reduce(function, inputs)


MAKERS: dict[str, Maker] = {
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "AveragePool": partial(_pool, largest=False),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Ceil": _plain(torch.ceil),
    "ChannelsLast": lambda attributes, x: lambda x: x.contiguous(memory_format=torch.channels_last),
    "Clip": _clip,
    "Concat": lambda attributes, *example: lambda *inputs: torch.cat(inputs, attributes["axis"]),
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Conv": partial(_convolve, transposed=False),
    "ConvTranspose": partial(_convolve, transposed=True),
    "DepthToSpace": _depth_to_space,
    "Div": _divide,
    "Dropout": lambda attributes, *example: lambda x, *_: x,
    "Exp": _plain(torch.exp),
    "Expand": _expand,
    "FillChannel": _fill_channel,
    "Floor": _plain(torch.floor),
    "FusedConv": _fused,
    "Gather": _gather_entries,
    "GatherElements": _gather_elements,
    "GlobalAveragePool": lambda attributes, x: lambda x: x.mean(list(range(2, x.dim())), keepdim=True),
    "Identity": lambda attributes, x: lambda x: x,
    "InstanceNormalization": _instance_norm,
    "LeakyRelu": lambda attributes, x: partial(F.leaky_relu, negative_slope=attributes.get("alpha", 0.01)),
    "MatMul": _plain(torch.matmul),
    "Max": _folded(torch.maximum),
    "MaxPool": partial(_pool, largest=True),
    "Min": _folded(torch.minimum),
    "Mod": lambda attributes, *example: torch.fmod if attributes.get("fmod") else torch.remainder,
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "PackConv": _pack,
    "Pad": _pad,
    "PaintConv": _paint,
    "Pow": _plain(lambda x, y: torch.pow(x, y).to(x.dtype)),
    "PRelu": _plain(lambda x, slope: torch.where(x < 0, x * slope, x)),
    "Range": lambda attributes, *bounds: (
        lambda *bounds: torch.arange(*(bound.item() for bound in bounds), dtype=bounds[0].dtype)
    ),
    "Reciprocal": _plain(torch.reciprocal),
    "ReduceMean": partial(_reduce, function=torch.mean),
    "ReduceSum": partial(_reduce, function=torch.sum),
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Round": _plain(torch.round),
    "ScaleConv": partial(_scale, axis=0),
    "ScaleConvTranspose": partial(_scale, axis=1),
    "Shape": _shape,
    "Shift": _shift,
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "SumConv": _sum_of_products,
    "Tanh": _plain(torch.tanh),
    "Tile": _tile,
    "Transpose": lambda attributes, x: (
        lambda x: x.permute(attributes.get("perm", list(reversed(range(x.dim())))))
    ),
    "Unsqueeze": _unsqueeze,
    "Upsample": lambda attributes, x, scales=None: _resize(
        {**attributes, **UPSAMPLE},
        x,
        None,
        torch.tensor(attributes["scales"]) if scales is None else scales,
    ),
}
"""By the operator's name in ONNX, and our own."""

OWN = frozenset(
    {
        "ChannelsLast",
        "FillChannel",
        "FusedConv",
        "PackConv",
        "PaintConv",
        "ScaleConv",
        "ScaleConvTranspose",
        "Shift",
        "SumConv",
    }
)
"""What operators are folded and fused into: no graph has them."""

MIXING = frozenset({"Add", "Clip", "Div", "Gather", "Mod", "Mul", "Sub"})
"""Operators of values that must lie on one device."""
