"""Video files, encoded by x264 and muxed by PyAV."""

import contextlib
import logging
import os
import secrets
from pathlib import Path
from typing import Any

import av
import av.error
from av.codec.context import Flags

from pipeline.colour import to_yuv
from pipeline.errors import SinkError
from pipeline.frame import Frame, VideoInfo

log = logging.getLogger("fauve")

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""FFmpeg's muxer by the end of the name: files that hold H.264 and most sound that comes with it."""

OPTIONS = {
    # The index comes first, so that a player on the web can begin before it has all.
    "mp4": {"movflags": "+faststart"},
    "mov": {"movflags": "+faststart"},
    # AAC begins before 0; the muxer would move picture and sound by that much.
    "matroska": {"avoid_negative_ts": "disabled"},
}
"""Options of the muxers."""


class FileSink:
    """A video file that appears under its name when it is complete, and not before.

    Args:
        path: ends with a key of `FORMATS`.
        info: of the source.
        crf: x264's constant rate factor, 0 (lossless) to 51; 18 cannot be told from the painting.
        preset: of x264, "ultrafast" to "veryslow".
        force: replace a file that is there.

    Raises:
        SinkError: there is a file already, the folder is not there or may not be written to, or the
            container cannot hold the sound.
    """

    def __init__(
        self,
        path: str | Path,
        info: VideoInfo,
        *,
        crf: int = 18,
        preset: str = "veryfast",
        force: bool = False,
    ) -> None:
        self.path = Path(path)
        self._force = force
        self._colour = info.colour
        self._last_pts: int | None = None
        if self.path.suffix.lower() not in FORMATS:
            raise SinkError(f"{path}: the name of an output ends with {', '.join(FORMATS)}")
        if self.path.is_dir():
            raise SinkError(f"{path}: a folder is there; give the name of a file")
        self._refuse_existing()
        self._temporary = self.path.with_name(f".{self.path.stem}.{secrets.token_hex(4)}{self.path.suffix}")
        try:
            self._temporary.touch(exist_ok=False)
        except FileNotFoundError as error:
            raise SinkError(f"{path}: there is no folder {self.path.parent}") from error
        except OSError as error:
            raise SinkError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            self._open(info, crf, preset)
        except BaseException:
            self.abort()
            raise

    def _refuse_existing(self) -> None:
        if self.path.exists() and not self._force:
            raise SinkError(
                f"{self.path}: there is a file already; give another name, or --force to replace it"
            )

    def _open(self, info: VideoInfo, crf: int, preset: str) -> None:
        muxer = FORMATS[self.path.suffix.lower()]
        name = f"file:{self._temporary}"
        self._container: Any = av.open(name, "w", format=muxer, options=OPTIONS[muxer])
        self._video: Any = self._container.add_stream("libx264", rate=info.rate)
        odd = info.width % 2 or info.height % 2
        if odd:
            log.warning(
                "%s: %dx%d is odd, so that it is written as 4:4:4, which some players cannot show",
                self.path,
                info.width,
                info.height,
            )
        context = self._video.codec_context
        context.width, context.height = info.width, info.height
        context.pix_fmt = "yuv444p" if odd else "yuv420p"
        context.time_base = self._video.time_base = info.time_base
        context.sample_aspect_ratio = info.sample_aspect_ratio
        context.colorspace, context.color_range = info.colour.matrix, info.colour.range
        context.color_primaries, context.color_trc = info.colour.primaries, info.colour.transfer
        context.flags |= Flags.frame_duration
        context.options = {"crf": str(crf), "preset": preset}
        self._tracks: dict[int, Any] = {}
        supported = self._container.supported_codecs
        for track in info.tracks:
            if track.codec not in supported:
                raise SinkError(
                    f"{self.path}: a {self.path.suffix} file cannot hold {track.codec} {track.kind}; "
                    f"write a .mkv, or leave the sound out with --no-audio"
                )
            stream = self._container.add_stream_from_template(track.template)
            stream.metadata.update(track.template.metadata)
            stream.disposition = track.template.disposition
            self._tracks[track.index] = stream
        self._container.metadata.update(info.metadata)

    def write(self, frame: Frame) -> None:
        """Encode one frame with its pts."""
        picture = to_yuv(frame.image, self._colour)
        picture.pts, picture.time_base, picture.duration = frame.pts, frame.time_base, frame.duration
        if self._last_pts is not None and frame.pts <= self._last_pts:
            raise SinkError(
                f"{self.path}: the source goes back in time (pts {frame.pts} after {self._last_pts})"
            )
        self._last_pts = frame.pts
        self._mux(self._video.encode(picture))

    def mux(self, packet: Any) -> None:
        """Copy a packet of another track."""
        packet.stream = self._tracks[packet.stream_index]
        self._mux(packet)

    def _mux(self, packets: Any) -> None:
        try:
            self._container.mux(packets)
        except av.error.FFmpegError as error:
            raise SinkError(f"{self.path}: cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Finish the file and give it its name."""
        try:
            self._mux(self._video.encode(None))
            self._container.close()
        except av.error.FFmpegError as error:
            raise SinkError(f"{self.path}: cannot be finished: {error.strerror}") from error
        self._refuse_existing()
        try:
            os.replace(self._temporary, self.path)
        except OSError as error:
            raise SinkError(f"{self.path}: cannot be put in place: {error.strerror}") from error

    def abort(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(Exception):
            self._container.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)
