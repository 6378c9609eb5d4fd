"""A render in parts that outlive it: encoded pictures, kept until they are joined into one file.

A part is a closed group of pictures, encoded by itself. Every render is made of them, on a fixed grid of
frames, so that one which was killed and resumed, or was made by several processes, has the same pictures as
one that ran undisturbed.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import av
import av.error
from filelock import FileLock, Timeout

from engines.atomic_write import atomic_write
from pipeline.errors import SinkError
from pipeline.frame import Frame, VideoInfo
from pipeline.sinks import Sink
from pipeline.sinks.container import Container
from pipeline.sinks.encoders import Encoding, VideoEncoder
from pipeline.sinks.file import beside, refuse_missing_folder

GRID = 120
"""Frames in a part: what is lost when a render is killed, against what a key frame costs."""

JOURNAL = "journal.json"
"""What a render was asked for."""


@dataclass(frozen=True)
class Part:
    """A finished part: a file of packets back to back, and beside it this."""

    path: Path
    """Of the packets."""
    packets: tuple[tuple[int, int, int, bool], ...]
    """Pts, duration, size in bytes and whether it is a key frame, in the order of decoding."""
    header: str
    """What a decoder must know first, in hexadecimal."""

    @property
    def first(self) -> int:
        """The pts of the frame that is shown first."""
        return min(pts for pts, *_ in self.packets)

    @property
    def last(self) -> int:
        """The pts of the frame that is shown last."""
        return max(pts for pts, *_ in self.packets)


class Parts:
    """The folder that holds the parts of one render, beside its output.

    Args:
        output: the file that they will be joined into.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = beside(output, ".parts")
        self._lock = FileLock(self.folder / "lock")

    def __reduce__(self) -> tuple[type["Parts"], tuple[Path]]:
        # In another process it is a place to write to; the lock stays here.
        return Parts, (self.output,)

    @property
    def joined(self) -> Path:
        """Where the parts are joined, before the file gets its name."""
        return self.folder / f"joined{self.output.suffix}"

    def begin(self, journal: Mapping[str, Any], *, resume: bool, force: bool) -> None:
        """Make the folder, or go on with the one that an earlier run left.

        Args:
            journal: what is asked for; the parts of another render are not taken over.
            resume: go on.
            force: begin anew where an earlier run left parts.

        Raises:
            SinkError: an earlier run left parts and neither is given, or they are of another render; or the
                folder cannot be made.
        """
        refuse_missing_folder(self.output)
        try:
            self.folder.mkdir(exist_ok=True)
            self._acquire()
            done = sum(len(part.packets) for part in self)
            if done and resume:
                check_journal(self.folder / JOURNAL, journal, self.output)
                self.joined.unlink(missing_ok=True)
            elif done and not force:
                raise SinkError(
                    f"{self.output}: an earlier run has painted {done} frames; --resume goes on from there, "
                    "--force starts over"
                )
            else:
                for path in self.folder.glob("*.*"):
                    path.unlink()
                write_journal(self.folder / JOURNAL, journal)
        except SinkError:
            self.end()
            raise
        except OSError as error:
            self.end()
            raise SinkError(f"{self.output}: cannot be written: {error.strerror}") from error

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise SinkError(f"{self.output}: another run is writing it") from None
        except OSError as error:
            raise SinkError(f"{self.output}: cannot be written: {error.strerror}") from error

    def replacing(self) -> int:
        """How many frames are painted of what was to replace the output; what a finished run left is removed.

        Raises:
            SinkError: another run is writing it.
        """
        if not self.folder.exists():
            return 0
        self._acquire()
        try:
            journal = self.folder / JOURNAL
            begun = journal.exists() and journal.stat().st_mtime_ns > self.output.stat().st_mtime_ns
            done = sum(len(part.packets) for part in self) if begun else 0
            if not done:
                self.remove()
            return done
        finally:
            self.end()

    def __iter__(self) -> Iterator[Part]:
        """The finished parts, in the order in which they are shown."""
        found = []
        for path in self.folder.glob("*.json"):
            if path.name != JOURNAL:
                content = json.loads(path.read_text())
                packets = tuple(tuple(packet) for packet in content["packets"])
                found.append(Part(path.with_suffix(".packets"), packets, content["header"]))
        return iter(sorted(found, key=lambda part: part.first))

    def add(self, name: str, packets: bytes, listed: Mapping[str, Any]) -> None:
        """Take over a finished part that was made elsewhere.

        Raises:
            SinkError: it cannot be written.
        """
        try:
            atomic_write(self.folder / f"{name}.packets", packets)
            atomic_write(self.folder / f"{name}.json", json.dumps(listed).encode())
        except OSError as error:
            raise SinkError(f"{self.output}: cannot be written: {error.strerror}") from error

    def end(self) -> None:
        """Let others have the folder; the parts stay."""
        self._lock.release()

    def remove(self) -> None:
        """Delete the folder and what is in it."""
        self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)


