"""Video at another frame rate: at each tick the newest frame, shown again or left out as it must be."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

from pipeline.frame import Frame, VideoInfo
from pipeline.sources import Source


class ConstantRate(Source):
    """A source whose frames come at a constant rate, from the first frame's time to the last one's end.

    The packets of other tracks pass.

    Args:
        rate: frames per second.
    """

    def __init__(self, source: Source, rate: Fraction) -> None:
        self._source = source
        self._rate = rate
        info = source.info
        self.info: VideoInfo = replace(
            info, rate=rate, time_base=1 / rate, frames=round(info.frames * rate / info.rate)
        )

    def __iter__(self) -> Iterator[Frame | Any]:
        waiting: Frame | None = None
        tick = 0
        for item in self._source:
            if not isinstance(item, Frame):
                yield item
                continue
            if waiting is None:
                tick = round(item.time * self._rate)
            else:
                # A tick belongs to the frame that is on display in its middle.
                while (tick + Fraction(1, 2)) / self._rate <= item.time:
                    yield self._at(waiting, tick)
                    tick += 1
            waiting = item
        if waiting is not None:
            end = waiting.time + waiting.duration * waiting.time_base
            while (tick + Fraction(1, 2)) / self._rate <= end:
                yield self._at(waiting, tick)
                tick += 1

    def _at(self, frame: Frame, tick: int) -> Frame:
        return Frame(frame.image, tick, 1, 1 / self._rate)

    def close(self) -> None:
        """Give back the source's file."""
        self._source.close()
