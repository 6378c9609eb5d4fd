"""Photographs to paint, paintings to learn from and clips that move, as random crops."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engines.atomic_write import atomic_write
from pipeline.batch import VIDEO_SUFFIXES
from pipeline.frame import Frame
from pipeline.grey_window import Window
from pipeline.sources.file import FileSource
from training.flow import Pair, checked_flow, normalised, pixels, warp
from training.losses import luminance_change

log = logging.getLogger("fauve")

T = TypeVar("T")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"})
"""Of pictures, also of those that OpenCV may not read: such are named, and not left out in silence."""

LONGEST = 20
"""How many times as long as wide a picture may be: a line, scaled by its shorter side, fills the memory."""


def read_image(path: Path) -> Tensor:
    """An image file as uint8 [3, h, w], RGB, upright; what is transparent lies on white.

    Grey of 16 bits is seen from nearly its darkest to nearly its brightest value, as `fauve run` sees it.

    Raises:
        ValueError: the file is missing, is no image, or is one more than `LONGEST` times as long as wide.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        pixels = _seen(content) if content.size else None
    except cv2.error:  # such as of a header that claims more pixels than there can be
        pixels = None
    if pixels is None:
        raise ValueError(f"{path}: no image that OpenCV can read")
    height, width = pixels.shape[:2]
    if max(height, width) > LONGEST * min(height, width):
        raise ValueError(f"{path}: {width}x{height} is more than {LONGEST} times as long as wide; cut it")
    return torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).permute(2, 0, 1).contiguous()


