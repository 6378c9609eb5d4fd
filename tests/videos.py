"""Small videos that the tests make, and an independent reading of what came out."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.frame import Frame
from pipeline.sinks.container import DEFAULT_CODEC, Container, muxer_of
from pipeline.sinks.encoders import choose
from pipeline.sinks.file import FileSink
from pipeline.sinks.parts import Parts, PartSink, join
from pipeline.sources.file import FileSource

RATE = 25


def picture(index: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A photograph-like picture that tells its index by a bright bar, and which corner is which."""
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    image = np.stack([40 + across * 100 / width, 60 + down * 80 / height, np.full_like(down, 90)], -1)
    image = image.astype(np.uint8)
    left = 4 + index * 5 % (width - 12)
    image[height // 3 : height // 2, left : left + 6] = 240
    cv2.circle(image, (width // 4, 3 * height // 4), height // 6, (200, 40, 40), -1)
    return image


def panned(index: int, width: int = 96, height: int = 64) -> np.ndarray:
    """What a camera sees that moves over a meadow, to and fro."""
    rng = np.random.default_rng(6)
    coarse = rng.integers(30, 226, (height // 3, width // 3, 3)).astype(np.uint8)
    meadow = cv2.resize(coarse, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
    left, top = width / 2 * (1 - np.cos(index / 25)), height / 2 * (1 - np.cos(index / 40))
    shift = np.array([[1, 0, -left], [0, 1, -top]], np.float32)
    return cv2.warpAffine(meadow, shift, (width, height))


def make_video(
    path: Path,
    pts: list[int] | None = None,
    *,
    frames: int = 12,
    size: tuple[int, int] = (96, 64),
    rate: int = RATE,
    time_base: Fraction = Fraction(1, 12800),
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    audio: bool = True,
    audio_codec: str = "aac",
    layout: str = "mono",
    colour: tuple[int, int, int, int] | None = None,
    aspect: Fraction | None = None,
    metadata: dict[str, str] | None = None,
    timecode: str | None = None,
    shown: Callable[..., np.ndarray] = picture,
) -> Path:
    """Encode a clip, with a tone for its sound, and return its path.

    Args:
        pts: of each frame; `frames` of them at `rate` if not given.
        colour: matrix, range, primaries and transfer to tag.
        shown: makes the picture of an index, a width and a height.
    """
    step = round(1 / (rate * time_base))
    pts = [index * step for index in range(frames)] if pts is None else pts
    with av.open(f"file:{path}", "w") as container:
        container.metadata.update(metadata or {})
        video = container.add_stream(codec, rate=rate)
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        video.codec_context.time_base = video.time_base = time_base
        if codec == "libx264":
            video.codec_context.options = {"preset": "ultrafast", "crf": "10", "bf": "2"}
        if timecode:
            video.metadata["timecode"] = timecode
        if aspect:
            video.codec_context.sample_aspect_ratio = aspect
        if colour:
            context = video.codec_context
            context.colorspace, context.color_range, context.color_primaries, context.color_trc = colour
        sound = container.add_stream(audio_codec, rate=48000, layout=layout) if audio else None
        for index, at in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(shown(index, *size), format="rgb24")
            if colour:
                frame = frame.reformat(
                    format=pix_fmt, dst_colorspace=colour[0], src_color_range=2, dst_color_range=colour[1]
                )
                frame.colorspace, frame.color_range = colour[:2]
            else:
                frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = at, time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            seconds = float((pts[-1] + step) * time_base)
            for start in range(0, int(seconds * 48000), 1024):
                samples = np.sin(np.arange(start, start + 1024) * 2 * np.pi * 440 / 48000).astype(np.float32)
                channels = np.repeat(samples[None] * 0.3, av.AudioLayout(layout).nb_channels, 0)
                tone = av.AudioFrame.from_ndarray(channels, format="fltp", layout=layout)
                tone.sample_rate, tone.pts, tone.time_base = 48000, start, Fraction(1, 48000)
                container.mux(sound.encode(tone))
            container.mux(sound.encode(None))
    return path


def copy(source_path: Path, path: Path, way: str = "parts", codec: str | None = None, **options) -> None:
    """Copy a video through the sinks, unpainted: in parts that are joined, or as a stream to the file."""
    with FileSource(source_path) as source:
        if way == "stream":
            sink = FileSink(path, source.info, codec=codec, **options)
            for item in source:
                if isinstance(item, Frame):
                    sink.write(item)
                else:
                    sink.mux(item)
            sink.close()
            return
        info, muxer = source.info, muxer_of(path)
        encoding = choose(codec or DEFAULT_CODEC.get(muxer, "h264"), info, muxer=muxer, **options)
        parts = Parts(path)
        parts.begin({}, resume=False, force=False)
        container = Container(path, parts.joined, info, encoding)
        sink = PartSink(parts, info, encoding)
        with FileSource(source_path, tracks=False) as frames:
            for frame in frames:
                sink.write(frame)
        sink.close()
        join(list(parts), container, source.packets(), info)
        container.close()
        parts.joined.rename(path)
        parts.remove()


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a b c d into the display matrix of the first track of an .mp4, as a phone does."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of times and layers
    a, b, c, d = (value << 16 for value in matrix)
    for index, value in enumerate([a, b, 0, c, d, 0, 0, 0, 1 << 30]):
        content[at + 4 * index : at + 4 * index + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    return path


@dataclass
class Reading:
    """What a file holds, by a plain reading of it."""

    pts: list[int]
    durations: list[int]
    time_base: Fraction
    images: list[np.ndarray]
    packets: list[tuple[int | None, int | None, int | None, bytes]]
    """pts, dts, duration and content of each packet of sound."""
    video: av.VideoStream
    metadata: dict[str, str]
    duration: int | None

    @property
    def times(self) -> list[Fraction]:
        return [at * self.time_base for at in self.pts]


def read_video(path: Path) -> Reading:
    with av.open(f"file:{path}") as container:
        video = container.streams.video[0]
        frames = list(container.decode(video))
        images = [frame.to_ndarray(format="rgb24") for frame in frames]
        duration, metadata = container.duration, dict(container.metadata)
        time_base = video.time_base
    packets = []
    with av.open(f"file:{path}") as container:
        video = container.streams.video[0]
        if container.streams.audio:
            for packet in container.demux(container.streams.audio[0]):
                if packet.size:
                    packets.append((packet.pts, packet.dts, packet.duration, bytes(packet)))
        return Reading(
            [frame.pts for frame in frames],
            [frame.duration for frame in frames],
            time_base,
            images,
            packets,
            video,
            metadata,
            duration,
        )


def bar(image: np.ndarray) -> int:
    """Where the bright bar of `picture` begins."""
    rows = image[image.shape[0] // 3 + 2 : image.shape[0] // 2 - 2].min(-1).mean(0)
    return int(np.argmax(rows > 200))
