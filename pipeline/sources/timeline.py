"""One rising time for recordings that jump back, such as two broadcasts joined end to end."""

from fractions import Fraction
from typing import Any

JUMP = Fraction(1)
"""Seconds that a track must fall back by; less is the disorder that containers allow."""


class Timeline:
    """Moves the packets of all tracks by the same amount when a recording jumps back in time.

    Each track is moved when its own packets jump, since at such a place those of two tracks are mixed.
    """

    def __init__(self) -> None:
        self.jumps = 0
        """How often the recording jumped back."""
        self._offset = Fraction(0)
        self._offsets: dict[int, Fraction] = {}
        self._ends: dict[int, Fraction] = {}

    def place(self, packet: Any) -> None:
        """Move `packet`, if it must be, so that time goes on."""
        at = packet.dts if packet.dts is not None else packet.pts
        if at is None:
            return
        index, time = packet.stream_index, at * packet.time_base
        offset = self._offsets.get(index, Fraction(0))
        if index in self._ends and time + offset < self._ends[index] - JUMP:
            if offset == self._offset or time + self._offset < self._ends[index] - JUMP:
                self._offset = max(self._ends.values()) - time
                self.jumps += 1
            offset = self._offsets[index] = self._offset
        # Subtitles may overlap for long, and that is no jump.
        lasts = 0 if packet.stream.type == "subtitle" else (packet.duration or 0) * packet.time_base
        self._ends[index] = max(self._ends.get(index, time + offset), time + offset + lasts)
        if offset:
            ticks = round(offset / packet.time_base)
            packet.dts = None if packet.dts is None else packet.dts + ticks
            packet.pts = None if packet.pts is None else packet.pts + ticks
