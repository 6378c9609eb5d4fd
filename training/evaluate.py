"""Judges a style pack, as users run it, on photographs that training did not see, and on clips."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines import Engine, EngineBuildError, Image, Look, Style
from pipeline.errors import SourceError
from pipeline.flicker import Flicker
from pipeline.frame import Frame
from pipeline.motion import Motion
from pipeline.scaling import at_working_size, resample, stylizer
from pipeline.sources.file import FileSource
from training.classifier import NO_PAINTING, StyleClassifier, random_crops
from training.data import (
    TORCHVISION,
    dataset_images,
    held_out,
    image_files,
    images_of,
    readable,
    resize_shorter,
    spread,
    video_files,
)
from training.features import Pretrained, pretrained
from training.inception import inception_features, load_inception
from training.losses import content, gram, style
from training.metrics import NotAtHand, frechet_distance, lpips_heads, noise_gain, perceptual_distance
from training.recipe import Recipe, build_recipe, read_table
from training.robustness import EPSILONS, attacks, painter

log = logging.getLogger("fauve")

RECIPES = Path(__file__).parent / "recipes"

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)

BLENDS = (0.25, 0.5, 0.75)
"""Shares of the full painting laid over the photograph, which the strength is compared with."""

SHOWN = 5
"""Photographs that are on the sheet."""

SENSOR_NOISE = 2.0
"""Standard deviation of the noise of a still scene, in levels of 255."""

STILL_SCENES, STILL_FRAMES = 6, 8

ATTACKED, ATTACKED_SIDE = 4, 256
"""Photographs that are attacked, and the side of the squares that are cut from them, in pixels."""

PAINTING_CROPS, PHOTO_CROPS = 16, 3
"""Crops of each painting, and of each photograph, that the classifier learns from or judges."""

LEARNED_PHOTOS = 80
"""Photographs that the classifier learns from at most."""

SEEN = 480
"""Lines of the pictures that are judged, at most: a pack that is made for more paints them enlarged, and what
it painted is looked at from as much farther."""

SMALLEST = 64
"""Shorter side of the smallest photographs that are judged, in pixels; of a pack that is made for less, three
quarters of its native height."""

UNSORTED = "all of the paintings are taken for the style's own; --recipe, or a subfolder of its name, tells"
"""What is noted where nothing says which of the paintings are of which style."""

Named = Iterator[tuple[object, Tensor]]
"""Pictures uint8 [3, h, w], with what they are called."""


@dataclass(frozen=True)
class Material:
    """What a pack is judged with."""

    photos: Path | str
    """Folder, or a torchvision dataset, of which those that training did not see are painted."""
    paintings: Path
    """Folder that the recipe's paintings are in."""
    clips: Path | None = None
    """Folder of videos, all of which are judged; without one, flicker is left out."""
    weights: Path | None = None
    """Folder with pretrained networks, as `features.pretrained` reads it."""
    recipe: Recipe | None = None
    """Says which painting belongs to which style; found among the bundled ones if not given."""
    network: str = "squeezenet1_1"
    """Pretrained network in whose features distances of style and content are taken."""
    pictures: int = 24
    """Photographs to paint."""
    frames: int = 9
    """Consecutive frames of each clip to paint."""


@dataclass
class Evaluation:
    """What was found, and pictures to look at."""

    report: dict[str, Any]
    """Ready for JSON: by style, and altogether; `left_out` says what was not measured, and why, and `notes`
    what was assumed."""
    photos: list[Image]
    """What was painted, uint8 [h, w, 3]."""
    painted: dict[str, list[Image]] = field(default_factory=dict)
    """By style, each photograph at full strength."""
    shown: list[Image] = field(default_factory=list)
    """Those of `photos` that are on the sheet."""
    steps: dict[str, list[list[Image]]] = field(default_factory=dict)
    """By style, each of `shown` at each of `STRENGTHS`."""


Values = Mapping[str, Any]
"""A measure by style."""


