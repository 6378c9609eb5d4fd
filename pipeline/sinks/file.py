"""Video files: encoded and muxed by FFmpeg through PyAV, in place when they are complete."""

import contextlib
import logging
import math
import os
import secrets
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.codec.context import Flags

from pipeline.colour import to_yuv
from pipeline.encoders import ENCODERS, Encoder
from pipeline.errors import SinkError
from pipeline.frame import Frame, Track, VideoInfo
from pipeline.sinks.tracks import CopiedTrack, ReencodedTrack, describe

log = logging.getLogger("fauve")

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""FFmpeg's muxer by the end of the name."""

DEFAULT_CODEC = {"webm": "vp9"}
"""What a muxer gets if no codec is chosen; h264 where nothing is said."""

SOUND_CODEC = {"webm": "libopus"}
"""What sound is re-encoded to where the muxer cannot hold it as it is; aac where nothing is said."""

PRE_ROLL = Fraction(1, 20)
"""Seconds of sound before the beginning that are kept where no edit list can hide it: what a decoder needs to
warm up, and no more."""

OPTIONS = {
    # The index comes first, so that a player on the web can begin before it has all.
    "mp4": {"movflags": "+faststart"},
    "mov": {"movflags": "+faststart"},
    # AAC begins before 0; the muxer would move picture and sound by that much.
    "matroska": {"avoid_negative_ts": "disabled"},
    "webm": {"avoid_negative_ts": "disabled"},
}
"""Options of the muxers."""

COVER_FILES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
"""How Matroska attaches a cover."""


