"""The search for a recipe's weights and rates (Optuna; Akiba et al. 2019, arXiv 1907.10902)."""

import dataclasses
import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
import tomli_w
import torch
from sqlalchemy import URL

from engines.atomic_write import atomic_write
from training import losses
from training.batch import Batch, enlarged, from_distance
from training.cycle import training_of
from training.data import TORCHVISION, held_out_first, image_files, random_crop, resize_shorter, video_files
from training.device import device_of
from training.features import NETWORKS
from training.flow import synthetic_pair, warp
from training.recipe import Recipe
from training.stylization import Material, StyleTraining, content_layer, load

log = logging.getLogger("fauve")

RANGES = {
    "style": (5.0, 100.0),
    "content": (0.3, 3.0),
    "temporal": (20.0, 1000.0),
    "adversarial": (0.05, 1.0),
    "learning_rate": (3e-4, 5e-3),
    "discriminator_learning_rate": (5e-5, 1e-3),
}
"""What is searched, between which bounds; all of them on a logarithmic scale."""

JUDGED = 8
"""Photographs that a trial is judged on, or more if it has more styles."""

FLICKER = 20.0
"""What a unit of temporal loss weighs against one of style or of content: a style that flickers is none."""


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The outcome of a search."""

    recipe: Recipe
    value: float
    finished: int
    pruned: int


def tune(
    recipe: Recipe,
    material: Material,
    *,
    study: Path,
    trials: int,
    steps: int,
    ranges: Mapping[str, tuple[float, float]] = RANGES,
    start_from: Path | None = None,
    device: str = "cpu",
) -> Tuned:
    """Search `trials` more recipes near `recipe`, `steps` steps each, and return the best one so far.

    A trial is stopped where it is worse than half of those before it at the same step. The value of a recipe
    is taken from photographs that no training saw, at weights that do not depend on it: style plus content
    distance plus `FLICKER` times the temporal one. Of a recipe with a cycle both directions are trained, and
    the way to the painting is judged.

    Args:
        study: sqlite file of all trials; one that is there goes on, whoever stopped it.
        ranges: of the recipe's fields that are searched; what the recipe switches off, by 0, stays so, and
            what it has beyond the bounds widens them.
        start_from: a trunk that every trial begins with.
        device: "cpu", "cuda", or "auto" for CUDA where there is one.

    Raises:
        ValueError: the material holds nothing usable, a field is no number or has a bound that it cannot
            take, or the file is no study, or one of trials that cannot be compared with these.
    """
    for name in ranges:
        if not isinstance(getattr(recipe, name, None), float):
            raise ValueError(f"{name} is no field that can be searched; {', '.join(RANGES)} are")
    if not set(NETWORKS) & {*recipe.content_features, *recipe.style_features}:
        raise ValueError(f"a search compares recipes by a network that does not learn: {', '.join(NETWORKS)}")
    where = device_of(device)
    own = {name: getattr(recipe, name) for name in ranges if getattr(recipe, name) > 0}
    if not own:
        raise ValueError(f"all that is to be searched is 0 in the recipe: {', '.join(ranges)}")
    # On a logarithmic scale there is no way to 0.
    for name in ranges.keys() - own.keys():
        log.warning("%s is 0 in the recipe: switched off, it is not searched", name)
    bounds = {name: (min(ranges[name][0], value), max(ranges[name][1], value)) for name, value in own.items()}
    for name, each in bounds.items():
        for bound in each:
            dataclasses.replace(recipe, **{name: bound})  # says what a bound is that no recipe takes
    # Of a trial that fails it shows where in the code, as a warning; what is wrong is told by its error.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study.parent.mkdir(parents=True, exist_ok=True)
    try:
        search = optuna.create_study(
            study_name=recipe.name,
            # What a file may be called, such as a question mark, means something in a URL.
            storage=URL.create("sqlite", database=str(study)).render_as_string(),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=steps // 4),
            load_if_exists=True,
        )
    except Exception as error:  # SQLAlchemy's own, of many kinds
        raise ValueError(f"{study}: not a study, or not to be written; give another --study") from error
    # Those that failed, or were stopped by Ctrl-C, say nothing; one that was killed seems to run.
    begins = all(trial.state.name in ("FAIL", "RUNNING") for trial in search.trials)
    in_common = _in_common(recipe, own, steps, start_from, material)
    for name, value in in_common.items():
        if not begins and search.user_attrs.get(name) != value:
            raise ValueError(f"{study}: its trials are of another {name}; give another --study")
    torch.manual_seed(recipe.seed)
    loaded = load(recipe, material, where)
    # One for each style at least: of a style that none is painted in, the value would tell nothing.
    learned = sum(style.learn for style in recipe.styles)
    judged = judged_photos(material.photos, recipe, max(JUDGED, learned))
    # From here on, each trial draws what a training by its recipe would.
    drawn = torch.get_rng_state()
    if begins:
        for name, value in in_common.items():
            search.set_user_attr(name, value)
        # The recipe itself is the first one: a search that finds nothing better says so.
        search.enqueue_trial(own)
    # One that goes on must not draw again what it has drawn.
    search.sampler = optuna.samplers.TPESampler(seed=recipe.seed + len(search.trials))

    def run(trial: optuna.Trial) -> float:
        values = {name: trial.suggest_float(name, *each, log=True) for name, each in bounds.items()}
        varied = dataclasses.replace(recipe, steps=steps, **values)
        torch.set_rng_state(drawn)
        training = training_of(varied, loaded, where)
        if start_from is not None:
            training.start_from(start_from)
        value = float("inf")
        for step in range(1, steps + 1):
            training.step(step)
            if step % max(1, steps // 8) == 0 or step == steps:
                value = held_out_value(training, judged)
                trial.report(value, step)
                if trial.should_prune():
                    raise optuna.TrialPruned
        return value

    def tell(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        values = ", ".join(f"{name} {value:.3g}" for name, value in trial.params.items())
        outcome = "stopped" if trial.value is None or trial.state.name == "PRUNED" else f"{trial.value:.4f}"
        log.info("trial %d: %s (%s)", trial.number, outcome, values)

    search.optimize(run, n_trials=trials, callbacks=[tell], catch=(FloatingPointError,))
    states = [trial.state.name for trial in search.trials]
    if "COMPLETE" not in states:
        raise ValueError(f"{study}: not one trial came to its end")
    best = dataclasses.replace(recipe, **search.best_params)
    return Tuned(best, search.best_value, states.count("COMPLETE"), states.count("PRUNED"))


def _in_common(
    recipe: Recipe, searched: Iterable[str], steps: int, start_from: Path | None, material: Material
) -> dict[str, Any]:
    """What the trials of a study must have in common to be compared, by what it is called."""
    photos, paintings = material.photos, material.paintings
    named = [paintings / name for style in recipe.styles for name in (style.painting, *style.reals)]
    clips = video_files(material.clips) if material.clips and recipe.clip_share else []
    return {
        "recipe": recipe.digest(without=("steps", *searched)),
        "choice of fields": sorted(searched),
        "number of steps": steps,
        "--from": start_from and hashlib.sha256(start_from.read_bytes()).hexdigest(),
        "--photos": photos if str(photos).startswith(TORCHVISION) else _listed(image_files([photos])),
        "--paintings": _listed(image_files(named)),
        "--clips": _listed(clips),
    }


def _listed(files: Iterable[Path]) -> str:
    """A sha256 of the names and sizes of `files`, whose folders may be moved."""
    listed = "".join(f"{file.name}/{file.stat().st_size}/" for file in files)
    return hashlib.sha256(os.fsencode(listed)).hexdigest()


def judged_photos(photos: Path | str, recipe: Recipe, n: int = JUDGED) -> torch.Tensor:
    """Crops of `n` photographs that no training sees, [n, 3, crop, crop], always the same ones.

    Where a folder has none, those that training sees are taken, with a warning.
    """
    rng = torch.Generator().manual_seed(0)
    images = held_out_first(photos, n, others=False)
    if not images:
        log.warning("%s: no picture there is held out; trials are judged on what they are trained on", photos)
        images = held_out_first(photos, n)
    sized = [resize_shorter(image, recipe.photo_size) for image in images]
    crops = [random_crop(sized[index % len(sized)], recipe.crop, rng, (1.0, 1.0)) for index in range(n)]
    return torch.stack(crops)


@torch.no_grad()
def held_out_value(training: StyleTraining, photos: torch.Tensor) -> float:
    """What the averaged generator is worth on `photos`; less is better."""
    recipe, n = training.recipe, len(photos)
    rng = torch.Generator().manual_seed(0)
    learned = torch.tensor([index for index, style in enumerate(recipe.styles) if style.learn])
    styles = learned[torch.arange(n) % len(learned)]
    pair = synthetic_pair(photos, rng, motion=recipe.motion, noise=recipe.noise, brightness=recipe.brightness)
    batch = Batch(
        pair=pair.each(lambda x: x.to(training.device)),
        noisy=photos.to(training.device),
        real=training.targets.paintings(styles, rng).to(training.device),
        mismatched=pair.before.to(training.device),
        styles=styles.to(training.device),
        mix=torch.eye(len(recipe.styles))[styles].to(training.device),
        strength=torch.ones(n, device=training.device),
        views=training.views(recipe.crop, rng),
        rng=rng,
    )
    painted, repainted = (
        from_distance(
            training.average(enlarged(image, recipe.enlarged), batch.mix, batch.strength), recipe.enlarged
        )
        for image in (batch.photo, batch.pair.after)
    )
    seen = batch.pair.mask * losses.visible(batch.pair.after)
    change = losses.temporal(repainted, warp(painted, batch.pair.grid), seen, batch.pair.luminance)
    total = FLICKER * change.mean()
    # Only networks that do not learn: a discriminator's idea of style is another one in every trial.
    for name in training.pretrained:
        seen, target = (training.features(name, image, batch) for image in (painted, batch.photo))
        layer = content_layer(name)
        distance = training.style_distance(name, seen, target, batch)
        total = total + (losses.content(seen[layer], target[layer]) + distance).mean() / len(
            training.pretrained
        )
    return float(total)


def write_recipe(recipe: Recipe, path: Path, comment: str) -> None:
    """Write `recipe` as TOML, what differs from the defaults, below a line of `comment`.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    table: dict[str, Any] = recipe.changed()
    atomic_write(path, f"# {comment}\n{tomli_w.dumps(table)}".encode())
