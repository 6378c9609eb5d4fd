"""How video files, sequences of pictures and standard input are opened."""

import io
import logging
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from av.codec.context import Flags
from av.codec.hwaccel import HWAccel
from av.stream import Disposition

from engines.cuda import gpus
from pipeline.errors import SourceError
from pipeline.nv12 import current_context

log = logging.getLogger("fauve")

NUMBER = re.compile(r"%0?\d*d")
"""In the name of a sequence of pictures, the place of its number: frame%05d.png."""

RENUMBERED = {"merge_pmt_versions": "1"}
"""FFmpeg's option for MPEG-TS whose tracks get other numbers on the way, where a recording or a sender was
started anew."""

LONG_PROBE = {"probesize": str(1 << 30), "analyzeduration": str(600_000_000)}
"""FFmpeg's options for looking as far as ten minutes into a file for what its tracks are."""

GIVE_PARTS = ("mov", "flv", "avi")
"""What FFmpeg's names of formats begin with that give of a packet which is cut off what is there of it."""

TAKE_WHOLE = ("h264", "hevc", "av1")
"""Codecs that have no picture of a packet in part."""

FALLBACK_RATE = Fraction(25)
"""Frames per second of a stream that does not tell, as FFmpeg assumes."""

PICTURE_RATE = Fraction(25)
"""Frames per second of a sequence of pictures, where nothing else is asked for."""


def is_sequence(path: str | Path) -> bool:
    """Whether the name stands for a sequence of pictures and not for one file."""
    return NUMBER.search(Path(path).name) is not None and not Path(path).exists()


def numbered(path: Path) -> dict[int, Path]:
    """The pictures that are there of the sequence `path`, by their numbers and in that order.

    Raises:
        SourceError: its folder may not be read.
    """
    begin, number, end = _split(path.name)
    width = int(number[1:-1] or 0)
    pictures = {}
    try:
        names = os.listdir(path.parent)
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except OSError as error:
        raise SourceError(f"{path}: its folder cannot be read: {error.strerror}") from error
    for name in names:
        digits = name[len(begin) : len(name) - len(end)]
        if name == begin + digits + end and digits.isdecimal() and digits == f"{int(digits):0{width}d}":
            pictures[int(digits)] = path.parent / name
    return dict(sorted(pictures.items()))


def _split(name: str) -> tuple[str, str, str]:
    """The name of a sequence: what is before its number, the place of that, and what is behind it."""
    begin, number, end = re.split(f"({NUMBER.pattern})", name, maxsplit=1)
    return begin, number, end


def _open_sequence(path: Path, rate: Fraction) -> Any:
    """The pictures of a sequence as one video; FFmpeg would take one that is missing for the end.

    Raises:
        SourceError: there is none, or one is missing between two that are there.
        OSError, ValueError: FFmpeg cannot read them.
    """
    numbers = list(numbered(path))
    if not numbers:
        raise SourceError(f"{path}: no such file")
    for before, after in pairwise(numbers):
        if after > before + 1:
            raise SourceError(
                f"{path}: number {before + 1} is missing between {before} and {after}; add it, or number the "
                "pictures without a gap"
            )
    begin, number, end = _split(path.name)
    # To FFmpeg any other "%" means something, too.
    begin, end = (part.replace("%", "%%") for part in (os.path.join(path.parent, begin), end))
    options = {"framerate": str(rate), "start_number": str(numbers[0]), "pattern_type": "sequence"}
    name = f"file:{begin}{number}{end}"
    return av.open(name, format="image2", options=options, metadata_errors="replace")


def open_on_nvidia(path: str | Path, picture_rate: Fraction | None = None, *, on_device: bool = False) -> Any:
    """The same as `open_input`, with NVIDIA's decoder for what it can decode; not run on one.

    FFmpeg decodes on the CPU what the GPU cannot.

    Args:
        on_device: its frames stay on the GPU; else they are copied to host memory.

    Raises:
        SourceError: as `open_input`, or there is no such decoder here.
    """
    if not gpus():
        raise SourceError("--decoder cuda: NVIDIA's driver finds no GPU here; without it the CPU decodes")
    if str(path) != "-":
        # What is wrong with the file is said as it always is.
        open_input(path, picture_rate).close()
    options: dict[str, object] | None = None
    if on_device:
        # FFmpeg refuses the primary context where PyTorch has it with other flags, but takes what is current.
        current_context()
        options = {"primary_ctx": "0", "current_ctx": "1"}
    try:
        accelerated = HWAccel("cuda", allow_software_fallback=True, is_hw_owned=on_device, options=options)
        return open_input(path, picture_rate, accelerated=accelerated)
    except SourceError as error:
        reason = getattr(error.__cause__, "strerror", None) or error.__cause__
        raise SourceError(
            f"{path}: NVIDIA's decoder does not start ({reason}); without --decoder cuda the CPU decodes"
        ) from error


