"""A video file that is being written: the packets of the picture and those of the tracks beside it."""

import contextlib
import logging
import math
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from pipeline.errors import SinkError
from pipeline.frame import Track, VideoInfo
from pipeline.sinks.animation import apng_lasting, webp_lasting
from pipeline.sinks.encoders import ENCODERS, Encoding
from pipeline.sinks.tracks import (
    ConvertedSubtitles,
    CopiedTrack,
    ReencodedTrack,
    codecs_of,
    describe,
)

log = logging.getLogger("fauve")

FORMATS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".ts": "mpegts",
    ".gif": "gif",
    ".apng": "apng",
    ".webp": "webp",
}
"""FFmpeg's muxer by the end of the name."""

TELL_ASPECT = ("h264", "hevc")
"""Codecs that tell the shape of a pixel themselves: from PyAV 18, Matroska does not learn it."""

TELL_NO_ASPECT = ("matroska", "webm", "webp")
"""Muxers that do not tell it."""

ANIMATIONS = frozenset({"gif", "apng", "webp"})
"""Muxers of pictures that move; their packets depend on one another and are not joined from parts."""

DEFAULT_CODEC = {"webm": "vp9", "gif": "gif", "apng": "apng", "webp": "webp"}
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
    # As a .gif does, they play again and again.
    "apng": {"plays": "0"},
    "webp": {"loop": "0"},
}
"""Options of the muxers."""

LASTING = {"apng": apng_lasting, "webp": webp_lasting}
"""By the muxer: what sets how long the last picture is shown."""

COVER_FILES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
"""How Matroska attaches a cover."""


