"""A pack's ONNX graph as torch operations, for one size of picture.

Shapes are settled once for a size (`engines.onnx_operators`), and what runs for a picture is arithmetic of
tensors alone, the same each time: nothing is asked for its shape and nothing is read back, as a CUDA graph
needs it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from engines.errors import EngineUnavailable
from engines.onnx_operators import MAKERS, MIXING, OWN, UnsupportedNode, numbers

STATIC, LOOK, PICTURE = range(3)
"""What a value depends on at most: the size, the look too, the picture too."""


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
        # ONNX's own have no domain; the other name of it, ai.onnx, the checker does not take of a node.
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
        opset = next(each.version for each in proto.opset_import if each.domain in ("", "ai.onnx"))
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
                width = numbers(pads)
                sides = {*width[2:4], *width[6:]}
                if len(sides) == 1 and not any((*width[:2], *width[4:6])):
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
                there = {name: f"{name} there" for name in names if name and depends[name] == STATIC}
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


FEW = 64
"""Weights of a convolution that is computed as a sum of products."""


def _few(node: Node, weight: tuple[int, ...]) -> bool:
    """Whether the convolution has so few weights that it is no work for the matrix units."""
    return prod(weight) <= FEW and _plain_window(node, 0, square=False)


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