class PartSink(Sink):
    """Encodes frames into parts.

    Args:
        parts: whose folder it writes to; others may write other frames there at the same time.
        info: of the frames.
        encoding: the same for all parts of a render.
    """

    def __init__(self, parts: Parts, info: VideoInfo, encoding: Encoding) -> None:
        self._parts = parts
        self._info = info
        self._encoding = encoding
        self._encoder: VideoEncoder | None = None
        self._last_pts: int | None = None

    def write(self, frame: Frame) -> None:
        """Encode one frame with its pts."""
        if self._last_pts is not None and frame.pts <= self._last_pts:
            raise SinkError(
                f"{self._parts.output}: the source goes back in time (pts {frame.pts} after {self._last_pts})"
            )
        self._last_pts = frame.pts
        try:
            if self._encoder is None:
                encoder = VideoEncoder(self._encoding, self._info)
                self._name = self._parts.folder / str(frame.pts)
                self._file = open(self._name.with_suffix(".packets"), "wb")  # noqa: SIM115  closed by _finish
                self._packets: list[tuple[int, int, int, bool]] = []
                self._frames = 0
                self._encoder = encoder
            self._keep(self._encoder.encode(frame))
            self._frames += 1
            if self._frames == GRID:
                self._finish()
        except av.error.FFmpegError as error:
            raise SinkError(
                f"{self._parts.output}: {self._encoding} refuses {self._info.width}x{self._info.height}: "
                f"{error.strerror}"
            ) from error
        except OSError as error:
            raise SinkError(f"{self._parts.output}: cannot be written: {error.strerror}") from error

    def _keep(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            self._file.write(bytes(packet))
            self._packets.append((packet.pts, packet.duration, packet.size, packet.is_keyframe))

    def _finish(self) -> None:
        if self._encoder is None:
            return
        self._keep(self._encoder.flush())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        # The packets count from the moment this is there, whatever is killed.
        content = {"header": self._encoder.header.hex(), "packets": self._packets}
        atomic_write(self._name.with_suffix(".json"), json.dumps(content).encode())
        self._encoder = None

    def mux(self, packet: Any) -> None:
        """Other tracks are not of the parts; they are muxed when these are joined."""

    def close(self) -> None:
        """Finish the last part."""
        try:
            self._finish()
        except OSError as error:
            raise SinkError(f"{self._parts.output}: cannot be written: {error.strerror}") from error

    def abort(self) -> None:
        """Leave the finished parts, and forget the one that was begun."""
        if self._encoder is not None:
            # What is still to be written has no room on a full disk; a disk that fails becomes read-only.
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                self._name.with_suffix(".packets").unlink(missing_ok=True)


def join(parts: Sequence[Part], container: Container, packets: Iterable[Any], info: VideoInfo) -> None:
    """Write `parts` into `container`, and between them the `packets` of other tracks, by time.

    Raises:
        SinkError: the parts are not of the encoder that `container` was made for, or it cannot be written.
    """
    header = bytes(container.context.extradata or b"").hex()
    if any(part.header != header for part in parts):
        raise SinkError(
            f"{container.path}: the earlier run had another version of the encoder; --force starts over"
        )
    pictures = one_stream(parts, info.time_base, max(1, round(1 / (info.rate * info.time_base))))
    picture = next(pictures, None)
    for packet in packets:
        at = packet.pts if packet.dts is None else packet.dts
        while (
            picture is not None and at is not None and picture.dts * info.time_base <= at * packet.time_base
        ):
            container.write([picture])
            picture = next(pictures, None)
        container.mux(packet)
    if picture is not None:
        container.write(chain([picture], pictures))


def one_stream(parts: Sequence[Part], time_base: Fraction, step: int) -> Iterator[Any]:
    """The packets of `parts` as one stream.

    The encoder of each part counted dts for itself. Here they are given anew: each packet is decoded when
    the frame is shown that lies as many frames back as any packet comes early, and the first ones that many
    steps before the beginning. So pts stay, dts rise, and no packet is shown before it is decoded.

    Each frame lasts until the next one is shown, and the last one as long as it was told: what .mp4 tells of
    the others is in the order of decoding.

    Args:
        time_base: of the times in `parts`.
        step: the usual duration of a frame.
    """
    early = 0
    for times in map(_times, parts):
        rank = {pts: number for number, pts in enumerate(sorted(times))}
        early = max(early, *(number - rank[pts] for number, pts in enumerate(times)))
    shown = list(chain.from_iterable(sorted(_times(part)) for part in parts))
    following = dict(pairwise(shown))
    start = parts[0].first if parts else 0
    before = (start - (early - number) * step for number in range(early))
    decoded = chain(before, shown)
    for part in parts:
        with open(part.path, "rb") as file:
            for pts, duration, size, key in part.packets:
                packet = av.Packet(file.read(size))
                packet.pts, packet.dts = pts, next(decoded)
                packet.duration = following[pts] - pts if pts in following else duration
                packet.time_base, packet.is_keyframe = time_base, key
                yield packet


def _times(part: Part) -> list[int]:
    return [pts for pts, *_ in part.packets]


def write_journal(path: Path, journal: Mapping[str, Any]) -> None:
    """Keep what a render was asked for.

    Raises:
        OSError: it cannot be written.
    """
    atomic_write(path, json.dumps(journal, indent=2).encode())


def check_journal(path: Path, journal: Mapping[str, Any], output: Path) -> None:
    """Make sure that an earlier run was asked for the same.

    Args:
        path: of what that run kept.
        output: what a message is about.

    Raises:
        SinkError: it was asked for something else.
        OSError: it has kept nothing.
    """
    before = json.loads(path.read_text())
    # Through JSON, where there are no tuples.
    wanted = json.loads(json.dumps(journal))
    other = [key for key in wanted if wanted[key] != before.get(key)]
    if other:
        told = ", ".join(f"{key} {before.get(key)!r} and not {wanted[key]!r}" for key in other)
        raise SinkError(f"{output}: the earlier run had {told}; give the same, or --force")
