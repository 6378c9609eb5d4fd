"""Motion between two frames: made up with exact flow, estimated in clips, and warping along it."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.flicker import checked
from training.losses import luminance_change


def identity_grid(n: int, height: int, width: int) -> Tensor:
    """Sampling positions [n, h, w, 2] (x, y in -1..1) that leave a picture as it is."""
    theta = torch.eye(2, 3).expand(n, 2, 3)
    return F.affine_grid(theta, [n, 1, height, width], align_corners=False)


TURNS = 0.0015
"""By how much a picture is turned at most, in radians, and zoomed, as a share, for each pixel that it may be
shifted by: at its edges it is moved about as far by either."""


def random_warp(n: int, height: int, width: int, rng: torch.Generator, *, pixels: float) -> Tensor:
    """Sampling positions of a random motion: shift, rotation, zoom and a smooth elastic field.

    Args:
        pixels: the largest shift along each axis; the elastic field moves a seventh as far. It is turned and
            zoomed in proportion (`TURNS`).

    Returns:
        [n, h, w, 2] for `warp`; the flow is exact by construction.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng) * 2 - 1

    turned = TURNS * pixels
    angle, zoom = uniform(n) * turned, 1 + uniform(n) * turned
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
    """`image` [n, c, h, w] sampled at `grid` [n, h, w, 2]; beyond its border it is mirrored.

    Cubic, so that it may leave the range of `image` by a little: linear, what is moved by a part of a pixel
    would lose its finest detail, and a painting would be charged for having some.
    """
    return F.grid_sample(image.float(), grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def inside(grid: Tensor) -> Tensor:
    """Mask [n, 1, h, w]: 1 where `grid` reads from within the picture."""
    return (grid.abs() <= 1).all(-1)[:, None].float()


@dataclass(frozen=True)
class Pair:
    """Two frames of one scene and how it moved in between."""

    before: Tensor
    """[n, 3, h, w] in 0..1."""
    after: Tensor
    """The next frame, as the camera gave it: with its noise."""
    grid: Tensor
    """Where each pixel of `after` was in `before`, [n, h, w, 2], for `warp`."""
    mask: Tensor
    """[n, 1, h, w], 1 where that can be relied on: within the picture and not just uncovered."""
    luminance: Tensor
    """By how much the scene grew brighter, [n, 1, h, w]."""

    def each(self, change: Callable[[Tensor], Tensor]) -> "Pair":
        """The pair with `change` done to each of its tensors."""
        return Pair(*(change(getattr(self, entry.name)) for entry in fields(self)))


def synthetic_pair(
    photo: Tensor, rng: torch.Generator, *, motion: float, noise: float, brightness: float
) -> Pair:
    """`photo` [n, 3, h, w] and the same moved at random, whose flow is exact by construction.

    Args:
        motion: largest shift along each axis, in pixels.
        noise: largest standard deviation of the second frame's sensor noise, on 0..1.
        brightness: largest change of the second frame's brightness, as a share.
    """
    n = len(photo)
    grid = random_warp(n, *photo.shape[-2:], rng, pixels=motion)
    moved = warp(photo, grid).clamp(0, 1)
    gain = 1 + brightness * (torch.rand(n, 1, 1, 1, generator=rng) * 2 - 1)
    # What is blown out grows no brighter.
    lit = (moved * gain).clamp(0, 1)
    after = with_sensor_noise(lit, noise, rng)
    return Pair(photo, after, grid, inside(grid), luminance_change(lit, moved))


TURNED = 0.75
"""How much of a picture is compared with the same turned, from its middle."""


def turned_pair(photo: Tensor, rng: torch.Generator) -> Pair:
    """`photo` [n, 3, h, w] and the same turned about its middle, each picture by an angle of its own."""
    n = len(photo)
    angle = 2 * torch.pi * torch.rand(n, generator=rng)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = angle.cos()
    theta[:, 0, 1], theta[:, 1, 0] = -angle.sin(), angle.sin()
    grid = F.affine_grid(theta, list(photo.shape), align_corners=False)
    # What lies beyond the edges differs, and reaches in.
    within = (grid.abs() <= TURNED).all(-1) & (identity_grid(*photo[:, 0].shape).abs() <= TURNED).all(-1)
    turned = warp(photo, grid).clamp(0, 1)
    return Pair(photo, turned, grid, within[:, None].float(), torch.zeros_like(photo[:, :1]))


def with_sensor_noise(image: Tensor, most: float, rng: torch.Generator) -> Tensor:
    """`image` [n, 3, h, w] in 0..1 with noise, for each picture its own, of deviation `most` at most."""
    amount = most * torch.rand(len(image), 1, 1, 1, generator=rng)
    return (image + amount * torch.randn(image.shape, generator=rng)).clamp(0, 1)


SHADES = (8, 16, 32, 64)
"""Sizes of light and shade, in pixels."""


def with_shading(image: Tensor, most: float, rng: torch.Generator) -> Tensor:
    """`image` [n, 3, h, w] in 0..1 with faint light and shade, of deviation `most` at most."""
    size = SHADES[int(torch.randint(len(SHADES), (), generator=rng))]
    amount = most * torch.rand(len(image), 1, 1, 1, generator=rng)
    coarse = torch.randn(len(image), 1, *(side // size + 3 for side in image.shape[2:]), generator=rng)
    shade = F.interpolate(coarse, image.shape[2:], mode="bicubic", align_corners=False)
    return (image + amount * shade / shade.std((2, 3), keepdim=True)).clamp(0, 1)


class DisFlow:
    """Dense inverse search (Kroeger et al. 2016, arXiv 1603.03590), as OpenCV computes it."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, before: Tensor, after: Tensor) -> Tensor:
        """The motion of each pixel of `before` to `after`, uint8 [3, h, w], in pixels: [h, w, 2] (x, y)."""
        grey = [
            cv2.cvtColor(x.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2GRAY) for x in (before, after)
        ]
        return torch.from_numpy(self._flow.calc(*grey, None))


class RaftFlow:
    """RAFT (Teed and Deng 2020, arXiv 2003.12039), small, with torchvision's weights.

    Raises:
        ValueError: torchvision or its weights cannot be had.
    """

    def __init__(self) -> None:
        try:
            from torchvision.models.optical_flow import raft_small
        except (ImportError, RuntimeError) as error:
            raise ValueError('flow = "raft_small" needs pip install "fauve[train]"') from error
        try:
            self._network = raft_small(weights="DEFAULT").eval()
        except OSError as error:
            raise ValueError(f'RAFT\'s weights cannot be had ({error}); flow = "dis" needs none') from error

    def __call__(self, before: Tensor, after: Tensor) -> Tensor:
        """As `DisFlow` does."""
        height, width = before.shape[-2:]
        padding = (0, -width % 8, 0, -height % 8)
        frames = [F.pad(x[None].float() / 127.5 - 1, padding, mode="replicate") for x in (before, after)]
        with torch.inference_mode():
            flow: Tensor = self._network(*frames)[-1][0, :, :height, :width]
        return flow.permute(1, 2, 0).clone()


FLOWS: dict[str, Callable[[], Callable[[Tensor, Tensor], Tensor]]] = {"dis": DisFlow, "raft_small": RaftFlow}
"""What estimates motion, by the name that a recipe gives it."""


def checked_flow(
    flow: Callable[[Tensor, Tensor], Tensor], before: Tensor, after: Tensor
) -> tuple[Tensor, Tensor]:
    """Where each pixel of `after` was in `before`, both uint8 [3, h, w], and whether that can be relied on.

    Returns:
        Positions [h, w, 2] in pixels of `before`, and a mask [h, w], as `pipeline.flicker.checked`.
    """
    place, holds = checked(flow(after, before).numpy(), flow(before, after).numpy())
    return torch.from_numpy(place), torch.from_numpy(holds)


def pixels(height: int, width: int) -> Tensor:
    """Position (x, y) of each pixel, [h, w, 2]."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows], -1)


def normalised(place: Tensor, height: int, width: int) -> Tensor:
    """Positions (x, y) [..., 2] in pixels as `warp` takes them, -1..1 over a picture of that size."""
    return (2 * place + 1) / torch.tensor([width, height]) - 1
