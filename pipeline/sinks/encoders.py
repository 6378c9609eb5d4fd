"""The video encoders that a file can be written with, and their defaults."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import av
import av.error
from av import library_versions
from av.codec.context import Flags
from av.filter import Graph

from engines.cpu import instruction_sets
from pipeline.colour import IDENTITY, LIMITED, RGB, SMPTE170M, Colour, encodable, is_yuv, subsampling
from pipeline.errors import SinkError
from pipeline.frame import Frame, VideoInfo
from pipeline.hdr import HLG, PQ, lift
from pipeline.nv12 import Planes


@dataclass(frozen=True, slots=True)
class Encoder:
    """One of FFmpeg's encoders, as users name and set it."""

    name: str
    """FFmpeg's name of it."""
    codec: str
    """FFmpeg's name of what it makes."""
    pixels: str = "yuv420p"
    """Pixel format that it is fed."""
    odd_pixels: str = "yuv444p"
    """The same for a picture with an odd side."""
    high_pixels: str | None = "yuv420p10le"
    """The same for a picture of high dynamic range; None if the codec cannot."""
    alpha_pixels: str | None = None
    """The same for a transparent picture; None if the codec holds none."""
    crf: int | None = None
    """Default quality; None if the codec has none to choose."""
    crf_option: str = "crf"
    """What FFmpeg calls the quality."""
    worst_crf: int = 51
    preset: str | None = None
    """Default effort; None if the codec has none to choose."""
    preset_option: str = "preset"
    """What FFmpeg calls the effort."""
    presets: tuple[str, ...] = ()
    """Efforts that there are, from the least to the greatest or the other way round."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What is always set."""
    alpha_options: Mapping[str, str] = field(default_factory=dict)
    """What is set for a transparent picture."""
    matrix: int | None = None
    """That its pictures are always in; None takes the video's."""
    range: int | None = None
    """The same for the range."""
    palette: bool = False
    """Whether each picture is brought down to 256 colours of its own."""
    mastering_option: str | None = None
    """What FFmpeg calls the settings that take the mastering display; None if the codec holds none."""
    tag: str | None = None
    """Four letters for .mp4 and .mov that more players know than FFmpeg's own."""
    least_side: int = 1
    """Shortest side of a picture that it takes, in pixels."""
    nvidia: bool = False
    """Whether an NVIDIA GPU encodes; written, not run on one."""

    def written(self, colour: Colour) -> Colour:
        """How it writes a video whose numbers mean colours as `colour` says."""
        return replace(colour, matrix=self.matrix or colour.matrix, range=self.range or colour.range)

    def settings(self, name: str, crf: int | None, preset: str | None) -> dict[str, str]:
        """FFmpeg's options for quality and effort; the defaults where None is given.

        Raises:
            SinkError: the codec has no such setting, or not that value.
        """
        settings = dict(self.options)
        if crf is not None and self.crf is None:
            raise SinkError(f"--crf: {name} has no quality to choose")
        if preset is not None and self.preset is None:
            raise SinkError(f"--preset: {name} has no effort to choose")
        if self.crf is not None:
            crf = self.crf if crf is None else crf
            if not 0 <= crf <= self.worst_crf:
                raise SinkError(f"--crf: {name} takes 0 to {self.worst_crf}, not {crf}")
            settings[self.crf_option] = str(crf)
        if self.preset is not None:
            if preset is not None and preset not in self.presets:
                raise SinkError(f"--preset: {name} takes {', '.join(self.presets)}; not {preset!r}")
            settings[self.preset_option] = preset or self.preset
        return settings


SPEEDS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
"""Presets of x264 and x265."""

NVENC_PRESETS = ("p1", "p2", "p3", "p4", "p5", "p6", "p7")

