"""Whether a painted file keeps what was promised of it, found out from the two files alone.

Reads both with FFmpeg's demuxers and decoders and nothing of the pipeline that wrote the one from the other.
"""

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from pipeline.colour import Colour, colour_of, is_yuv
from pipeline.errors import SourceError
from pipeline.hdr import HLG, PQ, high_colour
from pipeline.hdr_metadata import Mastering, mastering_of
from pipeline.languages import same_language
from pipeline.orientation import Orientation, orientation_of
from pipeline.sinks.container import ANIMATIONS, FORMATS
from pipeline.sinks.encoders import ENCODERS
from pipeline.sinks.images import writes_images
from pipeline.sinks.tracks import TEXT_SUBTITLES, held_by
from pipeline.sources.demuxer import (
    begins,
    is_cut_off,
    is_sequence,
    open_input,
    packets_of,
    picture_stream,
    usual_duration,
)
from pipeline.sources.timeline import Timeline

KINDS = ("audio", "subtitle", "data")
"""Tracks beside the picture whose packets are compared."""

HOLD_MASTERING = ("h264", "hevc", "av1")
"""Codecs that say themselves which display they were graded on."""


@dataclass(frozen=True)
class TrackContents:
    """A track beside the picture."""

    kind: str
    codec: str
    language: str | None
    time_base: Fraction
    times: tuple[Fraction, ...]
    """Of its packets, in seconds."""
    ends: tuple[Fraction, ...]
    """When what is in its packets ends, in seconds."""
    digests: tuple[bytes, ...]
    """Of its packets' contents."""
    unheard: int = 0
    """How many packets at its beginning lie before an edit list lets it begin."""


@dataclass(frozen=True)
class Contents:
    """What a video file holds, as far as the promise goes."""

    time_base: Fraction
    times: tuple[Fraction | None, ...]
    """Of its frames, in seconds; None where the file does not tell."""
    ends: tuple[Fraction, ...]
    """When it ends, in seconds: by its last frame, by its track, and by its header. In .mp4, where frames are
    stored in another order than shown, the first can be wrong; the last is of the longest track."""
    size: tuple[int, int]
    """Of the upright picture."""
    aspect: Fraction
    """Width of a pixel through its height, for the upright picture."""
    orientation: Orientation
    colour: Colour
    mastering: Mastering | None
    """What it says about the display that it was graded on."""
    codec: str
    """FFmpeg's name of that of the picture."""
    tracks: tuple[TrackContents, ...]
    chapters: tuple[tuple[Fraction, Fraction, str], ...]
    title: str
    holds: frozenset[str]
    """Codecs that its container can hold; empty if FFmpeg cannot write that kind."""
    yuv: bool = True
    """Whether the picture is of Y, Cb and Cr; what is not has no matrix."""
    broadcast: bool = False
    """A transport stream, whose times are above 0, and which has neither chapters nor a title."""
    bare: bool = False
    """Pictures, moving or not: such a file has no sound, colour tags, chapters or title."""
    timeless: bool = False
    """One picture or numbered ones, which have no times either."""
    merges: bool = False
    """Equal pictures in a row are one that is shown longer, as WebP has it."""


