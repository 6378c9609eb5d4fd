"""How large to paint, so that a live picture keeps up with its source."""

import math
import time
from collections import deque
from dataclasses import dataclass

STEPS = (1.0, 0.9, 0.82, 0.75, 0.65, 0.55, 0.45, 0.35, 0.25)
"""Heights to paint at, relative to the one that was asked for."""

LOWER_ABOVE = 0.92
"""Share of the time between two frames that painting may take before it is made smaller."""

AIM = 0.87
"""The same, foreseen for the step that is then gone to."""

RAISE_BELOW = 0.82
"""The same, foreseen for the next larger step, below which it is tried."""

LOWER_AFTER = 0.6
"""Seconds of which half the frames must take too long, so that a hiccup is none."""

SURE_AFTER = 0.25
"""Seconds for which that must last, so that most of what was measured is as slow as what is to come."""

FEWEST = 5
"""Frames that tell anything, however long they took."""

RAISE_AFTER = 3.0
"""Seconds of being fast enough before a larger step; doubled each time that one proved too much."""

START = 2.0
"""Seconds at the beginning in which nothing is concluded: everything's first pictures take longer."""

LAG = 0.2
"""Seconds after a step in which what is shown, or was left out, is still of the size before."""

MISSED_WITHIN, MISSED_OFTEN = 5.0, 6
"""Seconds, and the moments in them at which frames had been left out, that mean a rate that is not held."""

MATTERS = 0.5
"""Share of the time between two frames below which painting is not why frames are left out."""

LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class Cost:
    """What a frame takes to paint, in seconds."""

    whole: float
    fixed: float
    """The part that is the same at any working size."""

    def at(self, scale: float) -> float:
        """Of a frame whose height is `scale` times as large."""
        return self.fixed + (self.whole - self.fixed) * scale**2


