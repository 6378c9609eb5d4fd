"""A recording of what happens: a file that can be played at any moment, also after a crash."""

import secrets
from pathlib import Path
from typing import Any

from pipeline.errors import SinkError
from pipeline.frame import Frame, VideoInfo
from pipeline.sinks import Sink
from pipeline.sinks.file import beside, refuse_existing
from pipeline.sinks.muxer import LiveEncoding, Muxer

FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    # A cluster every second, written at once.
    ".mkv": ("matroska", {"cluster_time_limit": "1000", "flush_packets": "1"}),
    ".ts": ("mpegts", {"flush_packets": "1"}),
    # Its header waits for the first fragment: written before, it places the first pictures wrongly where some
    # were dropped.
    ".mp4": (
        "mp4",
        {"movflags": "frag_keyframe+delay_moov+default_base_moof", "flush_packets": "1"},
    ),
}
"""FFmpeg's muxers that leave a playable file behind when they are killed, and how."""


LONGEST, LARGEST = 64, 400_000_000
"""Frames that wait at most, and their bytes: 64 of 4K would take 1.6 GB, and more time at the end than there
is."""


class RecordingSink(Sink):
    """Every painted frame in a file, through a queue deep enough for a disk that is busy for a second.

    Args:
        path: .mkv, .mp4 or .ts; written under its name from the beginning, as a recording is.
        force: replace a file that is there; until the first frame comes it is kept beside, and put back if
            none does.

    Raises:
        SinkError: there is a file already, or it cannot be written.
    """

    def __init__(self, path: Path, info: VideoInfo, *, force: bool = False) -> None:
        self.name = str(path)
        self.waiting = max(2, min(LONGEST, LARGEST // (info.width * info.height * 3)))
        if path.suffix.lower() not in FORMATS:
            raise SinkError(f"{path}: a recording ends with {', '.join(FORMATS)}")
        self._path = path.resolve()
        self._empty = True
        self._earlier: Path | None = None
        muxer, options = FORMATS[path.suffix.lower()]
        encoding = LiveEncoding(latency=False, bits=40_000_000)
        try:
            there = path.is_file()
        except OSError as error:  # such as a name that is too long
            raise SinkError(f"{path}: cannot be written: {error.strerror}") from error
        refuse_existing(path, force)
        if not path.parent.is_dir():
            raise SinkError(f"{path}: there is no folder {path.parent}")
        try:
            if there:
                self._earlier = self._path.rename(beside(self._path, f".{secrets.token_hex(4)}.earlier"))
        except OSError as error:
            raise SinkError(f"{path}: cannot be replaced: {error.strerror}") from error
        try:
            self._muxer = Muxer(self.name, f"file:{path}", muxer, info, encoding, **options)
        except BaseException:
            self._put_back()
            raise

    def write(self, frame: Frame) -> None:
        """Record one frame."""
        if self._empty and self._earlier is not None:
            self._earlier.unlink(missing_ok=True)
            self._earlier = None
        self._empty = False
        self._muxer.write(frame)

    def mux(self, packet: Any) -> None:
        """Record a piece of sound."""
        self._muxer.mux(packet)

    def close(self) -> None:
        """Finish the file."""
        if self._empty:
            self.abort()
            return
        self._muxer.close()
        # FFmpeg does not say that the last pictures of an .mp4, which it writes at the end, had no room.
        try:
            written = self._path.stat().st_size
        except OSError as error:
            raise SinkError(f"{self.name}: what was recorded is lost: {error.strerror}") from error
        if written < self._muxer.size:
            missing = "the last seconds are missing" if written else "nothing was recorded"
            raise SinkError(f"{self.name}: {missing}: the disk is full")

    def abort(self) -> None:
        """Leave what was recorded: it can be played."""
        self._muxer.abort()
        if self._empty or (self._path.is_file() and not self._path.stat().st_size):
            self._put_back()

    def _put_back(self) -> None:
        """Leave things as they were."""
        if self._path.is_file():
            self._path.unlink()
        if self._earlier is not None:
            self._earlier.rename(self._path)
