"""Counters of a run, written by its threads and read by whoever shows progress."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.flicker import Flicker

WINDOW = 300
"""Frames over which latency and rates are told: ten seconds of most sources."""


@dataclass
class SinkStats:
    """What happened at one output."""

    name: str = ""
    written: int = 0
    """Frames that it passed on."""
    dropped: int = 0
    """Frames that it was too slow for, or whose server was away."""
    measured: int = 0
    """Frames whose age was known; a picture that is held has none."""
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """Seconds from capture until it had taken a frame, newest last."""
    times: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """When it took them, in seconds of `time.monotonic`."""

    def took(self, captured_at: float | None) -> None:
        """It has passed on a frame."""
        now = time.monotonic()
        self.written += 1
        self.times.append(now)
        if captured_at is not None:
            self.measured += 1
            self.latencies.append(now - captured_at)


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The 50th, 95th and 99th percentile of `values` by nearest rank; zeros if there are none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0, 0.0, 0.0
    last = len(ordered) - 1
    return ordered[round(last * 0.5)], ordered[round(last * 0.95)], ordered[round(last * 0.99)]


def rate(times: Sequence[float]) -> float:
    """Events per second over the last two seconds of `times`, which are seconds of `time.monotonic`."""
    since = time.monotonic() - 2
    recent = [at for at in list(times) if at >= since]
    return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0


@dataclass
class Stats:
    """What happened so far; each field is written by one thread."""

    decoded: int = 0
    """Frames read; of a live source, without those that are held and shown again."""
    stylized: int = 0
    """Frames painted."""
    encoded: int = 0
    """Frames handed to the first sink."""
    repeated: int = 0
    """Times that a live source's last picture was held, and shown again."""
    before: int = 0
    """Frames that an earlier run had encoded."""
    damaged: int = 0
    """Packets of the source that could not be decoded."""
    cut_short: bool = False
    """The end of the source is missing."""
    dropped: int = 0
    """Frames of a live source that the engine was too slow for."""
    read: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """When frames were read, in seconds of `time.monotonic`."""
    sinks: list[SinkStats] = field(default_factory=list)
    """Of each output, in their order."""
    flicker: Flicker | None = None
    """How still the painting holds, where that is asked for; None where it is not."""
    began: float = field(default_factory=time.monotonic)

    def add_flicker(self, other: "Stats") -> None:
        """Count what another run, of another part of the video, has scored."""
        if other.flicker is not None:
            self.flicker = self.flicker or Flicker()
            self.flicker += other.flicker

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.began

    @property
    def fps(self) -> float:
        """Frames a second so far, by the clock on the wall."""
        return self.encoded / self.seconds if self.encoded else 0.0
