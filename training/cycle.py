"""Both directions at once, figurative to abstract and back (Zhu et al. 2017, arXiv 1703.10593)."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from training import losses
from training.batch import Batch
from training.generator import Generator
from training.recipe import Recipe
from training.regularisation import History
from training.stylization import Loaded, Material, StyleTraining, paint, rate_groups, update_average


class CycleTraining(StyleTraining):
    """A style's training with a second generator that paints photographs from paintings.

    What is painted and painted back must be what it was, in both directions, and a generator leaves alone
    what is of its own side already. A second discriminator knows photographs.
    """

    def __init__(self, recipe: Recipe, material: Material | Loaded, device: torch.device) -> None:
        super().__init__(recipe, material, device)
        # Photographs have no brushwork.
        self.back = self.make_generator([replace(recipe.styles[0], canvas=())])
        self.back_average = deepcopy(self.back).requires_grad_(False).eval()
        self.photo_discriminator = self.make_discriminator(1)
        self.photo_history = History(recipe.history)
        self.optimisers["optimiser"] = self.make_optimiser(
            rate_groups(self.generator, recipe) + rate_groups(self.back, recipe)
        )
        self.optimisers["photo_discriminator_optimiser"] = self.make_optimiser(
            [{"params": list(self.photo_discriminator.parameters())}], recipe.discriminator_learning_rate
        )
        self.parts |= {
            "back": self.back,
            "back_average": self.back_average,
            "photo_discriminator": self.photo_discriminator,
            "photo_history": self.photo_history,
            **self.optimisers,
        }

    def generators(self) -> list[Generator]:
        """Both of them."""
        return [self.generator, self.back]

    def update_averages(self, decay: float) -> None:
        """Move both averaged generators towards the trained ones."""
        super().update_averages(decay)
        update_average(self.back_average, self.back, decay)

    def generator_losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The losses of the way to the painting, and those of the way back and of both round trips."""
        terms, painted = super().generator_losses(batch)
        recipe, full = self.recipe, torch.ones_like(batch.strength)
        alone = torch.ones(len(full), 1, device=self.device)
        returned = self.back(painted, alone, full)
        unpainted = self.back(batch.real, alone, full).float()
        repainted = self.generator(unpainted, batch.mix, full)
        there_and_back = losses.cycle(batch.photo, returned.float()) + losses.cycle(
            batch.real, repainted.float()
        )
        terms["cycle"] = recipe.cycle * there_and_back.mean()
        if recipe.identity:
            kept = self.generator(batch.real, batch.mix, full), self.back(batch.photo, alone, full)
            stays = losses.cycle(batch.real, kept[0].float()) + losses.cycle(batch.photo, kept[1].float())
            terms["identity"] = recipe.identity * stays.mean()
        self._unpainted = unpainted.detach()
        if recipe.adversarial:
            self.photo_discriminator.requires_grad_(False)
            scores, _ = self.photo_discriminator(self.shown(unpainted, batch), self._one(batch))
            self.photo_discriminator.requires_grad_(True)
            loss = losses.ADVERSARIAL[recipe.adversarial_loss][1](scores)
            terms["adversarial_back"] = recipe.adversarial * loss.mean()
        return terms, painted

    def train_discriminators(self, batch: Batch, painted: Tensor) -> dict[str, Tensor]:
        """Train the judge of paintings and that of photographs."""
        numbers = super().train_discriminators(batch, painted)
        one = self._one(batch)
        fake = self.photo_history.exchange(self._unpainted, one, batch.rng)
        loss = self.discriminator_loss(self.photo_discriminator, batch, (batch.photo, one), fake)
        self.descend("photo_discriminator_optimiser", loss, list(self.photo_discriminator.parameters()))
        return {**numbers, "discriminator_back": loss}

    def _one(self, batch: Batch) -> Tensor:
        return torch.zeros_like(batch.styles)

    def sheet(self, photos: list[Tensor]) -> np.ndarray:
        """A contact sheet uint8 RGB: each photograph, its painting, and the photograph painted from that.

        Below them a painting of each style, the photograph painted from it, and the painting of that.
        """
        rng, rows = torch.Generator().manual_seed(self.recipe.seed), []
        for index, photo in enumerate(photos):
            painted = paint(self.average, photo, index % self.average.styles)
            rows.append(torch.cat([photo, painted, paint(self.back_average, painted, 0)], 2))
        height, width = photos[0].shape[-2:]
        for style, pictures in enumerate(self.targets.reals):
            real = (pictures.crops(1, height, rng)[0] * 255).byte()
            real = nn.functional.pad(real, (0, width - height))
            unpainted = paint(self.back_average, real, 0)
            rows.append(torch.cat([real, unpainted, paint(self.average, unpainted, style)], 2))
        return torch.cat(rows, 1).permute(1, 2, 0).numpy()


def training_of(recipe: Recipe, material: Material | Loaded, device: torch.device) -> StyleTraining:
    """What trains `recipe`: one direction, or both if it has a cycle."""
    return (CycleTraining if recipe.cycle else StyleTraining)(recipe, material, device)
