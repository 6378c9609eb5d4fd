"""`fauve preview`: frames by styles by strengths, on one contact sheet."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click
import cv2
import numpy as np

import engines
from engines import Image, Look
from engines.atomic_write import atomic_write
from pipeline.batch import refuse_itself
from pipeline.commands.options import (
    PATH,
    Share,
    detail_option,
    engine_options,
    load_any,
    onnx_options,
    told_frames,
)
from pipeline.errors import SinkError, SourceError
from pipeline.scaling import resize, stylizer
from pipeline.sinks.file import refuse_existing, refuse_missing_folder
from pipeline.sources.file import FileSource
from pipeline.sources.index import read_index

T = TypeVar("T")

CAPTION = 28
"""Height of the line above a column, in pixels."""
GAP = 4
LONGEST_SIDE, LARGEST = 65500, 2**30
"""Pixels of a side, as in JPEG, and of a whole sheet: OpenCV opens none with more."""
PAPER, INK = (24, 24, 24), (235, 235, 235)


@click.command()
@click.argument("video", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The sheet: .png or .jpg.")
@click.option(
    "-s",
    "--style",
    "styles",
    multiple=True,
    default=("live",),
    show_default=True,
    help="A style, or a pack for all of its styles; may be given several times.",
)
@click.option(
    "--strength",
    "strengths",
    type=Share(0, 1),
    multiple=True,
    default=(0.5, 1.0),
    show_default=True,
    help="May be given several times.",
)
@click.option(
    "--frames", type=click.IntRange(1, 100), default=4, show_default=True, help="Rows of the sheet."
)
@click.option(
    "--height",
    type=click.IntRange(16, 4320),
    default=240,
    show_default=True,
    help="Height of a row, in pixels.",
)
@detail_option
@engine_options
@onnx_options
@click.option("-f", "--force", is_flag=True, help="Replace an existing file.")
def preview(
    video: Path,
    output: Path,
    styles: tuple[str, ...],
    strengths: tuple[float, ...],
    frames: int,
    height: int,
    detail: Any,
    engine: str,
    precision: str,
    threads: int | None,
    layout: Any,
    value_range: Any,
    force: bool,
) -> None:
    """Paint a few frames of VIDEO in each style and strength, side by side on one picture."""
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise SinkError(f"{output}: the name of a sheet ends with .png or .jpg")
    refuse_itself(video, output)
    refuse_existing(output, force)
    refuse_missing_folder(output)
    images = sample(video, frames)
    packs = [load_any(name, layout, value_range) for name in styles]
    _refuse_too_large(
        output, images, height, sum(len(pack.mix or pack.styles) for pack in packs) * len(strengths)
    )
    columns = [("input", images)]
    known = [style for pack in packs for style in pack.mix or pack.styles]
    for pack in packs:
        with engines.load(engine, style=pack, precision=precision, threads=threads) as runtime:
            paint = stylizer(runtime, (images[0].shape[1], images[0].shape[0]), detail)
            for style in pack.mix or pack.styles:
                for strength in strengths:
                    look = Look({style: 1.0}, strength)
                    name = style if known.count(style) == 1 else f"{pack.name}/{style}"
                    columns.append((f"{name} {strength:g}", [paint(image, look) for image in images]))
    _, content = cv2.imencode(output.suffix, sheet(columns, height)[..., ::-1])
    try:
        atomic_write(output, content.tobytes())
    except OSError as error:
        raise SinkError(f"{output}: cannot be written: {error.strerror}") from error
    click.echo(f"{output}: {told_frames(len(images))}, {len(columns) - 1} columns of paintings")


def sample(video: Path, count: int) -> list[Image]:
    """`count` frames of `video`, from the middles of as many equal parts; fewer if it has no more.

    Raises:
        SourceError: it cannot be read, or comes through a pipe, which cannot be read twice.
    """
    if str(video) == "-":
        raise SourceError("standard input: a sheet needs a file, which can be read out of order")
    index = read_index(video)
    if index is None:
        return _evenly(_passing(video, count), count)
    images = []
    for pts in _evenly(index.times, count):
        with FileSource(video, tracks=False, start=pts, entry=index.entry(pts)) as source:
            # Where a frame cannot be decoded, the others make the sheet.
            images += [item.image for item in islice(source, 1)]
    if not images:
        raise SourceError(f"{video}: none of the frames looked at can be decoded; the file is damaged")
    return images


def _evenly(values: Sequence[T], count: int) -> list[T]:
    """The middles of `count` equal parts of `values`; all if there are no more."""
    count = min(count, len(values))
    return [values[(2 * index + 1) * len(values) // (2 * count)] for index in range(count)]


def _passing(video: Path, count: int) -> list[Image]:
    """Every so many frames of a video that does not tell when they are shown, at least `count` if it can."""
    kept: list[Image] = []
    step = 1
    with FileSource(video, tracks=False) as source:
        for number, item in enumerate(source):
            if number % step == 0:
                kept.append(item.image)
                if len(kept) == 4 * count:
                    kept, step = kept[::2], 2 * step
    return kept


def _refuse_too_large(output: Path, images: Sequence[Image], height: int, paintings: int) -> None:
    width = (1 + paintings) * (max(_width(image, height) for image in images) + GAP)
    lines = CAPTION + len(images) * (height + GAP)
    if max(width, lines) > LONGEST_SIDE or width * lines > LARGEST:
        raise SinkError(
            f"{output}: a sheet of {width}x{lines} is too large; take fewer --frames or styles, or less "
            "--height"
        )


def _width(image: Image, height: int) -> int:
    """How wide `image` is at `height`."""
    width: int = max(1, round(image.shape[1] * height / image.shape[0]))
    return width


def sheet(columns: Sequence[tuple[str, Sequence[Image]]], height: int) -> Image:
    """The pictures of each column below its caption, scaled to `height`, uint8 [h, w, 3]."""
    strips = []
    for caption, images in columns:
        cells = []
        for image in images:
            cells.append(resize(image, (_width(image, height), height)))
        strip = np.full((CAPTION + len(cells) * (height + GAP), cells[0].shape[1] + GAP, 3), PAPER, np.uint8)
        cv2.putText(strip, caption, (4, CAPTION - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
        for row, cell in enumerate(cells):
            top = CAPTION + row * (height + GAP)
            strip[top : top + height, : cell.shape[1]] = cell
        strips.append(strip)
    return np.concatenate(strips, axis=1)