def evaluate(engine: Engine, material: Material, progress: Callable[[str], None]) -> Evaluation:
    """Judge the pack of `engine`.

    Args:
        progress: is told what is measured next.

    Raises:
        ValueError: pictures, weights or the recipe cannot be used. A broken clip is reported and skipped.
        EngineError: the pack cannot be run.
    """
    pack = engine.style
    works = paintings_of(pack, material)
    judged, others, unseen = _divided(material.photos, material.pictures)
    photos, learned = (_photographs(each, min(SEEN, pack.native_height)) for each in (judged, others))
    if not photos or not learned:
        raise ValueError(f"{material.photos}: too few of its photographs can be read and are large enough")
    clips = [] if material.clips is None else video_files(material.clips)
    if material.clips is not None and not clips:
        raise ValueError(f"{material.clips}: no folder with videos in it")
    squeezenet = pretrained("squeezenet1_1", material.weights)
    judge = squeezenet
    if material.network != "squeezenet1_1":
        judge = pretrained(material.network, material.weights)
    styles: dict[str, dict[str, Any]] = {name: {"paintings": len(works[name])} for name in pack.styles}
    left_out: dict[str, str] = {}
    evaluation = Evaluation(
        {
            "pack": pack.name,
            "model": pack.digest,
            "engine": f"{engine.name} {engine.precision}",
            "photographs": len(photos),
            "unseen": unseen,
            "clips": len(clips),
            "network": material.network,
            "styles": styles,
            "notes": [UNSORTED] if _unsorted(pack, material) else [],
            "left_out": left_out,
        },
        photos,
        shown=spread(photos, SHOWN),
    )

    def measure(name: str, take: Callable[[], Values]) -> None:
        progress(name)
        try:
            values = take()
        except NotAtHand as why:
            left_out[name] = str(why)
            return
        for each, value in values.items():
            styles[each][name] = value

    measure("strength", lambda: _strength(engine, judge, works, evaluation))
    for row in styles.values():
        full = row["strength"]["curve"][-1]
        row["style_distance"], row["content_distance"] = full["style"], full["content"]
    measure("lpips", lambda: _lpips(squeezenet, material.weights, evaluation))
    measure("flicker", lambda: _flicker(engine, clips, material.frames, evaluation.report))
    measure("noise_gain", lambda: _noise_gain(engine, spread(photos, STILL_SCENES)))
    measure("robustness", lambda: _robustness(engine, spread(photos, ATTACKED)))
    rng = torch.Generator().manual_seed(0)
    cut = {name: [random_crops(work, PAINTING_CROPS, rng) for work in works[name]] for name in pack.styles}
    painted = {
        name: [crop for image in images for crop in random_crops(_tensor(image), PHOTO_CROPS, rng)]
        for name, images in evaluation.painted.items()
    }
    raw = [crop for photo in photos for crop in random_crops(_tensor(photo), PHOTO_CROPS, rng)]
    seen = [random_crops(_tensor(photo), PHOTO_CROPS, rng) for photo in learned]

    def classify() -> Values:
        classifier = StyleClassifier(squeezenet, {**cut, NO_PAINTING: seen})
        evaluation.report["classifier"] = classifier.report()
        return classifier.judge(painted, raw)

    measure("classifier", classify)
    measure("fid", lambda: _fid(material.weights, "inception_v3", painted, cut))
    measure("art_fid", lambda: _art_fid(material.weights, styles, painted, cut))
    return evaluation


def paintings_of(pack: Style, material: Material) -> dict[str, list[Tensor]]:
    """The paintings of each style, uint8 [3, h, w], at the size that their strokes were learned at.

    Where no recipe tells, neither the given one nor a bundled one with the pack's credits, they are the
    images in the subfolder of that name, or else, of a pack of one style, all images, with a warning.

    Raises:
        ValueError: the recipe is of other styles, nothing says which paintings are of which style, or there
            are no such paintings.
    """
    recipe = material.recipe or bundled_recipe(pack)
    if _unsorted(pack, material):
        if len(pack.styles) > 1:
            raise ValueError(
                f"{material.paintings}: which of the paintings are of which style? Give --recipe, or a "
                f"subfolder for each style: {', '.join(pack.styles)}"
            )
        log.warning("%s: %s", material.paintings, UNSORTED)
    works = {}
    for name in pack.styles:
        folder, size = material.paintings / name, min(SEEN, pack.native_height)
        paths = [folder if folder.is_dir() else material.paintings]
        if recipe is not None:
            entry = next((entry for entry in recipe.styles if entry.name == name), None)
            if entry is None:
                raise ValueError(f"the recipe {recipe.name} has no style {name!r}, the pack has")
            paths = [material.paintings / path for path in (entry.painting, *entry.reals)]
            size = entry.painting_size or recipe.painting_size
        works[name] = [resize_shorter(image, size) for image in images_of(paths)]
        if not works[name]:
            raise ValueError(f"{paths[0]}: no paintings of {name} there")
    return works


