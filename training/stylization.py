"""One step of training: a generator learns to paint, a discriminator to tell its pictures from paintings."""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import losses
from training.batch import Batch, View, enlarged, from_distance
from training.checkpoint import load_trunk, restore
from training.data import Clips, Pictures, expose
from training.device import autocast_of
from training.discriminator import DenseDiscriminator, PatchDiscriminator
from training.distributed import average_gradients, share
from training.features import NETWORKS, Pretrained, pretrained
from training.flow import (
    FLOWS,
    synthetic_pair,
    turned_pair,
    warp,
    with_sensor_noise,
    with_shading,
)
from training.generator import Generator, of_styles
from training.recipe import Recipe, StyleRecipe, stored_recipe
from training.regularisation import History, augment
from training.targets import Features, Targets, regions, statistics_of

TURNED_DISTANCE = 4
"""From which a picture and the same turned are compared."""


@dataclass(frozen=True)
class Material:
    """What a training learns from.

    Attributes:
        photos: folder of photographs, or a torchvision dataset; one in ten is held out for evaluation.
        paintings: folder that the paintings' names in the recipe start from.
        clips: folder of videos; may be None for a recipe that learns nothing from them.
        weights: folder of the pretrained networks' weights; None takes torchvision's.
    """

    photos: Path | str
    paintings: Path
    clips: Path | None = None
    weights: Path | None = None


@dataclass(frozen=True)
class Loaded:
    """A material in memory, for trainings by one recipe or by such that differ in weights and rates alone."""

    pretrained: dict[str, Pretrained]
    targets: Targets
    photos: Pictures
    clips: Clips | None


def load(recipe: Recipe, material: Material, device: torch.device) -> Loaded:
    """Read what `recipe` wants of `material`.

    Raises:
        ValueError: the material holds nothing usable.
    """
    names = dict.fromkeys(recipe.content_features + recipe.style_features)
    networks = {name: pretrained(name, material.weights) for name in names if name in NETWORKS}
    for network in networks.values():
        network.to(device)
    targets = Targets(recipe, material.paintings, networks, device)
    photos = Pictures([material.photos], recipe.photo_size, hold_out=True)
    clips = None
    if recipe.clip_share:
        if material.clips is None:
            raise ValueError("the recipe's clip_share is more than 0: it needs a folder of clips")
        clips = Clips(material.clips, recipe.photo_size, FLOWS[recipe.flow]())
    for network in networks.values():
        network.to(memory_format=torch.channels_last)
    return Loaded(networks, targets, photos, clips)


