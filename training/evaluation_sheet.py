"""An evaluation on one picture: what was painted, and the figures below it."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from engines import Image
from training.evaluate import STRENGTHS, Evaluation

CELL = (288, 216)
"""Width and height of a picture on the sheet, in pixels."""

MARGIN, GAP, LINE = 28, 6, 34
PAPER, INK, FAINT = (250, 249, 246), (32, 32, 36), (120, 120, 124)
FONT = cv2.FONT_HERSHEY_SIMPLEX
FINER = 4
"""Letters are drawn so many times as large and scaled down, which makes them smooth."""


def evaluation_sheet(evaluation: Evaluation) -> Image:
    """Photographs beside their paintings, each style by strength, and a table of figures; [h, w, 3]."""
    report = evaluation.report
    blocks = [_title(report)]
    steps = {name: rows for name, rows in evaluation.steps.items() if rows}
    if len(steps) > 1:
        rows = [
            [photo, *(rows[number][-1] for rows in steps.values())]
            for number, photo in enumerate(evaluation.photos[: len(next(iter(steps.values())))])
        ]
        blocks.append(_grid(["photograph", *steps], rows))
    captions = ["photograph", *(f"strength {strength:g}" for strength in STRENGTHS[1:])]
    for number, (name, rows) in enumerate(steps.items()):
        # The photograph itself stands where strength 0 is, which gives it back. Several styles show one each.
        shown = [rows[number % len(rows)]] if len(steps) > 1 else rows
        photos = [evaluation.photos[number % len(rows)]] if len(steps) > 1 else evaluation.photos
        pictures = [[photo, *images[1:]] for photo, images in zip(photos, shown, strict=False)]
        blocks.append(_grid([f"{name}: {captions[0]}", *captions[1:]], pictures))
    blocks.append(_table(report))
    width = max(block.shape[1] for block in blocks) + 2 * MARGIN
    page = []
    for block in blocks:
        strip = _paper(width, block.shape[0] + MARGIN)
        strip[MARGIN:, MARGIN : MARGIN + block.shape[1]] = block
        page.append(strip)
    return np.concatenate([*page, _paper(width, MARGIN)])


def _paper(width: int, height: int) -> Image:
    return np.full((height, width, 3), PAPER, np.uint8)


def _title(report: dict[str, Any]) -> Image:
    title = f"{report['pack']}, on {report['photographs']} photographs and {report['clips']} clips"
    block = _paper(5 * CELL[0], 76)
    _write(block, title, 0, 40, 1.1)
    _write(block, f"painted by {report['engine']}, judged by {report['network']}", 0, 72, 0.55, FAINT)
    return block


def _grid(captions: Sequence[str], rows: Sequence[Sequence[Image]]) -> Image:
    """Rows of pictures below the captions of their columns."""
    width, height = CELL
    block = _paper(len(captions) * (width + GAP) - GAP, LINE + len(rows) * (height + GAP) - GAP)
    for column, caption in enumerate(captions):
        left = column * (width + GAP)
        _write(block, caption, left, LINE - 12, 0.55)
        for row, pictures in enumerate(rows):
            top = LINE + row * (height + GAP)
            block[top : top + height, left : left + width] = _cell(pictures[column])
    return block


def _cell(image: Image) -> Image:
    """The middle of `image` at the size of a cell."""
    width, height = CELL
    scale = max(width / image.shape[1], height / image.shape[0])
    size = (max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale)))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 3
    cell: Image = scaled[top : top + height, left : left + width]
    return cell


COLUMNS = (
    ("style", 180),
    ("flicker", 110),
    ("noise gain", 130),
    ("style distance", 170),
    ("of photographs", 160),
    ("of paintings", 140),
    ("content distance", 175),
    ("LPIPS", 100),
    ("taken for it", 140),
    ("photographs taken", 190),
    ("unseen paintings", 180),
    ("thrown by PGD 8", 170),
)
"""Heads of the table and their widths, in pixels."""


def figures(row: dict[str, Any]) -> list[str]:
    """What the table says of a style, in the order of `COLUMNS` behind its name; "-" is not measured."""
    classifier = row.get("classifier", {})
    thrown = row.get("robustness", {}).get("pgd", {}).get("8")
    strength = row["strength"]
    return [
        _number(row["flicker"]["score"], "{:.3f}"),
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
    """The table, and what was left out, as text."""
    rows = [[head for head, _ in COLUMNS]]
    rows += [[name, *figures(row)] for name, row in report["styles"].items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    lines += [f"left out: {name} ({why})" for name, why in report["left_out"].items()]
    return "\n".join(line.rstrip() for line in lines)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _table(report: dict[str, Any]) -> Image:
    styles = report["styles"]
    lines = [f"left out: {name} ({why})" for name, why in report["left_out"].items()]
    block = _paper(sum(width for _, width in COLUMNS), (len(styles) + len(lines) + 1) * LINE + 10)
    left = 0
    for head, width in COLUMNS:
        _write(block, head, left, LINE - 12, 0.5, FAINT)
        left += width
    block[LINE : LINE + 1] = FAINT
    for number, (name, row) in enumerate(styles.items(), 2):
        left = 0
        for text, (_, width) in zip([name, *figures(row)], COLUMNS, strict=True):
            _write(block, text, left, number * LINE - 10, 0.6)
            left += width
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
