"""An evaluation on one picture: what was painted, and the figures below it."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from engines import Image
from training.evaluate import STRENGTHS, Evaluation

WIDTH, WIDER = 2000, 290
"""Of the page in pixels, and for each column of pictures if it has many."""

CELL = 400
"""Largest width of a picture on it, whose height is three quarters of that."""

MARGIN, GAP, LINE = 28, 6, 34
PAPER, INK, FAINT = (250, 249, 246), (32, 32, 36), (120, 120, 124)
FONT = cv2.FONT_HERSHEY_SIMPLEX
FINER = 4
"""Letters are drawn so many times as large and scaled down, which makes them smooth."""


def evaluation_sheet(evaluation: Evaluation) -> Image:
    """Photographs beside their paintings, each style by strength, and a table of figures; [h, w, 3]."""
    names, shown = list(evaluation.steps), evaluation.shown
    width = max(WIDTH, WIDER * (len(names) + 1))
    blocks = [_title(evaluation.report, width)]
    # The photograph stands where strength 0 is, which gives it back.
    captions = [f"strength {strength:g}" for strength in STRENGTHS[1:]]
    steps = {
        name: [[photo, *images[1:]] for photo, images in zip(shown, evaluation.steps[name], strict=True)]
        for name in names
    }
    if len(names) == 1:
        blocks.append(_grid(["photograph", *captions], steps[names[0]], width))
    else:
        rows = [[photo, *(steps[name][row][-1] for name in names)] for row, photo in enumerate(shown)]
        blocks.append(_grid(["photograph", *names], rows, width))
        # One photograph for each style, two styles side by side.
        half = (width - MARGIN) // 2
        grids = [
            _grid([name, *captions], [steps[name][row % len(shown)]], half) for row, name in enumerate(names)
        ]
        if len(grids) % 2:
            grids.append(_paper(half, grids[0].shape[0]))
        gap = _paper(width - 2 * half, grids[0].shape[0])
        blocks += [
            np.concatenate([left, gap, right], axis=1)
            for left, right in zip(grids[::2], grids[1::2], strict=True)
        ]
    blocks.append(_table(evaluation.report, width))
    page = []
    for block in blocks:
        strip = _paper(width + 2 * MARGIN, block.shape[0] + MARGIN)
        strip[MARGIN:, MARGIN:-MARGIN] = block
        page.append(strip)
    return np.concatenate([*page, _paper(width + 2 * MARGIN, MARGIN)])


def _paper(width: int, height: int) -> Image:
    return np.full((height, width, 3), PAPER, np.uint8)


def _title(report: dict[str, Any], width: int) -> Image:
    seen = "" if report["unseen"] else " that training may have seen"
    title = f"{report['pack']}, on {report['photographs']} photographs{seen} and {report['clips']} clips"
    block = _paper(width, 76)
    _write(block, title, 0, 40, 1.1)
    _write(block, f"painted by {report['engine']}, judged by {report['network']}", 0, 72, 0.55, FAINT)
    return block


def _grid(captions: Sequence[str], rows: Sequence[Sequence[Image]], page: int) -> Image:
    """Rows of pictures below the captions of their columns, `page` pixels wide."""
    width = min(CELL, (page + GAP) // len(captions) - GAP)
    height = width * 3 // 4
    block = _paper(page, LINE + len(rows) * (height + GAP) - GAP)
    for column, caption in enumerate(captions):
        left = column * (width + GAP)
        _write(block, caption, left, LINE - 12, 0.55)
        for row, pictures in enumerate(rows):
            top = LINE + row * (height + GAP)
            block[top : top + height, left : left + width] = _cell(pictures[column], width, height)
    return block


def _cell(image: Image, width: int, height: int) -> Image:
    """The middle of `image`, rather its upper part, at the size of a cell."""
    scale = max(width / image.shape[1], height / image.shape[0])
    size = (max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale)))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 3
    cell: Image = scaled[top : top + height, left : left + width]
    return cell


COLUMNS = (
    "style",
    "flicker",
    "noise gain",
    "style distance",
    "of photographs",
    "of paintings",
    "content distance",
    "LPIPS",
    "taken for it",
    "photographs taken",
    "unseen paintings",
    "thrown by PGD 8",
)
"""Heads of the table."""


def figures(row: dict[str, Any]) -> list[str]:
    """What the table says of a style, in the order of `COLUMNS` behind its name; "-" is not measured."""
    classifier = row.get("classifier", {})
    thrown = row.get("robustness", {}).get("pgd", {}).get("8")
    strength = row["strength"]
    return [
        _number(row.get("flicker", {}).get("score"), "{:.3f}"),
        _number(row["noise_gain"], "{:.2f}"),
        _number(row["style_distance"], "{:.3f}"),
        _number(strength["curve"][0]["style"], "{:.3f}"),
        _number(strength["paintings_apart"], "{:.3f}"),
        _number(row["content_distance"], "{:.3f}"),
        _number(row.get("lpips"), "{:.3f}"),
        _number(classifier.get("painted"), "{:.0%}"),
        _number(classifier.get("photographs"), "{:.0%}"),
        _number(classifier.get("unseen"), "{:.0%}"),
        _number(thrown, "{:.2f}"),
    ]


def summary(report: dict[str, Any]) -> str:
    """The table, what was left out and what was assumed, as text."""
    rows = [list(COLUMNS)]
    rows += [[name, *figures(row)] for name, row in report["styles"].items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    lines += _remarks(report)
    return "\n".join(line.rstrip() for line in lines)


def _remarks(report: dict[str, Any]) -> list[str]:
    left_out = [f"left out: {name} ({why})" for name, why in report["left_out"].items()]
    return [*left_out, *(f"note: {note}" for note in report["notes"])]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _table(report: dict[str, Any], width: int) -> Image:
    """The figures of each style, what was left out and what was assumed, `width` pixels wide."""
    styles = report["styles"]
    lines = _remarks(report)
    block = _paper(width, (len(styles) + len(lines) + 1) * LINE + 10)
    places = [column * width // len(COLUMNS) for column in range(len(COLUMNS))]
    for head, left in zip(COLUMNS, places, strict=True):
        _write(block, head, left, LINE - 12, 0.5, FAINT)
    block[LINE : LINE + 1] = FAINT
    for number, (name, row) in enumerate(styles.items(), 2):
        for text, left in zip([name, *figures(row)], places, strict=True):
            _write(block, text, left, number * LINE - 10, 0.6)
    for number, line in enumerate(lines, len(styles) + 2):
        _write(block, line, 0, number * LINE - 6, 0.5, FAINT)
    return block


def _write(
    block: Image, text: str, left: int, base: int, size: float, colour: tuple[int, int, int] = INK
) -> None:
    """Write `text` on `block`, its letters standing on the line `base`."""
    (width, height), below = cv2.getTextSize(text, FONT, size * FINER, FINER)
    mask = np.zeros((height + below + 2 * FINER, width + 2 * FINER), np.uint8)
    cv2.putText(mask, text, (FINER, height + FINER), FONT, size * FINER, 255, FINER, cv2.LINE_AA)
    small = cv2.resize(mask, (mask.shape[1] // FINER, mask.shape[0] // FINER), interpolation=cv2.INTER_AREA)
    top = base - (height + FINER) // FINER
    place = block[top : top + small.shape[0], left : left + small.shape[1]]
    cover = small[: place.shape[0], : place.shape[1], None] / 255
    place[:] = (place * (1 - cover) + np.array(colour) * cover).round()