ENCODERS = {
    "h264": Encoder(
        "libx264", "h264", crf=20, preset="veryfast", presets=SPEEDS, mastering_option="x264-params"
    ),
    "h265": Encoder(
        "libx265",
        "hevc",
        crf=20,
        preset="veryfast",
        presets=SPEEDS,
        options={"x265-params": "log-level=error:frame-threads=4"},
        mastering_option="x265-params",
        tag="hvc1",
        # Of 48x24 and 33x31 it destroyed its memory (libx265 of PyAV 18.1).
        least_side=32,
    ),
    "av1": Encoder(
        "libsvtav1",
        "av1",
        odd_pixels="yuv420p",
        crf=26,
        worst_crf=63,
        preset="9",
        presets=tuple(map(str, range(-1, 14))),
        mastering_option="svtav1-params",
        # Of 65x16 and 200x24 it never gave back a frame (SVT-AV1 of PyAV 18.1).
        least_side=32,
    ),
    "vp9": Encoder(
        "libvpx-vp9",
        "vp9",
        odd_pixels="yuv420p",
        crf=28,
        worst_crf=63,
        preset="5",
        presets=tuple(map(str, range(9))),
        preset_option="cpu-used",
        options={"b": "0", "deadline": "realtime", "row-mt": "1"},
        # The libvpx of PyAV's wheels has 8 bits only.
        high_pixels=None,
        alpha_pixels="yuva420p",
        # libvpx refuses to keep a frame for later where there is alpha.
        alpha_options={"auto-alt-ref": "0"},
    ),
    "prores": Encoder(
        "prores_ks",
        "prores",
        "yuv422p10le",
        "yuv444p10le",
        "yuv422p10le",
        options={"profile": "hq"},
        alpha_pixels="yuva444p10le",
        alpha_options={"profile": "4444"},
        # It cannot tell of another one.
        range=LIMITED,
    ),
    "ffv1": Encoder("ffv1", "ffv1", "bgr0", "bgr0", alpha_pixels="bgra"),
    "h264_nvenc": Encoder(
        "h264_nvenc",
        "h264",
        high_pixels=None,
        crf=23,
        crf_option="cq",
        preset="p4",
        presets=NVENC_PRESETS,
        options={"rc": "vbr", "b": "0"},
        nvidia=True,
    ),
    "hevc_nvenc": Encoder(
        "hevc_nvenc",
        "hevc",
        high_pixels=None,
        crf=25,
        crf_option="cq",
        preset="p4",
        presets=NVENC_PRESETS,
        options={"rc": "vbr", "b": "0"},
        tag="hvc1",
        nvidia=True,
    ),
    "gif": Encoder("gif", "gif", "rgba", "rgba", None, alpha_pixels="rgba", palette=True),
    "apng": Encoder("apng", "apng", "rgb24", "rgb24", None, alpha_pixels="rgba"),
    "webp": Encoder(
        "libwebp_anim",
        "webp",
        odd_pixels="yuv420p",
        high_pixels=None,
        alpha_pixels="bgra",
        options={"quality": "85"},
        # Nor can WebP, whose own these are.
        matrix=SMPTE170M,
        range=LIMITED,
    ),
}
"""By the name that users type."""


# SVT-AV1 would tell all its settings for every part.
os.environ.setdefault("SVT_LOG", "1")

MOST_THREADS = 16
"""More make FFmpeg complain."""


@dataclass(frozen=True)
class Encoding:
    """How one video is encoded; the same frames through the same encoding give the same stream.

    The number of threads belongs to it, because x264 decides otherwise with another number.
    """

    encoder: Encoder
    settings: Mapping[str, str]
    pixels: str
    """Pixel format that the encoder is fed."""
    in_band: bool = False
    """Whether its headers travel with the pictures, as broadcasts need it."""
    tag: str | None = None
    """Four letters that name the codec in the container; None for FFmpeg's own."""

    def set_up(self, context: Any, info: VideoInfo) -> None:
        """Tell the codec context all that it must know before it is opened."""
        context.width, context.height = info.width, info.height
        context.pix_fmt = "pal8" if self.encoder.palette else self.pixels
        context.time_base, context.framerate = info.time_base, info.rate
        context.sample_aspect_ratio = info.sample_aspect_ratio
        if self.pixels in RGB:
            # Without it .mp4 and .mov take no tags at all.
            context.colorspace = IDENTITY
        else:
            colour = self.encoder.written(info.colour)
            context.colorspace, context.color_range = colour.matrix, colour.range
        context.color_primaries, context.color_trc = info.colour.primaries, info.colour.transfer
        context.flags |= Flags.frame_duration
        if self.in_band:
            context.flags &= ~Flags.global_header
        else:
            context.flags |= Flags.global_header
        context.options = _with(self.settings, self._of_this_machine())
        if self.tag:
            context.codec_tag = self.tag

    def _of_this_machine(self) -> dict[str, str]:
        # With AVX-512, x264 (core 165) decides by chance at some sizes: the same 240 frames of 320x180 gave
        # seven streams in twelve runs. With AVX2 they give one, as fast.
        if self.encoder.name == "libx264" and "avx512f" in instruction_sets():
            return {"x264-params": "asm=AVX2"}
        return {}

    def facts(self) -> list[Any]:
        """All that the stream depends on but the frames, as JSON can hold it."""
        return [self.encoder.name, library_versions["libavcodec"], dict(self.settings), self.pixels]

    def __str__(self) -> str:
        chosen = " ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.encoder.name} with {chosen}"


