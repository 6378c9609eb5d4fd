"""Which stretches of a video are still to be painted, and by how many workers."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path

from pipeline.motion import Motion
from pipeline.rate import ConstantRate
from pipeline.sinks.parts import GRID, Part
from pipeline.sources import Source
from pipeline.sources.file import Decoder, FileSource
from pipeline.sources.index import Index


@dataclass(frozen=True)
class Segment:
    """A stretch of the frames that a render writes; the whole video by default."""

    start: int | None = None
    """Pts of the first frame written."""
    end: int | None = None
    """Pts of the first frame behind it."""
    after: int | None = None
    """Pts from which on the source's frames are needed; not that of the first where the rate is another."""
    entry: int | None = None
    """Pts of the key frame to begin reading at."""
    lead: int | None = None
    """Pts of the first frame painted, where what is written hangs on some before it."""
    counted: int | None = None
    """Pts of the source from which on what is damaged counts, where that is not `after`."""
    motion: Motion | None = None
    """Where the camera had got to before the first frame; None at the beginning, or if nobody follows it."""

    @property
    def first(self) -> int | None:
        """Pts of the first frame painted; None at the beginning."""
        return self.start if self.lead is None else self.lead

    def open(self, video: Path, rate: Fraction | None, decoder: Decoder = "cpu") -> tuple[FileSource, Source]:
        """The file, and what gives the frames of this stretch at `rate`, or at their own times.

        Raises:
            SourceError: as `FileSource`.
        """
        file = FileSource(
            video,
            tracks=False,
            start=self.after,
            # At another rate its end is that of the ticks.
            end=self.end if rate is None else None,
            counted=self.counted,
            entry=self.entry,
            picture_rate=rate,
            decoder=decoder,
        )
        if rate is None:
            return file, file
        return file, ConstantRate(file, rate, start=self.first, end=self.end)


def after(written: Sequence[int], rate: Fraction | None, lead: int = 0) -> Segment:
    """All frames behind those that are written, found by reading from the beginning.

    Args:
        written: their pts, rising.
        rate: frames per second written; None for each frame at its own time.
        lead: as for `missing`.
    """
    if not written:
        return Segment()
    start = first = written[-1] + 1
    if lead:
        first = written[max(0, len(written) - lead)]
    # At another rate times are counted in its ticks, and not as in the source.
    if rate is not None:
        return Segment(start, lead=first if lead else None)
    return Segment(start, after=first, lead=first if lead else None, counted=start)


def missing(
    parts: Sequence[Part],
    index: Index,
    time_base: Fraction,
    rate: Fraction | None,
    pieces: int,
    *,
    largest: int | None = None,
    lead: int = 0,
) -> list[Segment]:
    """The stretches of a video that no part of `parts` covers, in as many pieces as are asked for.

    Pieces begin on the grid of the parts.

    Args:
        time_base: of the times in `index`.
        rate: frames per second written; None for each frame at its own time.
        largest: parts in a piece at most.
        lead: frames that are painted before the first one written, where there are so many.
    """
    written = index.times if rate is None else _ticks(index, time_base, rate)
    stretches: list[tuple[int, int]] = []
    begin = 0
    for part in [*parts, None]:
        end = len(written) if part is None else bisect_right(written, part.first - 1)
        if begin < end:
            stretches.append((begin, end))
        begin = len(written) if part is None else bisect_right(written, part.last)
    cells = sum(-(-(end - begin) // GRID) for begin, end in stretches)
    size = GRID * min(max(1, -(-cells // pieces)), largest or cells or 1)
    return [
        _segment(written, first, min(first + size, end), index, time_base, rate, lead)
        for begin, end in stretches
        for first in range(begin, end, size)
    ]


def _segment(
    written: Sequence[int],
    first: int,
    end: int,
    index: Index,
    time_base: Fraction,
    rate: Fraction | None,
    lead: int,
) -> Segment:
    behind = written[end] if end < len(written) else None
    if first == 0:
        return Segment(end=behind)
    painted = max(0, first - lead)
    shown, needed = (
        written[number] if rate is None else _on_display(written[number], index, time_base, rate)
        for number in (first, painted)
    )
    lead_pts = written[painted] if lead else None
    return Segment(written[first], behind, needed, index.entry(needed), lead=lead_pts, counted=shown)


def _on_display(tick: int, index: Index, time_base: Fraction, rate: Fraction) -> int:
    """The pts of the frame that is shown in the middle of `tick`."""
    middle = floor((tick + Fraction(1, 2)) / rate / time_base)
    return index.times[max(0, bisect_right(index.times, middle) - 1)]


def _ticks(index: Index, time_base: Fraction, rate: Fraction) -> range:
    """The pts that `ConstantRate` gives for the whole video."""
    first = round(index.times[0] * time_base * rate)
    return range(first, max(first + 1, floor(index.end * time_base * rate + Fraction(1, 2))))
