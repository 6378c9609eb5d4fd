"""The training loop: a generator and a discriminator, in turn."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from training import losses
from training.checkpoint import load_checkpoint, load_trunk, save_checkpoint
from training.data import Pictures, expose, held_out, image_files, read_image, resize_shorter
from training.features import Pretrained, Vgg19, pretrained
from training.flow import inside, random_warp, warp
from training.networks import Generator, PatchDiscriminator
from training.recipe import Recipe, build_recipe

Progress = Callable[[int, dict[str, float]], None]


class Targets:
    """What the styles are measured against: statistics of their paintings, and paintings that are real."""

    def __init__(self, recipe: Recipe, paintings: Path, vgg: Pretrained) -> None:
        self.recipe = recipe
        self.weights = torch.tensor([style.weight for style in recipe.styles])
        self.reals: list[Pictures] = []
        grams = []
        for style in recipe.styles:
            size = style.painting_size or recipe.painting_size
            painting = resize_shorter(read_image(paintings / style.painting), size)
            with torch.no_grad():
                grams.append([losses.gram(x) for x in vgg(painting[None].float() / 255)])
            self.reals.append(Pictures([paintings / name for name in (style.painting, *style.reals)], size))
        self._grams = [torch.cat(layer) for layer in zip(*grams, strict=True)]

    def grams(self, styles: Tensor) -> list[Tensor]:
        """The Gram matrices of the paintings of `styles` [n], at each layer [n, c, c]."""
        return [layer[styles] for layer in self._grams]

    def paintings(self, styles: Tensor, rng: torch.Generator) -> Tensor:
        """A crop of a painting of each of `styles` [n], [n, 3, size, size]."""
        size = self.recipe.crop
        return torch.cat([self.reals[style].crops(1, size, rng, zoom=(0.8, 1.25)) for style in styles])

    def draw(self, rng: torch.Generator) -> Tensor:
        """The style of each picture of a batch, [batch]: as many different ones as there are."""
        n = len(self.reals)
        rounds = -(-self.recipe.batch // n)
        return torch.cat([torch.randperm(n, generator=rng) for _ in range(rounds)])[: self.recipe.batch]


def train(
    recipe: Recipe,
    *,
    photos: Path,
    paintings: Path,
    weights: Path | None,
    run: Path,
    resume: bool = False,
    start_from: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train the generator of `recipe` and return its last checkpoint.

    Every step draws its randomness from the seed and its own number, so that a resumed training sees the
    same data as an undisturbed one.

    Args:
        photos: folder of photographs, searched recursively; one in ten is held out for evaluation.
        paintings: folder that the paintings' names in the recipe start from.
        weights: folder of the pretrained networks' weights; None takes torchvision's.
        run: folder for the checkpoint, the log (`losses.jsonl`) and the sheets; made if missing.
        resume: go on from the checkpoint in `run`.
        start_from: a checkpoint whose trunk, and styles of the same names, a new training begins with.
        progress: called after each step with its number (from 1) and the losses.

    Raises:
        KeyboardInterrupt: stopped by Ctrl-C, after a checkpoint.
        ValueError: a path holds nothing usable, or the checkpoint belongs to another recipe.
    """
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "checkpoint.pt"
    torch.manual_seed(recipe.seed)
    vgg = pretrained("vgg19", weights)
    targets = Targets(recipe, paintings, vgg)
    pictures = Pictures([photos], recipe.photo_size, hold_out=True)
    vgg = vgg.to(memory_format=torch.channels_last)

    generator = Generator(len(recipe.styles), recipe.widths, recipe.blocks)
    if start_from is not None and not resume:
        take_over(start_from, generator, recipe)
    generator.to(memory_format=torch.channels_last)
    if not recipe.trunk:
        generator.freeze_trunk()
    average = deepcopy(generator).requires_grad_(False).eval()
    trained = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(rate_groups(generator, recipe), recipe.learning_rate, recipe.betas)
    discriminator = PatchDiscriminator(len(recipe.styles)).to(memory_format=torch.channels_last)
    discriminator_optimiser = torch.optim.Adam(
        discriminator.parameters(), recipe.discriminator_learning_rate, recipe.betas
    )
    parts = {
        "generator": generator,
        "average": average,
        "discriminator": discriminator,
        "optimiser": optimiser,
        "discriminator_optimiser": discriminator_optimiser,
    }
    start = 0
    if resume:
        state = load_checkpoint(checkpoint)
        if state["digest"] != recipe.digest():
            raise ValueError(
                f"{checkpoint} was trained with another recipe; start a new run or undo the change"
            )
        for name, part in parts.items():
            part.load_state_dict(state[name])
        start = state["step"]

    def save(step: int) -> None:
        state = {name: part.state_dict() for name, part in parts.items()}
        save_checkpoint(
            checkpoint,
            {**state, "step": step, "digest": recipe.digest(), "recipe": json.dumps(asdict(recipe))},
        )

    sheet_photos = sheet_pictures(photos, 6)
    with (run / "losses.jsonl").open("a") as log_file, deferred_interrupt() as interrupted:
        for step in range(start + 1, recipe.steps + 1):
            began = time.perf_counter()
            rng = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
            styles = targets.draw(rng)
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * group["factor"] * schedule(recipe, step)
            generator.train()
            if step > recipe.freeze_statistics * recipe.steps or not recipe.trunk:
                generator.freeze_statistics()

            photo = expose(pictures.crops(recipe.batch, recipe.crop, rng), rng, recipe.exposure)
            real = targets.paintings(styles, rng)
            photo = photo.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.autocast):
                terms, painted = generator_losses(
                    recipe, generator, discriminator, vgg, targets, styles, photo, real, rng
                )
            total = torch.stack(list(terms.values())).sum()
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            nn.utils.clip_grad_norm_(trained, recipe.clip_gradient)
            optimiser.step()
            update_average(average, generator, min(recipe.average_decay, step / (step + 10)))

            numbers = {name: float(term.detach()) for name, term in terms.items()}
            if recipe.adversarial or recipe.discriminator_style:
                with torch.autocast("cpu", torch.bfloat16, enabled=recipe.autocast):
                    real_score, _ = discriminator(real, styles)
                    fake_score, _ = discriminator(painted.detach().float(), styles)
                    loss = losses.hinge_discriminator(real_score.float(), fake_score.float())
                discriminator_optimiser.zero_grad(set_to_none=True)
                loss.backward()
                discriminator_optimiser.step()
                numbers["discriminator"] = float(loss.detach())
            if not math.isfinite(sum(numbers.values())):
                raise FloatingPointError(f"step {step}: a loss is no longer finite: {numbers}")

            seconds = time.perf_counter() - began
            log_file.write(json.dumps({"step": step, "seconds": round(seconds, 3), **numbers}) + "\n")
            if progress:
                progress(step, numbers)
            if step % recipe.sheet_every == 0 or step == recipe.steps:
                log_file.flush()
                cv2.imwrite(str(run / f"sheet-{step:05d}.png"), sheet(average, sheet_photos)[..., ::-1])
            if step % recipe.checkpoint_every == 0 or step == recipe.steps or interrupted.is_set():
                save(step)
            if interrupted.is_set() and step < recipe.steps:
                raise KeyboardInterrupt(f"stopped after step {step} of {recipe.steps}; --resume goes on")
    return checkpoint


