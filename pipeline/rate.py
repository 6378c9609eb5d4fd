"""Video at another frame rate: at each tick the newest frame, shown again or left out as it must be."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Any

from pipeline.frame import Frame, VideoInfo
from pipeline.sources import Source


class ConstantRate(Source):
    """A source whose frames come at a constant rate, from the first frame's time to the last one's end.

    There is one at least, also where that is shorter than half a tick.

    The packets of other tracks pass.

    Args:
        rate: frames per second.
        start: leave out the frames before this pts.
        end: leave out the frames from this pts on.
    """

    def __init__(
        self, source: Source, rate: Fraction, *, start: int | None = None, end: int | None = None
    ) -> None:
        self._source = source
        self._rate = rate
        self._start, self._end = start, end
        info = source.info
        self.info: VideoInfo = replace(
            info, rate=rate, time_base=1 / rate, frames=round(info.frames * rate / info.rate)
        )

    def __iter__(self) -> Iterator[Frame | Any]:
        waiting: Frame | None = None
        tick = first = self._start or 0
        for item in self._source:
            if not isinstance(item, Frame):
                yield item
                continue
            if waiting is not None:
                ticks = self._ticks(tick, item.time)
                for number in ticks:
                    yield self._at(waiting, number)
                tick = max(tick, ticks.stop)
            elif self._start is None:
                tick = first = round(item.time * self._rate)
            waiting = item
            if tick == self._end:
                return
        if waiting is not None:
            last = self._ticks(tick, waiting.time + waiting.duration * waiting.time_base)
            if self._start is None and not last and tick == first:
                last = range(first, first + 1)
            for number in last:
                yield self._at(waiting, number)

    def _ticks(self, tick: int, end: Fraction) -> range:
        """Those from `tick` on that belong to a frame on display until `end`: their middles are before it."""
        until = floor(end * self._rate + Fraction(1, 2))
        return range(tick, until if self._end is None else min(until, self._end))

    def _at(self, frame: Frame, tick: int) -> Frame:
        return replace(frame, pts=tick, duration=1, time_base=1 / self._rate)

    def close(self) -> None:
        """Give back the source's file."""
        self._source.close()
