"""How far small changes of the input that are made to hurt throw the painting."""

from collections.abc import Callable

import onnx
import torch
from onnx import TensorProto
from torch import Tensor

from engines import EngineBuildError, Look, Style
from engines.errors import first_line
from engines.onnx_to_torch import Program

EPSILONS = (2, 4, 8)
"""Largest change of a pixel, in levels of 255."""

STEPS = 10
"""Of projected gradient descent, each a quarter of the largest change."""

START = 1
"""Levels away from the picture that the gradient is taken for a single step."""

Painter = Callable[[Tensor], Tensor]
"""Paints [n, h, w, 3] in 0..255, with gradients."""


def painter(pack: Style, style: str, size: tuple[int, int]) -> Painter:
    """The graph of `pack` at full strength in `style`, for pictures of `size` (height, width).

    Raises:
        EngineBuildError: it has an operator that torch does not know, or not in that way; or it has no
            gradient.
    """
    inputs = pack.place(size[::-1], Look({style: 1.0})).inputs
    look = {name: torch.from_numpy(value) for name, value in inputs.items()}
    try:
        program = Program(differentiable(pack.model()), torch.device("cpu"))
        settled = program.settle(torch.zeros(1, *size, 3), look)
        values = settled.look(look)
        probe = noise(torch.full((1, *size, 3), 128.0), 64, torch.Generator()).requires_grad_(True)
        painted = settled.picture(probe, values).square().sum()
        climbs = painted.requires_grad and bool(torch.autograd.grad(painted, probe)[0].any())
    except Exception as error:  # onnx's checker and torch share no base below Exception
        raise EngineBuildError(
            f"torch does not take the graph of {pack.name}: {first_line(error)}"
        ) from error
    # By zeros an attack would change nothing, and the pack would seem robust.
    if not climbs:
        raise EngineBuildError(
            f"no gradient passes through the graph of {pack.name}, which attacks climb: it rounds"
        )

    def paint(image: Tensor) -> Tensor:
        return torch.cat([settled.picture(each[None], values) for each in image])

    return paint


def differentiable(model: bytes) -> bytes:
    """A pack's model with numbers where it has bytes, so that gradients pass: it no longer rounds."""
    proto = onnx.load_model_from_string(model)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    del proto.graph.value_info[:]
    to_bytes = set()
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.UINT8:
                attribute.i = TensorProto.FLOAT
                to_bytes.add(node.input[0])
    for node in proto.graph.node:
        # Other people's graphs may be older than Round; elsewhere in them, what is floored is a size.
        if node.op_type == "Round" or (node.op_type == "Floor" and node.output[0] in to_bytes):
            node.op_type = "Identity"
    serialised: bytes = proto.SerializeToString()
    return serialised


def attacks(paint: Painter, image: Tensor, epsilon: int, seed: int = 0) -> dict[str, Tensor]:
    """`image` [n, h, w, 3] in 0..255 under each attack, in whole levels, and with noise of the same size."""
    rng = torch.Generator().manual_seed(seed)
    return {
        "noise": noise(image, epsilon, rng),
        "fgsm": fgsm(paint, image, epsilon, rng),
        "pgd": pgd(paint, image, epsilon, rng),
    }


def noise(image: Tensor, epsilon: int, rng: torch.Generator) -> Tensor:
    """`image` with each value `epsilon` levels higher or lower at random."""
    signs = torch.randint(2, image.shape, generator=rng) * 2 - 1
    return (image + signs * epsilon).clamp(0, 255)


def fgsm(paint: Painter, image: Tensor, epsilon: int, rng: torch.Generator) -> Tensor:
    """`image` one step along the sign of the gradient (Goodfellow et al. 2015, arXiv 1412.6572).

    What it climbs is the distance of the painting from that of the unchanged picture. At the picture itself
    this is flat, so that the gradient is taken a random level away.
    """
    start = noise(image, START, rng)
    return (image + _uphill(paint, start, paint(image)) * epsilon).clamp(0, 255)


def pgd(paint: Painter, image: Tensor, epsilon: int, rng: torch.Generator) -> Tensor:
    """`image` after several steps, each kept within `epsilon` (Madry et al. 2018, arXiv 1706.06083)."""
    goal = paint(image)
    changed = image + (torch.rand(image.shape, generator=rng) * 2 - 1) * epsilon
    for _ in range(STEPS):
        changed = changed + _uphill(paint, changed.clamp(0, 255), goal) * epsilon / 4
        changed = torch.minimum(torch.maximum(changed, image - epsilon), image + epsilon).clamp(0, 255)
    return changed.round()


def _uphill(paint: Painter, image: Tensor, goal: Tensor) -> Tensor:
    image = image.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((paint(image) - goal).square().sum(), image)
    return gradient.sign()
