"""What becomes of the tracks beside the picture: copied packet for packet, or re-encoded where it must be."""

import io
import logging
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import av.error
from av.audio.resampler import AudioResampler
from av.format import Flags
from av.subtitles.subtitle import SubtitleSet

from pipeline.frame import Track
from pipeline.languages import QUICKTIME

log = logging.getLogger("fauve")

TEXT = {"language", "title", "handler_name", "timecode", "creation_time", "comment", "filename", "mimetype"}
"""Metadata of a track that stays true when it moves to another file."""


USUAL_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""Of sound that does not say which channel is which, by their number."""

OPUS_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""Those that libopus takes; no other of as many channels."""


BROADCAST = frozenset(
    {"h264", "hevc", "mpeg2video", "aac", "ac3", "eac3", "dts", "mp2", "mp3", "opus", "dvb_subtitle"}
    | {"klv", "scte_35", "timed_id3"}
)
"""What transport streams hold; FFmpeg's muxer does not tell."""


REFUSED = {"mp4": {"truehd"}, "mov": {"truehd", "flac", "opus", "vp9", "av1"}}
"""What muxers refuse although FFmpeg tells that they hold it."""

LONGEST = (1 << 31) - 1
"""Ticks that a packet may last in .mp4 and .mov; subtitles that stay until others come last longer."""


TEXT_SUBTITLES = frozenset({"subrip", "ass", "ssa", "webvtt", "mov_text", "text"})
"""Subtitles that are text and no pictures."""

SUBTITLES = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
"""The kind of text that a muxer gets if it cannot hold the source's."""


def codecs_of(container: Any) -> frozenset[str]:
    """FFmpeg's names of the codecs that a container which is being written can hold."""
    if container.format.name == "mpegts":
        return BROADCAST
    # PyAV lists decoders and encoders, and theirs are other names than those of codecs: DTS is read by "dca".
    refused = REFUSED.get(container.format.name, set())
    return frozenset(map(_codec_of, container.supported_codecs)) - refused


def held_by(muxer: str) -> frozenset[str]:
    """FFmpeg's names of the codecs that files of its muxer `muxer` can hold.

    Raises:
        ValueError: there is no such muxer.
    """
    with av.open(io.BytesIO(), "w", format=muxer) as container:
        return codecs_of(container)


@cache
def _codec_of(name: str) -> str:
    """FFmpeg's name of the codec that the decoder or encoder `name` is for."""
    try:
        return av.Codec(name, "r").canonical_name
    except ValueError:
        return av.Codec(name, "w").canonical_name


class CopiedTrack:
    """A track whose packets go over as they are.

    Raises:
        ValueError: the container cannot hold it.
    """

    def __init__(self, container: Any, track: Track) -> None:
        if track.kind != "attachment" and track.codec not in codecs_of(container):
            raise ValueError(f"{container.format.name} does not hold {track.codec}")
        # Plain samples go into .mp4 only where it is told which channel is which.
        named = container.format.name == "mp4" and track.codec.startswith("pcm_")
        layout = _named(track.template.codec_context.layout) if named else None
        self.stream: Any = container.add_stream_from_template(track.template)
        if layout is not None:
            self.stream.codec_context.layout = layout
        describe(self.stream, track.template)
        self.moved = 0
        """Packets whose time had to be moved, because it did not rise."""
        self._last: int | None = None
        # Two packets of sound may not come at once, but where the container rounds their times (TrueHD has
        # 1200 a second); of subtitles and data they may.
        strict = not container.format.flags & Flags.ts_nonstrict.value
        self._step = int(strict and self.stream.type == "audio")
        self._longest = LONGEST if container.format.name in ("mp4", "mov") else None
        # Of sound that begins late Matroska tells none, and the last packet would not be heard.
        self._ends_by_duration = self._longest is not None and self.stream.type == "audio"

    def packets(self, packet: Any) -> Sequence[Any]:
        """What to mux for `packet` of the source."""
        packet.stream = self.stream
        if packet.dts is None:
            packet.dts = packet.pts
        if self._last is not None and packet.dts is not None and packet.dts < self._last + self._step:
            packet.dts = self._last + self._step
            packet.pts = max(packet.pts or packet.dts, packet.dts)
            self.moved += 1
        if self._longest is not None and (packet.duration or 0) > self._longest:
            # The muxer has it last until the next; the very last is seen for a second.
            packet.duration = round(1 / packet.time_base)
        elif self._ends_by_duration and not packet.duration and None not in (self._last, packet.dts):
            packet.duration = packet.dts - self._last
        self._last = packet.dts
        return [packet]

    def flush(self) -> Sequence[Any]:
        """What is left to mux at the end."""
        return []


