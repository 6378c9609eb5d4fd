"""Sheets that show what a training's networks see: scores, features and the fingerprint of each style."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training import losses
from training.checkpoint import load_checkpoint, restore
from training.data import held_out_first, read_image, resize_shorter, write_png
from training.discriminator import DenseDiscriminator, PatchDiscriminator
from training.features import pretrained
from training.generator import Generator
from training.recipe import Recipe, stored_recipe
from training.stylization import content_layer, discriminator_of, generator_of, paint

Sheet = np.ndarray

SHEETS = ("scores.png", "features.png", "fingerprint.png")
"""Names of the files that an inspection is."""

HEIGHT = 192
"""Lines of a picture on the sheets."""
LABEL = 24
"""Lines of the text above one."""
NOISE_PICTURES = 64
"""Noise pictures that a style's fingerprint is the mean of."""


def inspect(
    checkpoint: Path,
    photos: Path | str,
    paintings: Path,
    weights: Path | None,
    output: Path,
    style: str | None,
) -> list[Path]:
    """Draw the sheets of `checkpoint` into the folder `output` and return their paths.

    Args:
        photos: folder, or a torchvision dataset; held-out ones of it are looked at.
        paintings: folder that the paintings' names in the recipe start from.
        weights: folder of the pretrained networks' weights; None takes torchvision's.
        style: name of the style that scores and features are drawn for; None takes the first.

    Raises:
        OSError: a sheet cannot be written.
        ValueError: a file cannot be read, or there is no such style.
    """
    state = load_checkpoint(checkpoint)
    recipe = stored_recipe(state["recipe"], str(checkpoint))
    names = [each.name for each in recipe.styles]
    if style is not None and style not in names:
        raise ValueError(f"{checkpoint}: no style {style!r}; there are {', '.join(names)}")
    index = names.index(style) if style else 0
    generator = generator_of(recipe, recipe.styles)
    restore(generator, state["average"], checkpoint)
    generator.eval()
    discriminator = discriminator_of(recipe, len(names))
    restore(discriminator, state.get("discriminator", {}), checkpoint)
    discriminator.eval()

    # A dense one sees pictures of its crop's size only.
    side = recipe.crop if recipe.discriminator == "dense" else _above(HEIGHT, generator.multiple)
    seen = [_cut(resize_shorter(image, side), side) for image in held_out_first(photos, 4)]
    if not seen:
        raise ValueError(f"no images in {photos}")
    size = recipe.styles[index].painting_size or recipe.painting_size
    painting = resize_shorter(read_image(paintings / recipe.styles[index].painting), size)

    undecided = losses.UNDECIDED[recipe.adversarial_loss]
    sheets = (
        score_sheet(generator, discriminator, seen, painting, index, undecided),
        feature_sheet(recipe, generator, discriminator, weights, seen[:2], painting, index),
        fingerprint_sheet(generator, names),
    )
    output.mkdir(parents=True, exist_ok=True)
    paths = [output / name for name in SHEETS]
    for path, sheet in zip(paths, sheets, strict=True):
        write_png(path, sheet)
    return paths


@torch.no_grad()
def score_sheet(
    generator: Generator,
    discriminator: PatchDiscriminator | DenseDiscriminator,
    photos: Sequence[Tensor],
    painting: Tensor,
    style: int,
    undecided: float = 0.0,
) -> Sheet:
    """Photographs, what is painted of them and pieces of the painting, each with its patch scores over it.

    Red is where the discriminator takes it for the painting, blue where it does not, on one scale for all:
    the mean over all sizes that it judges the picture at, above or below the score `undecided`.
    """
    rows = []
    painting = _at_least(painting, photos[0].shape[-1])
    for photo in photos:
        height, width = photo.shape[-2:]
        room = (painting.shape[-2] - height + 1, painting.shape[-1] - width + 1)
        top, left = (int(torch.randint(side, (), generator=_rng(len(rows)))) for side in room)
        piece = painting[:, top : top + height, left : left + width]
        rows.append([photo, paint(generator, photo, style), piece])
    one = torch.tensor([style])

    def scored(picture: Tensor) -> Tensor:
        """Scores [h, w] as fine as those of the finest scale."""
        scales, _ = discriminator(picture[None].float() / 255, one)
        size = scales[0].shape[-2:]
        grown = [F.interpolate(score, size, mode="bilinear", align_corners=False) for score in scales]
        return torch.stack(grown).mean(0)[0, 0] - undecided

    scores = [[scored(picture) for picture in row] for row in rows]
    high = max(float(score.abs().max()) for row in scores for score in row) + losses.EPSILON
    columns = ["photograph", "painted", "painting"]
    return _grid(
        [
            [
                cell
                for picture, score, name in zip(row, values, columns, strict=True)
                for cell in (
                    _labelled(picture, name),
                    _labelled(_overlaid(picture, score / high), f"score {float(score.mean()):+.2f}"),
                )
            ]
            for row, values in zip(rows, scores, strict=True)
        ]
    )