def _seen(content: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The image in the bytes `content` as [h, w, 3], BGR; None if there is none."""
    pixels: NDArray[np.uint8] | None = cv2.imdecode(content, cv2.IMREAD_COLOR)
    if pixels is None or content[:2].tobytes() == b"\xff\xd8":  # a JPEG has no alpha
        return pixels
    # Read as above it is dropped, and as here the picture is not turned upright.
    whole = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if whole is not None and whole.dtype == np.uint16 and whole.ndim == 2:
        values = cv2.imdecode(content, cv2.IMREAD_ANYDEPTH)
        return Window.around(values).apply(values)
    if whole is None or whole.shape != (*pixels.shape[:2], 4):
        return pixels
    opaque = whole[..., 3:] / (np.iinfo(whole.dtype).max if whole.dtype.kind == "u" else 1)
    laid: NDArray[np.uint8] = (pixels * opaque + 255 * (1 - opaque)).round().astype(np.uint8)
    return laid


def readable(paths: Iterable[Path]) -> Iterator[tuple[Path, Tensor]]:
    """Each of `paths` that is an image, with what is in it; others are reported and skipped."""
    for path in paths:
        try:
            image = read_image(path)
        except ValueError as error:
            log.warning("skipped %s", error)
            continue
        yield path, image


def images_of(paths: Iterable[Path]) -> Iterator[Tensor]:
    """The images uint8 [3, h, w] of files and folders; of a folder, what is broken is reported and skipped.

    Raises:
        ValueError: one of the files is no image.
    """
    for path in paths:
        if path.is_dir():
            yield from (image for _, image in readable(image_files([path])))
        else:
            yield read_image(path)


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image [h, w, 3], RGB.

    Raises:
        OSError: it cannot be written; names it.
    """
    encoded, content = cv2.imencode(".png", image[..., ::-1])
    assert encoded, "PNG takes any 8-bit picture"
    atomic_write(path, content.tobytes())


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


TORCHVISION = "torchvision:"
"""Begins the name of a torchvision dataset in place of a folder: torchvision:MNIST:FOLDER."""

MOST_PICTURES = 20_000
"""Pictures of a folder or a torchvision dataset that are kept in memory: 8 GB with a side of 320 pixels."""


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of `items` at equal distances, or all if there are fewer."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


class Pictures:
    """The images of a folder (or a list of files) in memory, dealt out as random crops.

    Args:
        paths: folders, searched recursively, files, and torchvision datasets as `torchvision:NAME:FOLDER`.
        size: the shorter side of each image in memory, in pixels.
        hold_out: leave out the files for which `held_out` is true, unless there are no others.

    Of more files than `MOST_PICTURES`, so many at equal distances are taken, with a warning.

    Raises:
        ValueError: not one image could be read. A broken image among good ones is reported and skipped.
    """

    def __init__(self, paths: Sequence[Path | str], size: int, *, hold_out: bool = False) -> None:
        self.images: list[Tensor] = []
        where = ", ".join(map(str, paths))
        datasets = [str(path) for path in paths if str(path).startswith(TORCHVISION)]
        for name in datasets:
            numbered = enumerate(dataset_images(name))
            self.images += [resize_shorter(image, size) for n, image in numbered if not hold_out or n % 10]
        files = image_files([path for path in paths if str(path) not in datasets])
        kept = [path for path in files if not (hold_out and held_out(path))]
        _warn_of_more(where, len(kept))

        def read(path: Path) -> list[Tensor]:
            return [resize_shorter(image, size) for _, image in readable([path])]

        def read_all(paths: Sequence[Path]) -> list[Tensor]:
            with ThreadPoolExecutor() as pool:
                return [image for found in pool.map(read, spread(paths, MOST_PICTURES)) for image in found]

        self.images += read_all(kept)
        if not self.images and len(kept) < len(files):
            self.images = read_all([path for path in files if held_out(path)])
            if self.images:
                log.warning("%s: all pictures there would be held out; they are trained on", where)
        if not self.images:
            others = "" if files or datasets else f": no file there ends in {', '.join(sorted(SUFFIXES))}"
            raise ValueError(f"no images in {where}{others}")

    def __len__(self) -> int:
        return len(self.images)

    def crops(
        self, n: int, size: int, rng: torch.Generator, *, zoom: tuple[float, float] = (0.75, 1.25)
    ) -> Tensor:
        """`n` random square crops, float [n, 3, size, size] in 0..1, zoomed and mirrored at random."""

        def draw() -> Tensor:
            return self.images[int(torch.randint(len(self.images), (), generator=rng))]

        return torch.stack([random_crop(draw(), size, rng, zoom) for _ in range(n)])


def random_crop(image: Tensor, size: int, rng: torch.Generator, zoom: tuple[float, float]) -> Tensor:
    """A square crop of `image` uint8 [3, h, w], float [3, size, size], zoomed and mirrored at random."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng))

    _, height, width = image.shape
    side = min(int(size / uniform(*zoom)), height, width)
    top, left = int(uniform(0, height - side)), int(uniform(0, width - side))
    crop = image[:, top : top + side, left : left + side].float()[None] / 255
    if side != size:
        crop = F.interpolate(crop, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return crop[0].flip(-1) if uniform(0, 1) < 0.5 else crop[0]


def held_out_first(photos: Path | str, n: int, *, others: bool = True) -> list[Tensor]:
    """`n` pictures uint8 [3, h, w] of a folder or a torchvision dataset, what training leaves out first.

    A broken one is reported and skipped.

    Args:
        others: where a folder has less than `n` of these, go on with what training learns from.
    """
    if str(photos).startswith(TORCHVISION):
        return list(islice(dataset_images(str(photos)), 0, 10 * n - 9, 10))
    files = sorted(image_files([photos]), key=lambda path: not held_out(path))
    return [image for _, image in islice(readable(path for path in files if others or held_out(path)), n)]


def _warn_of_more(where: str, count: int) -> None:
    if count > MOST_PICTURES:
        log.warning("%s: %d of its %d pictures are used", where, MOST_PICTURES, count)


def dataset_images(name: str) -> Iterator[Tensor]:
    """The first `MOST_PICTURES` pictures of a torchvision dataset, uint8 [3, h, w], without their labels.

    Args:
        name: `torchvision:NAME:FOLDER`.

    Raises:
        ValueError: torchvision, the dataset or its files are not there. Nothing is downloaded.
    """
    kind, _, folder = name.removeprefix(TORCHVISION).partition(":")
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: it does not fit the torch beside it
        raise ValueError(f'{name} needs pip install "fauve[train]"') from error
    if not isinstance(getattr(datasets, kind, None), type):
        raise ValueError(f"{name}: torchvision.datasets has no {kind!r}; upper and lower case count")
    try:
        dataset = getattr(datasets, kind)(folder)
        _warn_of_more(name, len(dataset))
        for index in range(min(len(dataset), MOST_PICTURES)):
            yield torch.from_numpy(np.array(dataset[index][0].convert("RGB"))).permute(2, 0, 1)
    except Exception as error:  # each dataset has its own: files or packages missing, no pictures in it
        raise ValueError(f"{name}: {error}") from error


class Clips:
    """Pairs of consecutive frames of the videos of a folder, with their motion, dealt out as random crops.

    Args:
        folder: of video files, searched recursively.
        size: shorter side of the frames in memory, in pixels.
        flow: what estimates the motion, see `flow.FLOWS`.
        pairs: of each clip, spread over its first `FRAMES` frames.

    Raises:
        ValueError: there is not one clip of two frames. A broken one among good ones is reported and skipped.
    """

    FRAMES = 600

    def __init__(
        self, folder: Path, size: int, flow: Callable[[Tensor, Tensor], Tensor], *, pairs: int = 24
    ) -> None:
        self._pairs: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for _, frames in readable_clips(video_files(folder), size, pairs, self.FRAMES):
            for before, after in frames:
                place, holds = checked_flow(flow, before, after)
                # How far, and not where: half of the precision is enough for that.
                self._pairs.append((before, after, (place - pixels(*place.shape[:2])).half(), holds))
        if not self._pairs:
            raise ValueError(f"no clips of two frames or more in {folder}")

    def __len__(self) -> int:
        return len(self._pairs)

    def crops(self, n: int, size: int, rng: torch.Generator) -> Pair:
        """`n` random square crops of pairs of frames, mirrored at random."""

        def below(high: int) -> int:
            return int(torch.randint(high, (), generator=rng))

        crops = []
        for _ in range(n):
            before, after, displacement, holds = self._pairs[below(len(self._pairs))]
            height, width = before.shape[-2:]
            top, left = below(height - size + 1), below(width - size + 1)
            rows, columns = slice(top, top + size), slice(left, left + size)
            grid = normalised(displacement[rows, columns].float() + pixels(size, size), size, size)
            first, second = (frame[:, rows, columns].float() / 255 for frame in (before, after))
            mask = holds[None, rows, columns] & (grid.abs() <= 1).all(-1)
            if below(2):
                grid = grid.flip(1) * torch.tensor([-1.0, 1.0])
                first, second, mask = first.flip(-1), second.flip(-1), mask.flip(-1)
            brighter = luminance_change(second[None], warp(first[None], grid[None]))[0]
            crops.append((first, second, grid, mask.float(), brighter))
        return Pair(*(torch.stack(values) for values in zip(*crops, strict=True)))


def video_files(folder: Path) -> list[Path]:
    """The videos of a folder, searched recursively by suffix, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)