class Governor:
    """Chooses the step of `STEPS` from how long painting takes and how old the picture is when it is shown.

    Where painting is too slow, what it costs at other steps follows from what it costs at this one, so that
    the first step that fits is gone to at once. Larger ones are tried one by one, and less often each time
    that this was a mistake.

    Args:
        period: seconds between two frames of the source.
        target: seconds from capture to sink that should not be exceeded; None only keeps up.
    """

    def __init__(self, period: float, target: float | None = None) -> None:
        self.step = 0
        self._period = period
        self._target = target
        self._paint: deque[tuple[float, Cost]] = deque(maxlen=300)
        self._latency: deque[tuple[float, float]] = deque(maxlen=300)
        self._missed: deque[float] = deque(maxlen=MISSED_OFTEN)
        self._settled: float | None = None
        """When the step was in use; infinitely far away while it is being gone to."""
        self._slow_since: float | None = None
        self._raise_after = RAISE_AFTER
        self._raised_at: float | None = None
        self._too_much: tuple[float, float] | None = None
        """A share of the period with which the rate was not held all the same, and until when that counts."""

    @property
    def scale(self) -> float:
        """Of the height to paint at."""
        return STEPS[self.step]

    def painted(self, seconds: float, fixed: float = 0.0, now: float | None = None) -> None:
        """A frame took `seconds` to paint at the step in use, `fixed` of them whatever the step."""
        now = time.monotonic() if now is None else now
        if self._settled is None:
            self._settled = now + START
        if now >= self._settled:
            self._paint.append((now, Cost(seconds, fixed)))

    def shown(self, latency: float, now: float | None = None) -> None:
        """A frame was `latency` seconds old when its sink had it."""
        now = time.monotonic() if now is None else now
        if self._settled is not None and now >= self._settled + LAG:
            self._latency.append((now, latency))

    def missed(self, now: float | None = None) -> None:
        """Frames have been left out since this was last looked at, because painting took too long."""
        now = time.monotonic() if now is None else now
        if self._settled is not None and now >= self._settled + LAG:
            self._missed.append(now)

    def settle(self, now: float | None = None) -> None:
        """From now on frames are painted at `scale`, and by one engine: what was measured before is past."""
        self._settled = time.monotonic() if now is None else now
        self._slow_since = None
        self._paint.clear()
        self._latency.clear()
        self._missed.clear()

    def decide(self, now: float | None = None) -> bool:
        """Whether the step has changed; then nothing is concluded until `settle`."""
        now = time.monotonic() if now is None else now
        if self._settled is None or now - self._settled < LOWER_AFTER:
            return False
        costs = self._costs(now, LOWER_AFTER)
        if len(costs) < FEWEST:
            return False
        fits = self._budget(now, costs)
        if fits is None:
            self._slow_since = None
        elif self._slow_since is None:
            self._slow_since = now
        if fits is not None and self.step + 1 < len(STEPS):
            if self._slow_since is None or now - self._slow_since < SURE_AFTER:
                return False
            # The larger step before was too much, too: be slower to try it again.
            if self._raised_at is not None and now - self._raised_at < 10:
                self._raise_after = min(LONGEST_WAIT, 2 * self._raise_after)
            cost = _upper(costs)
            smaller = range(self.step + 1, len(STEPS))
            self._change(next((step for step in smaller if self._foreseen(cost, step) <= fits), smaller[-1]))
            return True
        if self.step and self._fast_enough(now):
            if self._raised_at is not None and now - self._raised_at > LONGEST_WAIT:
                self._raise_after = RAISE_AFTER
            self._raised_at = now
            self._change(self.step - 1)
            return True
        return False

    def _change(self, step: int) -> None:
        self.step = step
        self._settled = math.inf

    def _foreseen(self, cost: Cost, step: int) -> float:
        return cost.at(STEPS[step] / self.scale)

    def _costs(self, now: float, seconds: float) -> list[Cost]:
        """Of the frames of the last `seconds`, or of the fewest that tell; the cheapest first."""
        recent = [cost for at, cost in self._paint if at >= now - seconds]
        if len(recent) < FEWEST:
            recent = [cost for _, cost in list(self._paint)[-FEWEST:]]
        return sorted(recent, key=lambda cost: cost.whole)

    def _budget(self, now: float, costs: list[Cost]) -> float | None:
        """Seconds that a frame may take at the step to go to; None while this one is right."""
        typical, upper = costs[len(costs) // 2].whole, _upper(costs).whole
        budget = None
        if typical > LOWER_ABOVE * self._period:
            budget = self._share(AIM, now) * self._period
        elif self._misses(now, MISSED_WITHIN) >= MISSED_OFTEN and upper > MATTERS * self._period:
            self._too_much = (upper / self._period, now + LONGEST_WAIT)
            budget = self._share(AIM, now) * self._period
        latency = self._seen(now, LOWER_AFTER)
        if self._target is not None and latency > self._target:
            budget = min(upper * self._target / latency, math.inf if budget is None else budget)
        return budget

    def _share(self, usual: float, now: float) -> float:
        """`usual`, a share of the period, or less where that much has lately proved too much."""
        if self._too_much is None or now > self._too_much[1]:
            return usual
        return min(usual, 0.9 * self._too_much[0])

    def _misses(self, now: float, seconds: float) -> int:
        # A copy, made at once: another thread adds to it meanwhile.
        return sum(at >= now - seconds for at in list(self._missed))

    def _seen(self, now: float, seconds: float) -> float:
        """The median age of the pictures of the last `seconds` when they were shown; 0 with too few."""
        recent = sorted(latency for at, latency in list(self._latency) if at >= now - seconds)
        return recent[len(recent) // 2] if len(recent) >= FEWEST else 0.0

    def _fast_enough(self, now: float) -> bool:
        if self._settled is None or now - self._settled < self._raise_after or self._misses(now, RAISE_AFTER):
            return False
        costs = self._costs(now, RAISE_AFTER)
        cost = _upper(costs)
        foreseen = self._foreseen(cost, self.step - 1)
        if len(costs) < 10 or foreseen > self._share(RAISE_BELOW, now) * self._period:
            return False
        latency = self._seen(now, RAISE_AFTER)
        return self._target is None or latency * foreseen / cost.whole < self._target


def _upper(costs: list[Cost]) -> Cost:
    """What three frames in four do not exceed, of `costs` in order."""
    return costs[round(0.75 * (len(costs) - 1))]
