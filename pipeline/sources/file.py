"""Video files, by PyAV."""

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast

import av
import av.error
from av.codec.context import Flags
from av.stream import Discard, Disposition

from engines import Image
from pipeline.colour import Alpha, Decoded, colour_of, has_alpha, over
from pipeline.errors import SourceError
from pipeline.frame import Frame, Track, VideoInfo
from pipeline.grey_window import Window, grey_bits, grey_values
from pipeline.hdr import HLG, PQ, Gain, gain_of, high_colour
from pipeline.hdr_metadata import mastering_of
from pipeline.orientation import orientation_of
from pipeline.scaling import resize
from pipeline.sources import Source
from pipeline.sources.deinterlace import Deinterlacer
from pipeline.sources.demuxer import (
    begins,
    is_cut_off,
    open_input,
    open_on_nvidia,
    packets_of,
    picture_stream,
    shown_for,
    transparent_decoder,
    usual_duration,
    usual_rate,
)
from pipeline.sources.hdr import SDR, LuminanceReader, ToneMapper
from pipeline.sources.timeline import Timeline
from pipeline.sources.truncation import is_truncated

log = logging.getLogger("fauve")

OF_THE_FILE = ("major_brand", "minor_version", "compatible_brands", "encoder")
"""Metadata that tells of the file itself and not of what is in it."""

Decoder = Literal["cpu", "cuda"]

DOLBY_VISION = ("dvhe", "dvh1", "dvav", "dva1")
"""Codec tags of streams that only Dolby Vision players show right."""

OF_THE_CPU = ("yuv420p", "yuv422p", "yuvj")
"""What pixel formats begin with that NVIDIA's decoder does not give."""

TELL_DURATION = ("mov", "matroska", "flv", "mxf")
"""FFmpeg's names of formats whose duration stands in a header, and is not estimated."""

CUT_SHORT = Fraction(1, 2)
"""Seconds by which a file may end before the time that its header tells."""

MOST_AHEAD = 64
"""Packets that the threads of a decoder may have at once, and more."""

LONGEST_DAMAGE = 1000
"""Packets in a row of a file that may be damaged: a recording may begin long before its first key frame."""


