"""A recorded performance, painted again."""

import json
import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from engines import Look
from pipeline.controls import Controls, Scene
from pipeline.errors import SourceError
from pipeline.frame import Frame
from pipeline.sources import Source

log = logging.getLogger("fauve")

ROUNDED = Fraction(1, 2000)
"""Seconds that the times of a record may be off by: frames of a live run are a millisecond apart at least."""


class Show:
    """A recorded performance, for painting it again: what `Controls` wrote to its record.

    Can be sent to another process, and asked for any time of a video in any order.

    Args:
        styles: of the pack that paints.

    Raises:
        SourceError: no such record, or it is none, or of another pack, or of several.
    """

    begins = Fraction(0)
    """When the video's first picture is shown, in seconds: the times of a record count from there."""

    def __init__(self, record: Path, styles: Sequence[str]) -> None:
        self._events: list[tuple[Fraction, str, Any]] = []
        controls = Controls("", styles, Look())
        self._times: list[Fraction] = []
        self._settings = [controls.setting]
        """Before the first frame at which anything was turned, and from each one on."""
        pack = None
        try:
            content = record.read_bytes()
        except OSError as error:
            raise SourceError(f"{record}: cannot be read: {error.strerror}") from error
        try:
            *lines, last = content.split(b"\n")
            events = [json.loads(line) for line in lines]
            try:
                events += [json.loads(last)] if last else []
            except ValueError:
                if not events:
                    raise
                log.warning("%s: its last line is cut off, as by a full disk, and left out", record)
            if not events:
                raise ValueError("it is empty")
            for event in events:
                time, name, value = Fraction(str(event["time"])), event["control"], event["value"]
                if name == "pack":
                    if pack not in (None, value):
                        raise SourceError(
                            f"{record}: at {float(time):g} s it goes over to the pack {value}; a show can be "
                            "painted again where it has one pack only"
                        )
                    pack = value
                    continue
                if self._times and time < self._times[-1]:
                    raise ValueError(f"its time goes back at {float(time):g} s")
                controls.replay(time, name, value)
                self._events.append((time, name, value))
                if self._times[-1:] != [time]:
                    self._times.append(time)
                    self._settings.append(controls.setting)
                # Of what is turned before a frame, only how it is then was shown.
                self._settings[-1] = controls.setting
        except (ArithmeticError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(f"{record}: not a record of controls for this style: {error}") from error
        self._held = [None, *self._holding()]
        """Since when an older picture was shown; as `_settings`."""

    def _holding(self) -> Iterator[Fraction | None]:
        shown = min(self._times, default=0) > 0
        since: Fraction | None = None
        for time, setting in zip(self._times, self._settings[1:], strict=True):
            # What is held after a blackout was there before it.
            if not (setting.freeze or setting.blackout):
                since = None
            elif since is None:
                since = time
            if not (shown or setting.blackout):
                # There is none yet to be shown in place of the first picture.
                shown, since = True, time + 2 * ROUNDED if setting.freeze else None
            yield since if setting.freeze else None

    def look_at(self, time: Fraction) -> Look:
        """The look at `time` seconds: strength 0 where the input was shown as it is, or nothing.

        While a picture was held, the look that it had.
        """
        held = self._held_at(time)
        # Just before the first frame in place of which it was shown.
        scene = (
            self._scene_at(time)
            if held is None
            else self._settings[bisect_left(self._times, held)].scene_at(held)
        )
        untouched = scene.bypass or self.black_at(time)
        return Look(scene.look.mix, 0.0 if untouched else scene.look.strength)

    def black_at(self, time: Fraction) -> bool:
        """Whether the picture was black."""
        return self._scene_at(time).blackout

    def held_since(self, time: Fraction) -> Fraction | None:
        """The time of the first frame in place of which an older one was shown, and still was at `time`."""
        since = self._held_at(time)
        return None if since is None else since + self.begins

    @property
    def holds(self) -> bool:
        """Whether a picture was ever held."""
        return any(since is not None for since in self._held)

    def _scene_at(self, time: Fraction) -> Scene:
        return self._settings[self._settings_by(time)].scene_at(time - self.begins)

    def _settings_by(self, time: Fraction) -> int:
        """How many frames at which anything was turned have been shown."""
        return bisect_right(self._times, self._passed(time))

    def _held_at(self, time: Fraction) -> Fraction | None:
        since, passed = self._held[self._settings_by(time)], self._passed(time)
        return None if since is None or since > passed else since

    def _passed(self, time: Fraction) -> Fraction:
        """Seconds of the record; at another rate, the first frame may come before the picture."""
        return max(Fraction(0), time - self.begins) + ROUNDED

    @property
    def facts(self) -> list[list[Any]]:
        """All that it holds, as JSON can hold it."""
        return [[str(at), name, value] for at, name, value in self._events]


class Staged(Source):
    """The frames of a source as a show wants them: black, held, or as they are.

    `Show.look_at` paints them as they were: a black one at strength 0, a held one like the first time.

    Args:
        earlier: the last frame before a time of the video, None if there is none; asked for where a source
            begins in the middle of a picture that is held.
    """

    def __init__(self, source: Source, show: Show, earlier: Callable[[Fraction], Frame | None]) -> None:
        self._source, self._show, self._earlier = source, show, earlier
        self.info = source.info

    def __iter__(self) -> Iterator[Frame | Any]:
        last: Frame | None = None
        held: tuple[Fraction, Frame | None] | None = None
        for item in self._source:
            if not isinstance(item, Frame):
                yield item
                continue
            since, black = self._show.held_since(item.time), self._show.black_at(item.time)
            if since is None:
                held, last = None, last if black else item
            elif held is None or held[0] != since:
                held = since, self._earlier(since - ROUNDED) if last is None else last
            if black:
                yield replace(item, image=np.zeros_like(item.image))
            elif held is not None and held[1] is not None:
                # With its own alpha and range: those of another picture would cut it out and brighten it.
                yield replace(held[1], pts=item.pts, duration=item.duration, time_base=item.time_base)
            else:
                yield item

    def close(self) -> None:
        """Close the source."""
        self._source.close()