def open_input(
    path: str | Path, picture_rate: Fraction | None = None, *, accelerated: HWAccel | None = None
) -> Any:
    """An open container of FFmpeg's.

    Args:
        path: a file, a sequence such as frame%05d.png, or "-" for standard input.
        picture_rate: frames per second of a sequence.
        accelerated: the device that decodes, instead of the CPU.

    Raises:
        SourceError: no such file, or none that FFmpeg can read.
    """
    if Path(path).is_dir():
        raise SourceError(f"{path}: a folder, not a video file")
    if Path(path).is_fifo():
        # It can be read once and from its beginning only, as nothing but standard input is.
        raise SourceError(f"{path}: is a pipe; give - in its place, and < {path} behind the command")
    # "file:" because FFmpeg would take the part before a colon for a protocol.
    name = "pipe:0" if str(path) == "-" else f"file:{path}"
    try:
        if is_sequence(path):
            return _open_sequence(Path(path), picture_rate or PICTURE_RATE)
        film = _moving_webp(path) or name
        container = av.open(film, options=RENUMBERED, metadata_errors="replace", hwaccel=accelerated)
        if name != "pipe:0" and any(
            stream.codec_context is not None and not stream.codec_context.sample_rate
            for stream in container.streams.audio
        ):
            # Its sound begins late: what it is stands behind what FFmpeg reads beforehand.
            container.close()
            options = RENUMBERED | LONG_PROBE
            container = av.open(name, options=options, metadata_errors="replace", hwaccel=accelerated)
        return container
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file") from error
    except PermissionError as error:
        raise SourceError(f"{path}: may not be read; check its permissions") from error
    except (av.error.FFmpegError, ValueError) as error:
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise SourceError(f"{path}: the file is empty") from error
        shown = "standard input" if str(path) == "-" else path
        raise SourceError(f"{shown}: not a video that FFmpeg can read, or a damaged one") from error


def _moving_webp(path: str | Path) -> io.BytesIO | None:
    """An animated WebP as a lossless film in memory, since FFmpeg shows none; None for anything else.

    Raises:
        ValueError: it is damaged.
    """
    if Path(path).suffix.lower() != ".webp":
        return None
    content = Path(path).read_bytes()
    # RIFF, size, WEBP, then the extended header, whose second lowest flag tells of an animation.
    if content[8:16] != b"WEBPVP8X" or not content[20] & 2:
        return None
    # What is wrong with it is said by us, in one line.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    read, animation = cv2.imdecodeanimation(np.frombuffer(content, np.uint8))
    if not read or not animation.frames:
        raise ValueError("no frame in it can be decoded")
    film = io.BytesIO()
    frames = [
        image if image.shape[2] == 4 else cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
        for image in animation.frames
    ]
    transparent = any(image[..., 3].min() < 255 for image in frames)
    with av.open(film, "w", format="matroska") as container:
        video: Any = container.add_stream("ffv1", rate=round(1000 / max(1, animation.durations[0])))
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "bgra" if transparent else "bgr0"
        video.codec_context.time_base = video.time_base = Fraction(1, 1000)
        video.codec_context.flags |= Flags.frame_duration
        at = 0
        for image, duration in zip(frames, animation.durations, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="bgra").reformat(format=video.pix_fmt)
            frame.pts, frame.time_base, frame.duration = at, Fraction(1, 1000), int(duration)
            at += int(duration)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    film.seek(0)
    return film


def picture_stream(container: Any) -> Any:
    """The stream of `container` that is painted; None if there is only sound, or a cover."""
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    return best if best in pictures else next(iter(pictures), None)


def packets_of(container: Any, streams: Any, name: str) -> Iterator[Any]:
    """The packets of `streams`, and at the end one without content of each.

    Args:
        name: what messages call the container.
    """
    try:
        yield from container.demux(streams)
    except IndexError:
        # PyAV's, at the very end, where there are more tracks than there were at the beginning. Not always:
        # for those it reads a flag that it has never set.
        log.warning("%s: a track that begins later than the others is left out", name)


def begins(container: Any) -> Fraction:
    """When a transport stream begins whose picture does so before 0, in seconds; 0 of anything else.

    FFmpeg has below 0 what comes before its clock overflows (each 26.5 hours), where some containers hold no
    picture.
    """
    video = picture_stream(container)
    if container.format.name != "mpegts" or video is None or (video.start_time or 0) >= 0:
        return Fraction(0)
    first: Fraction = min(
        each.start_time * each.time_base for each in container.streams if each.start_time is not None
    )
    return first


def is_cut_off(packet: Any) -> bool:
    """Whether the file ends within `packet`, of which there is no picture then.

    Decoding it may lose the pictures before it: PyAV stops draining a decoder at an error.
    """
    stream = packet.stream
    return bool(
        packet.is_corrupt
        and stream.container.format.name.startswith(GIVE_PARTS)
        and stream.codec_context.codec.canonical_name in TAKE_WHOLE
    )


def usual_duration(stream: Any) -> int:
    """How long a picture of `stream` is shown, in its ticks, where it does not tell itself."""
    duration: int = round(1 / (usual_rate(stream) * stream.time_base))
    return duration


def shown_for(stream: Any, pts: int, duration: int) -> int:
    """How long a picture of `stream` is shown if it is the last one, in ticks.

    Args:
        duration: as its packet tells; in .mp4 that is in the order of decoding, and may lead beyond the end
            of the track.
    """
    end = (stream.start_time or 0) + (stream.duration or 0)
    within = stream.container.format.name.startswith("mov") and pts < end
    return min(duration, end - pts) if within else duration


def usual_rate(stream: Any) -> Fraction:
    """Frames per second of `stream`, as far as it tells."""
    # Of a DV file FFmpeg takes the clock for the average.
    average = None if stream.container.format.name == "dv" else stream.average_rate
    rate: Fraction = average or stream.guessed_rate or FALLBACK_RATE
    return rate


def transparent_decoder(stream: Any) -> Any:
    """The codec context that decodes the alpha of `stream` too, where FFmpeg's usual one does not; or None.

    The alpha of VP8 and VP9 is a picture of its own beside each packet, which only libvpx reads.
    """
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.codec.canonical_name)
    if name is None or stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) != "1":
        return None
    decoder: Any = av.CodecContext.create(name, "r")
    decoder.extradata = stream.codec_context.extradata
    return decoder
