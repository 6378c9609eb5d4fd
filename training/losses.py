"""Every loss is one function; those that depend on strength return one value for each picture, [n]."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from training.device import constant
from training.recipe import AREA

EPSILON = 1e-8

LUMA = (0.2126, 0.7152, 0.0722)
"""Weights of red, green and blue in the luminance (ITU-R BT.709)."""

Scores = Sequence[Tensor]
"""A discriminator's scores at each of its scales, [n, 1, h, w]."""


def gram(features: Tensor, region: Tensor | None = None) -> Tensor:
    """Channel correlations [n, c, c] of `features` [n, c, h, w], mean over positions (Gatys et al. 2016).

    Args:
        region: how much each position counts, [n, 1, h, w]: the guided Gram matrix of Gatys et al. 2017
            (arXiv 1611.07865, eq. 6 and 7).
    """
    flat = features.float().flatten(2)
    # In bfloat16 the small distance of two matrices that are nearly the same would be lost.
    with torch.autocast(features.device.type, enabled=False):
        if region is None:
            return flat @ flat.transpose(1, 2) / flat.shape[-1]
        return (flat * _shares(region).flatten(2)) @ flat.transpose(1, 2)


def moments(features: Tensor, region: Tensor | None = None) -> Tensor:
    """Mean and deviation of each channel, [n, 2, c], of `features` [n, c, h, w] (Huang and Belongie 2017).

    Args:
        region: how much each position counts, [n, 1, h, w].
    """
    x = features.float()
    if region is None:
        region = x.new_ones(1, 1, *x.shape[2:])
    shares = _shares(region)
    mean = (x * shares).sum((2, 3), keepdim=True)
    variance = ((x - mean).square() * shares).sum((2, 3))
    return torch.stack([mean.flatten(1), (variance + EPSILON).sqrt()], 1)


def _shares(region: Tensor) -> Tensor:
    return region.float() / (region.float().sum((2, 3), keepdim=True) + EPSILON)


Statistic = Callable[[Tensor, Tensor | None], Tensor]

STATISTICS: dict[str, Statistic] = {"gram": gram, "moments": moments}
"""What of the features tells how a picture is painted."""

WINDOW = 15
"""Side in pixels of what counts as around a pixel."""

VISIBLE, UNSEEN = 6 / 255, 0.03
"""Deviation around a pixel at which half of its motion is seen, and the least share that is."""

BUSY = 10 / 255
"""Deviation around a pixel of a photograph at which it is half calm and half busy."""

HARDLY = 0.5 / 255
"""A step between two pixels that hardly anybody sees."""


def regions(image: Tensor, busy: Tensor | float = BUSY) -> Tensor:
    """What of `image` [n, 3, h, w] is calm and what is busy, [n, 2, h, w], in shares that add up to 1.

    Args:
        busy: deviation of the luminance around a pixel at which it is half of each.
    """
    variance = local_variance(image)
    # Of a painting that is mostly bare ground, `busy` is 0, and so is the variance there.
    share = variance / (variance + busy**2 + EPSILON)
    return torch.cat([1 - share, share], 1)


def statistics(features: Sequence[Tensor], regions: Sequence[Tensor], statistic: Statistic) -> list[Tensor]:
    """`statistic` of each region of pictures at each layer, [n, r, ...].

    Args:
        features: activations, [n, c, h, w] each.
        regions: how much each position counts for each of r regions, [n, r, h, w]; of any size.
    """
    return [
        torch.stack(
            [statistic(x, part) for part in F.adaptive_avg_pool2d(region, x.shape[2:]).split(1, 1)], 1
        )
        for x, region in zip(features, regions, strict=True)
    ]


def style(
    found: Sequence[Tensor], targets: Sequence[Tensor], regions: Sequence[Tensor] | None = None
) -> Tensor:
    """Squared distance of statistics, each layer relative to its target's energy, [n].

    With `gram` it is Gatys et al. 2016 (CVPR, eq. 4), with `moments` Li et al. 2017 (arXiv 1701.01036).
    A region counts as much as it is large.

    Args:
        found: `statistics` of the painted pictures, [n, r, ...] at each layer.
        targets: what they should be.
        regions: as for `statistics`; not needed where there is one of it all.
    """
    layers = []
    for x, target in zip(found, targets, strict=True):
        energy = target.square().flatten(2).mean(2) + EPSILON
        layers.append((x - target).square().flatten(2).mean(2) / energy)
    if regions is None:
        return torch.stack(layers).mean(0).squeeze(1)
    shares = [region.mean((2, 3)) for region in regions]
    return (torch.stack(shares) * torch.stack(layers)).sum(2).mean(0)