def _named(layout: Any) -> Any:
    """`layout`, or the usual one if it does not say which channel is which, as in Matroska.

    Raises:
        ValueError: so many channels have no usual one.
    """
    # Of a downmix .mp4 has no words for the left and the right.
    if not layout.name.endswith("channels") and layout.name != "downmix":
        return layout
    if layout.nb_channels not in USUAL_LAYOUTS:
        raise ValueError(f"nobody knows which of {layout.nb_channels} channels is which")
    return USUAL_LAYOUTS[layout.nb_channels]


class ReencodedTrack:
    """Sound that the container cannot hold, in the codec that suits it.

    Args:
        path: what messages call the file.

    Raises:
        ValueError: the container can hold no sound.
    """

    def __init__(self, container: Any, track: Track, codec: str, path: Path) -> None:
        source = track.template.codec_context
        rates = av.Codec(codec, "w").audio_rates or [source.sample_rate]
        rate, layouts = min(rates, key=lambda held: abs(held - source.sample_rate)), USUAL_LAYOUTS
        if codec == "libopus":
            rate, layouts = 48000, OPUS_LAYOUTS
        layout = layouts.get(source.channels, "stereo")
        if codec != "libopus" and not source.layout.name.endswith("channels"):
            layout = source.layout.name
        self.stream: Any = container.add_stream(codec, rate=rate, layout=layout)
        describe(self.stream, track.template)
        self.moved = 0
        self._path = path
        self._decoder = source
        self._index = track.index
        self._damaged = 0
        self._resampler: AudioResampler | None = None
        self._form: tuple[str, str, int] | None = None

    def packets(self, packet: Any) -> Sequence[Any]:
        """What to mux for `packet` of the source: nothing where it is damaged."""
        try:
            frames = self._decoder.decode(packet)
        except av.error.FFmpegError:
            self._damaged += 1
            return []
        return [out for frame in frames for even in self._even(frame) for out in self.stream.encode(even)]

    def _even(self, frame: Any) -> Sequence[Any]:
        """`frame`, which may have another form than those before, as the encoder takes all of them."""
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        left: Sequence[Any] = []
        if self._resampler is None or form != self._form:
            left = self._rest()
            encoder = self.stream.codec_context
            self._resampler = AudioResampler(encoder.format, encoder.layout, encoder.sample_rate)
            self._form = form
        return [*left, *self._timed(self._resampler.resample(frame))]

    def _rest(self) -> Sequence[Any]:
        """What the resampler has kept."""
        return [] if self._resampler is None else self._timed(self._resampler.resample(None))

    def _timed(self, frames: Sequence[Any]) -> Sequence[Any]:
        """`frames` with times in samples, whether they had to be converted or not."""
        rate = self.stream.codec_context.sample_rate
        for frame in frames:
            if frame.pts is not None:
                frame.pts = round(frame.pts * frame.time_base * rate)
            frame.time_base = Fraction(1, rate)
        return frames

    def flush(self) -> Sequence[Any]:
        """What is left to mux at the end."""
        left = list(self.packets(None))
        left += [out for even in (*self._rest(), None) for out in self.stream.encode(even)]
        if self._damaged:
            log.warning(
                "%s: track %d: %d damaged packets of sound were left out",
                *(self._path, self._index, self._damaged),
            )
        return left