def choose(
    name: str,
    info: VideoInfo,
    *,
    muxer: str,
    crf: int | None = None,
    preset: str | None = None,
    pixels: str | None = None,
) -> Encoding:
    """The encoding of `info`'s pictures by the encoder `name`, for FFmpeg's muxer `muxer`.

    Args:
        pixels: FFmpeg's name of a pixel format, such as yuv422p10le; None takes what suits the picture.

    Raises:
        SinkError: no such encoder, or it has no such setting.
    """
    if name not in ENCODERS:
        raise SinkError(f"no codec {name!r}; there is {', '.join(ENCODERS)}")
    encoder = ENCODERS[name]
    if min(info.width, info.height) < encoder.least_side:
        raise SinkError(
            f"{name} takes pictures of {encoder.least_side} lines and columns or more, not {info.width}x"
            f"{info.height}; --codec h264 takes these"
        )
    if encoder.nvidia:
        _open_once(encoder)
    settings = encoder.settings(name, crf, preset)
    settings["threads"] = str(min(MOST_THREADS, (os.cpu_count() or 1) * 3 // 2))
    odd = info.width % 2 or info.height % 2
    usual = encoder.odd_pixels if odd else encoder.pixels
    if info.colour.transfer in (PQ, HLG):
        if encoder.high_pixels is None:
            raise SinkError(f"{name} holds no high dynamic range; leave out --hdr keep")
        # Only full chroma has a place for odd sides, where the codec has that at all.
        full = odd and "444" in encoder.odd_pixels
        usual = encoder.high_pixels.replace("420", "444") if full else encoder.high_pixels
    if info.mastering is not None and encoder.mastering_option is not None:
        option = encoder.mastering_option
        settings = _with(settings, {option: info.mastering.options(option)})
    if info.alpha and encoder.alpha_pixels is not None:
        usual = encoder.alpha_pixels
        settings.update(encoder.alpha_options)
    return Encoding(
        encoder,
        settings,
        usual if pixels is None else _asked(name, encoder, info, pixels),
        in_band=muxer == "mpegts",
        tag=encoder.tag if muxer in ("mp4", "mov") else None,
    )


def _asked(name: str, encoder: Encoder, info: VideoInfo, pixels: str) -> str:
    """`pixels`, if the encoder takes such and the picture can be had in it.

    Raises:
        SinkError: otherwise, with what can be asked for.
    """
    if encoder.palette or (info.alpha and encoder.alpha_pixels is not None):
        raise SinkError(f"--pixel-format: there is no choice for {name} with this picture; leave it out")
    least = 10 if info.colour.transfer in (PQ, HLG) else 8
    even = info.width % 2 == info.height % 2 == 0
    taken = []
    for format in av.Codec(encoder.name, "w").video_formats or ():
        opaque = not any(component.is_alpha for component in format.components)
        deep = format.components and format.components[0].bits >= least
        # "yuvj" says full range in another way; RGB goes in by the formats that frames are made in. Grey has
        # no place for the colours of a painting.
        made = format.name in RGB or (is_yuv(format) and not format.name.startswith("yuvj"))
        # x264 and x265 have a place for odd sides in full chroma only.
        whole = even or encoder.odd_pixels != "yuv444p" or subsampling(format) == (1, 1)
        if deep and opaque and made and whole:
            taken.append(format.name)
    if pixels not in taken:
        bits = " in ten bits or more" if least > 8 else ""
        raise SinkError(
            f"--pixel-format: {name} takes{bits} {', '.join(taken) or 'none'}, not {pixels} of {info.width}x"
            f"{info.height}"
        )
    return pixels


def _with(settings: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """All of both; where both have a list, such as "x265-params", it holds the items of both."""
    joined = {key: f"{settings[key]}:{value}" if key in settings else value for key, value in more.items()}
    return {**settings, **joined}


def _open_once(encoder: Encoder) -> None:
    """Make sure that the GPU encodes at all: some have no encoder, and it would be found out late.

    Raises:
        SinkError: it does not.
    """
    try:
        context: Any = av.CodecContext.create(encoder.name, "w")
        context.width, context.height, context.pix_fmt = 256, 256, encoder.pixels
        context.time_base = Fraction(1, 25)
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        reason = error.strerror if isinstance(error, av.error.FFmpegError) else "this FFmpeg has none"
        other = "h264" if encoder.codec == "h264" else "h265"
        raise SinkError(
            f"--codec {encoder.name}: no NVIDIA GPU here that encodes ({reason}); --codec {other} needs none"
        ) from error


class Palette:
    """Brings each picture down to the 256 colours that suit it best, by FFmpeg's filters."""

    def __init__(self, info: VideoInfo) -> None:
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=info.width, height=info.height, format=av.VideoFormat("rgba"), time_base=info.time_base
        )
        split = self._graph.add("split")
        found = self._graph.add("palettegen", "stats_mode=single")
        used = self._graph.add("paletteuse", "new=1:dither=sierra2_4a")
        source.link_to(split)
        split.link_to(used, 0, 0)
        split.link_to(found, 1, 0)
        found.link_to(used, 0, 1)
        used.link_to(self._graph.add("buffersink"))
        self._graph.configure()

    def reduce(self, picture: Any) -> Any:
        """`picture`, RGBA, with a palette; pixels less than half opaque vanish."""
        self._graph.vpush(picture)
        return self._graph.vpull()


class VideoEncoder:
    """Frames in, packets out, in the order of decoding and with the frames' own times and durations.

    Args:
        context: a codec context to use instead of one of its own, already set up and open.
    """

    def __init__(self, encoding: Encoding, info: VideoInfo, context: Any = None) -> None:
        self._encoding = encoding
        self._colour = encoding.encoder.written(info.colour)
        self._time_base: Fraction = info.time_base
        self._durations: dict[int, int] = {}
        if context is None:
            context = av.CodecContext.create(encoding.encoder.name, "w")
            encoding.set_up(context, info)
        self._context: Any = context
        self._palette = Palette(info) if encoding.encoder.palette else None

    @property
    def header(self) -> bytes:
        """What a decoder must know before the first packet; complete after the first frame."""
        return bytes(self._context.extradata or b"")

    def encode(self, frame: Frame) -> Sequence[Any]:
        """The packets that are ready after `frame`."""
        image: Any = frame.image
        if isinstance(image, Planes):
            pixels = "cuda" if self._encoding.encoder.nvidia else self._encoding.pixels
            if not self._context.is_open:
                self._context.pix_fmt = pixels
            picture = image.frame(self._colour, pixels)
        elif frame.gain is not None:
            picture = lift(frame.image, frame.gain, self._encoding.pixels)
        else:
            picture = encodable(frame.image, self._colour, self._encoding.pixels, frame.alpha)
        if self._palette is not None:
            picture = self._palette.reduce(picture)
        picture.pts, picture.time_base, picture.duration = frame.pts, frame.time_base, frame.duration
        self._durations[frame.pts] = frame.duration
        return self._stamped(self._context.encode(picture))

    def flush(self) -> Sequence[Any]:
        """The packets that are left at the end."""
        packets = self._stamped(self._context.encode(None))
        if packets and self._durations:
            # WebP has all pictures in one packet, which lasts as long as they do.
            newest = max(self._durations)
            packets[-1].duration = newest + self._durations[newest] - packets[-1].pts
        return packets

    def _stamped(self, packets: Sequence[Any]) -> Sequence[Any]:
        for packet in packets:
            packet.time_base = self._time_base
            packet.duration = self._durations.pop(packet.pts, 0)
        return packets
