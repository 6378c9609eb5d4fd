"""What the small network gives away: it and the classic fast-style one, trained alike until neither gains.

    python -m benchmarks.frugality --photos PHOTOS --paintings PAINTINGS --weights WEIGHTS

Both learn one style from the same crops with the losses of the recipe `pointillism` for content, style,
light and even detail. Left out are the discriminator, whose judgement is no yardstick, since it changes,
and the losses for stillness, which the classic network was not made for. The objective is the sum of
those losses over photographs that neither has seen, of the averaged weights. When a thousand steps have
gained less than 1 %, the rate is halved, three times, and the training ends when they gain less at the
last one, or after 20,000 steps: what is left is what the network cannot do, and not what its rate shakes.
That is an hour or more on a CPU; what is in `--runs` is not done again.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import write_results
from training.batch import Batch
from training.checkpoint import load_checkpoint, restore, save_checkpoint
from training.data import Pictures, held_out, image_files
from training.device import device_of, tried_convolutions
from training.flow import synthetic_pair, with_sensor_noise
from training.generator import Generator
from training.prefetch import batches, workers_for
from training.recipe import StyleRecipe, load_recipe
from training.stylization import Material, StyleTraining

RECIPE = Path(__file__).parent.parent / "training" / "recipes" / "pointillism.toml"

LEAST_STEPS, WINDOW, GAIN, EVERY = 4000, 1000, 0.01, 250

HALVINGS = 3

MOST_STEPS = 20_000

JUDGED, JUDGED_SIDE = 24, 256


class ClassicGenerator(Generator):
    """Johnson et al. 2016 (arXiv 1603.08155) in its published shape, with InstanceNorm: 154 kMAC per pixel.

    It knows one style and no strength; what it gives is the picture and not what is added to it.
    """

    def __init__(self) -> None:
        nn.Module.__init__(self)
        # 4 would do; with ours, the losses look at the same places.
        self.styles, self.multiple = 1, 16

        def layer(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
            convolution = nn.Conv2d(
                inputs, outputs, kernel, stride, kernel // 2, padding_mode="reflect", bias=False
            )
            return [convolution, nn.InstanceNorm2d(outputs, affine=True)]

        def enlarged(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Upsample(scale_factor=2), *layer(inputs, outputs), nn.ReLU()]

        self.down = nn.Sequential(
            *(*layer(3, 32, 9), nn.ReLU()),
            *(*layer(32, 64, 3, 2), nn.ReLU()),
            *(*layer(64, 128, 3, 2), nn.ReLU()),
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*layer(128, 128), nn.ReLU(), *layer(128, 128)) for _ in range(5)
        )
        self.up = nn.Sequential(
            *enlarged(128, 64),
            *enlarged(64, 32),
            nn.Conv2d(32, 3, 9, padding=4, padding_mode="reflect"),
        )

    def paint(self, image: Tensor, mix: Tensor, strength: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The painted `image` [n, 3, h, w], and what the lowest level holds."""
        x = self.down(image - 0.5)
        for block in self.blocks:
            x = x + block(x)
        return torch.sigmoid(self.up(x).float()), [x]

    def freeze_statistics(self) -> None:
        """InstanceNorm has none."""

    def macs_per_pixel(self) -> float:
        """Multiply-accumulates per pixel of the picture."""
        total, scale = 0.0, 1.0
        for module in [*self.down, *(part for block in self.blocks for part in block), *self.up]:
            if isinstance(module, nn.Upsample):
                scale *= 2
            elif isinstance(module, nn.Conv2d):
                scale /= module.stride[0]
                total += module.weight.numel() * scale**2
        return total


class FrugalityTraining(StyleTraining):
    """A training at the recipe's rate, halved so many times."""

    classic = False
    halvings = 0

    def make_generator(self, styles: Sequence[StyleRecipe]) -> Generator:
        """The network that is compared."""
        if not self.classic:
            return super().make_generator(styles)
        return ClassicGenerator().to(self.device, memory_format=torch.channels_last)

    def prepare(self, step: int) -> None:
        """After a warm-up, the rate falls only when nothing is gained: else it would itself end the gains."""
        rate = self.recipe.learning_rate * min(1.0, step / 200) * 0.5**self.halvings
        for group in self.optimisers["optimiser"].param_groups:
            group["lr"] = rate * group["factor"]
        self.generator.train()
        if not self.classic:
            # Not by the seed of the batch, whose crops would lie on the same places of it again and again.
            self.generator.move_canvas(torch.Generator().manual_seed(~step))
        if step > LEAST_STEPS // 2:
            self.generator.freeze_statistics()

    @torch.no_grad()
    def objective(self, photos: Tensor) -> dict[str, float]:
        """Every loss of the averaged generator over `photos` [n, 3, h, w]."""
        totals: dict[str, Tensor] = {}
        trained, self.generator = self.generator, self.average
        rng = torch.Generator().manual_seed(0)
        for photo in photos.split(4):
            n = len(photo)
            pair = synthetic_pair(
                photo, rng, motion=self.recipe.motion, noise=self.recipe.noise, brightness=0
            )
            batch = Batch(
                pair=pair,
                noisy=with_sensor_noise(photo, self.recipe.noise, rng),
                real=self.targets.reals[0].crops(n, JUDGED_SIDE, rng, zoom=(1.0, 1.0)),
                mismatched=photo,
                styles=torch.zeros(n, dtype=torch.long),
                mix=torch.ones(n, 1),
                strength=torch.ones(n),
                views=self.views(JUDGED_SIDE, torch.Generator().manual_seed(0)),
                rng=rng,
            ).to(self.device)
            for name, value in self.generator_losses(batch)[0].items():
                totals[name] = totals.get(name, value.new_zeros(())) + value * n / len(photos)
        self.generator = trained
        return {name: float(value) for name, value in totals.items()}