class ConvertedSubtitles:
    """Subtitles of text in the kind that the container holds; markup that this kind has no words for is lost.

    Timed text (.mp4, .mov: 3GPP TS 26.245) shows one at a time: there, what overlaps is shown together.

    Args:
        path: what messages call the file.

    Raises:
        ValueError: the container holds no text, or the subtitles are pictures.
    """

    def __init__(self, container: Any, track: Track, path: Path) -> None:
        codec = SUBTITLES.get(container.format.name)
        if codec is None or track.codec not in TEXT_SUBTITLES:
            raise ValueError(f"{container.format.name} does not hold {track.codec}")
        self.codec = codec
        self._path = path
        self.stream: Any = container.add_stream(codec)
        describe(self.stream, track.template)
        self.moved = 0
        self._decoder = track.template.codec_context
        self._decoder.open(strict=False)
        # How the text is set, which the packets refer to.
        self.stream.codec_context.subtitle_header = self._decoder.subtitle_header
        self._tick = self.stream.codec_context.time_base = self.stream.time_base = track.template.time_base
        self._showing: list[tuple[int, bytes]] = []
        self._from = 0

    def packets(self, packet: Any) -> Sequence[Any]:
        """What to mux for `packet` of the source: nothing where it shows nothing, as .mp4 has between two."""
        try:
            shown = self._decoder.decode2(packet)
            if shown is None or not shown.rects:
                return []
            end = packet.pts + packet.duration
            if self.codec != "mov_text":
                return [self._encoded(shown, packet.pts, end)]
            packets = self._shown_until(packet.pts)
        except av.error.FFmpegError:
            at = float((packet.pts or 0) * packet.time_base)
            log.warning(
                "%s: track %d: a damaged subtitle at %.2f s is left out",
                *(self._path, packet.stream_index, at),
            )
            return []
        self._showing += [(end, rect.ass) for rect in shown.rects]
        return packets

    def flush(self) -> Sequence[Any]:
        """What is left to mux at the end."""
        return self._shown_until(None)

    def _shown_until(self, time: int | None) -> list[Any]:
        """A packet for each change in what is shown before `time`, or until nothing is."""
        packets = []
        while self._showing and (time is None or self._from < time):
            ends = [end for end, _ in self._showing]
            until = min(ends if time is None else [*ends, time])
            if until > self._from:
                packets.append(self._encoded(self._together(until), self._from, until))
                self._from = until
            self._showing = [(end, line) for end, line in self._showing if end > until]
        if time is not None:
            self._from = max(self._from, time)
        return packets

    def _together(self, until: int) -> SubtitleSet:
        """All that is shown, one under the other. A line of ASS has its text after eight other fields."""
        first, *others = [line.split(b",", 8) for _, line in self._showing]
        text = rb"\N".join(fields[-1] for fields in (first, *others))
        length = round((until - self._from) * self._tick * 1000)
        return SubtitleSet.create(b",".join([*first[:-1], text]), start=0, end=length)

    def _encoded(self, shown: SubtitleSet, begin: int, end: int) -> Any:
        packet = self.stream.codec_context.encode_subtitle(shown)
        packet.pts = packet.dts = begin
        packet.duration, packet.time_base = end - begin, self._tick
        packet.stream = self.stream
        return packet


def describe(stream: Any, template: Any) -> None:
    """Give `stream` the language, title and disposition of `template`."""
    stream.metadata.update({key: text for key, text in template.metadata.items() if key.lower() in TEXT})
    language = stream.metadata.get("language")
    if language and stream.container.format.name == "mov":
        stream.metadata["language"] = QUICKTIME.get(language, language)
    stream.disposition = template.disposition