def _unsorted(pack: Style, material: Material) -> bool:
    """Whether nothing says which of the paintings are of which style."""
    sorted_by = material.recipe or bundled_recipe(pack)
    return sorted_by is None and not all((material.paintings / name).is_dir() for name in pack.styles)


def bundled_recipe(pack: Style) -> Recipe | None:
    """The bundled recipe for the paintings that `pack` credits, rather the one that it was made by."""
    credits = [(credit.name, credit.title, credit.artist) for credit in pack.credits]
    tables = {path: read_table(path) for path in sorted(RECIPES.glob("*.toml"))}
    # Those without styles are for the paintings of users.
    recipes = [build_recipe(table, str(path)) for path, table in tables.items() if "styles" in table]
    fitting = [
        recipe
        for recipe in recipes
        if [(entry.name, entry.title, entry.artist) for entry in recipe.styles] == credits
    ]
    return max(
        fitting, key=lambda recipe: (recipe.digest() == pack.recipe, recipe.name == pack.name), default=None
    )


def _divided(photos: Path | str, count: int) -> tuple[Named, Named, bool]:
    """`count` photographs to judge by, those to learn what one is from, and whether training saw the latter
    alone."""
    if str(photos).startswith(TORCHVISION):
        kept, trained = (_of_dataset(str(photos), seen) for seen in (False, True))
        return islice(kept, count), islice(trained, LEARNED_PHOTOS), True
    files = image_files([photos])
    unseen = [path for path in files if held_out(path)]
    seen = [path for path in files if not held_out(path)]
    apart = bool(unseen and seen)
    if not apart:
        if len(files) < 2:
            raise ValueError(f"{photos}: at least two photographs are needed")
        log.warning("%s: too few photographs to have unseen ones among them; half of them judge", photos)
        unseen, seen = files[::2], files[1::2]
    return readable(spread(unseen, count)), readable(spread(seen, LEARNED_PHOTOS)), apart


def _of_dataset(name: str, seen: bool) -> Named:
    """The pictures of a torchvision dataset that training sees, or those that it leaves out."""
    for index, image in enumerate(dataset_images(name)):
        if bool(index % 10) == seen:
            yield f"picture {index} of {name}", image


