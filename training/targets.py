"""What the styles of a training are measured against, by the paintings that they copy."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from training import losses
from training.batch import from_distance
from training.data import Pictures, images_of, read_image, resize_shorter
from training.features import Pretrained
from training.recipe import Recipe

log = logging.getLogger("fauve")

Features = list[Tensor]
"""What a network sees, layer by layer."""


def regions(recipe: Recipe, image: Tensor, busy: Tensor | float = losses.BUSY) -> Tensor:
    """The regions of `image` that are compared apart, [n, r, h, w]: one of it all, or calm and busy."""
    return losses.regions(image, busy) if recipe.guided else torch.ones_like(image[:, :1])


def statistics_of(recipe: Recipe, features: Features, regions: Features) -> Features:
    """What of `features` the recipe compares, in each region, [n, r, ...] at each layer."""
    return losses.statistics(features, regions, losses.STATISTICS[recipe.style_statistic])


class Targets:
    """What the styles are measured against: statistics of their paintings, and paintings that are real.

    Raises:
        ValueError: a file that the recipe names is no image, or a folder has none.
    """

    def __init__(
        self, recipe: Recipe, paintings: Path, networks: Mapping[str, Pretrained], device: torch.device
    ) -> None:
        self.recipe = recipe
        self.weights = torch.tensor([style.weight for style in recipe.styles]).to(device)
        self.reals: list[Pictures] = []
        seen: dict[str, list[Features]] = {name: [] for name in networks}
        for style in recipe.styles:
            size = style.painting_size or recipe.painting_size
            files = [paintings / name for name in (style.painting, *style.reals)]
            for path in files:
                if next(images_of([path]), None) is None:
                    raise ValueError(f"{path}: no paintings of {style.name} there")
            copied = list(images_of(files)) if style.movement else [read_image(files[0])]
            if (side := min(copied[0].shape[1:])) < size:
                log.warning(
                    "%s: has %d pixels a side and is enlarged to %d, which blurs its strokes; give a larger "
                    "one or a painting_size like its own (`fauve learn --stroke`)",
                    *(files[0], side, size),
                )
            works = [resize_shorter(image, size)[None].to(device).float() / 255 for image in copied]
            for name, network in networks.items():
                each = [self._statistics_in(network, work) for work in works]
                seen[name].append([torch.stack(layer).mean(0) for layer in zip(*each, strict=True)])
            self.reals.append(Pictures(list(files), size))
        self._statistics = {
            name: [torch.cat(layer) for layer in zip(*of_styles, strict=True)]
            for name, of_styles in seen.items()
        }

    def _statistics_in(self, network: Pretrained, painting: Tensor) -> Features:
        """The statistics of `painting` [1, 3, h, w] at each layer of `network`, from each distance."""
        found: Features = []
        for view in (from_distance(painting, distance) for distance in self.recipe.distances):
            with torch.no_grad():
                features = network(view)
            # By what is calm for this painting: half of it.
            parts = regions(self.recipe, view, losses.local_variance(view).median().sqrt())
            found += statistics_of(self.recipe, features, [parts] * len(features))
        return found

    def statistics(self, network: str, styles: Tensor) -> Features:
        """The statistics of the paintings of `styles` [n] at each layer of `network`, [n, r, ...]."""
        return [layer.index_select(0, styles) for layer in self._statistics[network]]

    def paintings(self, styles: Tensor, rng: torch.Generator) -> Tensor:
        """A crop of a painting of each of `styles` [n], [n, 3, size, size]."""
        size = self.recipe.crop
        return torch.cat([self.reals[style].crops(1, size, rng, zoom=(0.8, 1.25)) for style in styles])

    def draw(self, rng: torch.Generator) -> Tensor:
        """The style of each picture of a batch, [batch]: as many different ones as there are."""
        learned = torch.tensor([index for index, style in enumerate(self.recipe.styles) if style.learn])
        rounds = -(-self.recipe.batch // len(learned))
        drawn = [learned[torch.randperm(len(learned), generator=rng)] for _ in range(rounds)]
        return torch.cat(drawn)[: self.recipe.batch]