@torch.no_grad()
def feature_sheet(
    recipe: Recipe,
    generator: Generator,
    discriminator: PatchDiscriminator | DenseDiscriminator,
    weights: Path | None,
    photos: Sequence[Tensor],
    painting: Tensor,
    style: int,
) -> Sheet:
    """What each layer of the networks that the recipe compares by counts as content and as style.

    A pair of rows for each photograph and network: above, where the painting's features left the
    photograph's (content; brighter is further); below, how far the moments around each place are from those
    of the painting that is copied (style; brighter is further), of the photograph and of what was painted.
    """
    rows = []
    learned: dict[str, Callable[[Tensor], Sequence[Tensor]]] = {
        "discriminator": lambda image: discriminator(image, torch.tensor([style]))[1],
        "generator": generator.features,
    }
    # What learns sees crops of the painting in training, too, and not every size.
    side = photos[0].shape[-1]
    piece = _cut(_at_least(painting, side), side)
    for name in dict.fromkeys((*recipe.content_features, *recipe.style_features)) or learned:
        network = learned.get(name) or pretrained(name, weights)
        shown = piece if name in learned else painting
        targets = [losses.moments(x) for x in network(shown[None].float() / 255)]
        for photo in photos:
            painted = paint(generator, photo, style)
            of_photo, of_painted = (network(x[None].float() / 255) for x in (photo, painted))
            content, before, after = (
                [_labelled(photo, f"photo, {name}")],
                [_labelled(painted, "painted")],
                [_labelled(_cut(resize_shorter(painting, HEIGHT), HEIGHT), "the style's painting")],
            )
            for layer, (a, b, target) in enumerate(zip(of_photo, of_painted, targets, strict=True)):
                moved = (a - b).square().mean(1)[0].sqrt() / (a.square().mean().sqrt() + losses.EPSILON)
                counts = name in recipe.content_features and layer == content_layer(name) % len(targets)
                mark = " *" if counts else ""
                far = [_style_map(x, target) for x in (a, b)]
                top = max(float(x.max()) for x in far) + losses.EPSILON
                size = photo.shape[-2:]
                content.append(
                    _labelled(_heat(moved / (moved.max() + 1e-6), size), f"content {layer + 1}{mark}")
                )
                before.append(
                    _labelled(_heat(far[0] / top, size), f"style {layer + 1}, {far[0].mean():.2f} photo")
                )
                after.append(
                    _labelled(_heat(far[1] / top, size), f"style {layer + 1}, {far[1].mean():.2f} painted")
                )
            rows += [content, before, after]
    return _grid(rows)