class FileSink:
    """A video file that appears under its name when it is complete, and not before.

    Tracks beside the picture are copied; sound that the container cannot hold is re-encoded, other tracks
    that it cannot hold are left out, and either is said in a warning.

    Args:
        path: ends with a key of `FORMATS`; "-" writes Matroska to standard output.
        info: of the source, which must still be open.
        codec: a key of `ENCODERS`; None takes the container's usual one.
        crf: constant rate factor, smaller is better and larger; None takes the codec's default.
        preset: effort, in the words of the encoder; None takes the codec's default.
        force: replace a file that is there.

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
        force: bool = False,
    ) -> None:
        self.path = Path(path)
        self._force = force
        self._colour = info.colour
        self._first_pts: int | None = None
        self._last_pts: int | None = None
        self._end_pts = 0
        self._first_dts: int | None = None
        self._last_packet: Any = None
        self._piped = str(path) == "-"
        suffix = ".mkv" if self._piped else self.path.suffix.lower()
        if suffix not in FORMATS:
            raise SinkError(f"{path}: the name of an output ends with {', '.join(FORMATS)}")
        if self.path.is_dir():
            raise SinkError(f"{path}: a folder is there; give the name of a file")
        self._muxer = FORMATS[suffix]
        name = codec or DEFAULT_CODEC.get(self._muxer, "h264")
        if name not in ENCODERS:
            raise SinkError(f"no codec {name!r}; there is {', '.join(ENCODERS)}")
        self._encoder = ENCODERS[name]
        settings = self._encoder.settings(name, crf, preset)
        self._temporary: Path | None = None if self._piped else self._make_temporary()
        try:
            self._open(info, settings)
        except av.error.FFmpegError as error:
            self.abort()
            chosen = " ".join(f"{key}={value}" for key, value in settings.items())
            raise SinkError(
                f"{path}: {self._encoder.name} or the {self._muxer} muxer refuses "
                f"{info.width}x{info.height} with {chosen or 'its defaults'}: {error.strerror}"
            ) from error
        except BaseException:
            self.abort()
            raise

    def _make_temporary(self) -> Path:
        self._refuse_existing()
        temporary = self.path.with_name(f".{self.path.stem}.{secrets.token_hex(4)}{self.path.suffix}")
        try:
            temporary.touch(exist_ok=False)
        except FileNotFoundError as error:
            raise SinkError(f"{self.path}: there is no folder {self.path.parent}") from error
        except OSError as error:
            raise SinkError(f"{self.path}: cannot be written: {error.strerror}") from error
        return temporary

    def _refuse_existing(self) -> None:
        if self.path.exists() and not self._force:
            raise SinkError(
                f"{self.path}: there is a file already; give another name, or --force to replace it"
            )

    def _open(self, info: VideoInfo, settings: dict[str, str]) -> None:
        name = "pipe:1" if self._temporary is None else f"file:{self._temporary}"
        options = dict(OPTIONS[self._muxer])
        if self._muxer in ("mp4", "mov"):
            # Edit lists count in this unit; a late start of a track would be rounded to the millisecond.
            units = [info.time_base, *(track.template.time_base for track in info.tracks)]
            options["movie_timescale"] = str(_common_timescale([unit.denominator for unit in units if unit]))
        self._container: Any = av.open(name, "w", format=self._muxer, options=options)
        if self._encoder.codec not in self._container.supported_codecs:
            fit = [key for key, e in ENCODERS.items() if e.codec in self._container.supported_codecs]
            raise SinkError(
                f"{self.path}: a {self.path.suffix} file cannot hold {self._encoder.codec}; there is "
                f"{', '.join(fit)}, or write another kind of file"
            )
        self._video: Any = self._container.add_stream(self._encoder.name, rate=info.rate)
        self._set_up(self._video.codec_context, self._encoder, info, settings)
        self._video.time_base = info.time_base
        if info.stream is not None:
            describe(self._video, info.stream)
        self._tracks: dict[int, CopiedTrack | ReencodedTrack] = {}
        covers = [track for track in info.tracks if track.kind == "cover"]
        for track in info.tracks:
            self._add(track)
        self._container.metadata.update(info.metadata)
        if info.chapters:
            self._container.set_chapters(list(info.chapters))
        self._container.start_encoding()
        for track in covers:
            if track.index in self._tracks:
                self._mux(self._tracks[track.index].packets(track.packet))

    def _set_up(self, context: Any, encoder: Encoder, info: VideoInfo, settings: dict[str, str]) -> None:
        odd = info.width % 2 or info.height % 2
        self._pixels = encoder.odd_pixels if odd else encoder.pixels
        if odd and self._pixels == "yuv444p":
            log.warning(
                "%s: %dx%d is odd, so that it is written as 4:4:4, which some players cannot show",
                self.path,
                info.width,
                info.height,
            )
        context.width, context.height, context.pix_fmt = info.width, info.height, self._pixels
        context.time_base = info.time_base
        context.sample_aspect_ratio = info.sample_aspect_ratio
        if self._pixels != "bgr0":
            context.colorspace, context.color_range = info.colour.matrix, info.colour.range
        context.color_primaries, context.color_trc = info.colour.primaries, info.colour.transfer
        context.flags |= Flags.frame_duration
        context.options = settings
        if encoder.tag and self._muxer in ("mp4", "mov"):
            context.codec_tag = encoder.tag

    def _add(self, track: Track) -> None:
        """Make room for a track, or say what becomes of it."""
        if track.kind == "cover" and self._muxer == "matroska" and track.codec in COVER_FILES:
            self._container.add_attachment(*COVER_FILES[track.codec], bytes(track.packet))
            return
        if track.kind == "data" or (track.kind == "attachment" and self._muxer != "matroska"):
            self._leave_out(track)
            return
        try:
            self._tracks[track.index] = CopiedTrack(self._container, track)
        except ValueError:
            if track.kind != "audio" or track.template.codec_context is None:
                self._leave_out(track)
                return
            codec = SOUND_CODEC.get(self._muxer, "aac")
            self._tracks[track.index] = ReencodedTrack(self._container, track, codec)
            log.warning(
                "%s: a %s file cannot hold %s sound; track %d is re-encoded by %s",
                self.path,
                self.path.suffix,
                track.codec,
                track.index,
                codec,
            )

    def _leave_out(self, track: Track) -> None:
        # A timecode track is made anew by the muxer, from the metadata of the picture.
        if "timecode" not in track.template.metadata:
            log.warning(
                "%s: a %s file cannot hold %s (%s); track %d is left out",
                self.path,
                self.path.suffix,
                track.kind,
                track.codec,
                track.index,
            )

    def write(self, frame: Frame) -> None:
        """Encode one frame with its pts."""
        picture = to_yuv(frame.image, self._colour, self._pixels)
        picture.pts, picture.time_base, picture.duration = frame.pts, frame.time_base, frame.duration
        if self._last_pts is not None and frame.pts <= self._last_pts:
            raise SinkError(
                f"{self.path}: the source goes back in time (pts {frame.pts} after {self._last_pts})"
            )
        if self._first_pts is None:
            self._first_pts = frame.pts
        self._last_pts, self._end_pts = frame.pts, frame.pts + frame.duration
        self._mux_video(self._video.encode(picture))

    def _mux_video(self, packets: Any, *, last: bool = False) -> None:
        """Mux all packets but the newest, which is kept until it is known whether it is the last.

        .mp4 stores how long each packet lasts in the order of decoding, and the sum is the length of the
        film. With a variable rate and B-frames the sum can fall short, and players stop before the end.
        """
        for packet in packets:
            if self._last_packet is None:
                self._first_dts = packet.dts
            else:
                self._mux(self._last_packet)
            self._last_packet = packet
        if last and self._last_packet is not None:
            assert self._first_pts is not None
            assert self._first_dts is not None
            missing = self._end_pts - self._first_pts - (self._last_packet.dts - self._first_dts)
            if self._muxer in ("mp4", "mov"):
                self._last_packet.duration = max(self._last_packet.duration or 0, missing)
            self._mux(self._last_packet)

    def mux(self, packet: Any) -> None:
        """Copy or re-encode a packet of another track."""
        track = self._tracks.get(packet.stream_index)
        if track is None:
            return
        hidden = packet.is_discard and self._muxer in ("matroska", "webm")
        if not hidden or packet.pts * packet.time_base > -PRE_ROLL:
            self._mux(track.packets(packet))

    def _mux(self, packets: Any) -> None:
        try:
            self._container.mux(packets)
        except av.error.FFmpegError as error:
            raise SinkError(f"{self.path}: cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Finish the file and give it its name."""
        try:
            self._mux_video(self._video.encode(None), last=True)
            for track in self._tracks.values():
                self._mux(track.flush())
            self._container.close()
        except av.error.FFmpegError as error:
            raise SinkError(f"{self.path}: cannot be finished: {error.strerror}") from error
        moved = sum(track.moved for track in self._tracks.values())
        if moved:
            log.warning("%s: %d packets of sound did not rise in time and were moved", self.path, moved)
        if self._temporary is None:
            return
        self._refuse_existing()
        try:
            os.replace(self._temporary, self.path)
        except OSError as error:
            raise SinkError(f"{self.path}: cannot be put in place: {error.strerror}") from error

    def abort(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(Exception):
            self._container.close()
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)


def _common_timescale(denominators: list[int]) -> int:
    """A timescale that every track's start is whole in, if there is one below the 32 bits of the format."""
    scale = 1000
    for denominator in denominators:
        common = math.lcm(scale, denominator)
        scale = common if common < 1 << 31 else scale
    return scale
