"""Pictures and sound encoded into a container while they happen, for streams and recordings."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
from av import AudioFrame
from av.video.frame import PictureType

from pipeline.colour import Colour, encodable
from pipeline.errors import SinkError
from pipeline.frame import Frame, Sound, VideoInfo
from pipeline.sinks.encoders import MOST_THREADS

SAMPLE_RATE = 48_000

LEAST_SOUND = 4096
"""Samples that suffice for a packet to leave the encoder."""

SOUND_WITHIN = 2
"""Seconds after the first picture in which sound may begin; then silence does: until each track has begun,
FFmpeg writes nothing of an .mp4, and keeps all of it in memory."""

SOUND_BITS = 160_000
"""Bits per second of AAC, stereo."""

INTERLEAVING = {"max_interleave_delta": "200000"}
"""For how many microseconds a picture may wait for sound: where that stops, FFmpeg would let it wait for ten
seconds."""

KEY_SECONDS = 2
"""Seconds between key frames: what a viewer who joins waits for at most, and what servers ask for."""


@dataclass(frozen=True)
class LiveEncoding:
    """How a picture is encoded that cannot wait."""

    codec: str = "libx264"
    """"libx264", or "mjpeg" for a receiver on the same machine, which needs no key frames and no effort."""
    preset: str = "superfast"
    bits: int | None = None
    """Bits per second at most; None decides by the size of the picture."""
    latency: bool = True
    """Every frame leaves the encoder at once; a recording can do without, and is smaller."""

    def set_up(self, context: Any, info: VideoInfo) -> None:
        """Tell the codec context all that it must know before it is opened."""
        context.width, context.height = info.width, info.height
        context.time_base, context.framerate = info.time_base, info.rate
        context.sample_aspect_ratio = info.sample_aspect_ratio
        colour = info.colour
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        context.colorspace = colour.matrix
        if self.codec == "mjpeg":
            context.pix_fmt, context.color_range = "yuvj420p", 2
            # By quality, not by rate: 118 is one step of FFmpeg's scale from 2 (best) to 31.
            context.options = {"flags": "+qscale", "global_quality": str(4 * 118), "huffman": "default"}
            return
        context.pix_fmt = "yuv444p" if info.width % 2 or info.height % 2 else "yuv420p"
        context.color_range = colour.range
        bits = self.bits or default_bits(info)
        # `Muxer.write` goes by the time: of a live source fewer frames may come than its rate says.
        context.gop_size = max(1, round(2 * KEY_SECONDS * info.rate))
        context.options = {
            "preset": self.preset,
            "crf": "21",
            "maxrate": str(bits),
            "bufsize": str(bits),
            "threads": str(MOST_THREADS if not self.latency else 2),
            **({"tune": "zerolatency"} if self.latency else {}),
        }

    def colour(self, colour: Colour) -> Colour:
        """That of what is encoded, for pictures of `colour`."""
        return (
            Colour(colour.matrix, 2, colour.primaries, colour.transfer) if self.codec == "mjpeg" else colour
        )


def default_bits(info: VideoInfo) -> int:
    """Bits per second for a stream of `info`: 3.9 Mbit/s for 1280x720 at 30 fps."""
    return max(600_000, round(info.width * info.height * float(min(info.rate, Fraction(60))) * 0.14))


def _silence(pts: int, count: int) -> AudioFrame:
    samples = AudioFrame.from_ndarray(np.zeros((2, count), np.float32), "fltp", "stereo")
    samples.sample_rate, samples.pts, samples.time_base = SAMPLE_RATE, pts, Fraction(1, SAMPLE_RATE)
    return samples


class Muxer:
    """One container that is being written, with a picture and, where the source has it, sound.

    Args:
        target: a file, or an object with `write`.
        format: FFmpeg's name of the muxer.

    Raises:
        SinkError: it cannot be written, or the encoder refuses the picture.
    """

    def __init__(
        self, name: str, target: Any, format: str, info: VideoInfo, encoding: LiveEncoding, **options: str
    ) -> None:
        self.size = 0
        """Bytes of the packets that were written so far."""
        self._name = name
        self._colour = encoding.colour(info.colour)
        self._first: Fraction | None = None
        self._key: Fraction | None = None
        """The time of the last key frame that was asked for."""
        self._sound_from: int | None = None
        self._samples = 0
        try:
            self._container: Any = av.open(target, "w", format=format, options={**INTERLEAVING, **options})
            self._video: Any = self._container.add_stream(encoding.codec, rate=info.rate)
            encoding.set_up(self._video.codec_context, info)
            context: Any = self._video.codec_context
            self._pixels = str(context.pix_fmt)
            self._video.time_base = info.time_base
            self._audio: Any = None
            if info.sound:
                self._audio = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
                self._audio.bit_rate = SOUND_BITS
                self._audio.time_base = Fraction(1, SAMPLE_RATE)
            self._container.start_encoding()
        except av.error.FFmpegError as error:
            raise SinkError(f"{name}: cannot be written: {error.strerror}") from error

    def write(self, frame: Frame, *, key: bool = False) -> None:
        """Encode and mux one frame, as a key frame if it must be one, or if one is due."""
        picture = encodable(frame.image, self._colour, self._pixels)
        if self._first is None:
            self._first = frame.time
        picture.pts, picture.time_base = frame.pts, frame.time_base
        key = key or self._key is None or frame.time - self._key >= KEY_SECONDS
        self._key = frame.time if key else self._key
        picture.pict_type = PictureType.I if key else PictureType.NONE
        try:
            self._mux(self._video.encode(picture))
        except av.error.FFmpegError as error:
            raise SinkError(f"{self._name}: cannot be written: {error.strerror}") from error
        if self._sound_from is None and frame.time - self._first >= SOUND_WITHIN:
            self._begin_silence(frame)

    def begin(self, frame: Frame) -> None:
        """Mux one frame at once, together with the silence that FFmpeg would have it wait for."""
        self.write(frame)
        self._begin_silence(frame)

    def _begin_silence(self, frame: Frame) -> None:
        samples = _silence(math.ceil(frame.time * SAMPLE_RATE), LEAST_SOUND)
        self.mux(Sound(samples, 8 * LEAST_SOUND))

    def mux(self, sound: Sound) -> None:
        """Encode and mux a piece of sound; what was before the first picture is left out."""
        samples = sound.samples
        if self._audio is None or self._first is None or samples.pts * samples.time_base < self._first:
            return
        # What a source gives twice after it was connected again must not make times fall.
        ends = samples.pts if self._sound_from is None else self._sound_from
        if samples.pts < ends:
            return
        # A packet that was begun before a gap would have what follows it begin there, too early.
        rest = min(samples.pts - ends, -self._samples % self._audio.codec_context.frame_size)
        self._sound_from = samples.pts + samples.samples
        try:
            for piece in ([_silence(ends, rest)] if rest else []) + [samples]:
                self._samples += piece.samples
                self._mux(self._audio.encode(piece))
        except av.error.FFmpegError as error:
            raise SinkError(f"{self._name}: cannot be written: {error.strerror}") from error

    def _mux(self, packets: list[Any]) -> None:
        self.size += sum(packet.size for packet in packets)
        self._container.mux(packets)

    def close(self) -> None:
        """Write what is left.

        Raises:
            SinkError: it cannot be written.
        """
        try:
            self._mux(self._video.encode(None))
            if self._audio is not None:
                self._mux(self._audio.encode(None))
            self._container.close()
        except (av.error.FFmpegError, OSError) as error:
            raise SinkError(f"{self._name}: cannot be finished: {error}") from error

    def abort(self) -> None:
        """Let go of it; never raises."""
        try:
            self._container.close()
        except Exception:
            return