def _style_map(features: Tensor, target: Tensor) -> Tensor:
    """The distance of the moments around each place to `target` [1, 2, c], relative, [h, w]."""
    side = max(3, min(features.shape[-2:]) // 6 | 1)
    padded = F.pad(features, (side // 2,) * 4, mode="replicate")
    mean, square = (
        F.avg_pool2d(F.avg_pool2d(x, (side, 1), 1), (1, side), 1) for x in (padded, padded.square())
    )
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    local = torch.stack([mean, deviation], 1)
    distance = (local - target[..., None, None]).square().mean((1, 2))[0]
    return (distance / (target.square().mean() + losses.EPSILON)).sqrt()


@torch.no_grad()
def fingerprint_sheet(generator: Generator, names: Sequence[str]) -> Sheet:
    """The style kernel of each style: the mean of what it paints over noise, where no picture is left.

    A row for each style: a noise picture, the same painted, the mean over many, the mean with its contrast
    stretched, and the mean power spectrum of what was added, lowest frequencies in the middle: how large the
    strokes are and which way they run.
    """
    side = _above(128, generator.multiple)
    coarse = torch.rand(NOISE_PICTURES, 3, side // 8, side // 8, generator=_rng())
    fine = torch.rand(NOISE_PICTURES, 3, side, side, generator=_rng(1)) - 0.5
    smooth = F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)
    noise = (smooth + 0.2 * fine).clamp(0, 1)
    rows = []
    for index, name in enumerate(names):
        mix = torch.eye(len(names))[index].expand(len(noise), -1)
        painted = generator(noise, mix, torch.ones(len(noise))).clamp(0, 1)
        mean = painted.mean(0)
        low, high = (mean.amin((1, 2), keepdim=True), mean.amax((1, 2), keepdim=True))
        power = torch.fft.fft2((painted - noise).mean(1)).abs().square().mean(0)
        power[0, 0] = power[0, 1]
        spectrum = (torch.fft.fftshift(power) + losses.EPSILON).log()
        spectrum = (spectrum - spectrum.min()) / (spectrum.max() - spectrum.min() + losses.EPSILON)
        cells = {
            "noise": noise[0],
            name: painted[0],
            f"mean of {len(noise)}": mean,
            "stretched": (mean - low) / (high - low + losses.EPSILON),
            "spectrum": _heat(spectrum, (side, side)).float() / 255,
        }
        rows.append([_labelled((x * 255).byte(), label) for label, x in cells.items()])
    return _grid(rows)


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _above(side: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not below `side`."""
    return -(-side // multiple) * multiple


def _at_least(painting: Tensor, side: int) -> Tensor:
    """`painting`, if it is smaller enlarged to a shorter side of `side` pixels, as crops in training are."""
    return resize_shorter(painting, max(side, min(painting.shape[-2:])))


def _cut(picture: Tensor, side: int) -> Tensor:
    """The middle of `picture`, a square of `side` pixels."""
    top, left = ((length - side) // 2 for length in picture.shape[-2:])
    return picture[:, top : top + side, left : left + side]


def _heat(values: Tensor, size: Sequence[int]) -> Tensor:
    """`values` [h, w] in 0..1 as uint8 RGB [3, *size], dark to bright."""
    grown = F.interpolate(values[None, None], tuple(size), mode="bilinear", align_corners=False)[0, 0]
    grey = (grown.clamp(0, 1) * 255).byte().numpy()
    coloured = cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1]
    return torch.from_numpy(coloured.copy()).permute(2, 0, 1)


def _overlaid(picture: Tensor, score: Tensor) -> Tensor:
    """`picture` with `score` [h, w] in -1..1 over it: blue to red, none at 0."""
    size = tuple(picture.shape[-2:])
    grown = F.interpolate(score[None, None], size, mode="bilinear", align_corners=False)[0]
    grey = picture.float().mean(0, keepdim=True) * 0.6 + 40
    amount = grown.abs().clamp(0, 1).sqrt()
    colour = torch.where(
        grown > 0, torch.tensor([230.0, 50, 30])[:, None, None], torch.tensor([30.0, 90, 230])[:, None, None]
    )
    return (grey * (1 - 0.7 * amount) + colour * 0.7 * amount).clamp(0, 255).byte()


def _labelled(picture: Tensor, text: str) -> Sheet:
    """`picture` uint8 [3, h, w] as RGB [h, w, 3] of the sheets' height, with `text` above it."""
    image = picture.permute(1, 2, 0).numpy()
    width = round(image.shape[1] * HEIGHT / image.shape[0])
    image = cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_LINEAR)
    label = np.full((LABEL, width, 3), 24, np.uint8)
    cv2.putText(label, text, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (230, 230, 230), 1, cv2.LINE_AA)
    return np.concatenate([label, image])


def _grid(rows: Sequence[Sequence[Sheet]]) -> Sheet:
    """`rows` of pictures below each other, each column as wide as its widest."""
    widths = [max(row[i].shape[1] for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines = []
    for row in rows:
        around = [
            ((0, 0), (0, width - cell.shape[1]), (0, 0)) for cell, width in zip(row, widths, strict=False)
        ]
        cells = [np.pad(cell, padding) for cell, padding in zip(row, around, strict=True)]
        line = np.concatenate(cells, 1)
        lines.append(np.pad(line, ((0, 0), (0, sum(widths) - line.shape[1]), (0, 0))))
    return np.concatenate(lines)
