"""Video files, encoded while frames come and in place when they are complete."""

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

import av.error

from pipeline.errors import SinkError
from pipeline.frame import Frame, VideoInfo
from pipeline.sinks import Sink
from pipeline.sinks.container import DEFAULT_CODEC, Container, muxer_of
from pipeline.sinks.encoders import VideoEncoder, choose

LONGEST_NAME = 255
"""Bytes of a file's name, on every system that is in use."""


class FileSink(Sink):
    """A video file that appears under its name when it is complete, and not before.

    Args:
        path: its end tells the kind of file; "-" writes Matroska to standard output.
        info: of the source, which must still be open.
        codec: a key of `ENCODERS`; None takes the container's usual one.
        crf: constant rate factor, smaller is better and larger; None takes the codec's default.
        preset: effort, in the words of the encoder; None takes the codec's default.
        pixels: FFmpeg's name of a pixel format; None takes what suits the picture.
        force: replace a file that is there.
        mark: what the file tells of how it was painted, as `Container` takes it.

    Raises:
        SinkError: there is a file already, the folder is not there or may not be written to, or the
            container or the encoder refuses what it is given.
    """

    def __init__(
        self,
        path: str | Path,
        info: VideoInfo,
        *,
        codec: str | None = None,
        crf: int | None = None,
        preset: str | None = None,
        pixels: str | None = None,
        force: bool = False,
        mark: str | None = None,
    ) -> None:
        self.path = Path(path)
        self._force = force
        self._last_pts: int | None = None
        muxer = muxer_of(self.path)
        name = codec or DEFAULT_CODEC.get(muxer, "h264")
        encoding = choose(name, info, muxer=muxer, crf=crf, preset=preset, pixels=pixels)
        self._temporary: Path | None = None if str(path) == "-" else self._make_temporary()
        try:
            self._container = Container(self.path, self._temporary, info, encoding, mark)
            self._encoder = VideoEncoder(encoding, info, self._container.context)
        except BaseException:
            self._remove_temporary()
            raise

    def _make_temporary(self) -> Path:
        refuse_existing(self.path, self._force)
        refuse_missing_folder(self.path)
        temporary = beside(self.path, f".{secrets.token_hex(4)}{self.path.suffix}")
        try:
            temporary.touch(exist_ok=False)
        except OSError as error:
            raise SinkError(f"{self.path}: cannot be written: {error.strerror}") from error
        return temporary

    def write(self, frame: Frame) -> None:
        """Encode one frame with its pts."""
        if self._last_pts is not None and frame.pts <= self._last_pts:
            raise SinkError(
                f"{self.path}: the source goes back in time (pts {frame.pts} after {self._last_pts})"
            )
        if self._shown_twice(frame):
            raise SinkError(
                f"{self.path}: two pictures come within a hundredth of a second, which a .gif cannot "
                "show; give --fps, such as --fps 25"
            )
        self._last_pts = frame.pts
        self._container.write(self._encoder.encode(frame))

    def _shown_twice(self, frame: Frame) -> bool:
        """Whether this picture and the one before it have one time, in a format of hundredths of a second."""
        if self._last_pts is None or muxer_of(self.path) != "gif":
            return False
        times = (pts * frame.time_base * 100 for pts in (self._last_pts, frame.pts))
        return len({round(time) for time in times}) < 2

    def mux(self, packet: Any) -> None:
        """Copy or re-encode a packet of another track."""
        self._container.mux(packet)

    def close(self) -> None:
        """Finish the file and give it its name."""
        try:
            self._container.write(self._encoder.flush())
        except av.error.FFmpegError as error:
            raise SinkError(f"{self.path}: cannot be finished: {error.strerror}") from error
        self._container.close()
        if self._temporary is not None:
            put_in_place(self._temporary, self.path, self._force)

    def abort(self) -> None:
        """Remove what was written."""
        self._container.abort()
        self._remove_temporary()

    def _remove_temporary(self) -> None:
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)


def beside(path: Path, suffix: str) -> Path:
    """A hidden name for what is kept beside `path` while it is made, short enough for a file system."""
    name = os.fsencode(path.name)
    if len(name) + len(suffix) + 1 > LONGEST_NAME:
        return path.with_name(f".{hashlib.sha256(name).hexdigest()[:32]}{suffix}")
    return path.with_name(f".{path.name}{suffix}")


def refuse_existing(path: Path, force: bool) -> None:
    """Keep what is at `path`, unless `force` lets it be replaced.

    Raises:
        SinkError: something is there.
    """
    if path.is_dir():
        raise SinkError(f"{path}: a folder is there; give the name of a file")
    if path.exists() and not force:
        raise SinkError(f"{path}: there is a file already; give another name, or --force to replace it")


def refuse_missing_folder(path: Path) -> None:
    """Make sure that the folder of `path` is there before anything is painted.

    Raises:
        SinkError: it is not.
    """
    if not path.parent.is_dir():
        raise SinkError(f"{path}: there is no folder {path.parent}")


def put_in_place(temporary: Path, path: Path, force: bool) -> None:
    """Give a finished file its name, once a power cut can no longer empty it.

    Raises:
        SinkError: another file has come there meanwhile, or it cannot be renamed.
    """
    refuse_existing(path, force)
    try:
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise SinkError(f"{path}: cannot be put in place: {error.strerror}") from error
    # The name must last, too, before what the file was made of goes; Windows opens no folders.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