def content(features: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of activations (Johnson et al. 2016, eq. 2), relative to the target's energy, [n]."""
    features, targets = features.float(), targets.float()
    energy = _each(targets.square()) + EPSILON
    return _each((features - targets).square()) / energy


def colour(image: Tensor, targets: Tensor) -> Tensor:
    """Distance of each colour's mean and deviation to those of `targets` (Reinhard et al. 2001), [n]."""
    return (moments(image) - moments(targets)).square().mean((1, 2))


def tone(image: Tensor, photo: Tensor) -> Tensor:
    """How far light and dark have left their places, [n]: of squares of `AREA` pixels, each picture about its
    own mean.

    A Gram matrix knows no places, and the features of a content loss hardly any light; the painting of a
    figure before a dark cave may be cave all over.
    """
    areas = [F.avg_pool2d(luminance(each.float()), AREA) for each in (image, photo)]
    painted, seen = (each - each.mean((2, 3), keepdim=True) for each in areas)
    return _each((painted - seen).square())


def minimax_discriminator(real: Scores, fake: Scores) -> Tensor:
    """The discriminator's side of E log D(y) + E log(1 - D(G(x))) (Goodfellow et al. 2014, eq. 1)."""
    return _scales(real, lambda score: F.softplus(-score)).mean() + _scales(fake, F.softplus).mean()


def minimax_generator(fake: Scores) -> Tensor:
    """The generator's side of the same, E log(1 - D(G(x))), [n]."""
    return -_scales(fake, F.softplus)


def least_squares_discriminator(real: Scores, fake: Scores) -> Tensor:
    """Least squares towards 1 for paintings and 0 for others (Mao et al. 2017, arXiv 1611.04076, eq. 9)."""
    return (_scales(real, lambda score: (score - 1).square()).mean() + _scales(fake, torch.square).mean()) / 2


def least_squares_generator(fake: Scores) -> Tensor:
    """The generator's side of least squares, [n]."""
    return _scales(fake, lambda score: (score - 1).square()) / 2


def hinge_discriminator(real: Scores, fake: Scores) -> Tensor:
    """Hinge loss of the discriminator (Lim and Ye 2017, arXiv 1705.02894)."""
    paintings = _scales(real, lambda score: F.relu(1 - score)).mean()
    others = _scales(fake, lambda score: F.relu(1 + score)).mean()
    return (paintings + others) / 2


def hinge_generator(fake: Scores) -> Tensor:
    """The generator's side of the hinge loss, [n]."""
    return _scales(fake, torch.neg)


ADVERSARIAL = {
    "hinge": (hinge_discriminator, hinge_generator),
    "least_squares": (least_squares_discriminator, least_squares_generator),
    "minimax": (minimax_discriminator, minimax_generator),
}
"""The discriminator's side and the generator's side, by name."""

UNDECIDED = {"hinge": 0.0, "least_squares": 0.5, "minimax": 0.0}
"""The score of what is as much a painting as not, by the name of the loss."""


def r1(scores: Scores, real: Tensor) -> Tensor:
    """Squared gradient of the discriminator's scores at real pictures (Mescheder et al. 2018, eq. 9).

    Args:
        scores: of `real`, which asks for gradients.
    """
    total = _scales(scores, lambda score: score).sum()
    (gradient,) = torch.autograd.grad(total, real, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean() / 2


def cycle(image: Tensor, returned: Tensor) -> Tensor:
    """Mean absolute difference of what went to the other side and back (Zhu et al. 2017, eq. 2), [n].

    With a picture of the side it is painted for in place of `returned`, it is their identity loss.
    """
    return _each((image - returned).abs())


def temporal(
    current: Tensor, warped_previous: Tensor, mask: Tensor, luminance: Tensor | None = None
) -> Tensor:
    """Squared change along the flow where nothing is occluded (Ruder et al. 2016, 1604.08610, eq. 7), [n].

    Of a painted frame it is ReCoNet's loss at the output, of a generator's level its loss at the features
    (Gao et al. 2018, arXiv 1807.01197, eq. 3 and 2).

    Args:
        current: the painted frame or its features, [n, c, h, w].
        warped_previous: those of the frame before it, moved along the flow.
        mask: [n, 1, h, w], 1 where the flow holds.
        luminance: [n, 1, h, w], by how much the photographed scene grew brighter: the painting may, too.
    """
    change = current.float() - warped_previous.float()
    if luminance is not None:
        change = change - luminance
    return _each(change.square() * mask)


def visible(photo: Tensor) -> Tensor:
    """Where the motion of `photo` [n, 3, h, w] in 0..1 can be seen, [n, 1, h, w] in `UNSEEN`..1.

    Of a flat sky nobody can tell whether it moves: strokes may stay where they are there, and where there is
    something to see they have to go with it. By the local deviation of the luminance.
    """
    variance = local_variance(photo)
    return UNSEEN + (1 - UNSEEN) * variance / (variance + VISIBLE**2)


def luminance(image: Tensor) -> Tensor:
    """The luminance of `image` [n, 3, h, w], [n, 1, h, w] (BT.709)."""
    return (image * constant(LUMA, image.device)[:, None, None]).sum(1, keepdim=True)


def local_variance(image: Tensor) -> Tensor:
    """Variance of the luminance around each pixel of `image` [n, 3, h, w], [n, 1, h, w]."""
    luma = luminance(image)
    reach = WINDOW // 2

    def mean(x: Tensor) -> Tensor:
        wider = F.pad(x, (reach,) * 4, mode="replicate")
        return F.avg_pool2d(F.avg_pool2d(wider, (1, WINDOW), 1), (WINDOW, 1), 1)

    return (mean(luma.square()) - mean(luma).square()).clamp(min=0)


def luminance_change(current: Tensor, warped_previous: Tensor) -> Tensor:
    """By how much the luminance of a frame [n, 3, h, w] grew along the flow, [n, 1, h, w]."""
    return luminance(current - warped_previous)


def frame_difference(current: Tensor, previous: Tensor, photo: Tensor, previous_photo: Tensor) -> Tensor:
    """Squared distance of the change between painted frames to that between the photographed ones, [n].

    Needs no flow (Xu et al. 2021, arXiv 2102.05822): what stays stays, what moves may change as much as it
    does in the video.
    """
    painted, seen = current.float() - previous.float(), photo - previous_photo
    return _each((painted - seen).square())


def still(painted_noisy: Tensor, painted: Tensor, noisy: Tensor, photo: Tensor) -> Tensor:
    """Square of the noise gain: how much more the painting of a still scene changes by sensor noise, [n].

    Below 1 it trembles less than the video does. Each argument is [n, 3, h, w]: the painting with noise and
    without, and the photograph with it and without.
    """
    trembles = _each((painted_noisy.float() - painted.float()).square())
    # Without noise to speak of there is nothing to compare with.
    return trembles / _each((noisy - photo).square()).clamp(min=1e-5)


def total_variation(image: Tensor) -> Tensor:
    """Mean absolute step between neighbouring pixels, [n] (Rudin et al. 1992)."""
    across = _each((image[..., 1:] - image[..., :-1]).abs())
    down = _each((image[..., 1:, :] - image[..., :-1, :]).abs())
    return across + down


def grid(image: Tensor, period: int) -> Tensor:
    """How unevenly the fine detail of `image` [n, 3, h, w] falls on the places of blocks of `period`, [n].

    Paintings know no blocks; a network that enlarges what it holds can weave its own grid into the picture
    and pass it off as brushwork, since a Gram matrix knows no places. The variance, over the places in a
    block, of the mean absolute first and second steps along rows and columns. Each block counts the same,
    however much it shows: on flat ones, the grid is seen best.

    It is estimated from the products of different columns of blocks, and so may be below 0: what only one
    column has, such as an edge that runs along it, is no grid, and would be charged by a plain variance.
    """
    uneven = []
    for step in (image.float(), image.float().transpose(2, 3)):
        for _ in range(2):
            step = step.diff(dim=3)
            height, width = (side // period * period for side in step.shape[2:])
            blocks = step[..., :height, :width].abs().mean(1)
            blocks = blocks.view(len(step), height // period, period, width // period, period).mean(2)
            shares = (blocks / (blocks.mean(-1, keepdim=True) + HARDLY)).mean(1)
            excess = shares / shares.mean((1, 2), keepdim=True).clamp(min=EPSILON)
            excess = excess - excess.mean(2, keepdim=True)
            columns = excess.shape[1]
            products = excess.sum(1).square() - excess.square().sum(1)
            uneven.append(products.mean(1) / max(1, columns * (columns - 1)))
    return torch.stack(uneven).mean(0)


def out_of_range(image: Tensor) -> Tensor:
    """How far `image` leaves 0..1, [n]: what the export clamps is lost, so it is charged here."""
    return _each(F.relu(-image) + F.relu(image - 1))


def _each(x: Tensor) -> Tensor:
    """The mean over all but the first axis."""
    return x.flatten(1).mean(1)


def _scales(scores: Scores, of: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean of `of` the scores of each picture, every scale counting the same, [n]."""
    return torch.stack([_each(of(score.float())) for score in scores]).mean(0)