def read_contents(
    path: str | Path, picture_rate: Fraction | None = None, between: Callable[[], None] | None = None
) -> Contents:
    """Decode the pictures of `path` and read the packets beside them.

    Args:
        picture_rate: frames per second of a sequence of pictures, which has no times of its own.
        between: called before each packet; what it raises ends the reading.

    Raises:
        SourceError: it cannot be read, or there is no picture in it.
    """
    try:
        return _read(Path(path), picture_rate, between)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _read(
    path: Path, picture_rate: Fraction | None, between: Callable[[], None] | None, threads: str = "AUTO"
) -> Contents:
    with open_input(path, picture_rate) as container:
        video: Any = picture_stream(container)
        if video is None:
            raise SourceError(f"{path}: there is no video in it")
        video.thread_type = threads
        others = [stream for stream in container.streams if stream.type in KINDS]
        packets: dict[int, list[tuple[Fraction, Fraction, bytes]]] = {stream.index: [] for stream in others}
        unheard = dict.fromkeys(packets, 0)
        samples = {
            stream.index: hashlib.sha1(usedforsecurity=False) for stream in others if _is_samples(stream)
        }
        frames: list[tuple[int | None, int]] = []
        first: Any = None
        damaged, sent = False, -1
        timeline = Timeline(begins(container))
        for packet in packets_of(container, [video, *others], str(path)):
            if between is not None:
                between()
            # A recording that jumps back goes on, as it does when it is painted.
            timeline.place(packet)
            if packet.stream is not video:
                if packet.pts is not None and _has_content(packet):
                    digest = hashlib.sha1(_payload(packet), usedforsecurity=False).digest()
                    begin, end = (
                        time * packet.time_base for time in (packet.pts, packet.pts + _duration(packet))
                    )
                    packets[packet.stream_index].append((begin, end, digest))
                    if packet.stream_index in samples:
                        samples[packet.stream_index].update(bytes(packet))
                    unheard[packet.stream_index] += packet.is_discard
                continue
            try:
                decoded: list[Any] = [] if is_cut_off(packet) else packet.decode()
                sent = max(sent, -1 if packet.pts is None or packet.is_discard else packet.pts)
            except av.error.InvalidDataError:
                damaged = True
                continue
            for frame in decoded:
                first = first or frame
                duration = frame.duration or usual_duration(video)
                shown = timeline.show(frame.pts, duration)
                frames.append((None if frame.pts is None else shown, duration))
        if first is None:
            raise SourceError(f"{path}: none of its frames can be decoded")
        last, duration = frames[-1]
        if threads == "AUTO" and (damaged or (last is not None and sent - last > duration / 2)):
            # Of what threads still have at the end, PyAV gives nothing behind a damaged picture.
            return _read(path, picture_rate, between, "SLICE")
        for index, whole in samples.items():
            if packets[index]:
                packets[index] = [(packets[index][0][0], packets[index][-1][1], whole.digest())]
        orientation = orientation_of(first)
        size, aspect = (first.width, first.height), video.sample_aspect_ratio or Fraction(1)
        if orientation.transpose:
            size, aspect = (first.height, first.width), 1 / aspect
        ends = [] if last is None else [(last + duration) * video.time_base]
        if video.duration:
            ends.append(((video.start_time or 0) + video.duration) * video.time_base)
        if container.duration:
            # Matroska counts its duration from 0, others from the first packet.
            for start in {0, container.start_time or 0}:
                ends.append(Fraction(start + container.duration, av.time_base))
        times = tuple(None if pts is None else pts * video.time_base for pts, _ in frames)
        if is_sequence(path) and picture_rate is None:
            times, ends = (None,) * len(times), []
        return Contents(
            time_base=video.time_base,
            times=times,
            ends=tuple(ends),
            size=size,
            aspect=aspect,
            orientation=orientation,
            colour=colour_of(first),
            mastering=mastering_of(first),
            codec=video.codec_context.codec.canonical_name,
            tracks=tuple(_track(stream, packets[stream.index], unheard[stream.index]) for stream in others),
            chapters=tuple(
                (
                    c["start"] * Fraction(c["time_base"] or 0),
                    c["end"] * Fraction(c["time_base"] or 0),
                    c["metadata"].get("title", ""),
                )
                for c in container.chapters()
            ),
            title=container.metadata.get("title", ""),
            holds=_holds(path.suffix.lower(), container.format.name),
            yuv=is_yuv(first.format),
            broadcast=container.format.name == "mpegts",
            bare=writes_images(path) or FORMATS.get(path.suffix.lower()) in ANIMATIONS,
            timeless=writes_images(path) or container.format.name.endswith("_pipe"),
            merges=FORMATS.get(path.suffix.lower()) == "webp",
        )


def _track(stream: Any, packets: list[tuple[Fraction, Fraction, bytes]], unheard: int) -> TrackContents:
    context = stream.codec_context
    return TrackContents(
        stream.type,
        context.codec.canonical_name if context is not None else getattr(stream, "name", None) or "unknown",
        stream.metadata.get("language"),
        stream.time_base,
        tuple(begin for begin, _, _ in packets),
        tuple(end for _, end, _ in packets),
        tuple(digest for _, _, digest in packets),
        unheard,
    )


def _is_samples(stream: Any) -> bool:
    """Whether its sound is plain samples, which each container cuts into packets of its own."""
    context = stream.codec_context
    return stream.type == "audio" and context is not None and context.codec.canonical_name.startswith("pcm_")


def _has_content(packet: Any) -> bool:
    """Whether it says something: in .mp4 a sample without text ends a subtitle before the next begins."""
    context = packet.stream.codec_context
    silent = packet.size == 2 and context is not None and context.codec.canonical_name == "mov_text"
    return bool(packet.size) and not silent


def _duration(packet: Any) -> int:
    """Ticks that a packet lasts; sound of which Matroska does not tell it, such as WavPack, is decoded."""
    context = packet.stream.codec_context
    duration: int = packet.duration or 0
    if not duration and packet.stream.type == "audio" and context is not None:
        with contextlib.suppress(av.error.FFmpegError):
            seconds = sum(Fraction(frame.samples, frame.sample_rate) for frame in packet.decode())
            duration = round(seconds / packet.time_base)
    return duration


