"""When each frame of a video is shown and where reading may begin; only its beginning is decoded for that."""

import contextlib
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av.error

from pipeline.errors import SourceError
from pipeline.sources.demuxer import (
    begins,
    is_cut_off,
    open_input,
    packets_of,
    picture_stream,
    shown_for,
    usual_duration,
)
from pipeline.sources.timeline import Timeline


@dataclass(frozen=True)
class Index:
    """The frames of a video in the order in which they are shown, in units of its time base."""

    times: tuple[int, ...]
    """The pts of each frame, rising."""
    keys: tuple[int, ...]
    """Those that decoding may begin at."""
    end: int
    """When the last frame has been shown."""

    def entry(self, pts: int) -> int | None:
        """Where to begin reading, so that every frame from `pts` on is decoded as it would be from the start.

        The last key frame but one: frames after a key frame may need others before it (open GOP), and a
        deinterlacer the frame before. None is the beginning.
        """
        number = bisect_right(self.keys, pts)
        return self.keys[number - 2] if number > 2 else None


def read_index(path: Path, picture_rate: Fraction | None = None) -> Index | None:
    """The index of the video in `path`, as `FileSource` reads it.

    Returns:
        None where packets do not tell when their frames are shown, or jump back in time, or begin before 0:
        such a video can only be read from its beginning. FFmpeg guesses for AVI, which has no such times, and
        guesses wrong where frames are stored in another order.

    Raises:
        SourceError: it cannot be read.
    """
    shown: list[tuple[int, int]] = []
    keys: list[int] = []
    begun: set[int] = set()
    first_key: int | None = None
    try:
        with open_input(path, picture_rate) as container:
            video, timeline = picture_stream(container), Timeline(begins(container))
            if container.format.name == "avi" and video.codec_context.has_b_frames:
                return None
            for packet in packets_of(container, video, str(path)):
                if not packet.size or is_cut_off(packet):
                    continue
                # What a recording begins with may need frames that are not in it, and gives no picture then.
                if first_key is None:
                    with contextlib.suppress(av.error.InvalidDataError):
                        frames = packet.decode()
                        begun.update(frame.pts for frame in frames)
                        first_key = next((frame.pts for frame in frames if frame.key_frame), None)
                if packet.is_discard:
                    continue
                timeline.place(packet)
                if packet.pts is None or packet.is_corrupt or timeline.jumps or timeline.first:
                    return None
                shown.append((packet.pts, packet.duration or usual_duration(video)))
                if packet.is_keyframe:
                    keys.append(packet.pts)
            if first_key is not None:
                shown = [each for each in shown if each[0] >= first_key or each[0] in begun]
            shown.sort()
            times = tuple(pts for pts, _ in shown)
            end = shown[-1][0] + shown_for(video, *shown[-1]) if shown else 0
    except av.error.FFmpegError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    if not times or len(set(times)) < len(times):
        return None
    return Index(times, tuple(sorted(keys)), end)
