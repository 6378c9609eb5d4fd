"""Photographs to paint and paintings to learn from, as random crops."""

import logging
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

log = logging.getLogger("fauve")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


def read_image(path: Path) -> Tensor:
    """An image file as uint8 [3, h, w], RGB, upright.

    Raises:
        ValueError: the file is missing or is no image.
    """
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if path.is_file() else None
    if pixels is None:
        raise ValueError(f"{path}: no image that OpenCV can read")
    return torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).permute(2, 0, 1).contiguous()


def resize_shorter(image: Tensor, size: int) -> Tensor:
    """`image` uint8 [3, h, w] with its shorter side scaled to `size`, aspect ratio kept."""
    _, height, width = image.shape
    scale = size / min(height, width)
    shape = (max(size, round(height * scale)), max(size, round(width * scale)))
    resized = F.interpolate(image[None].float(), shape, mode="bilinear", antialias=True, align_corners=False)
    return resized[0].round().clamp(0, 255).byte()


def held_out(path: Path) -> bool:
    """Whether this file is kept from training (one in ten, by its name), so that it can judge the result."""
    return crc32(path.name.encode()) % 10 == 0


class Pictures:
    """The images of a folder (or a list of files) in memory, dealt out as random crops.

    Args:
        paths: folders, searched recursively, and files.
        size: the shorter side of each image in memory, in pixels.
        hold_out: leave out the files for which `held_out` is true.

    Raises:
        ValueError: not one image could be read. A broken image among good ones is reported and skipped.
    """

    def __init__(self, paths: Sequence[Path], size: int, *, hold_out: bool = False) -> None:
        self.images: list[Tensor] = []
        for path in image_files(paths):
            if hold_out and held_out(path):
                continue
            try:
                self.images.append(resize_shorter(read_image(path), size))
            except ValueError as error:
                log.warning("skipped %s", error)
        if not self.images:
            raise ValueError(f"no images in {', '.join(map(str, paths))}")

    def __len__(self) -> int:
        return len(self.images)

    def crops(
        self, n: int, size: int, rng: torch.Generator, *, zoom: tuple[float, float] = (0.75, 1.25)
    ) -> Tensor:
        """`n` random square crops, float [n, 3, size, size] in 0..1, zoomed and mirrored at random."""
        return torch.stack([self._crop(size, rng, zoom) for _ in range(n)])

    def _crop(self, size: int, rng: torch.Generator, zoom: tuple[float, float]) -> Tensor:
        def uniform(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=rng))

        image = self.images[int(torch.randint(len(self.images), (), generator=rng))]
        _, height, width = image.shape
        side = min(int(size / uniform(*zoom)), height, width)
        top, left = int(uniform(0, height - side)), int(uniform(0, width - side))
        crop = image[:, top : top + side, left : left + side].float()[None] / 255
        if side != size:
            crop = F.interpolate(crop, (size, size), mode="bilinear", antialias=True, align_corners=False)
        return crop[0].flip(-1) if uniform(0, 1) < 0.5 else crop[0]


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The images among `paths`: files as they are, folders searched recursively by suffix, sorted."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        else:
            files.append(path)
    return files


def expose(image: Tensor, rng: torch.Generator, amount: float) -> Tensor:
    """`image` [n, 3, h, w] with random exposure and white balance, each channel within 1 +- `amount`."""
    gain = 1 + (torch.rand(len(image), 1, 1, 1, generator=rng) * 2 - 1) * amount
    tint = 1 + (torch.rand(len(image), 3, 1, 1, generator=rng) * 2 - 1) * amount / 3
    return (image * gain * tint).clamp(0, 1)
