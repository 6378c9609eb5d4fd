"""What one step of a training sees."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.flow import Pair


@dataclass(frozen=True)
class View:
    """A square of the pictures, looked at from a distance."""

    distance: int
    """By which the square is made smaller."""
    top: int
    left: int
    side: int
    """Of what is seen, in pixels."""

    def __call__(self, image: Tensor) -> Tensor:
        """What is seen of `image` [n, c, h, w], [n, c, side, side]."""
        reach = self.side * self.distance
        seen = image[..., self.top : self.top + reach, self.left : self.left + reach]
        return from_distance(seen, self.distance)


def from_distance(image: Tensor, distance: int) -> Tensor:
    """`image` [n, c, h, w] as it looks from `distance` times as far away."""
    return F.avg_pool2d(image, distance) if distance > 1 else image


def enlarged(image: Tensor, times: int) -> Tensor:
    """`image` [n, c, h, w], `times` as large, which looks as before from as many times as far away."""
    return F.interpolate(image, scale_factor=times, mode="bilinear") if times > 1 else image


@dataclass(frozen=True)
class Batch:
    """What one step sees; the first axis of everything is the picture's."""

    pair: Pair
    """The photographs, and the same scene a moment later, or turned."""
    noisy: Tensor
    """The photographs with sensor noise."""
    real: Tensor
    """A crop of a painting of each picture's style."""
    mismatched: Tensor
    """What is no painting of each picture's style: the photograph, or a crop of a painting of another one."""
    styles: Tensor
    mix: Tensor
    strength: Tensor
    views: tuple[View, ...]
    """What the pretrained networks see of the painted pictures, nearest first."""
    rng: torch.Generator
    turned: bool = False
    """Whether the second scene of `pair` is the first one turned, and the canvas with it."""

    @property
    def photo(self) -> Tensor:
        return self.pair.before

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with `change` done to each of its tensors."""
        values = ((entry.name, getattr(self, entry.name)) for entry in fields(self))
        changed: dict[str, Any] = {name: change(x) for name, x in values if isinstance(x, Tensor)}
        return replace(self, pair=self.pair.each(change), **changed)

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`, which need not have it yet."""
        return self.each(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The batch in memory that CUDA reads on its own; the name is what torch's loader asks for."""
        return self.each(Tensor.pin_memory)

    def nbytes(self) -> int:
        """How much memory it takes."""
        sizes: list[int] = []

        def weighed(x: Tensor) -> Tensor:
            sizes.append(x.nbytes)
            return x

        self.each(weighed)
        return sum(sizes)
