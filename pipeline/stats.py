"""Counters of a run, written by its threads and read by whoever shows progress."""

import time
from dataclasses import dataclass, field


@dataclass
class Stats:
    """What happened so far; each field is written by one thread."""

    decoded: int = 0
    """Frames read."""
    stylized: int = 0
    """Frames painted."""
    encoded: int = 0
    """Frames handed to the first sink."""
    before: int = 0
    """Frames that an earlier run had encoded."""
    damaged: int = 0
    """Packets of the source that could not be decoded."""
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.began

    @property
    def fps(self) -> float:
        """Frames a second so far, by the clock on the wall."""
        return self.encoded / self.seconds if self.encoded else 0.0
