"""A recorded performance, painted again."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from engines import Image, Look
from pipeline.controls import Controls, Scene
from pipeline.errors import SourceError
from pipeline.frame import Frame
from pipeline.sources import Source


class Show:
    """A recorded performance, for painting it again: what `Controls` wrote to its record.

    Can be sent to another process, and asked for any time in any order.

    Args:
        styles: of the pack that paints.

    Raises:
        SourceError: no such record, or it is none, or of another pack.
    """

    def __init__(self, record: Path, styles: Sequence[str]) -> None:
        self._styles = tuple(styles)
        self._events: list[tuple[Fraction, str, Any]] = []
        try:
            for line in record.read_text("utf-8").splitlines():
                event = json.loads(line)
                if event["control"] != "pack":
                    self._events.append((Fraction(str(event["time"])), event["control"], event["value"]))
            self.look_at(self._events[-1][0])
        except OSError as error:
            raise SourceError(f"{record}: cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise SourceError(f"{record}: not a record of controls for this style: {error}") from error

    def look_at(self, time: Fraction) -> Look:
        """The look at `time` seconds: strength 0 where the input was shown as it is, or nothing.

        While a picture was held, the look that it had.
        """
        held = self.held_since(time)
        scene = self._scene_at(time) if held is None else self._scene_at(held, before=True)
        untouched = scene.bypass or self._scene_at(time).blackout
        return Look(scene.look.mix, 0.0 if untouched else scene.look.strength)

    def black_at(self, time: Fraction) -> bool:
        """Whether the picture was black."""
        return self._scene_at(time).blackout

    def held_since(self, time: Fraction) -> Fraction | None:
        """The time of the first frame in place of which an older one was shown, and still was at `time`."""
        since = None
        for at, name, value in self._events:
            if at > time:
                break
            if name == "freeze":
                since = (at if since is None else since) if value else None
        return since

    @property
    def holds(self) -> bool:
        """Whether a picture was ever held."""
        return any(name == "freeze" and value for _, name, value in self._events)

    def _scene_at(self, time: Fraction, *, before: bool = False) -> Scene:
        """The scene at `time`, or just `before` it."""
        controls = Controls("", self._styles, Look())
        for at, name, value in self._events:
            if at > time or (before and at == time):
                break
            controls.replay(at, name, value)
        return controls.scene_at(time)

    @property
    def facts(self) -> list[list[Any]]:
        """All that it holds, as JSON can hold it."""
        return [[str(at), name, value] for at, name, value in self._events]


class Staged(Source):
    """The frames of a source as a show wants them: black, held, or as they are.

    `Show.look_at` paints them as they were: a black one at strength 0, a held one like the first time.

    Args:
        earlier: the last picture before a time of the video, None if there is none; asked for where a source
            begins in the middle of a picture that is held.
    """

    def __init__(self, source: Source, show: Show, earlier: Callable[[Fraction], Image | None]) -> None:
        self._source, self._show, self._earlier = source, show, earlier
        self.info = source.info

    def __iter__(self) -> Iterator[Frame | Any]:
        last: Image | None = None
        held: tuple[Fraction, Image | None] | None = None
        for item in self._source:
            if not isinstance(item, Frame):
                yield item
                continue
            since = self._show.held_since(item.time)
            if since is None:
                held, last = None, item.image
            elif held is None or held[0] != since:
                held = since, self._earlier(since) if last is None else last
            if self._show.black_at(item.time):
                yield replace(item, image=np.zeros_like(item.image))
            elif held is not None and held[1] is not None:
                yield replace(item, image=held[1])
            else:
                yield item

    def close(self) -> None:
        """Close the source."""
        self._source.close()