def _photographs(named: Named, height: int) -> list[Image]:
    """What is large enough of photographs, with a shorter side of `height` pixels at most, [h, w, 3]."""
    least, found = min(SMALLEST, height * 3 // 4), []
    for name, image in named:
        lines, columns = image.shape[1:]
        if min(lines, columns) < least:
            log.warning(
                "skipped %s: %dx%d is too small, %d pixels a side are needed", name, columns, lines, least
            )
            continue
        small = image if min(lines, columns) <= height else resize_shorter(image, height)
        found.append(np.ascontiguousarray(small.permute(1, 2, 0).numpy()))
    return found


def _tensor(image: Image) -> Tensor:
    """`image` [h, w, 3] as [3, h, w], uint8 both."""
    return torch.from_numpy(image).permute(2, 0, 1)


def _paint(engine: Engine, image: Image, look: Look) -> Image:
    """`image` of `SEEN` lines at most, painted as a larger one if the pack is made for that."""
    size = (image.shape[1], image.shape[0])
    times = engine.style.native_height / SEEN
    if look.strength == 0:
        # Every byte is to come back, from the engine itself.
        return stylizer(engine, size, "full")(image, look)
    if times <= 1:
        return stylizer(engine, size)(image, look)
    large = (round(size[0] * times), round(size[1] * times))
    painted = stylizer(engine, large, "full")(resample(image, large), at_working_size(look, large, size))
    return resample(painted, size)


def _features(network: Pretrained, image: Tensor) -> list[Tensor]:
    """The activations of `image` uint8 [3, h, w]."""
    with torch.inference_mode():
        features: list[Tensor] = network(image[None].float() / 255)
    return features


def _grams(features: Sequence[Tensor]) -> list[Tensor]:
    """The Gram matrices of whole pictures, [n, 1, c, c] at each layer."""
    return [gram(x)[:, None] for x in features]


def _strength(
    engine: Engine, network: Pretrained, works: Mapping[str, list[Tensor]], evaluation: Evaluation
) -> Values:
    """Distances of style and content over strength, beside blends of photograph and painting."""
    found = {}
    for name in engine.style.styles:
        grams = [_grams(_features(network, work)) for work in works[name]]
        targets = _mean(grams)
        others = [_mean(grams[:index] + grams[index + 1 :]) for index in range(len(grams)) if len(grams) > 1]
        among = [style(work, rest).item() for work, rest in zip(grams, others, strict=False)]
        rows, exact = [], True
        evaluation.painted[name], evaluation.steps[name] = [], []
        for photo in evaluation.photos:
            steps = [_paint(engine, photo, Look({name: 1.0}, strength)) for strength in STRENGTHS]
            blends = [blended(photo, steps[-1], share) for share in BLENDS]
            reference = _features(network, _tensor(photo))[network.CONTENT]
            rows.append([])
            for image in (*steps, *blends):
                features = _features(network, _tensor(image))
                apart = content(features[network.CONTENT], reference)
                rows[-1].append((style(_grams(features), targets).item(), apart.item()))
            exact = exact and np.array_equal(steps[0], photo)
            evaluation.painted[name].append(steps[-1])
            if any(photo is each for each in evaluation.shown):
                evaluation.steps[name].append(steps)
        means = np.mean(rows, axis=0)
        found[name] = {
            "exact_at_0": exact,
            "paintings_apart": round(float(np.mean(among)), 4) if among else None,
            **strength_curve(means[: len(STRENGTHS)], means[len(STRENGTHS) :]),
        }
    return found


def _mean(grams: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The mean of several pictures' Gram matrices, layer by layer."""
    return [torch.stack(layer).mean(0) for layer in zip(*grams, strict=True)]


def blended(photo: Image, painting: Image, share: float) -> Image:
    """`share` of `painting` laid over `photo`, in whole levels."""
    mixed: Image = (photo * (1 - share) + painting * share).round().astype(np.uint8)
    return mixed


def strength_curve(steps: NDArray[Any], blends: NDArray[Any]) -> dict[str, Any]:
    """The curve, and whether half the strength is nearer to the style than a blend is.

    Args:
        steps: distances of style and content at each of `STRENGTHS`, [5, 2].
        blends: the same for each of `BLENDS`, [3, 2].
    """
    half = steps[STRENGTHS.index(0.5)]
    # A blend with none of the painting is the photograph, with all of it the painting.
    line = np.array([steps[0], *blends, steps[-1]])
    equal = float(np.interp(half[1], line[:, 1], line[:, 0]))
    return {
        "curve": [
            {"strength": strength, "style": round(float(row[0]), 4), "content": round(float(row[1]), 4)}
            for strength, row in zip(STRENGTHS, steps, strict=True)
        ],
        "monotonic": bool((np.diff(steps[:, 0]) < 0).all()),
        "blend_at_half": {
            measure: round(float(value), 4)
            for measure, value in zip(("style", "content"), blends[BLENDS.index(0.5)], strict=True)
        },
        "blend_at_equal_content": round(equal, 4),
        "nearer_than_blend": bool(half[0] < equal),
    }


def _lpips(network: Pretrained, weights: Path | None, evaluation: Evaluation) -> Values:
    heads = lpips_heads(weights)
    found: dict[str, list[float]] = {name: [] for name in evaluation.painted}
    for number, photo in enumerate(evaluation.photos):
        reference = _features(network, _tensor(photo))
        for name, images in evaluation.painted.items():
            features = _features(network, _tensor(images[number]))
            found[name].append(perceptual_distance(features, reference, heads).item())
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


def _flicker(engine: Engine, clips: Sequence[Path], count: int, report: dict[str, Any]) -> Values:
    if not clips:
        raise NotAtHand("needs a folder of videos: --clips")
    found = {name: Flicker() for name in engine.style.styles}
    for clip in clips:
        try:
            frames = _consecutive(clip, count)
        except SourceError as error:
            log.warning("skipped %s", error)
            report["clips"] -= 1
            continue
        for name, flicker in found.items():
            look = Look({name: 1.0})
            pairs = [
                (frame.image, _paint(engine, frame.image, look.carried(frame.moved))) for frame in frames
            ]
            for before, after in pairwise(pairs):
                flicker.add(before, after)
    if not report["clips"]:
        raise NotAtHand("of not one of the clips two frames can be read")
    return {name: flicker.report() for name, flicker in found.items()}


def _consecutive(clip: Path, count: int) -> list[Frame]:
    """`count` frames from the middle of a clip, and how far the scene has moved since their first.

    Raises:
        SourceError: it is no video, or has no two frames there.
    """
    with FileSource(clip, tracks=False) as source:
        first = max(0, source.info.frames - count) // 2
        frames = islice((item for item in source if isinstance(item, Frame)), first, first + count)
        motion, followed = Motion(), []
        for frame in frames:
            motion = motion.of(frame.image)
            followed.append(replace(frame, moved=motion.moved))
    if len(followed) < 2:
        raise SourceError(f"{clip}: has no two frames to compare")
    return followed


def _noise_gain(engine: Engine, photos: Sequence[Image]) -> Values:
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {name: [] for name in engine.style.styles}
    for photo in photos:
        noise = rng.normal(0, SENSOR_NOISE, (STILL_FRAMES, *photo.shape))
        frames = (photo + noise).round().clip(0, 255).astype(np.uint8)
        for name, gains in found.items():
            gains.append(
                noise_gain(frames, np.stack([_paint(engine, frame, Look({name: 1.0})) for frame in frames]))
            )
    return {name: round(float(np.mean(gains)), 3) for name, gains in found.items()}


def _robustness(engine: Engine, photos: Sequence[Image]) -> Values:
    """Mean change of the pack's painting over the largest change of its input, by attack and size."""
    pack = engine.style
    side = min(ATTACKED_SIDE, *(side for photo in photos for side in photo.shape[:2]))
    side -= side % pack.multiple
    if pack.size and pack.size != (side, side):
        raise NotAtHand("the pack takes pictures of one size only")
    squares = np.stack([photo[:side, :side] for photo in photos])
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in pack.styles:
        look = Look({name: 1.0})
        try:
            paint = painter(pack, name, (side, side))
        except EngineBuildError as error:
            # No lack of this machine: nobody can paint the pack in torch.
            log.warning("robustness is left out: %s", error)
            raise NotAtHand(str(error)) from error
        before = engine.infer(squares, look).astype(np.float64)
        found[name] = {}
        for epsilon in EPSILONS:
            for attack, changed in attacks(paint, torch.from_numpy(squares).float(), epsilon).items():
                after = engine.infer(changed.byte().numpy(), look)
                thrown = float(np.abs(after - before).mean()) / epsilon
                found[name].setdefault(attack, {})[str(epsilon)] = round(thrown, 3)
    return found


def _fid(
    weights: Path | None,
    name: str,
    painted: Mapping[str, list[Tensor]],
    paintings: Mapping[str, list[list[Tensor]]],
) -> Values:
    """Fréchet distance of crops of what was painted to crops of the paintings."""
    network = load_inception(weights, name)
    return {
        each: round(
            frechet_distance(
                inception_features(network, crops),
                inception_features(network, [crop for work in paintings[each] for crop in work]),
            ),
            2,
        )
        for each, crops in painted.items()
    }


def _art_fid(
    weights: Path | None,
    styles: Mapping[str, Mapping[str, Any]],
    painted: Mapping[str, list[Tensor]],
    paintings: Mapping[str, list[list[Tensor]]],
) -> Values:
    """(1 + LPIPS) (1 + FID), in features trained on art (Wright and Ommer 2022, arXiv 2207.12280)."""
    distances = _fid(weights, "art_inception", painted, paintings)
    if not all("lpips" in row for row in styles.values()):
        raise NotAtHand("needs LPIPS, which is left out")
    return {
        name: round((1 + styles[name]["lpips"]) * (1 + distance), 2) for name, distance in distances.items()
    }