class Container:
    """A file in one of FFmpeg's formats, with a picture and the tracks of a source.

    Tracks beside the picture are copied; sound that the container cannot hold is re-encoded, other tracks
    that it cannot hold are left out, and either is said in a warning.

    Args:
        path: what messages call it; its end tells the format, as in `FORMATS`.
        target: what is written: a file, or None for standard output.
        info: of the source, which must still be open.
        mark: what the picture's tag "encoder" says, 31 letters at most; kept by .mp4, .mov, .mkv and .webm.

    Raises:
        SinkError: the container or the encoder refuses what it is given.
    """

    def __init__(
        self, path: Path, target: Path | None, info: VideoInfo, encoding: Encoding, mark: str | None = None
    ) -> None:
        self.path = path
        self._mark = mark
        self._muxer = muxer_of(path)
        self._first: Any = None
        self._newest: Any = None
        self._shown_last: tuple[int, int] | None = None
        """Pts and duration."""
        try:
            self._open("pipe:1" if target is None else f"file:{target}", info, encoding)
        except av.error.FFmpegError as error:
            self.abort()
            raise SinkError(
                f"{path}: the {self._muxer} muxer or {encoding} refuses {info.width}x{info.height}: "
                f"{error.strerror}"
            ) from error
        except BaseException:
            self.abort()
            raise

    def _open(self, name: str, info: VideoInfo, encoding: Encoding) -> None:
        options = dict(OPTIONS.get(self._muxer, {}))
        if self._muxer in ("mp4", "mov"):
            # Edit lists count in this unit; a late start of a track would be rounded to the millisecond.
            # Sound is counted in samples there.
            templates = [track.template for track in info.tracks]
            units = [info.time_base, *(template.time_base for template in templates)]
            rates = [
                template.sample_rate
                for template in templates
                # Sound that FFmpeg has no decoder for does not tell.
                if template.type == "audio" and template.codec_context is not None
            ]
            scale = _common_timescale([*(unit.denominator for unit in units if unit), *rates])
            options["movie_timescale"] = str(scale)
        self._container: Any = av.open(name, "w", format=self._muxer, options=options)
        holds = codecs_of(self._container)
        if encoding.encoder.codec not in holds:
            fit = [key for key, e in ENCODERS.items() if e.codec in holds]
            raise SinkError(
                f"{self.path}: a {self.path.suffix} file cannot hold {encoding.encoder.codec}; there is "
                f"{', '.join(fit)}, or write another kind of file"
            )
        if encoding.pixels == "yuv444p" and (info.width % 2 or info.height % 2):
            log.warning(
                "%s: %dx%d is odd, so that it is written as 4:4:4, which some players cannot show",
                *(self.path, info.width, info.height),
            )
        if encoding.encoder.written(info.colour).range != info.colour.range:
            codec = encoding.encoder.codec
            log.warning("%s: %s holds limited range only; the picture is brought to it", self.path, codec)
        if self._muxer in TELL_NO_ASPECT and encoding.encoder.codec not in TELL_ASPECT:
            what = f"{encoding.encoder.codec} in a {self.path.suffix} file"
            refuse_lost_aspect(self.path, what, info)
        if info.mastering is not None and encoding.encoder.mastering_option is None:
            log.warning(
                "%s: %s cannot hold what the source says about its display (%s); it is left out",
                *(self.path, encoding.encoder.codec, info.mastering),
            )
        self._video: Any = self._container.add_stream(encoding.encoder.name, rate=info.rate)
        encoding.set_up(self._video.codec_context, info)
        self._video.time_base = info.time_base
        if info.stream is not None:
            describe(self._video, info.stream)
        if self._mark is not None:
            self._video.metadata["encoder"] = self._mark
        self._tracks: dict[int, CopiedTrack | ReencodedTrack | ConvertedSubtitles] = {}
        covers = [track for track in info.tracks if track.kind == "cover"]
        for track in info.tracks:
            self._add(track)
        self._container.metadata.update(info.metadata)
        if info.chapters and self._muxer == "mpegts":
            log.warning("%s: a .ts file cannot hold chapters; %d are left out", self.path, len(info.chapters))
        elif info.chapters:
            self._container.set_chapters(list(info.chapters))
        self._container.start_encoding()
        for track in covers:
            if track.index in self._tracks:
                self._mux(self._tracks[track.index].packets(track.packet))

    @property
    def context(self) -> Any:
        """The codec context of the picture, open; for whoever encodes right into this file."""
        return self._video.codec_context

    def _add(self, track: Track) -> None:
        """Make room for a track, or say what becomes of it."""
        if track.kind == "cover" and self._muxer == "matroska" and track.codec in COVER_FILES:
            self._container.add_attachment(*COVER_FILES[track.codec], bytes(track.packet))
            return
        if track.kind == "attachment" and self._muxer != "matroska":
            self._leave_out(track)
            return
        context = track.template.codec_context
        if track.kind == "audio" and context is not None and not context.sample_rate:
            # A broadcast may announce a track that it sends nothing on; no muxer takes what is not known.
            log.warning("%s: track %d has no sound in it, and is left out", self.path, track.index)
            return
        try:
            self._tracks[track.index] = CopiedTrack(self._container, track)
        except ValueError:
            if track.kind == "subtitle" and self._converted(track):
                return
            if track.kind != "audio" or self._muxer in ANIMATIONS or track.template.codec_context is None:
                self._leave_out(track)
                return
            codec = SOUND_CODEC.get(self._muxer, "aac")
            self._tracks[track.index] = ReencodedTrack(self._container, track, codec, self.path)
            log.warning(
                "%s: a %s file cannot hold %s sound; track %d is re-encoded by %s",
                self.path,
                self.path.suffix,
                track.codec,
                track.index,
                codec,
            )

    def _converted(self, track: Track) -> bool:
        """Whether subtitles can be had in the kind that this container holds; they are then."""
        try:
            subtitles = ConvertedSubtitles(self._container, track, self.path)
        except ValueError:
            return False
        self._tracks[track.index] = subtitles
        log.warning(
            "%s: a %s file cannot hold %s subtitles; track %d is converted to %s",
            *(self.path, self.path.suffix, track.codec, track.index, subtitles.codec),
        )
        return True

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

    def write(self, packets: Iterable[Any]) -> None:
        """Mux packets of the picture, in the order of decoding.

        The newest is kept until it is known whether it is the last: .mp4 stores how long each packet lasts
        in the order of decoding, and the sum is the length of the film. With a variable rate and B-frames
        the sum can fall short, and players stop before the end.
        """
        for packet in packets:
            packet.stream = self._video
            if self._newest is not None:
                self._mux(self._newest)
            self._first = self._first or (packet.pts, packet.dts)
            self._newest = packet
            shown = packet.pts, packet.duration or 0
            self._shown_last = max(shown, self._shown_last or shown)

    def _write_last(self) -> None:
        if self._newest is None or self._shown_last is None:
            return
        if self._muxer in ("mp4", "mov"):
            first_pts, first_dts = self._first
            missing = sum(self._shown_last) - first_pts - (self._newest.dts - first_dts)
            self._newest.duration = max(self._newest.duration or 0, missing)
        if self._muxer in LASTING and self._newest.duration:
            seconds = self._newest.duration * self._newest.time_base
            self._newest.update(LASTING[self._muxer](bytes(self._newest), seconds))
        self._mux(self._newest)

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
        """Write what is left and the index.

        Raises:
            SinkError: it cannot be written.
        """
        self._write_last()
        for track in self._tracks.values():
            self._mux(track.flush())
        try:
            self._container.close()
        except av.error.FFmpegError as error:
            raise SinkError(f"{self.path}: cannot be finished: {error.strerror}") from error
        moved = sum(track.moved for track in self._tracks.values())
        if moved:
            log.warning("%s: %d packets did not rise in time and were moved", self.path, moved)

    def abort(self) -> None:
        """Close it as it is; never raises."""
        with contextlib.suppress(Exception):
            self._container.close()


def refuse_lost_aspect(path: Path, what: str, info: VideoInfo) -> None:
    """Make sure that pixels are square.

    Args:
        what: cannot tell of others.

    Raises:
        SinkError: they are not.
    """
    shape = info.sample_aspect_ratio
    if shape != 1:
        width = 2 * max(1, round(info.width * shape / 2))
        raise SinkError(
            f"{path}: {what} cannot tell that pixels are {shape} times as wide as high; give "
            f"--size {width}x{info.height}, or write .mp4 or .mov"
        )


def muxer_of(path: Path) -> str:
    """FFmpeg's name of the format that the name of a file asks for.

    Raises:
        SinkError: none that is written.
    """
    suffix = ".mkv" if str(path) == "-" else path.suffix.lower()
    if suffix not in FORMATS:
        raise SinkError(
            f"{path}: the name of a video ends with {', '.join(FORMATS)}; `fauve run` writes pictures, too, "
            "as .png, .jpg or .tif"
        )
    return FORMATS[suffix]


def _common_timescale(denominators: list[int]) -> int:
    """A timescale that every track's start is whole in, if there is one below the 32 bits of the format."""
    scale = 1000
    for denominator in filter(None, denominators):
        common = math.lcm(scale, denominator)
        scale = common if common < 1 << 31 else scale
    return scale
