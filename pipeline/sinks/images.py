"""Pictures: one for a video of one frame, or a numbered one for each frame."""

import contextlib
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SinkError
from pipeline.frame import Frame
from pipeline.sinks import Sink
from pipeline.sinks.file import beside, put_in_place, refuse_existing, refuse_missing_folder
from pipeline.sinks.parts import check_journal, write_journal
from pipeline.sources.demuxer import NUMBER, is_sequence, numbered

log = logging.getLogger("fauve")

Pixels = NDArray[Any]


def _sixteen_bits(image: Pixels) -> Pixels:
    return image.astype(np.uint16) * 257


def _as_it_is(image: Pixels) -> Pixels:
    return image


FORMATS: dict[str, tuple[str, bool, Callable[[Pixels], Pixels], list[int]]] = {
    ".png": (".png", True, _as_it_is, []),
    ".jpg": (".jpg", False, _as_it_is, [cv2.IMWRITE_JPEG_QUALITY, 95]),
    ".jpeg": (".jpg", False, _as_it_is, [cv2.IMWRITE_JPEG_QUALITY, 95]),
    ".tif": (".tiff", True, _sixteen_bits, []),
    ".tiff": (".tiff", True, _sixteen_bits, []),
    ".webp": (".webp", True, _as_it_is, [cv2.IMWRITE_WEBP_QUALITY, 95]),
}
"""By the end of the name: OpenCV's format, whether it holds an alpha, its samples, and its settings."""


def writes_images(path: Path) -> bool:
    """Whether an output of that name is a picture or a sequence of them, and not a video or an animation."""
    suffix = path.suffix.lower()
    return suffix in FORMATS and (suffix != ".webp" or NUMBER.search(path.name) is not None)


def holds_alpha(path: Path) -> bool:
    """Whether a picture of that name can be transparent."""
    return FORMATS[path.suffix.lower()][1]


def image_path(path: Path, number: int) -> Path:
    """The name of picture `number`, from 1, in the sequence `path`; `path` itself if it has no number."""

    def zeros(found: re.Match[str]) -> str:
        return f"{number:0{int(found[0][1:-1] or 0)}d}"

    return path.with_name(NUMBER.sub(zeros, path.name, count=1))


def images_done(path: Path, journal: Mapping[str, Any]) -> int:
    """How many pictures of the sequence `path` an earlier run has painted, from the first on without a gap.

    Args:
        journal: what is asked for now.

    Raises:
        SinkError: that run was asked for something else, or does not tell what it was asked for.
    """
    done = 0
    kept = journal_path(path)
    # What is older than the journal is of another run, which --force let this one replace.
    begun = kept.stat().st_mtime_ns if kept.exists() else None
    while is_sequence(path) and (picture := image_path(path, done + 1)).exists():
        if begun is not None and picture.stat().st_mtime_ns < begun:
            break
        done += 1
    if done and begun is None:
        raise SinkError(
            f"{path}: {done} pictures are there, and nothing tells what they were painted with; --force "
            "starts over"
        )
    if done:
        check_journal(kept, journal, path)
    return done


def journal_path(path: Path) -> Path:
    """Where it is kept what the pictures of the sequence `path` depend on."""
    return beside(path, ".json")


class ImageSink(Sink):
    """Writes each frame as a picture, which gets its name when it is complete.

    One picture alone gets it at the end: a video that has more frames leaves nothing.

    Args:
        path: of one picture, or of a sequence, such as frame%05d.png.
        journal: what the pictures depend on; kept beside those of a sequence for whoever goes on.
        done: pictures of the sequence that are there already, and stay.
        force: replace others that are there.

    Raises:
        SinkError: there is one already, or the folder is not there or may not be written to.
    """

    def __init__(self, path: Path, journal: Mapping[str, Any], *, done: int = 0, force: bool = False) -> None:
        self.path = path
        self._number = done
        self._force = force
        self._sequence = NUMBER.search(path.name) is not None
        self._temporary = beside(path, ".writing")
        refuse_missing_folder(path)
        if not self._sequence:
            refuse_existing(path, force)
            return
        for number in numbered(path) if not done else ():
            refuse_existing(image_path(path, number), force)
        try:
            if not done:
                write_journal(journal_path(path), journal)
            self._begun = journal_path(path).stat().st_mtime_ns
        except OSError as error:
            raise SinkError(f"{path}: cannot be written: {error.strerror}") from error

    def write(self, frame: Frame) -> None:
        """Write one frame."""
        self._number += 1
        if self._number > 1 and not self._sequence:
            raise SinkError(
                f"{self.path}: the video has more frames than one; {self.path.stem}%05d{self.path.suffix} "
                "writes them all"
            )
        path = image_path(self.path, self._number)
        # One that was there when the sequence was begun is replaced by --force, also of an earlier run.
        if self._sequence and path.exists() and path.stat().st_mtime_ns >= self._begun:
            refuse_existing(path, self._force)
        kind, transparent, samples, settings = FORMATS[path.suffix.lower()]
        pixels: Pixels = frame.image[..., ::-1]
        if transparent and frame.alpha is not None:
            alpha = frame.alpha
            if alpha.shape != pixels.shape[:2]:
                alpha = cv2.resize(alpha, (pixels.shape[1], pixels.shape[0]), interpolation=cv2.INTER_AREA)
            pixels = np.dstack([pixels, alpha])
        encoded, content = cv2.imencode(kind, samples(pixels), settings)
        if not encoded:
            raise SinkError(f"{path}: {pixels.shape[1]}x{pixels.shape[0]} is too large for {path.suffix}")
        try:
            self._temporary.write_bytes(content.tobytes())
        except OSError as error:
            self.abort()
            raise SinkError(f"{path}: cannot be written: {error.strerror}") from error
        if self._sequence:
            put_in_place(self._temporary, path, force=True)

    def mux(self, packet: Any) -> None:
        """Pictures have no other tracks."""

    def close(self) -> None:
        """Give one picture alone its name; those of a sequence have theirs.

        Raises:
            SinkError: it cannot be had there.
        """
        if self._sequence:
            left = [number for number in numbered(self.path) if number > self._number]
            if left:
                log.warning(
                    "%s: numbers from %d on are another run's; this one has %d",
                    *(self.path, left[0], self._number),
                )
        elif self._number:
            put_in_place(self._temporary, self.path, self._force)

    def abort(self) -> None:
        """Remove what is not complete; the pictures of a sequence that are there stay."""
        # A disk that is read-only refuses to remove even what is not there.
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)