def generator_losses(
    recipe: Recipe,
    generator: Generator,
    discriminator: PatchDiscriminator,
    vgg: Pretrained,
    targets: Targets,
    styles: Tensor,
    photo: Tensor,
    real: Tensor,
    rng: torch.Generator,
) -> tuple[dict[str, Tensor], Tensor]:
    """The generator's weighted loss terms by name, and the pictures it painted."""
    n = len(photo)
    strength = torch.rand(n, generator=rng)
    strength[torch.rand(n, generator=rng) < recipe.full_strength] = 1
    mix = torch.eye(len(recipe.styles))[styles]
    painted = generator(photo, mix, strength).float()
    # The pooling of VGG favours some pixels of each 4x4 block. Seen from an offset that changes with every
    # step, no pixel of the generator's own 8x8 blocks is favoured, and no pattern of blocks grows.
    top, left = torch.randint(8, (2,), generator=rng).tolist()
    features = vgg(painted[..., top:, left:])
    with torch.no_grad():
        photo_content = vgg(photo[..., top:, left:])[Vgg19.CONTENT]

    # A weak strength asks for little style and keeps more of the photograph.
    terms = {
        "content": recipe.content
        * ((2 - strength) * losses.content(features[Vgg19.CONTENT], photo_content)).mean(),
        "style": recipe.style
        * (targets.weights[styles] * strength * losses.gram_style(features, targets.grams(styles))).mean(),
        "in_range": recipe.in_range * losses.out_of_range(painted).mean(),
    }
    if recipe.smoothness:
        terms["smoothness"] = recipe.smoothness * losses.total_variation(painted).mean()
    if recipe.adversarial or recipe.discriminator_style:
        discriminator.requires_grad_(False)
        score, fake_features = discriminator(painted, styles)
        if recipe.adversarial:
            terms["adversarial"] = recipe.adversarial * (strength * losses.hinge_generator(score)).mean()
        if recipe.discriminator_style:
            with torch.no_grad():
                _, real_features = discriminator(real, styles)
            distance = losses.statistics_style(fake_features, real_features)
            terms["discriminator_style"] = recipe.discriminator_style * (strength * distance).mean()
        discriminator.requires_grad_(True)
    if recipe.temporal:
        grid = random_warp(n, *photo.shape[-2:], rng)
        moved = warp(photo, grid)
        noise = recipe.noise * torch.rand(n, 1, 1, 1, generator=rng)
        moved = (moved + noise * torch.randn(moved.shape, generator=rng)).clamp(0, 1)
        moved = moved.contiguous(memory_format=torch.channels_last)
        moved_painted, warped = generator(moved, mix, strength), warp(painted, grid)
        change = losses.temporal(moved_painted, warped, inside(grid))
        terms["temporal"] = recipe.temporal * change.mean()
    return terms, painted