def _payload(packet: Any) -> bytes:
    """The packet without the header that AAC has in a transport stream and loses elsewhere (ADTS)."""
    content = bytes(packet)
    context = packet.stream.codec_context
    if (
        context is None
        or context.codec.canonical_name != "aac"
        or content[0] != 0xFF
        or content[1] & 0xF6 != 0xF0
    ):
        return content
    return content[7 if content[1] & 1 else 9 :]


def _holds(suffix: str, demuxer: str) -> frozenset[str]:
    # A demuxer's name is a list of all that it reads, such as "matroska,webm"; the file's name tells which.
    try:
        return held_by(FORMATS.get(suffix) or demuxer.partition(",")[0])
    except ValueError:
        return frozenset()


ANIMATION_TICK = Fraction(1, 500)
"""Seconds that times of animations are rounded to: WebP's encoder cuts them to milliseconds, and FFmpeg reads
those of APNG in hundredths of one, each cut, and adds them up."""


def differences(source: Contents, output: Contents) -> list[str]:
    """What `output` lacks of the promise about `source`, a line each; none if it is kept."""
    found = []
    tick = max(output.time_base, ANIMATION_TICK) if output.bare else output.time_base
    if output.broadcast:
        source = _broadcast(source, output)
    if output.bare:
        source = _bare(source, output)
    if output.merges:
        source = _merged(source, output, tick)
    if len(output.times) != len(source.times):
        found.append(f"frames: {len(source.times)} in the source, {len(output.times)} in the output")
    else:
        found += _moved("frames", source.times, output.times, tick)
    ends = [(a, b) for a in source.ends for b in output.ends]
    # Headers tell it in milliseconds.
    if ends and not any(abs(before - after) <= max(tick, Fraction(1, 1000)) for before, after in ends):
        before, after = map(float, ends[0])
        found.append(f"end: at {before:.4f} s in the source, {after:.4f} s in the output")
    if output.orientation != Orientation():
        found.append("orientation: the output has a display matrix, so that players turn it once more")
    # High dynamic range is brought to BT.709; everything else keeps its tags, as far as the codec can tell.
    # Of high range either is right: tone-mapped, or its own.
    high, colour = (PQ, HLG), source.colour
    if colour.transfer in high:
        kept = output.colour.transfer in high
        colour = high_colour(colour.transfer) if kept else Colour(1, 1, 1, 1)
    made_by = (encoder for encoder in ENCODERS.values() if encoder.codec == output.codec)
    colour = next((encoder.written(colour) for encoder in made_by), colour)
    if output.bare:
        colour = output.colour
    elif not (source.yuv and output.yuv):
        colour = replace(colour, matrix=output.colour.matrix, range=output.colour.range)
    for name, expected, actual in (
        ("size", "{}x{}".format(*source.size), "{}x{}".format(*output.size)),
        ("pixel aspect", source.aspect, output.aspect),
        ("colour matrix", colour.matrix, output.colour.matrix),
        ("colour range", colour.range, output.colour.range),
        ("colour primaries", colour.primaries, output.colour.primaries),
        ("colour transfer", colour.transfer, output.colour.transfer),
        ("title", source.title, output.title),
        ("chapters", len(source.chapters), len(output.chapters)),
    ):
        if expected != actual:
            found.append(f"{name}: {expected} in the source, {actual} in the output")
    can = output.colour.transfer in high and output.codec in HOLD_MASTERING
    if can and source.mastering is not None and not source.mastering.agrees_with(output.mastering):
        told = output.mastering or "nothing"
        found.append(f"mastering display: {source.mastering} in the source, {told} in the output")
    if len(source.chapters) == len(output.chapters):
        for number, (a, b) in enumerate(zip(source.chapters, output.chapters, strict=True)):
            if a[2] != b[2] or abs(a[0] - b[0]) > Fraction(1, 1000):
                found.append(
                    f"chapter {number}: {a[2]!r} at {float(a[0])} s became {b[2]!r} at {float(b[0])} s"
                )
    for kind in KINDS:
        found += _track_differences(kind, source, output)
    return found


def _broadcast(source: Contents, output: Contents) -> Contents:
    """`source` as a transport stream can hold it: all its times later by the same amount, and no end."""
    first, moved = (each.times[0] if each.times else None for each in (source, output))
    by = (moved or Fraction(0)) - (first or Fraction(0))
    return replace(
        source,
        times=tuple(None if time is None else time + by for time in source.times),
        ends=(),
        tracks=tuple(
            replace(
                track,
                times=tuple(time + by for time in track.times),
                ends=tuple(time + by for time in track.ends),
            )
            for track in source.tracks
        ),
        chapters=(),
        title="",
    )