class StyleTraining:
    """The networks of a training and what one step does to them.

    Attributes:
        parts: everything that a checkpoint keeps, by name.

    Raises:
        ValueError: the material holds nothing usable.
    """

    def __init__(self, recipe: Recipe, material: Material | Loaded, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        loaded = material if isinstance(material, Loaded) else load(recipe, material, device)
        self.pretrained, self.targets = loaded.pretrained, loaded.targets
        self.photos, self.clips = loaded.photos, loaded.clips

        self.generator = self.make_generator(recipe.styles)
        self.average = deepcopy(self.generator).requires_grad_(False).eval()
        self.discriminator = self.make_discriminator(len(recipe.styles))
        self.history = History(recipe.history)
        self.parts: dict[str, Any] = {
            "generator": self.generator,
            "average": self.average,
            "discriminator": self.discriminator,
            "history": self.history,
        }
        if not recipe.trunk:
            self.generator.freeze_trunk()
        self.optimisers = {
            "optimiser": self.make_optimiser(rate_groups(self.generator, recipe)),
            "discriminator_optimiser": self.make_optimiser(
                [{"params": list(self.discriminator.parameters())}], recipe.discriminator_learning_rate
            ),
        }
        self.parts |= self.optimisers
        self.autocast = autocast_of(recipe.autocast, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.autocast is torch.float16)
        self.parts["scaler"] = self.scaler

    def make_generator(self, styles: Sequence[StyleRecipe]) -> Generator:
        """A generator of the recipe's shape for `styles`, on the training's device."""
        generator = generator_of(self.recipe, styles)
        return generator.to(self.device, memory_format=torch.channels_last)

    def make_discriminator(self, styles: int) -> PatchDiscriminator | DenseDiscriminator:
        """A discriminator of the recipe's shape on the training's device."""
        return discriminator_of(self.recipe, styles).to(self.device, memory_format=torch.channels_last)

    def make_optimiser(
        self, groups: list[dict[str, Any]], rate: float | None = None
    ) -> torch.optim.Optimizer:
        """The recipe's optimiser over `groups`, at `rate` or the recipe's learning rate."""
        recipe = self.recipe
        rate = recipe.learning_rate if rate is None else rate
        fused = True if self.device.type == "cuda" else None
        if recipe.optimiser == "sgd":
            return torch.optim.SGD(groups, rate, momentum=recipe.betas[0], fused=fused)
        return torch.optim.Adam(groups, rate, (recipe.betas[0], recipe.betas[1]), fused=fused)

    def start_from(self, checkpoint: Path) -> None:
        """Begin with the averaged generator of `checkpoint`: its trunk, and its styles by name.

        If it has a discriminator of the same styles, that is begun with, too, as far as it has the shape.

        Raises:
            ValueError: the checkpoint cannot be read or is of a generator of another shape.
        """
        state = load_trunk(checkpoint)
        before = stored_recipe(state["recipe"], str(checkpoint))
        names = [style.name for style in before.styles]
        average = state["average"]
        if before.branches and not self.recipe.branches:
            with_branches = generator_of(before, before.styles)
            restore(with_branches, average, checkpoint)
            with_branches.merge_branches()
            average = with_branches.state_dict()
        try:
            self.generator.start_from(average, names, [style.name for style in self.recipe.styles])
        except ValueError as error:
            raise ValueError(f"{checkpoint}: {error}") from error
        self.average.load_state_dict(self.generator.state_dict())
        if names == [style.name for style in self.recipe.styles]:
            judge = self.discriminator.state_dict()
            for name, value in state.get("discriminator", {}).items():
                if name in judge and judge[name].shape == value.shape:
                    judge[name] = value
            self.discriminator.load_state_dict(judge)

    def batch(self, step: int) -> Batch:
        """What step `step` (from 1) sees, this process's share, on the CPU.

        It is drawn from the seed and the step's number alone, so that a resumed training sees the same data
        as an undisturbed one, and any process can draw it.
        """
        recipe = self.recipe
        rng = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        styles = self.targets.draw(rng)
        turned = recipe.turned > 0 and step % 2 == 0
        if self.clips is not None and float(torch.rand((), generator=rng)) < recipe.clip_share:
            turned = False
            pair = self.clips.crops(recipe.batch, recipe.crop, rng)
        else:
            photo = expose(self.photos.crops(recipe.batch, recipe.crop, rng), rng, recipe.exposure)
            moves = {"motion": recipe.motion, "noise": recipe.noise, "brightness": recipe.brightness}
            pair = turned_pair(photo, rng) if turned else synthetic_pair(photo, rng, **moves)
        strength = torch.rand(recipe.batch, generator=rng)
        strength[torch.rand(recipe.batch, generator=rng) < recipe.full_strength] = 1
        real = self.targets.paintings(styles, rng)
        another = (styles != styles.roll(1)) & (torch.rand(recipe.batch, generator=rng) < 0.5)
        mismatched = torch.where(another[:, None, None, None], real.roll(1, 0), pair.before)
        noisy = with_sensor_noise(pair.before, recipe.noise, rng) if recipe.still else pair.before
        if recipe.still and recipe.shading:
            noisy = with_shading(noisy, recipe.shading, rng)
        return Batch(
            pair=pair.each(self._mine),
            noisy=self._mine(noisy),
            real=self._mine(real),
            mismatched=self._mine(mismatched),
            styles=self._mine(styles),
            mix=self._mine(torch.eye(len(recipe.styles))[styles]),
            strength=self._mine(strength),
            views=self.views(recipe.crop, rng),
            rng=rng,
            turned=turned,
        )

    def views(self, crop: int, rng: torch.Generator) -> tuple[View, ...]:
        """What is seen of pictures of `crop` pixels a side: from the largest of the recipe's distances as
        much as fits, and from each other one as many pixels of the smaller picture."""
        distances = self.recipe.distances
        # The pooling of VGG favours some pixels of each 4x4 block. Seen from an offset that changes with
        # every step, no pixel of the generator's own blocks is favoured, and no pattern of blocks grows.
        side = (crop - self.generator.multiple) // max(distances)

        def place(distance: int) -> list[int]:
            return torch.randint(crop - side * distance + 1, (2,), generator=rng).tolist()

        return tuple(View(distance, *place(distance), side) for distance in distances)

    def _mine(self, values: Tensor) -> Tensor:
        """This process's share of `values`."""
        mine = share(values)
        return mine.contiguous(memory_format=torch.channels_last) if mine.dim() == 4 else mine

    def step(self, step: int, batch: Batch | None = None) -> dict[str, float]:
        """Train both networks on batch `step` (from 1) and give every loss by its name.

        Args:
            batch: that of the step, if it has been drawn.

        Raises:
            FloatingPointError: a loss is no longer finite.
        """
        recipe = self.recipe
        batch = (self.batch(step) if batch is None else batch).to(self.device)
        self.prepare(step)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            terms, painted = self.generator_losses(batch)
        total = torch.stack(list(terms.values())).sum()
        self.descend("optimiser", total, self.trained())
        self.update_averages(min(recipe.average_decay, step / (step + 10)))
        if recipe.discriminates:
            terms |= self.train_discriminators(batch, painted)
        self.scaler.update()
        # All at once: whoever reads a number of a GPU waits for it.
        numbers = dict(zip(terms, torch.stack(list(terms.values())).detach().cpu().tolist(), strict=True))
        if not math.isfinite(sum(numbers.values())):
            raise FloatingPointError(
                f"step {step}: a loss is no longer finite; a lower learning_rate may help: {numbers}"
            )
        return numbers

    def trained(self) -> list[nn.Parameter]:
        """The parameters that the generators' optimiser moves."""
        groups = self.optimisers["optimiser"].param_groups
        return [parameter for group in groups for parameter in group["params"]]

    def prepare(self, step: int) -> None:
        """Set the learning rate of `step`, and whether batch normalisation still learns its statistics."""
        recipe = self.recipe
        for group in self.optimisers["optimiser"].param_groups:
            group["lr"] = recipe.learning_rate * group["factor"] * schedule(recipe, step)
        # Of the batch's own, the canvas would lie on the same places for the same style again and again.
        rng = torch.Generator().manual_seed(~(recipe.seed * 1_000_003 + step))
        for generator in self.generators():
            generator.train()
            generator.move_canvas(rng)
            if step > recipe.freeze_statistics * recipe.steps or not recipe.trunk:
                generator.freeze_statistics()

    def generators(self) -> list[Generator]:
        """The generators that are trained."""
        return [self.generator]

    def update_averages(self, decay: float) -> None:
        """Move the averaged generators towards the trained ones."""
        update_average(self.average, self.generator, decay)

    def descend(self, optimiser: str, loss: Tensor, parameters: list[nn.Parameter]) -> None:
        """One step of `optimiser` down the gradient of `loss`."""
        self.optimisers[optimiser].zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        # Before it is looked for what has overflowed, which all processes must find alike.
        average_gradients(parameters)
        self.scaler.unscale_(self.optimisers[optimiser])
        if optimiser == "optimiser":
            nn.utils.clip_grad_norm_(parameters, self.recipe.clip_gradient)
        self.scaler.step(self.optimisers[optimiser])

    def generator_losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The generator's weighted losses by name, and the pictures it painted."""
        recipe, photo, strength = self.recipe, batch.photo, batch.strength
        large, levels = self.generator.paint(enlarged(photo, recipe.enlarged), batch.mix, strength)
        large = large.float()
        painted = from_distance(large, recipe.enlarged)
        self.discriminator.requires_grad_(False)
        with torch.no_grad():
            networks = dict.fromkeys(
                (recipe.content_features if recipe.content else ())
                + (recipe.style_features if recipe.style else ())
            )
            before = {name: self.features(name, photo, batch) for name in networks}
        seen = {name: self.features(name, painted, batch) for name in networks}
        # A weak strength keeps more of the photograph.
        keeps = 2 - strength
        terms: dict[str, Tensor] = {}
        if recipe.content:
            distances = []
            for name in recipe.content_features:
                layer = content_layer(name)
                distances.append(losses.content(seen[name][layer], before[name][layer]))
            terms["content"] = recipe.content * (keeps * torch.stack(distances).mean(0)).mean()
        if recipe.style:
            distance = torch.stack(
                [self.style_distance(name, seen[name], before[name], batch) for name in recipe.style_features]
            ).mean(0)
            weight = self.targets.weights[batch.styles]
            terms["style"] = recipe.style * (weight * distance).mean()
        terms["in_range"] = recipe.in_range * losses.out_of_range(painted).mean()
        if recipe.colour:
            terms["colour"] = recipe.colour * (strength * losses.colour(painted, batch.real)).mean()
        if recipe.tone:
            terms["tone"] = recipe.tone * losses.tone(painted, photo).mean()
        if recipe.smoothness:
            terms["smoothness"] = recipe.smoothness * losses.total_variation(painted).mean()
        if recipe.grid:
            real = enlarged(batch.real, recipe.enlarged)
            uneven, own = (losses.grid(image, self.generator.multiple) for image in (large, real))
            # A painting of straight lines has some unevenness of its own.
            terms["grid"] = recipe.grid * F.relu(uneven - own).mean()
        if recipe.adversarial:
            scores, _ = self.discriminator(self.shown(painted, batch), batch.styles)
            loss = losses.ADVERSARIAL[recipe.adversarial_loss][1](scores)
            terms["adversarial"] = recipe.adversarial * (strength * loss).mean()
        self.discriminator.requires_grad_(True)
        if batch.turned or recipe.temporal or recipe.temporal_features:
            terms |= self.temporal_losses(batch, painted, levels[-1])
        if recipe.still:
            again, _ = self.painted(batch.noisy, batch)
            terms["still"] = recipe.still * losses.still(again, painted, batch.noisy, photo).mean()
        return terms, painted

    def painted(self, image: Tensor, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """`image`, painted as the batch's photographs are, at the size it has, and the generator's levels."""
        times = self.recipe.enlarged
        large, levels = self.generator.paint(enlarged(image, times), batch.mix, batch.strength)
        return from_distance(large, times), levels

    def temporal_losses(self, batch: Batch, painted: Tensor, level: Tensor) -> dict[str, Tensor]:
        """How much the painting changes from one frame to the next beyond what the scene does."""
        recipe, pair = self.recipe, batch.pair
        terms: dict[str, Tensor] = {}
        if batch.turned:
            with self.generator.canvas_carried(pair.grid, enlarged(batch.photo, recipe.enlarged)):
                turned, _ = self.painted(pair.after, batch)
            images = (turned, warp(painted, pair.grid), pair.mask)
            # Fine detail does not survive being turned.
            change = losses.temporal(*(from_distance(image, TURNED_DISTANCE) for image in images))
            return {"turned": recipe.turned * change.mean()}
        next_painted, next_level = self.painted(pair.after, batch)
        if recipe.temporal and recipe.temporal_loss == "flow":
            moved = warp(painted, pair.grid)
            mask = pair.mask * losses.visible(pair.after)
            change = losses.temporal(next_painted, moved, mask, pair.luminance)
            terms["temporal"] = recipe.temporal * change.mean()
        elif recipe.temporal:
            change = losses.frame_difference(next_painted, painted, pair.after, pair.before)
            terms["temporal"] = recipe.temporal * change.mean()
        if recipe.temporal_features:
            # At the level's size: the flow in -1..1 is the same at every size.
            grid = nn.functional.interpolate(pair.grid.permute(0, 3, 1, 2), level.shape[-2:], mode="area")
            mask = nn.functional.interpolate(pair.mask, level.shape[-2:], mode="area")
            moved = warp(level, grid.permute(0, 2, 3, 1))
            change = losses.temporal(next_level[-1], moved, mask)
            terms["temporal_features"] = recipe.temporal_features * change.mean()
        return terms

    def features(self, name: str, image: Tensor, batch: Batch) -> Features:
        """What the network `name` sees in `image` [n, 3, h, w]: its middle layers."""
        if name == "discriminator":
            return list(self.discriminator(image, batch.styles)[1])
        if name == "generator":
            # The averaged one: its weights are not what is learned by being looked through.
            return self.average.features(image)
        return [x for view in batch.views for x in self.pretrained[name](view(image))]

    def style_distance(self, name: str, seen: Features, before: Features, batch: Batch) -> Tensor:
        """How far the painted pictures are from what they should be in the eyes of the network `name`, [n].

        Args:
            seen: what it sees in them.
            before: what it sees in the photographs.
        """
        parts = self.regions(name, batch.photo, batch, len(before))
        found = statistics_of(self.recipe, seen, parts)
        return losses.style(found, self.style_target(name, before, parts, batch), parts)

    def regions(self, name: str, image: Tensor, batch: Batch, layers: int) -> Features:
        """The regions of `image` that are compared apart, at each of the `layers` of the network `name`."""
        shown = [view(image) for view in batch.views] if name in self.pretrained else [image]
        each = layers // len(shown)
        return [part for part in (regions(self.recipe, view) for view in shown) for _ in range(each)]

    def style_target(self, name: str, before: Features, parts: Features, batch: Batch) -> Features:
        """The statistics that each picture should have: as far from its photograph's to the painting's as its
        strength goes, so that strength leads all the way from one to the other.

        The painting's are those of the whole in a pretrained network, and in one that is still learning those
        of the batch's crops.

        Args:
            before: what `name` sees in the photographs.
            parts: the regions of these at each layer.
        """
        recipe = self.recipe
        with torch.no_grad():
            if name in self.pretrained:
                paintings = self.targets.statistics(name, batch.styles)
            else:
                real = self.features(name, batch.real, batch)
                paintings = statistics_of(recipe, real, self.regions(name, batch.real, batch, len(real)))
            photos = statistics_of(recipe, before, parts)
            strengths = [batch.strength.view(-1, *[1] * (x.dim() - 1)) for x in photos]
            return [torch.lerp(*each) for each in zip(photos, paintings, strengths, strict=True)]

    def shown(self, image: Tensor, batch: Batch) -> Tensor:
        """`image` as the discriminator sees it."""
        return augment(image, batch.rng) if self.recipe.augment else image

    def train_discriminators(self, batch: Batch, painted: Tensor) -> dict[str, Tensor]:
        """Train the discriminator on the batch's paintings and on what was painted; its losses by name.

        As often as what was painted, a photograph or a painting of another style is shown to it as no
        painting of this one: it would tell what is painted by its artefacts alone, and take both for
        paintings (Reed et al. 2016, arXiv 1605.05396, section 4.1).
        """
        fake, fake_styles = self.history.exchange(painted.detach().float(), batch.styles, batch.rng)
        fake, fake_styles = torch.cat([fake, batch.mismatched]), torch.cat([fake_styles, batch.styles])
        loss = self.discriminator_loss(
            self.discriminator, batch, (batch.real, batch.styles), (fake, fake_styles)
        )
        self.descend("discriminator_optimiser", loss, list(self.discriminator.parameters()))
        return {"discriminator": loss}

    def discriminator_loss(
        self, discriminator: nn.Module, batch: Batch, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The loss of `discriminator` over real and painted pictures, each with their styles."""
        recipe = self.recipe
        seen_real, seen_fake = (self.shown(image, batch) for image, _ in (real, fake))
        seen_real = seen_real.requires_grad_(recipe.r1 > 0)
        enabled = self.autocast is not None and not recipe.r1
        with torch.autocast(self.device.type, self.autocast, enabled=enabled):
            real_scores, _ = discriminator(seen_real, real[1])
            fake_scores, _ = discriminator(seen_fake, fake[1])
        loss = losses.ADVERSARIAL[recipe.adversarial_loss][0](real_scores, fake_scores)
        return loss + recipe.r1 * losses.r1(real_scores, seen_real) if recipe.r1 else loss

    def sheet(self, photos: list[Tensor]) -> np.ndarray:
        """A contact sheet uint8 RGB: a row for each photograph, the input and each style at full strength."""
        rows = [
            torch.cat(
                [photo, *(paint(self.average, photo, style) for style in range(self.average.styles))], 2
            )
            for photo in photos
        ]
        if self.average.styles > 1:
            return torch.cat(rows, 1).permute(1, 2, 0).numpy()
        half = (len(rows) + 1) // 2
        rows += [torch.zeros_like(rows[0])] * (2 * half - len(rows))
        columns = [torch.cat(rows[:half], 1), torch.cat(rows[half:], 1)]
        return torch.cat(columns, 2).permute(1, 2, 0).numpy()


def generator_of(recipe: Recipe, styles: Sequence[StyleRecipe]) -> Generator:
    """A generator of the recipe's shape for `styles`."""
    return Generator(
        len(styles),
        recipe.widths,
        recipe.blocks,
        skips=recipe.generator == "unet",
        simplified=recipe.simplified,
        branches=recipe.branches,
        coats=[style.canvas for style in styles],
        spared=[style.spared for style in styles],
        cuts=[style.cut for style in styles],
        broad=[style.broad for style in styles],
        enlarged=recipe.enlarged,
    )


def discriminator_of(recipe: Recipe, styles: int) -> PatchDiscriminator | DenseDiscriminator:
    """A discriminator of the recipe's shape."""
    if recipe.discriminator == "dense":
        return DenseDiscriminator(styles, recipe.crop)
    return PatchDiscriminator(styles, scales=recipe.discriminator_scales)


def content_layer(name: str) -> int:
    """Which of the features of `name` tell what is in a picture: the middle ones of a discriminator, and of a
    pretrained network those of the farthest view, counted from the last."""
    return NETWORKS[name].CONTENT if name in NETWORKS else 1


def paint(generator: Generator, photo: Tensor, style: int) -> Tensor:
    """`photo` uint8 [3, h, w] painted in one style at full strength, uint8, on the CPU."""
    device = next(generator.parameters()).device
    image = photo[None].to(device).float() / 255
    with torch.no_grad():
        mix = torch.eye(generator.styles, device=device)[style, None]
        painted = generator(enlarged(image, generator.enlarged), mix, image.new_ones(1))
        painted = from_distance(painted, generator.enlarged)
    return (painted[0].clamp(0, 1) * 255).round().byte().cpu()


def rate_groups(generator: Generator, recipe: Recipe) -> list[dict[str, Any]]:
    """What is trained, in groups for an optimiser: the trunk, and the styles, with a `factor` on the rate."""
    named = [(name, value) for name, value in generator.named_parameters() if value.requires_grad]
    styles = [value for name, value in named if of_styles(name)]
    trunk = [value for name, value in named if not of_styles(name)]
    groups = [{"params": trunk, "factor": 1.0}, {"params": styles, "factor": recipe.style_learning_rate}]
    return [group for group in groups if group["params"]]


def schedule(recipe: Recipe, step: int) -> float:
    """The learning rate's factor at `step` (from 1): a linear rise, then half a cosine down to 1 %."""
    warmup = max(1.0, recipe.warmup * recipe.steps)
    if step <= warmup:
        return step / warmup
    done = (step - warmup) / max(1.0, recipe.steps - warmup)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2


def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move the weights and statistics of `average` towards those of `module` by 1 - `decay`."""
    kept, new = (list(part.state_dict().values()) for part in (average, module))
    moves = [index for index, value in enumerate(kept) if value.is_floating_point()]
    stays = [index for index, value in enumerate(kept) if not value.is_floating_point()]
    # In as few calls as there are: for each weight, one would take a GPU longer than the rest of it.
    with torch.no_grad():
        torch._foreach_lerp_([kept[index] for index in moves], [new[index] for index in moves], 1 - decay)
        for index in stays:
            kept[index].copy_(new[index])