def readable_clips(
    paths: Iterable[Path], size: int, pairs: int, frames: int
) -> Iterator[tuple[Path, list[tuple[Tensor, Tensor]]]]:
    """Each of `paths` that is a video, with its `consecutive_frames`; others are reported and skipped."""
    for path in paths:
        try:
            found = consecutive_frames(path, size, pairs, frames)
        except OSError as error:
            log.warning("skipped %s", error)
            continue
        yield path, found


def clip_frames(folder: Path, size: int, n: int) -> list[tuple[Tensor, Tensor]]:
    """`n` pairs of consecutive frames to look at, uint8 [3, h, w], of the first `n` videos of `folder`.

    Raises:
        ValueError: there is not one clip of two frames.
    """
    clips = (pairs for _, pairs in readable_clips(video_files(folder), size, n, 48) if pairs)
    found = [pair for pairs in islice(clips, n) for pair in pairs]
    if not found:
        raise ValueError(f"no clips of two frames or more in {folder}")
    return found[:: max(1, len(found) // n)][:n]


def consecutive_frames(path: Path, size: int, pairs: int, frames: int) -> list[tuple[Tensor, Tensor]]:
    """`pairs` pairs of consecutive frames of the first `frames` of a video, uint8 [3, h, w].

    Each has its shorter side scaled to `size` pixels.

    Raises:
        SourceError: it is no video.
    """
    with FileSource(path, audio=False) as source:
        images = [
            resize_shorter(torch.from_numpy(np.ascontiguousarray(item.image)).permute(2, 0, 1), size)
            for item in islice((item for item in source if isinstance(item, Frame)), frames)
        ]
    starts = np.unique(np.linspace(0, len(images) - 2, pairs).round().astype(int)) if len(images) > 1 else []
    return [(images[start], images[start + 1]) for start in starts]


def image_files(paths: Sequence[Path | str]) -> list[Path]:
    """The images among `paths`: files as they are, folders searched recursively by suffix, sorted."""
    files: list[Path] = []
    for path in map(Path, paths):
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