class ClassicTraining(FrugalityTraining):
    """The same with the classic network."""

    classic = True


def plateaus(curve: list[dict[str, float]]) -> list[float]:
    """The steps of `curve` at which the last `WINDOW` of them had gained less than `GAIN` over all before.

    None before `LEAST_STEPS`, and none in the window of another.
    """
    found: list[float] = []
    for last in (point["step"] for point in curve):
        if last < (found[-1] + WINDOW if found else LEAST_STEPS):
            continue
        before = min(point["total"] for point in curve if point["step"] <= last - WINDOW)
        now = min(point["total"] for point in curve if last - WINDOW < point["step"] <= last)
        if now > before * (1 - GAIN):
            found.append(last)
    return found


def train(
    kind: type[FrugalityTraining], material: Material, run: Path, rate: float, device: torch.device
) -> dict[str, Any]:
    """Train until it gains no more; the curve of its objective."""
    run.mkdir(parents=True, exist_ok=True)
    recipe = dataclasses.replace(
        load_recipe(RECIPE),
        learning_rate=rate,
        batch=2,
        crop=96,
        photo_size=288,
        distances=(1, 2),
        adversarial=0.0,
        temporal=0.0,
        still=0.0,
        turned=0.0,
        full_strength=1.0,
    )
    torch.manual_seed(0)
    training = kind(recipe, material, device)
    kept = [path for path in image_files([material.photos]) if held_out(path)][:JUDGED]
    photos = Pictures(list(kept), recipe.photo_size).crops(
        JUDGED, JUDGED_SIDE, torch.Generator().manual_seed(0), zoom=(1.0, 1.0)
    )
    curve: list[dict[str, float]] = []
    checkpoint = run / "checkpoint.pt"
    if checkpoint.exists():
        state = load_checkpoint(checkpoint)
        if state.get("digest") != recipe.digest():
            raise SystemExit(f"{checkpoint} was trained with another recipe; give another --runs")
        for name, part in training.parts.items():
            restore(part, state[name], checkpoint)
        curve = state["curve"]
    first = int(curve[-1]["step"]) + 1 if curve else 1
    training.halvings = len(plateaus(curve))
    with closing(batches(training, first, MOST_STEPS, workers_for(device))) as drawn:
        for step in range(first, MOST_STEPS + 1):
            if training.halvings > HALVINGS:
                break
            batch = next(drawn)
            with tried_convolutions(device):
                training.step(step, batch)
            if step % EVERY:
                continue
            found = training.objective(photos)
            curve.append({"step": step, "total": sum(found.values()), **found})
            training.halvings = len(plateaus(curve))
            print(run.name, json.dumps(curve[-1]), flush=True)
            parts = {name: part.state_dict() for name, part in training.parts.items()}
            told = {"recipe": json.dumps(recipe.changed()), "digest": recipe.digest()}
            save_checkpoint(checkpoint, {**parts, **told, "curve": curve})
    best = min(curve, key=lambda point: point["total"])
    return {
        "kmac_per_pixel": round(training.generator.macs_per_pixel() / 1000, 2),
        "rate": rate,
        "steps": curve[-1]["step"],
        "rate_halved_after": plateaus(curve)[:HALVINGS],
        "converged": len(plateaus(curve)) > HALVINGS,
        "best": best,
        "curve": [{"step": point["step"], "total": round(point["total"], 4)} for point in curve],
    }


def main() -> None:
    """Train both, compare, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("photos", "paintings", "weights"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/frugality"))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--only", choices=("classic", "live"), help="train this one and write nothing")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    material = Material(arguments.photos, arguments.paintings, None, arguments.weights)
    # Each at the rate that its authors train it with.
    kinds = {"classic": (ClassicTraining, 1e-3), "live": (FrugalityTraining, 2e-3)}
    found = {
        name: train(kind, material, arguments.runs / name, rate, device_of(arguments.device))
        for name, (kind, rate) in kinds.items()
        if arguments.only in (None, name)
    }
    if arguments.only:
        return
    ratio = found["live"]["best"]["total"] / found["classic"]["best"]["total"]
    report = {"ratio": round(ratio, 3), "bar": 1.1, "met": ratio <= 1.1, **found}
    print(f"objective of the small network: {ratio:.2f} of the classic one's; the bar is 1.1")
    print(write_results("frugality", report))


if __name__ == "__main__":
    main()
