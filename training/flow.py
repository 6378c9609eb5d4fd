"""Motion between two frames: made up with exact flow, and warping along it."""

import torch
import torch.nn.functional as F
from torch import Tensor


def identity_grid(n: int, height: int, width: int) -> Tensor:
    """Sampling positions [n, h, w, 2] (x, y in -1..1) that leave a picture as it is."""
    theta = torch.eye(2, 3).expand(n, 2, 3)
    return F.affine_grid(theta, [n, 1, height, width], align_corners=False)


def random_warp(n: int, height: int, width: int, rng: torch.Generator, *, pixels: float = 40.0) -> Tensor:
    """Sampling positions of a random motion: shift, rotation, zoom and a smooth elastic field.

    Args:
        pixels: the largest shift along each axis, large enough that what was near an edge is no longer: the
            painting must not depend on how far the edge is. The elastic field moves a seventh as far.

    Returns:
        [n, h, w, 2] for `warp`; the flow is exact by construction.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng) * 2 - 1

    angle, zoom = uniform(n) * 0.06, 1 + uniform(n) * 0.06
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom * angle.cos()
    theta[:, 0, 1], theta[:, 1, 0] = -zoom * angle.sin(), zoom * angle.sin()
    reach = torch.tensor([2 * pixels / width, 2 * pixels / height])
    theta[:, :, 2] = uniform(n, 2) * reach
    grid = F.affine_grid(theta, [n, 1, height, width], align_corners=False)
    coarse = uniform(n, 2, 4, 4) * reach[:, None, None] / 7
    elastic = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return grid + elastic.permute(0, 2, 3, 1)


def warp(image: Tensor, grid: Tensor) -> Tensor:
    """`image` [n, c, h, w] sampled at `grid` [n, h, w, 2]; beyond its border it is mirrored."""
    return F.grid_sample(image.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def inside(grid: Tensor) -> Tensor:
    """Mask [n, 1, h, w]: 1 where `grid` reads from within the picture."""
    return (grid.abs() <= 1).all(-1)[:, None].float()