class FileSource(Source):
    """The frames of a video file, upright and in RGB, and the packets of the tracks beside them.

    Args:
        path: a file, a sequence such as frame%05d.png, or "-" for standard input.
        audio: the sound is one of the tracks.
        tracks: there are tracks at all.
        start: leave out the frames before this pts.
        end: leave out the frames from this pts on.
        counted: leave out of `damaged` what comes before this pts; `start` if not given.
        entry: pts of a key frame to begin reading at, as `Index.entry` finds it; None for the beginning.
        picture_rate: frames per second of a sequence of pictures.
        decoder: "cpu" or "cuda"; what NVIDIA's decoder cannot is decoded on the CPU, with a warning.
        on_device: with "cuda", decoded frames stay on the GPU, for `pipeline.gpu_video`.
        container: an open container of FFmpeg's to read instead of `path`, which only names it. What comes
            from there is live: it is decoded without keeping frames back, and each has the size that it comes
            with, for who shows it to fit it in.

    Raises:
        SourceError: no such file, no video in it, or none that can be decoded.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        audio: bool = True,
        tracks: bool = True,
        start: int | None = None,
        end: int | None = None,
        counted: int | None = None,
        entry: int | None = None,
        picture_rate: Fraction | None = None,
        decoder: Decoder = "cpu",
        on_device: bool = False,
        container: Any = None,
    ) -> None:
        self.path = "standard input" if str(path) == "-" else str(path)
        self._background: tuple[int, int, int] | None = None
        self.damaged = 0
        """Packets that could not be decoded."""
        self._damaged_pts: deque[int | None] = deque(maxlen=MOST_AHEAD)
        """Of the newest of them."""
        self.cut_short = False
        """The end of the file is missing; known once it has been read to there."""
        self.patience = math.inf
        """Seconds for which a live container may give pictures of which none can be decoded."""
        self._fruitless_since: float | None = None
        """When the first packet came of those since the last picture, in seconds of `time.monotonic`."""
        self._damaged_run = 0
        self._sent_pts: int | None = None
        """The latest of all packets that were given to the decoder."""
        self._decoded_pts: int | None = None
        """The latest of all pictures that came out of it."""
        self._reached = Fraction(0)
        """When the last of all packets so far ends, in seconds."""
        self._live = container is not None
        if container is None and decoder == "cuda":
            container = open_on_nvidia(path, picture_rate, on_device=on_device)
        self._container = container or open_input(path, picture_rate)
        self._picture_rate, self._decoder = picture_rate, decoder
        try:
            self._start, self._end = start, end
            self._counted = start if counted is None else counted
            self._open(audio, tracks, decoder, on_device)
            if entry is not None:
                self._enter(entry)
        except BaseException:
            self._container.close()
            raise

    def _open(self, audio: bool, tracks: bool, decoder: Decoder, on_device: bool) -> None:
        streams = self._container.streams
        covers = [s for s in streams.video if s.disposition & Disposition.attached_pic]
        self._video: Any = picture_stream(self._container)
        if self._video is None:
            kinds = {"a cover" if stream in covers else stream.type for stream in streams}
            has = " and ".join(sorted(kinds)) or "nothing"
            raise SourceError(f"{self.path}: there is no video in it, only {has}")
        if self._video.codec_context is None:
            raise SourceError(f"{self.path}: its video has a codec that this FFmpeg cannot decode")
        if self._video.disposition & Disposition.dependent:
            raise SourceError(
                f"{self.path}: its picture is in tiles, as phones take HEIC, which are not put together; "
                "convert it to .jpg first"
            )
        # Threads for whole frames would keep some back until later ones have come.
        self._video.thread_type = "SLICE" if self._live else "AUTO"
        if self._live:
            self._video.codec_context.flags |= Flags.low_delay
        self._transparent = transparent_decoder(self._video)
        self._covers: dict[int, Any] = {}
        others = [
            stream
            for stream in streams
            # Of the track of chapters in .mp4 and .mov FFmpeg gives nothing: it has read them out of it.
            if tracks and stream.discard != Discard.all
            if stream is not self._video and (audio or stream.type != "audio")
        ]
        for stream in streams.video:
            if stream in others and stream not in covers:
                log.warning("%s: another video track, %d, is left out", self.path, stream.index)
                others.remove(stream)
        self._cover_indices = {stream.index for stream in covers}
        self._wanted = {stream.index for stream in others}
        # All tracks are read, also those that nobody wants: together they tell how far a recording jumps.
        self._read = [
            stream
            for stream in streams
            if stream is self._video or stream in covers or stream.type not in ("video", "attachment")
        ]
        self._items = self._demux()
        self._waiting: deque[Any] = deque()
        self._decoded = Decoded()
        self._timeline = Timeline(begins(self._container))
        self._deinterlacer: Deinterlacer | None = None
        self._said_interlaced = self._said_resized = self._said_hdr = False

        first = self._first_frame()
        self.begins: Fraction = (first.pts or 0) * self._video.time_base
        """When the first picture is shown, in seconds."""
        # NVIDIA's gives neither planes of 4:2:0 and 4:2:2 nor FFmpeg's old names for full range.
        if decoder == "cuda" and not on_device and first.format.name.startswith(OF_THE_CPU):
            codec = self._video.codec_context.name
            log.warning("%s: NVIDIA's decoder does not take this %s; the CPU decodes", self.path, codec)
        self._size = (first.width, first.height)
        kind = self._container.format.name
        photograph = Path(self.path) if kind == "image2" or kind.endswith("_pipe") else None
        self._orientation = orientation_of(first, photograph)
        self._colour = colour_of(first)
        if self._video.codec_context.codec_tag in DOLBY_VISION and first.color_trc not in (PQ, HLG):
            raise SourceError(
                f"{self.path}: Dolby Vision profile 5, which only its own players show; convert it first"
            )
        self._tone_mapper: ToneMapper | None = None
        self._luminance: LuminanceReader | None = None
        self._transfer = int(first.color_trc)
        self._mastering = mastering_of(first)
        self._grey_bits = grey_bits(first)
        self._window: Window | None = None
        if self._grey_bits == 16:
            self._window = Window.around(grey_values(first))
        if first.color_trc in (PQ, HLG):
            self._tone_mapper = ToneMapper(first, self._video.time_base)
            self._colour = SDR
        width, height = self._size
        aspect = self._video.sample_aspect_ratio or Fraction(1)
        if self._orientation.transpose:
            width, height, aspect = height, width, 1 / aspect
        rate = usual_rate(self._video)
        seconds = Fraction(self._container.duration or 0, av.time_base)
        self.info = VideoInfo(
            width,
            height,
            rate,
            cast(Fraction, self._video.time_base),
            self._colour,
            aspect,
            self._video.frames or round(seconds * rate),
            tuple(self._track(stream) for stream in others),
            {key: text for key, text in self._container.metadata.items() if key not in OF_THE_FILE},
            tuple(self._container.chapters()),
            self._video,
            has_alpha(first, self._video.codec_context.codec.canonical_name),
        )

    def flatten(self, background: tuple[int, int, int]) -> None:
        """Lay the pictures over a colour from now on, and say that there is no alpha."""
        self._background = background
        self.info = replace(self.info, alpha=False)

    def keep_hdr(self) -> None:
        """Give each frame what lifts its picture back to the range of the source, and say so from now on."""
        if self._tone_mapper is None:
            log.warning("%s is not HDR; there is nothing to keep", self.path)
            return
        self._luminance = LuminanceReader()
        self.info = replace(self.info, colour=high_colour(self._transfer), mastering=self._mastering)

    def see(self, window: Window | None) -> None:
        """Show these values of a grey picture from now on; None, those of its first one, and say which.

        Raises:
            SourceError: it has more than one channel, or no more than 8 bits, of which all are seen.
        """
        if window is not None:
            if not 8 < self._grey_bits <= 16:
                raise SourceError(
                    f"{self.path}: --window is for pictures of one channel and more than 8 bits, "
                    f"not for {self._video.codec_context.pix_fmt}"
                )
            self._window = window
        elif self._window is not None:
            log.warning(
                "%s: grey in 16 bits, seen with --window %g --level %g, nearly all of its values",
                *(self.path, self._window.width, self._window.level),
            )

    def _track(self, stream: Any) -> Track:
        context = stream.codec_context
        codec = (
            context.codec.canonical_name
            if context is not None
            else getattr(stream, "name", None) or "unknown"
        )
        cover = self._covers.get(stream.index)
        return Track(stream.index, "cover" if cover else stream.type, codec, stream, cover)

    def _first_frame(self) -> av.VideoFrame:
        """The first frame, which tells size, colour and orientation; what came before it waits."""
        for item in self._items:
            self._waiting.append(item)
            if isinstance(item, av.VideoFrame):
                return item
        raise SourceError(f"{self.path}: none of its frames can be decoded; the file is damaged or empty")

    def _enter(self, entry: int) -> None:
        """Go on reading at the key frame `entry`, or from the beginning if the container leads elsewhere."""
        targets: list[int | None] = [entry, None]
        while targets:
            target = targets.pop(0)
            self._waiting.clear()
            self._timeline, self._deinterlacer = Timeline(self._timeline.first), None
            try:
                if target is None:
                    log.info("%s: cannot be entered in the middle, and is read from its beginning", self.path)
                    self._container.seek(self._container.start_time or 0)
                else:
                    self._container.seek(target, stream=self._video)
                self._items = self._demux()
                first = self._first_frame()
            except (av.error.FFmpegError, SourceError) as error:
                if target is None:
                    reason = getattr(error, "strerror", None) or error
                    raise SourceError(f"{self.path}: cannot be read from the middle: {reason}") from error
                continue
            if target is None or (first.pts is not None and first.pts <= entry):
                return
            if target == entry and first.pts is not None:
                # Broadcasts lead to the key frame behind it; as much earlier, they lead to this one.
                targets.insert(0, 2 * entry - first.pts)

    def packets(self) -> Iterator[Any]:
        """The packets of the tracks alone, without decoding the picture; in place of iterating."""
        while self._waiting:
            item = self._waiting.popleft()
            if not isinstance(item, av.VideoFrame):
                yield item
        yield from self._demux(decode=False)

    def _demux(self, *, decode: bool = True) -> Iterator[Any]:
        """Decoded frames, and the packets of the other tracks."""
        try:
            for packet in packets_of(self._container, self._read, self.path):
                self._timeline.place(packet)
                if packet.pts is not None:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    self._reached = max(self._reached, end)
                if packet.stream is self._video:
                    if decode:
                        pictures = self._decode(packet)
                        self._check_patience(pictures)
                        yield from pictures
                elif packet.stream_index in self._cover_indices:
                    if packet.size:
                        self._covers[packet.stream_index] = packet
                elif packet.size and packet.stream_index in self._wanted:
                    yield packet
            if decode:
                for frame in self._behind_damage():
                    yield from self._deinterlaced(frame)
                yield from self._deinterlaced(None)
            self._say_cut_short()
        except av.error.FFmpegError as error:
            piped = self._container.format.name.startswith("mov") and self.path == "standard input"
            hint = (
                "; an .mp4 whose index is at its end cannot be piped: give the file itself" if piped else ""
            )
            raise SourceError(f"{self.path}: cannot be read on: {error.strerror}{hint}") from error

    def _say_cut_short(self) -> None:
        """Warn of a file that ends within a packet, or long before the time that its header tells."""
        if self._live:
            return
        container, kind = self._container, self._container.format.name
        whole = Fraction(0)
        if kind.startswith(TELL_DURATION):
            # Matroska counts its duration from 0, others from the first packet.
            whole = Fraction(container.duration or 0, av.time_base)
        elif kind == "avi":
            whole = self._video.frames / usual_rate(self._video)
        if self._reached < whole - CUT_SHORT and not self._timeline.jumps:
            self.cut_short = True
            log.warning(
                "%s: ends at %.1f s, and its header says %.1f s; it is damaged, or not all of it is there",
                *(self.path, self._reached, whole),
            )
        elif container.size > 0 and Path(self.path).is_file() and is_truncated(Path(self.path), kind):
            self.cut_short = True
            log.warning("%s: ends within a packet; it is damaged, or not all of it is there", self.path)

    def _decode(self, packet: Any) -> list[Any]:
        if packet.has_sidedata("encryption_info"):
            raise SourceError(f"{self.path}: is encrypted, and has no key in it; decrypt it first")
        if is_cut_off(packet):
            self.cut_short = True
            self._count_damaged(packet)
            return []
        if packet.pts is not None and not packet.is_discard:
            self._sent_pts = max(packet.pts, self._sent_pts or packet.pts)
        try:
            frames: list[Any] = (self._transparent or packet).decode(*([packet] if self._transparent else []))
        except av.error.InvalidDataError:
            self._count_damaged(packet)
            self._damaged_run += 1
            if self._damaged_run > LONGEST_DAMAGE and not self._live:
                at = "" if packet.pts is None else f" before {float(packet.pts * packet.time_base):.1f} s"
                raise SourceError(
                    f"{self.path}: more than {LONGEST_DAMAGE} packets in a row{at} are damaged; cut them out"
                ) from None
            return []
        self._damaged_run = 0
        if frames and frames[-1].pts is not None:
            self._decoded_pts = frames[-1].pts
        return [whole for frame in frames for whole in self._deinterlaced(frame)]

    def _check_patience(self, pictures: list[Any]) -> None:
        """Give up a live container whose sender has gone over to what its decoder does not know."""
        now = time.monotonic()
        if pictures:
            self._fruitless_since = None
        elif self._fruitless_since is None:
            self._fruitless_since = now
        elif now - self._fruitless_since > self.patience:
            why = f"no picture could be decoded for {self.patience:g} s; its codec may have changed"
            raise SourceError(f"{self.path}: {why}")

    def _ends_early(self) -> bool:
        """Whether the decoder has not given the last picture; a field of one tells a later time than it."""
        if self._sent_pts is None or self._decoded_pts is None:
            return False
        return self._sent_pts - self._decoded_pts > usual_duration(self._video) / 2

    def _behind_damage(self) -> Iterator[Any]:
        """The pictures behind a damaged one that the threads of the decoder still had at the end.

        There PyAV takes them all at once, and none behind an error. So the end is decoded again, in turn.
        """
        twice = not self._live and self.path != "standard input" and self._decoder == "cpu"
        if not twice or self._timeline.jumps or self._timeline.first or not self._ends_early():
            return
        last = cast(int, self._decoded_pts)
        # They are counted again, too; what is found at the very end has no time.
        self.damaged -= sum(pts is None or pts > last for pts in self._damaged_pts)
        with open_input(self.path, self._picture_rate) as container:
            video = picture_stream(container)
            video.thread_type = "SLICE"
            # What cannot be sought in is read from its beginning.
            with contextlib.suppress(av.error.FFmpegError):
                container.seek(last, stream=video)
            for packet in packets_of(container, video, self.path):
                try:
                    frames = [] if is_cut_off(packet) else packet.decode()
                except av.error.InvalidDataError:
                    if packet.pts is not None and packet.pts > last:
                        self._count_damaged(packet)
                    continue
                yield from (frame for frame in frames if frame.pts is not None and frame.pts > last)

    def _count_damaged(self, packet: Any) -> None:
        if packet.pts is None or (
            (self._counted is None or packet.pts >= self._counted)
            and (self._end is None or packet.pts < self._end)
        ):
            self.damaged += 1
            self._damaged_pts.append(packet.pts)

    def _deinterlaced(self, frame: av.VideoFrame | None) -> list[av.VideoFrame]:
        """What is ready after `frame`, or at the end after None; progressive video passes as it is."""
        if frame is None:
            return self._deinterlacer.push(None) if self._deinterlacer is not None else []
        left: list[av.VideoFrame] = []
        if self._deinterlacer is not None and not self._deinterlacer.takes(frame):
            left, self._deinterlacer = self._deinterlacer.push(None), None
        if self._deinterlacer is None and frame.interlaced_frame:
            if not self._said_interlaced:
                log.warning("%s is interlaced; its frames are made whole by FFmpeg's bwdif", self.path)
                self._said_interlaced = True
            self._deinterlacer = Deinterlacer(frame, self._video.time_base)
        return left + ([frame] if self._deinterlacer is None else self._deinterlacer.push(frame))

    def __iter__(self) -> Iterator[Frame | Any]:
        while item := self._waiting.popleft() if self._waiting else next(self._items, None):
            if not isinstance(item, av.VideoFrame):
                yield item
                continue
            duration = item.duration or usual_duration(self._video)
            pts = self._timeline.show(item.pts, duration)
            if self._end is not None and pts >= self._end:
                break
            if self._start is None or pts >= self._start:
                yield self._frame(item, pts, shown_for(self._video, pts, duration))
        if self._timeline.jumps:
            log.warning(
                "%s jumps back in time %d times; it is made to go on", self.path, self._timeline.jumps
            )
        if self._timeline.late:
            log.warning(
                "%s: %d pictures go back in time, and follow on those before them",
                *(self.path, self._timeline.late),
            )
        if self.damaged:
            packets = "packet was" if self.damaged == 1 else "packets were"
            log.warning("%s: %d damaged %s left out", self.path, self.damaged, packets)

    def _frame(self, frame: av.VideoFrame, pts: int, duration: int) -> Frame:
        high: Any = None
        if self._luminance is not None:
            if frame.color_trc != self._transfer:
                at = float(pts * self._video.time_base)
                raise SourceError(f"{self.path}: changes its range at {at:.2f} s; leave out --hdr keep")
            high = self._orientation.upright(self._luminance.read(frame))
        if frame.color_trc in (PQ, HLG):
            if high is None and not self._said_hdr:
                log.warning("%s is HDR; it is tone-mapped to BT.709 and painted in standard range", self.path)
                self._said_hdr = True
            if self._tone_mapper is None or not self._tone_mapper.takes(frame):
                self._tone_mapper = ToneMapper(frame, self._video.time_base)
            frame = self._tone_mapper.map(frame)
        image = self._orientation.upright(self._image(frame))
        gain: Gain | None = None if high is None else gain_of(high, image, self._transfer)
        alpha: Alpha | None = None
        if self.info.alpha or self._background is not None:
            alpha = self._orientation.upright(self._decoded.alpha(frame))
            if self._background is not None:
                image, alpha = over(image, alpha, self._background), None
        if (frame.width, frame.height) != self._size:
            self._say_resized(frame, pts)
            if not self._live:
                image = resize(image, (self.info.width, self.info.height))
                alpha = None if alpha is None else resize(alpha, (self.info.width, self.info.height))
        return Frame(image, pts, duration, self._video.time_base, alpha, gain)

    def _say_resized(self, frame: av.VideoFrame, pts: int) -> None:
        """Warn, once, of a picture that is not as large as the first."""
        if not self._said_resized:
            log.warning(
                "%s: the picture changes from %dx%d to %dx%d at %.2f s; it is scaled back to the first",
                *(self.path, *self._size, frame.width, frame.height, pts * self._video.time_base),
            )
            self._said_resized = True

    def _image(self, frame: av.VideoFrame) -> Image:
        # A film may change its format on the way.
        if self._window is not None and grey_bits(frame) == self._grey_bits:
            return self._window.apply(grey_values(frame))
        return self._decoded.image(frame, colour_of(frame))

    def close(self) -> None:
        """Give back the file."""
        self._container.close()