def take_over(checkpoint: Path, generator: Generator, recipe: Recipe) -> None:
    """Begin with the averaged generator of `checkpoint`: its trunk, and its styles by name.

    Raises:
        ValueError: the checkpoint cannot be read or is of a generator of another shape.
    """
    state = load_trunk(checkpoint)
    before = build_recipe(json.loads(state["recipe"]), str(checkpoint))
    try:
        generator.start_from(
            state["average"], [style.name for style in before.styles], [style.name for style in recipe.styles]
        )
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from error


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Turn Ctrl-C into an event, so that it stops the loop between two steps and never within one."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    previous = signal.signal(signal.SIGINT, lambda number, frame: interrupted.set())
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)


def rate_groups(generator: Generator, recipe: Recipe) -> list[dict[str, Any]]:
    """What is trained, in groups for an optimiser: the trunk, and the styles, with a `factor` on the rate."""
    named = [(name, value) for name, value in generator.named_parameters() if value.requires_grad]
    styles = [value for name, value in named if ".affine." in name]
    trunk = [value for name, value in named if ".affine." not in name]
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
    with torch.no_grad():
        for kept, new in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)


def sheet_pictures(photos: Path, n: int) -> list[Tensor]:
    """`n` held-out photographs for the sheets, uint8 [3, 288, 384]."""
    pictures = []
    for path in [path for path in image_files([photos]) if held_out(path)]:
        image = resize_shorter(read_image(path), 288)
        if image.shape[2] >= 384:
            pictures.append(image[:, :288, :384])
        if len(pictures) == n:
            break
    return pictures


def sheet(generator: Generator, photos: list[Tensor]) -> np.ndarray:
    """A contact sheet uint8 RGB: a row for each photograph, the input and each style at full strength."""
    rows = []
    for photo in photos:
        image = photo[None].float() / 255
        row = [photo]
        for style in range(generator.styles):
            mix = torch.eye(generator.styles)[style : style + 1]
            with torch.no_grad():
                painted = generator(image, mix, torch.ones(1))
            row.append((painted[0].clamp(0, 1) * 255).round().byte())
        rows.append(torch.cat(row, 2))
    if generator.styles > 1:
        return torch.cat(rows, 1).permute(1, 2, 0).numpy()
    half = (len(rows) + 1) // 2
    rows += [torch.zeros_like(rows[0])] * (2 * half - len(rows))
    columns = [torch.cat(rows[:half], 1), torch.cat(rows[half:], 1)]
    return torch.cat(columns, 2).permute(1, 2, 0).numpy()
