"""How a run shows how far it is: bars for people, lines of JSON for machines, or nothing."""

import json
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from pipeline.stats import Stats

Mode = Literal["bar", "json", "silent"]

EVERY = 0.5
"""Seconds between two lines of JSON about a video."""


class Progress:
    """Progress of the videos of a run, several of which may be painted at the same time.

    Args:
        how: "bar" draws on standard error, "json" prints on standard output, "silent" does neither.
    """

    def __init__(self, how: Mode) -> None:
        self._how = how
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[fps]:.1f} fps"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=how != "bar",
        )

    def of(self, video: str, frames: int) -> "VideoProgress":
        """Progress of one video of `frames` frames, 0 if nobody knows how many there are."""
        if self._how == "json":
            return LinesOfJson(video, frames)
        return Bar(self._bars, video, frames) if self._how == "bar" else VideoProgress()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


class VideoProgress:
    """Progress of one video; this one shows nothing."""

    def show(self, stats: Stats) -> None:
        """Show where the run is; may be called as often as one likes."""

    def look_through(self, frames: int) -> None:
        """Show how many frames have been looked at before any is painted; as often as one likes.

        The last of them is where painting goes on, which may be long before the end of the video.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Bar(VideoProgress):
    """A bar among those of `bars`, until the video is done."""

    def __init__(self, bars: Bars, video: str, frames: int) -> None:
        self._bars = bars
        self._video = video
        self._task = bars.add_task(video, total=frames or None, fps=0.0)
        self._looking = False

    def show(self, stats: Stats) -> None:
        done = stats.before + stats.encoded
        if self._looking:
            # How fast frames were looked at tells nothing about how fast they are painted.
            self._looking = False
            self._bars.reset(self._task, description=self._video)
        self._bars.update(self._task, completed=done, fps=stats.fps)

    def look_through(self, frames: int) -> None:
        """Count in the same bar, which then begins anew."""
        self._looking = True
        self._bars.update(self._task, description=f"{self._video}, following the camera", completed=frames)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.remove_task(self._task)


class LinesOfJson(VideoProgress):
    """A line of JSON on standard output, now and then."""

    def __init__(self, video: str, frames: int) -> None:
        self._video = video
        self._frames = frames
        self._said = 0.0

    def show(self, stats: Stats) -> None:
        if not self._due():
            return
        done = stats.before + stats.encoded
        left = (self._frames - done) / stats.fps if self._frames and stats.fps else None
        say(
            {
                "event": "progress",
                "video": self._video,
                "frame": done,
                "frames": self._frames or None,
                "fps": round(stats.fps, 1),
                "eta": None if left is None else round(max(0.0, left), 1),
            }
        )

    def look_through(self, frames: int) -> None:
        """Lines of another event."""
        if self._due():
            total = self._frames or None
            say({"event": "following", "video": self._video, "frame": frames, "frames": total})

    def _due(self) -> bool:
        """Whether another line is to be printed; the next is then due some time later."""
        if time.monotonic() - self._said < EVERY:
            return False
        self._said = time.monotonic()
        return True


def say(event: Mapping[str, Any]) -> None:
    """Print `event` as a line of JSON on standard output."""
    print(json.dumps(event), flush=True, file=sys.stdout)
