"""Every loss is one function; those that depend on strength return one value for each picture, [n]."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-8


def gram(features: Tensor) -> Tensor:
    """Channel correlations [n, c, c] of `features` [n, c, h, w], mean over positions (Gatys et al. 2016)."""
    flat = features.float().flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[-1]


def gram_style(features: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Distance of Gram matrices (Gatys et al. 2016, CVPR, eq. 4), each layer relative to its target, [n].

    Args:
        features: activations of the painted pictures.
        targets: Gram matrices of the painting at the same layers, [n or 1, c, c].
    """
    layers = [
        (gram(x) - target).square().mean((1, 2)) / (target.square().mean((1, 2)) + EPSILON)
        for x, target in zip(features, targets, strict=True)
    ]
    return torch.stack(layers).mean(0)


def statistics_style(features: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Distance of channel means and deviations (Li et al. 2017, arXiv 1701.01036), relative, [n]."""
    layers = []
    for x, target in zip(features, targets, strict=True):
        x, target = x.float(), target.float()
        scale = target.square().mean() + EPSILON
        mean = (x.mean((2, 3)) - target.mean((0, 2, 3))).square().mean(1)
        deviation = (x.std((2, 3)) - target.std((2, 3)).mean(0)).square().mean(1)
        layers.append((mean + deviation) / scale)
    return torch.stack(layers).mean(0)


def content(features: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of activations (Johnson et al. 2016, eq. 2), relative to the target's energy, [n]."""
    features, targets = features.float(), targets.float()
    return (features - targets).square().mean((1, 2, 3)) / (targets.square().mean() + EPSILON)


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator (Lim and Ye 2017, arXiv 1705.02894)."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def hinge_generator(fake: Tensor) -> Tensor:
    """The generator's side of the hinge loss, [n]."""
    return -fake.float().mean((1, 2, 3))


def temporal(current: Tensor, warped_previous: Tensor, mask: Tensor) -> Tensor:
    """Squared change along the flow where nothing is occluded (Ruder et al. 2016, arXiv 1604.08610, eq. 7).

    Args:
        current: the painted frame, [n, 3, h, w].
        warped_previous: the painted frame before it, moved along the flow.
        mask: [n, 1, h, w], 1 where the flow holds.
    """
    change = (current.float() - warped_previous.float()).square() * mask
    return change.mean((1, 2, 3))


def total_variation(image: Tensor) -> Tensor:
    """Mean absolute step between neighbouring pixels, [n]."""
    across = (image[..., 1:] - image[..., :-1]).abs().mean((1, 2, 3))
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().mean((1, 2, 3))
    return across + down


def out_of_range(image: Tensor) -> Tensor:
    """How far `image` leaves 0..1, [n]: what the export clamps is lost, so it is charged here."""
    return (F.relu(-image) + F.relu(image - 1)).mean((1, 2, 3))
