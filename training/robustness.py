"""How far small changes of the input that are made to hurt throw the painting."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from training.checkpoint import load_trunk
from training.networks import Generator
from training.recipe import build_recipe

EPSILONS = (2, 4, 8)
"""Largest change of a pixel, in levels of 255."""

STEPS = 10
"""Of projected gradient descent, each a quarter of the largest change."""

Painter = Callable[[Tensor], Tensor]
"""Paints [n, 3, h, w] in 0..1, with gradients."""


def load_generator(checkpoint: Path) -> tuple[Generator, list[str]]:
    """The averaged generator of a checkpoint or a trunk, and the names of its styles.

    Raises:
        ValueError: it cannot be read.
    """
    state = load_trunk(checkpoint)
    recipe = build_recipe(json.loads(state["recipe"]), str(checkpoint))
    generator = Generator(len(recipe.styles), recipe.widths, recipe.blocks, skips=recipe.generator == "unet")
    generator.load_state_dict(state["average"])
    return generator.eval().requires_grad_(False), [style.name for style in recipe.styles]


def painter(generator: Generator, style: int) -> Painter:
    """`generator` at full strength in the style of that number."""
    mix, strength = torch.eye(generator.styles)[style : style + 1], torch.ones(1)

    def paint(image: Tensor) -> Tensor:
        n = len(image)
        painted: Tensor = generator(image, mix.expand(n, -1), strength.expand(n))
        return painted.clamp(0, 1)

    return paint


def noise(image: Tensor, epsilon: int, rng: torch.Generator) -> Tensor:
    """`image` [n, 3, h, w] in 0..1 with each value `epsilon` levels higher or lower at random."""
    signs = torch.randint(2, image.shape, generator=rng) * 2 - 1
    return (image + signs * epsilon / 255).clamp(0, 1)


def fgsm(paint: Painter, image: Tensor, epsilon: int, rng: torch.Generator) -> Tensor:
    """`image` one step along the sign of the gradient (Goodfellow et al. 2015, arXiv 1412.6572).

    What it climbs is the distance of the painting from that of the unchanged picture. At the picture itself
    this is flat, so that the gradient is taken a random level away.
    """
    start = noise(image, 1, rng)
    return (image + _uphill(paint, start, paint(image)) * epsilon / 255).clamp(0, 1)


def pgd(paint: Painter, image: Tensor, epsilon: int, rng: torch.Generator) -> Tensor:
    """`image` after several steps, each kept within `epsilon` levels (Madry et al. 2018, arXiv 1706.06083).

    In whole levels, as pictures are.
    """
    goal, reach = paint(image), epsilon / 255
    changed = image + (torch.rand(image.shape, generator=rng) * 2 - 1) * reach
    for _ in range(STEPS):
        changed = changed + _uphill(paint, changed.clamp(0, 1), goal) * reach / 4
        changed = torch.minimum(torch.maximum(changed, image - reach), image + reach).clamp(0, 1)
    return (changed * 255).round() / 255


def _uphill(paint: Painter, image: Tensor, goal: Tensor) -> Tensor:
    image = image.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((paint(image) - goal).square().sum(), image)
    return gradient.sign()


def attacks(paint: Painter, image: Tensor, epsilon: int, seed: int = 0) -> dict[str, Tensor]:
    """`image` under each attack by its name, and with random noise of the same size to compare with."""
    rng = torch.Generator().manual_seed(seed)
    return {
        "noise": noise(image, epsilon, rng),
        "fgsm": fgsm(paint, image, epsilon, rng),
        "pgd": pgd(paint, image, epsilon, rng),
    }
