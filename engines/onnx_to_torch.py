"""A pack's ONNX graph as torch operations, for one size of picture.

Each operator has a maker in `MAKERS`: told a node's attributes and an example of its inputs, it returns what
computes the outputs. So shapes, axes and paddings are settled once for a size, and what runs for a picture is
tensor arithmetic alone, the same each time: nothing is asked for its shape and nothing is read back, as a
CUDA graph needs it. Semantics are those of https://onnx.ai/onnx/operators, for what networks that paint
pictures are made of.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from math import ceil, prod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor

from engines.errors import EngineUnavailable

if TYPE_CHECKING:
    from engines.convolution import Geometry

Maker = Callable[..., Callable[..., Any]]
"""Takes a node's attributes and example inputs, None for one left out; returns what takes the inputs."""

STATIC, LOOK, PICTURE = range(3)
"""What a value depends on at most: the size, the look too, the picture too."""


class UnsupportedNode(ValueError):
    """A node that `MAKERS` knows, used in a way that they do not."""


@dataclass(frozen=True)
class Node:
    """An operator, the names of its inputs and outputs, and its attributes."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Step:
    run: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    spent: tuple[str, ...] = ()
    """Values that no later step needs."""


class Program:
    """A style's graph on a device, ready to be settled on a size.

    Args:
        model: ONNX model under the packs' contract, serialised.
        device: torch's device.
        fused: take the convolutions of `engines.convolution` where they fit, with what stands around them.

    Raises:
        EngineUnavailable: it has an operator that is not known here; names it.
        ImportError: `fused`, and Triton is not installed.
        ValueError: it is no sound ONNX model.
    """

    def __init__(self, model: bytes, device: torch.device, *, fused: bool = False) -> None:
        proto = onnx.load_model_from_string(model)
        onnx.checker.check_model(proto)
        # ONNX's own have no domain; the other name of it, ai.onnx, the checker does not take.
        kinds = {".".join(filter(None, [node.domain, node.op_type])) for node in proto.graph.node}
        unknown = sorted(kinds - (MAKERS.keys() - OWN))
        if unknown:
            raise EngineUnavailable(f"torch does not know the operator {', '.join(unknown)}")
        self.device = device
        # By how much a picture is resized counts, too.
        counts = {
            name
            for node in proto.graph.node
            if node.op_type in ("Resize", "Upsample")
            for name in node.input[1:]
        }
        self._constants = {
            tensor.name: _tensor(tensor)
            if tensor.name in counts
            else self._placed(_tensor(tensor), weight=True)
            for tensor in proto.graph.initializer
        }
        opset = next(each.version for each in proto.opset_import if each.domain == "")
        self._nodes = [
            Node(
                node.op_type,
                tuple(node.input),
                # One that is left out has no name, as an input that is left out.
                tuple(name or f"/left out/{number}/{at}" for at, name in enumerate(node.output)),
                _attributes(node, opset),
            )
            for number, node in enumerate(proto.graph.node)
        ]
        shapes = _shapes(proto)
        self._fold_affines(shapes)
        if fused:
            self._fuse_surroundings(shapes)
            self._fuse_painting(shapes)

    def _placed(self, tensor: Tensor, *, weight: bool = False) -> Tensor:
        """Numbers go to the device; what counts or points (shapes, axes) stays where Python reads it."""
        if not tensor.is_floating_point():
            return tensor
        layout = torch.channels_last if weight and tensor.dim() == 4 else torch.preserve_format
        return tensor.to(self.device, memory_format=layout)

    def _fold_affines(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Have each convolution take over the scale and shift of its channels, and the ReLU, behind it.

        Scale and shift come from the look, so that the new weights are computed when the look changes, and
        the picture is not read and written three more times for each layer.
        """
        depends = self._depends()
        readers = self._readers(self._nodes)

        def follows(chain: list[Node], kind: str) -> Node | None:
            """The node of that kind which alone reads what the chain gives."""
            found = readers.get(chain[-1].outputs[0], [])
            return found[0] if len(found) == 1 and found[0].kind == kind else None

        def takes(chain: list[Node], kind: str, channels: int) -> str | None:
            """What such a node applies to each channel, not seeing the picture; the node joins the chain."""
            node = follows(chain, kind)
            if node is None:
                return None
            other = next((name for name in node.inputs if name != chain[-1].outputs[0]), "")
            if depends[other] == PICTURE or shapes.get(other) != (1, channels, 1, 1):
                return None
            chain.append(node)
            return other

        replaced: dict[int, list[Node]] = {}
        for node in self._nodes:
            transposed = node.kind == "ConvTranspose"
            grouped = transposed and node.attributes.get("group", 1) > 1
            if node.kind not in ("Conv", "ConvTranspose") or node.inputs[1] not in self._constants or grouped:
                continue
            name, weight, *bias = node.inputs
            channels = self._constants[weight].shape[1 if transposed else 0]
            chain, new, own = [node], [], node.outputs[0]
            scale = takes(chain, "Mul", channels)
            if scale is not None:
                scaled = (f"{own}/weight", f"{own}/bias")
                new.append(Node(f"Scale{node.kind}", (scale, weight, *bias), scaled))
                weight, bias = scaled[0], [scaled[1]]
            shift = takes(chain, "Add", channels)
            if shift is not None:
                new.append(Node("Shift", (shift, *bias), (f"{own}/shift",)))
                bias = [f"{own}/shift"]
            relu = follows(chain, "Relu")
            chain += [relu] if relu is not None else []
            attributes = {**node.attributes, "relu": relu is not None}
            new.append(Node(node.kind, (name, weight, *bias), chain[-1].outputs, attributes))
            # In place of the chain's end: what scale and shift come from may stand behind its beginning.
            replaced[id(chain[-1])] = new
        self._replace(replaced)

    def _fuse_surroundings(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Have each convolution that `engines.convolution` knows take over the padding before it and the sum
        and the ReLU behind it, so that a picture is read and written once for all of these.

        One of a few weights becomes a sum of products, which a compiler takes into the arithmetic around it.
        """
        from engines.convolution import ROW_CHANNELS, geometry

        depends = self._depends()
        makers = {name: node for node in self._nodes for name in node.outputs}
        halves = {name: each for name, each in self._constants.items() if each.dtype == torch.float16}
        weights = {name: tuple(tensor.shape) for name, tensor in halves.items()}
        for node in self._nodes:
            if node.kind in ("ScaleConv", "ScaleConvTranspose") and node.inputs[1] in weights:
                weights[node.outputs[0]] = weights[node.inputs[1]]
        computing = [replace(node, inputs=()) if node.kind == "Shape" else node for node in self._nodes]
        alive = {node.outputs for node in _needed(computing, {"stylized"})}
        # What is only asked for its shape reads nothing of the picture.
        readers = self._readers([node for node in self._nodes if node.outputs in alive])

        def alone(name: str) -> Node | None:
            """The node that alone reads this value."""
            found = readers.get(name, [])
            return found[0] if len(found) == 1 else None

        replaced: dict[int, list[Node]] = {}
        taken: set[int] = set()
        for node in self._nodes:
            transposed = node.kind == "ConvTranspose"
            weight = weights.get(node.inputs[1]) if node.kind in ("Conv", "ConvTranspose") else None
            if weight is None or len(weight) != 4 or node.outputs not in alive:
                continue
            if not transposed and _few(node, weight):
                replaced[id(node)] = [Node("SumConv", node.inputs, node.outputs, node.attributes)]
                continue
            if not "".join(node.inputs[2:]) or not _plain_window(node, 3 if transposed else 0):
                continue
            image, edge = self._bordered(node.inputs[0], makers)
            stride, new = node.attributes.get("strides", [1, 1])[0], []
            lacking = not transposed and weight[1] == ROW_CHANNELS - 1
            weight = (weight[0], ROW_CHANNELS, *weight[2:]) if lacking else weight
            how = {"weight": weight, "stride": stride, "edge": edge, "transposed": transposed}
            if geometry(weight, (64, 64), stride, edge, transposed=transposed) is None:
                continue
            own = node.outputs[0]
            if lacking:
                new.append(Node("FillChannel", (image,), (f"{own}/filled",)))
                image = f"{own}/filled"
            packed = f"{own}/packed"
            new.append(Node("PackConv", (node.inputs[1],), (packed,), how))
            chain, other = [node], ""
            follower = alone(own)
            if follower is not None and follower.kind == "Add" and id(follower) not in taken:
                name = next((name for name in follower.inputs if name != own), "")
                # What the look alone decides is convolved once for it, and not with each picture.
                alike = depends[own] == depends[follower.outputs[0]]
                if name and alike and shapes.get(name, ())[1:] == shapes.get(own, (0,))[1:]:
                    taken.add(id(follower))
                    chain.append(follower)
                    other = name
                    if depends[name] < PICTURE:
                        other = f"{own}/other"
                        new.append(Node("ChannelsLast", (name,), (other,)))
                    last = alone(follower.outputs[0])
                    chain += [last] if last is not None and last.kind == "Relu" else []
            attributes = how | {"relu": node.attributes.get("relu", False), "relu_sum": len(chain) == 3}
            inputs = (image, packed, node.inputs[2], other)
            new.append(Node("FusedConv", inputs, chain[-1].outputs, attributes))
            replaced[id(chain[-1])] = new
        self._replace(replaced)

    def _fuse_painting(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Have the last two convolutions of our own generators, whose sum are squares of pixels, write the
        picture."""
        from engines.convolution import ROW_CHANNELS

        makers = {name: node for node in self._nodes for name in node.outputs}

        def back(name: str, *kinds: str) -> Node | None:
            """The first of the nodes of these kinds, the last one first, that the value `name` comes from."""
            node = None
            for kind in kinds:
                node = makers.get(name)
                if node is None or node.kind != kind:
                    return None
                name = node.inputs[0]
            return node

        blended = back("stylized", "Cast", "Clip", "Round", "Add")
        mixed = makers.get(blended.inputs[1]) if blended else None
        apart = makers.get(mixed.inputs[1]) if mixed and mixed.kind == "Mul" else None
        if blended is None or mixed is None or apart is None or apart.kind != "Sub":
            return
        squares = back(apart.inputs[0], "Reshape", "Transpose", "Reshape", "Transpose", "FusedConv")
        seen = makers.get(blended.inputs[0])
        base = makers.get(squares.inputs[3]) if squares else None
        if squares is None or seen is None or base is None or base.kind != "FusedConv":
            return
        orders = [makers[apart.inputs[0]], makers[makers[makers[apart.inputs[0]].inputs[0]].inputs[0]]]
        turned = [makers[each.inputs[0]].attributes.get("perm") for each in orders]
        bounds = [self._constants.get(each) for each in makers[makers["stylized"].inputs[0]].inputs[1:]]
        plain = not any(each.attributes[name] for each in (squares, base) for name in ("relu", "relu_sum"))
        if (
            (seen.kind, seen.inputs) != ("Cast", ("image",))
            or apart.inputs[1] != blended.inputs[0]
            or turned != [[0, 1, 3, 2, 4], [0, 2, 3, 1]]
            or not plain
            or base.inputs[3]
            or {each.attributes["weight"][0] for each in (squares, base)} != {12}
            or [each.attributes["stride"] for each in (squares, base)] != [1, 1]
            or [each.attributes["weight"][1] == ROW_CHANNELS for each in (squares, base)] != [False, True]
            or shapes.get(orders[0].inputs[0], ())[2:] != (2, 0, 6)
            or shapes.get(mixed.inputs[0]) != (1,)
            or bounds != [0, 255]
        ):
            return
        attributes = {"squares": squares.attributes, "base": base.attributes}
        inputs = (*squares.inputs[:3], *base.inputs[:3], "image", mixed.inputs[0])
        self._replace({id(makers["stylized"]): [Node("PaintConv", inputs, ("stylized",), attributes)]})

    def _bordered(self, name: str, makers: Mapping[str, Node]) -> tuple[str, int]:
        """The picture that `name` is, but for by how many pixels it has been continued on all sides with the
        values of its edge; negative where so many have been cut off."""
        found = makers.get(name)
        if found is not None and found.kind == "Pad" and found.attributes.get("mode") == "edge":
            pads = self._constants.get(found.inputs[1]) if len(found.inputs) == 2 else None
            if pads is not None and pads.numel() == 8:
                numbers = _numbers(pads)
                sides = {*numbers[2:4], *numbers[6:]}
                if len(sides) == 1 and not any((*numbers[:2], *numbers[4:6])):
                    return found.inputs[0], sides.pop()
        cut: dict[int, int] = {}
        while found is not None and found.kind == "Slice" and len(found.inputs) >= 4:
            given = [self._constants.get(each) for each in found.inputs[1:]]
            if any(each is None or each.numel() != 1 for each in given):
                break
            start, end, axis, *step = (int(each) for each in given if each is not None)
            if start <= 0 or end != -start or step not in ([], [1]) or axis in cut:
                break
            cut[axis] = start
            if len(cut) == 2 and set(cut) == {2, 3} and len(set(cut.values())) == 1:
                return found.inputs[0], -start
            found = makers.get(found.inputs[0])
        return name, 0

    @staticmethod
    def _readers(nodes: Sequence[Node]) -> dict[str, list[Node]]:
        """Which of `nodes` take each value, but for those that ask for its shape."""
        readers: dict[str, list[Node]] = {}
        for node in nodes:
            for name in node.inputs:
                if node.kind != "Shape":
                    readers.setdefault(name, []).append(node)
        return readers

    def _replace(self, replaced: dict[int, list[Node]]) -> None:
        """Have others stand in the place of the nodes that `replaced` lists by their id, and forget what is
        needed no more; what is asked for its shape is."""
        nodes = [each for node in self._nodes for each in replaced.get(id(node), [node])]
        self._nodes = _needed(nodes, {"stylized"})

    def _depends(self) -> dict[str, int]:
        """What each value of the graph depends on at most."""
        depends = dict.fromkeys(("", *self._constants), STATIC)
        depends.update(image=PICTURE, mix=LOOK, strength=LOOK, origin=LOOK)
        for node in self._nodes:
            # The shape of a picture is no secret of the picture.
            reached = (
                STATIC if node.kind == "Shape" else max((depends[n] for n in node.inputs), default=STATIC)
            )
            depends.update(dict.fromkeys(node.outputs, reached))
        return depends

    def settle(self, image: Tensor, inputs: Mapping[str, Tensor]) -> "Settled":
        """What runs for pictures of the shape of `image`, found by running once.

        Args:
            inputs: what the graph takes beside the picture, by name.

        Raises:
            UnsupportedNode: the graph uses an operator in a way that is not known here.
            RuntimeError: torch's, as when a size does not fit the graph.
        """
        depends = self._depends()
        values: dict[str, Any] = {"": None, "image": image, **inputs}
        values.update(self._constants)
        last = {name: node for node in self._nodes for name in node.inputs}
        parts: tuple[list[_Step], list[_Step]] = ([], [])
        for node in self._nodes:
            reached, names = depends[node.outputs[0]], node.inputs
            if reached > STATIC and node.kind in MIXING:
                # Of numbers that count, too, one of which comes from the look: all on the device. What they
                # count may be a shape as well, which stays where it is.
                there = {name: f"{name} there" for name in names if depends[name] == STATIC}
                names = tuple(there.get(name, name) for name in names)
                values.update({own: values[name].to(self.device) for name, own in there.items()})
                depends.update(dict.fromkeys(there.values(), STATIC))
            taken = [values[name] for name in names]
            run = MAKERS[node.kind](node.attributes, *taken)
            made = run(*taken)
            made = made if isinstance(made, tuple) else (made,)
            outputs = node.outputs[: len(made)]
            if {*last, "stylized"}.intersection(node.outputs[len(made) :]):
                raise UnsupportedNode(f"{node.kind} with {len(node.outputs)} outputs")
            if reached == STATIC:
                made = tuple(self._placed(value) for value in made)
            else:
                parts[reached - 1].append(_Step(run, names, outputs))
            values.update(zip(outputs, made, strict=True))
            for name in node.inputs:
                if last[name] is node and depends[name] == PICTURE and name != "image":
                    values[name] = None
        # What is only asked for its shape has been asked.
        picture = _needed(parts[1], {"stylized"})
        handed_on = {name for step in picture for name in step.inputs if depends[name] == LOOK}
        look = _needed(parts[0], handed_on)
        used = {name for step in (*look, *picture) for name in step.inputs}
        static = {name: values[name] for name in used if depends[name] == STATIC}
        return Settled(
            _forgetting(look, handed_on), _forgetting(picture, {"stylized"}), static, tuple(handed_on)
        )


class Settled:
    """A program for one shape of picture, in two parts: what the look decides, and what the picture does."""

    def __init__(
        self, look: list[_Step], picture: list[_Step], static: dict[str, Any], handed_on: tuple[str, ...]
    ) -> None:
        self._look = look
        self._picture = picture
        self._static = static
        self._handed_on = handed_on

    def look(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the picture's part needs of a look, of what the graph takes beside the picture."""
        values = {**self._static, **inputs}
        _run(self._look, values)
        return {name: values[name] for name in (*self._handed_on, *inputs)}

    def steps(
        self, image: Tensor, look: Mapping[str, Tensor]
    ) -> Iterator[tuple[Callable[..., Any], tuple[Any, ...]]]:
        """Paint as `picture` does, step by step: each operation, and what it is about to be given."""
        values = {**self._static, **look, "image": image}
        for step in self._picture:
            yield step.run, tuple(values[name] for name in step.inputs)
            _run([step], values)

    def picture(self, image: Tensor, look: Mapping[str, Tensor]) -> Tensor:
        """Paint `image` uint8 [n, h, w, 3] with what `look` gave; uint8 [n, h, w, 3]."""
        values = {**self._static, **look, "image": image}
        _run(self._picture, values)
        stylized: Tensor = values["stylized"]
        return stylized


class Compiled:
    """A settled program whose picture PyTorch's compiler has fused; what it takes and gives is the same.

    Takes seconds, less where the compiler's caches know it.

    Args:
        settled: which it does the work of.
        image: of the shape that is painted.
        inputs: what the graph takes beside the picture, by name.
    """

    def __init__(self, settled: Settled, image: Tensor, inputs: Mapping[str, Tensor]) -> None:
        from torch.fx.experimental.proxy_tensor import make_fx  # which takes long to import

        self.look = settled.look
        look = settled.look(inputs)
        self._names = tuple(look)

        def picture(image: Tensor, *values: Tensor) -> Tensor:
            return settled.picture(image, dict(zip(self._names, values, strict=True)))

        # Of tensor arithmetic alone, so that it needs no tracing of Python, and there is nothing to break it.
        traced = make_fx(picture)(image, *look.values())
        self._compiled = torch.compile(traced, fullgraph=True, dynamic=False)
        self.picture(image, look)

    def picture(self, image: Tensor, look: Mapping[str, Tensor]) -> Tensor:
        """As `Settled.picture`."""
        painted: Tensor = self._compiled(image, *(look[name] for name in self._names))
        return painted


def _run(steps: Sequence[_Step], values: dict[str, Any]) -> None:
    for step in steps:
        made = step.run(*(values[name] for name in step.inputs))
        if len(step.outputs) == 1:
            values[step.outputs[0]] = made
        else:
            values.update(zip(step.outputs, made, strict=True))
        for name in step.spent:
            del values[name]


Computes = TypeVar("Computes", Node, _Step)


def _needed(all_of: Sequence[Computes], wanted: AbstractSet[str]) -> list[Computes]:
    """Those that the values `wanted` come from, in their order."""
    names, needed = set(wanted), []
    for each in reversed(all_of):
        if names.intersection(each.outputs):
            names.update(each.inputs)
            needed.append(each)
    return needed[::-1]


def _forgetting(steps: Sequence[_Step], wanted: AbstractSet[str]) -> list[_Step]:
    """`steps`, each of which forgets what was made by one of them and is not needed after it."""
    made = {name for step in steps for name in step.outputs} - wanted
    last = {name: step for step in steps for name in step.inputs}
    spent = {id(step): tuple(n for n in made if last.get(n) is step) for step in steps}
    return [replace(step, spent=spent[id(step)]) for step in steps]


def _tensor(proto: Any) -> Tensor:
    return torch.from_numpy(np.array(numpy_helper.to_array(proto)))


def _attributes(proto: Any, opset: int) -> dict[str, Any]:
    """Those of a node, and what older versions of ONNX meant without them."""
    unsaid: dict[str, dict[str, Any]] = {
        # Before opset 18, equal parts were as many as there are outputs.
        "Split": {"num_outputs": len(proto.output)},
        # Before opset 13, it went over all axes from one on.
        "Softmax": {"axis": 1, "behind": True} if opset < 13 else {},
    }
    given = {attribute.name: _attribute(attribute) for attribute in proto.attribute}
    return unsaid.get(proto.op_type, {}) | given


def _attribute(proto: Any) -> Any:
    value = onnx.helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode()
    return _tensor(value) if isinstance(value, onnx.TensorProto) else value


def _shapes(proto: Any) -> dict[str, tuple[int, ...]]:
    """The shapes that are known before any picture is."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in inferred.value_info:
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return shapes


def _numbers(value: Any) -> list[Any]:
    """A shape, axes or the like as Python's numbers, from an attribute or a static input."""
    numbers: list[Any] = value.flatten().tolist() if isinstance(value, Tensor) else list(value)
    return numbers


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
    pads = _numbers(attributes["pads"] if pads is None else pads)
    along = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in _numbers(axes)]
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
    if scales is None and sizes is None:  # as in opset 10, where it was what `Upsample` had been
        scales, attributes = roi, {**attributes, **UPSAMPLE}
    if sizes is not None and sizes.numel():
        after = _numbers(sizes)
        factors = [a / b for a, b in zip(after, x.shape, strict=True)]
    else:
        factors = _numbers(scales)
        # In float32, as other runtimes: 10 times 0.7 is 7 there, and less than that in float64.
        after = [int(size * np.float32(factor)) for size, factor in zip(x.shape, factors, strict=True)]
    if "axes" in attributes or attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedNode("Resize along chosen axes")
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


def _plain_window(node: Node, pads: int, *, square: bool = True) -> bool:
    """Whether the convolution has these pads on all sides, one stride if `square`, and nothing rare."""
    attributes = node.attributes
    return (
        set(attributes.get("pads", [0])) == {pads}
        and (not square or len(set(attributes.get("strides", [1]))) == 1)
        and set(attributes.get("dilations", [1])) == {1}
        and not any(attributes.get("output_padding", [0]))
        and attributes.get("group", 1) == 1
        and attributes.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    )


def _few(node: Node, weight: tuple[int, ...]) -> bool:
    """Whether the convolution has so few weights that it is no work for the matrix units."""
    return prod(weight) <= FEW and _plain_window(node, 0, square=False)


FEW = 64
"""Weights of a convolution that is computed as a sum of products."""

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
    sizes = _numbers(shape)
    if not attributes.get("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return lambda x, *_: x.reshape(sizes)


def _shape(attributes: Any, x: Tensor) -> Callable[..., Any]:
    sizes = list(x.shape)[attributes.get("start", 0) : attributes.get("end")]
    return lambda x: torch.tensor(sizes, dtype=torch.int64)


def _squeeze(attributes: Any, x: Tensor, axes: Any = None) -> Callable[..., Any]:
    given = attributes.get("axes") if axes is None else axes
    along = [axis for axis, size in enumerate(x.shape) if size == 1] if given is None else _numbers(given)
    return lambda x, *_: x.squeeze(tuple(along))


def _unsqueeze(attributes: Any, x: Tensor, axes: Any = None) -> Callable[..., Any]:
    given = _numbers(attributes["axes"] if axes is None else axes)
    rank = x.dim() + len(given)
    old = iter(x.shape)
    new = {axis % rank for axis in given}
    sizes = [1 if axis in new else next(old) for axis in range(rank)]
    return lambda x, *_: x.view(sizes) if x.is_contiguous() else x.reshape(sizes)


def _expand(attributes: Any, x: Tensor, shape: Tensor) -> Callable[..., Any]:
    sizes = np.broadcast_shapes(tuple(x.shape), tuple(_numbers(shape)))
    return lambda x, *_: x.expand(sizes)


def _tile(attributes: Any, x: Tensor, repeats: Tensor) -> Callable[..., Any]:
    counts = _numbers(repeats)
    return lambda x, *_: x.repeat(counts)


def _slice(attributes: Any, x: Tensor, *bounds: Any) -> Callable[..., Any]:
    given = [_numbers(bound) if bound is not None else None for bound in bounds]
    given += [attributes.get(name) for name in ("starts", "ends", "axes", "steps")[len(given) :]]
    starts, ends, axes, steps = given
    assert starts is not None
    assert ends is not None
    cuts = [slice(None)] * x.dim()
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        step = steps[index] if steps else 1
        if step < 0:
            raise UnsupportedNode("Slice that goes backwards")
        cuts[axes[index] if axes else index] = slice(start, end, step)
    return lambda x, *_: x[tuple(cuts)]


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
    given = attributes.get("split") if sizes is None else _numbers(sizes)
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
        return lambda x, *_: x.clamp(attributes.get("min"), attributes.get("max"))
    # The bounds may come from the look, and change with it.
    return lambda x, low=None, high=None: torch.clamp(x, low, high)


def _reduce(
    attributes: Any, x: Tensor, axes: Any = None, *, function: Callable[..., Tensor]
) -> Callable[..., Any]:
    given = attributes.get("axes") if axes is None else axes
    along = list(range(x.dim())) if given is None or not len(given) else _numbers(given)
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
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def _batch_norm(attributes: Any, *example: Tensor) -> Callable[..., Any]:
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
    return lambda shape: torch.full(_numbers(shape), value.item(), dtype=value.dtype)


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
    "Pow": _plain(torch.pow),
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

MIXING = frozenset({"Add", "Div", "Gather", "Mod", "Mul", "Sub"})
"""Operators of two values that must lie on one device."""
