"""How large to paint, so that a live picture keeps up with its source."""

import time
from collections import deque

STEPS = (1.0, 0.9, 0.82, 0.75, 0.65, 0.55, 0.45, 0.35, 0.25)
"""Heights to paint at, relative to the one that was asked for."""

LOWER_ABOVE = 0.95
"""Share of the time between two frames that painting may take before it is made smaller."""

RAISE_BELOW = 0.8
"""The same, foreseen for the next larger step, below which it is tried."""

SPARE = 1.1
"""How much more than its excess a picture is made smaller by."""

LOWER_AFTER = 0.8
"""Seconds of being too slow before a smaller step."""

RAISE_AFTER = 3.0
"""Seconds of being fast enough before a larger step; doubled each time that one proved too much."""

SETTLE = 0.8
"""Seconds after a step in which nothing is concluded: both sizes are painted while one fades out."""

START = 2.0
"""Seconds at the beginning in which nothing is concluded: everything's first pictures take longer."""

LONGEST_WAIT = 60.0


class Governor:
    """Chooses the step of `STEPS` from how long painting takes and how old the picture is when it is shown.

    Args:
        period: seconds between two frames of the source.
        target: seconds from capture to sink that should not be exceeded; None only keeps up.
    """

    def __init__(self, period: float, target: float | None = None) -> None:
        self.step = 0
        self._period = period
        self._target = target
        self._paint: deque[tuple[float, float]] = deque(maxlen=120)
        self._latency: deque[tuple[float, float]] = deque(maxlen=120)
        self._settled: float | None = None
        self._raise_after = RAISE_AFTER
        self._raised_at: float | None = None

    @property
    def scale(self) -> float:
        """Of the height to paint at."""
        return STEPS[self.step]

    def painted(self, seconds: float, now: float | None = None) -> None:
        """A frame took `seconds` to paint."""
        now = time.monotonic() if now is None else now
        if self._settled is None or now - self._settled >= SETTLE:
            self._paint.append((now, seconds))

    def shown(self, latency: float, now: float | None = None) -> None:
        """A frame was `latency` seconds old when its sink had it."""
        now = time.monotonic() if now is None else now
        if self._settled is None or now - self._settled >= SETTLE:
            self._latency.append((now, latency))

    def decide(self, now: float | None = None) -> bool:
        """Whether the step has changed."""
        now = time.monotonic() if now is None else now
        if self._settled is None:
            self._settled = now + START
        if now - self._settled < SETTLE + LOWER_AFTER:
            return False
        excess = self._excess(now)
        if excess > 1 and self.step + 1 < len(STEPS):
            # The step before was too much, too: be slower to try it again.
            if self._raised_at is not None and now - self._raised_at < 10:
                self._raise_after = min(LONGEST_WAIT, 2 * self._raise_after)
            # Painting takes as long as the picture is large.
            wanted = self.scale / (excess * SPARE) ** 0.5
            fitting = [step for step in range(self.step + 1, len(STEPS)) if STEPS[step] <= wanted]
            self._change(fitting[0] if fitting else len(STEPS) - 1, now)
            return True
        if self.step and self._fast_enough(now):
            self._raised_at = now
            self._change(self.step - 1, now)
            return True
        return False

    def _change(self, step: int, now: float) -> None:
        self.step = step
        self._settled = now
        self._paint.clear()
        self._latency.clear()

    def _since(self, values: deque[tuple[float, float]], since: float) -> list[float]:
        # A copy, made at once: another thread adds to `values` meanwhile.
        return sorted(value for at, value in list(values) if at >= since)

    def _excess(self, now: float) -> float:
        """How many times longer than it may the last frames took; not above 1 while all is well."""
        excess = self._typical(self._paint, now) / (LOWER_ABOVE * self._period)
        if self._target is not None:
            excess = max(excess, self._typical(self._latency, now) / self._target)
        return excess

    def _typical(self, values: deque[tuple[float, float]], now: float) -> float:
        """The median of the last moments, or of three frames where these take longer; 0 with fewer."""
        recent = self._since(values, now - LOWER_AFTER)
        if len(recent) < 3:
            recent = sorted(value for _, value in list(values)[-3:])
        return recent[len(recent) // 2] if len(recent) >= 3 else 0.0

    def _fast_enough(self, now: float) -> bool:
        if not self._paint or self._settled is None or now - self._settled < self._raise_after:
            return False
        # Bringing the picture to its size takes as long as before, so that the whole grows more slowly than
        # the area does.
        larger = STEPS[self.step - 1] / STEPS[self.step]
        paint = self._since(self._paint, now - RAISE_AFTER)
        latency = self._since(self._latency, now - RAISE_AFTER)
        if len(paint) < 10 or paint[round(0.75 * (len(paint) - 1))] * larger > RAISE_BELOW * self._period:
            return False
        return self._target is None or not latency or latency[len(latency) // 2] * larger < self._target