def _bare(source: Contents, output: Contents) -> Contents:
    """`source` as pictures can hold it; an animation begins with its first, however late that was."""
    first = next(iter(source.times), None) or Fraction(0)
    times = tuple(None if time is None or output.timeless else time - first for time in source.times)
    ends = () if output.timeless else tuple(end - first for end in source.ends)
    return replace(source, times=times, ends=ends, tracks=(), chapters=(), title="")


def _merged(source: Contents, output: Contents, tick: Fraction) -> Contents:
    """`source` without the pictures that `output` may show as those before them, which are equal."""
    left = deque(output.times)
    if not left or None in source.times or _moved("", source.times[:1], output.times[:1], tick):
        return source
    kept = []
    for time in source.times:
        if left and not _moved("", [time], [left[0]], tick):
            kept.append(time)
            left.popleft()
    # What is shown at a time of its own is no picture of the source.
    return source if left else replace(source, times=tuple(kept))


def _track_differences(kind: str, source: Contents, output: Contents) -> list[str]:
    found = []
    # Sound is re-encoded where its codec cannot be held; other tracks may then be missing.
    # Subtitles of text are converted.
    before = [
        track
        for track in source.tracks
        if track.kind == kind
        and track.times
        # What FFmpeg has no decoder for can be neither copied nor re-encoded.
        and (
            (kind == "audio" and track.codec != "unknown")
            or track.codec in output.holds
            or _converted(track, output)
        )
    ]
    # A track of timecode is made anew by the muxer.
    after = [
        track
        for track in output.tracks
        if track.kind == kind and track.times and (kind != "data" or track.codec in output.holds)
    ]
    if len(before) != len(after):
        return [f"{kind} tracks: {len(before)} in the source, {len(after)} in the output"]
    for number, (a, b) in enumerate(zip(before, after, strict=True)):
        where = f"{kind} {number}"
        if a.language not in (None, "und") and not same_language(a.language, b.language or ""):
            found.append(f"{where}: language {a.language} became {b.language}")
        if _converted(a, output):
            times = _changes(a) if b.codec == "mov_text" else a.times
            if len(times) != len(b.times):
                found.append(f"{where}: {len(times)} in the source, {len(b.times)} in the output")
            else:
                found += _moved(where, times, b.times, b.time_base)
            continue
        if a.codec != b.codec and a.codec not in output.holds:
            if abs(a.ends[-1] - b.ends[-1]) > Fraction(1, 10):
                found.append(
                    f"{where}: ends at {float(a.ends[-1]):.2f} s, re-encoded at {float(b.ends[-1]):.2f} s"
                )
            continue
        # A container without edit lists has no place for what is not to be heard.
        absent = min(max(0, len(a.digests) - len(b.digests)), a.unheard)
        a = replace(a, digests=a.digests[absent:], times=a.times[absent:])
        if a.digests != b.digests:
            same = sum(x == y for x, y in zip(a.digests, b.digests, strict=False))
            found.append(
                f"{where}: {len(a.digests)} packets in the source, {same} of them the same in the output"
            )
        else:
            heard = a.unheard - absent
            found += _moved(f"{where} packets", a.times[heard:], b.times[heard:], b.time_base)
    return found


def _converted(track: TrackContents, output: Contents) -> bool:
    """Whether the track is of text that `output` holds in another kind."""
    texts = TEXT_SUBTITLES & output.holds
    return track.codec in TEXT_SUBTITLES and bool(texts) and track.codec not in output.holds


def _changes(track: TrackContents) -> tuple[Fraction, ...]:
    """When subtitles have to be set anew where but one can be shown at a time."""
    cues = list(zip(track.times, track.ends, strict=True))
    edges = sorted({edge for cue in cues for edge in cue})
    return tuple(edge for edge in edges if any(begin <= edge < end for begin, end in cues))


def _moved(what: str, before: Any, after: Any, tick: Fraction) -> list[str]:
    """A line if times differ by more than half a tick, which is what rounding to the nearest may do."""
    pairs = [
        (index, a, b)
        for index, (a, b) in enumerate(zip(before, after, strict=True))
        # Matroska rounds times before 0 down.
        if a is not None and b is not None and abs(a - b) > (tick / 2 if a >= 0 else tick)
    ]
    if not pairs:
        return []
    index, a, b = pairs[0]
    first = f"the first is number {index}: {float(a):.4f} s became {float(b):.4f} s"
    return [f"{what}: {len(pairs)} are moved, {first}"]
