"""How a run shows how far it is: a bar for people, lines of JSON for machines, or nothing."""

import json
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pipeline.stats import Stats

Mode = Literal["bar", "json", "silent"]

EVERY = 0.5
"""Seconds between two lines of JSON."""


class Progress:
    """Progress of a run of `total` frames, 0 if nobody knows how many there are.

    Args:
        how: "bar" draws on standard error, "json" prints on standard output, "silent" does neither.
    """

    def __init__(self, total: int, how: Mode) -> None:
        self._total = total
        self._how = how
        self._said = 0.0
        self._bar: Bar | None = None
        if how == "bar":
            self._bar = Bar(
                TextColumn("painting"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[fps]:.1f} fps"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=total or None, fps=0.0)

    def show(self, stats: Stats) -> None:
        """Show where the run is; may be called as often as one likes."""
        if self._bar is not None:
            self._bar.update(self._task, completed=stats.encoded, fps=stats.fps)
        elif self._how == "json" and time.monotonic() - self._said >= EVERY:
            self._said = time.monotonic()
            left = (self._total - stats.encoded) / stats.fps if self._total and stats.fps else None
            self._print(
                {
                    "event": "progress",
                    "frame": stats.encoded,
                    "frames": self._total or None,
                    "fps": round(stats.fps, 1),
                    "eta": None if left is None else round(max(0.0, left), 1),
                }
            )

    @staticmethod
    def _print(event: Mapping[str, Any]) -> None:
        print(json.dumps(event), flush=True, file=sys.stdout)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
