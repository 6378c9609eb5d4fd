"""One rising time for recordings that jump back, such as two broadcasts joined end to end."""

from fractions import Fraction
from typing import Any

JUMP = Fraction(1)
"""Seconds that a track must fall back by; less is the disorder that containers allow."""

SHORT_JUMP = Fraction(1, 10)
"""The same for the decoding times of pictures and sound, in which there is no disorder but a clock's."""


class Timeline:
    """Moves the packets of all tracks by the same amount when a recording jumps back in time.

    Each track is moved when its own packets jump, since at such a place those of two tracks are mixed.

    Args:
        begins: when the recording begins, in seconds; what begins before 0 is moved there, as a whole.
    """

    def __init__(self, begins: Fraction = Fraction(0)) -> None:
        self.jumps = 0
        """How often the recording jumped back."""
        self.first = max(Fraction(0), -begins)
        """By how many seconds all is moved from the beginning on."""
        self._offset = self.first
        self._offsets: dict[int, Fraction] = {}
        self._end = Fraction(0)
        """When all that has been read is over; pictures are shown later than they are decoded."""
        self._ends: dict[int, Fraction] = {}
        self._decoded: dict[int, Fraction] = {}
        self.late = 0
        """Pictures that came after one that is shown later, or at the same time."""
        self._last_pts: int | None = None
        self._next_pts = 0

    def place(self, packet: Any) -> None:
        """Move `packet`, if it must be, so that time goes on."""
        at = packet.dts if packet.dts is not None else packet.pts
        if at is None:
            return
        index, time = packet.stream_index, at * packet.time_base
        offset = self._offsets.get(index, self.first)
        exact = packet.dts is not None and packet.stream.type in ("video", "audio")
        # The first pictures of Matroska tell only when they are shown, long after the next is decoded.
        early = packet.dts is None and packet.stream.type == "video" and index not in self._decoded

        def falls(offset: Fraction) -> bool:
            # How long packets last, some files tell wrong: by the order of decoding and not of showing.
            if exact and index in self._decoded:
                return bool(time + offset < self._decoded[index] - SHORT_JUMP)
            return index in self._ends and time + offset < self._ends[index] - JUMP

        if falls(offset):
            if offset == self._offset or falls(self._offset):
                self._offset = self._end - time
                self.jumps += 1
            offset = self._offsets[index] = self._offset
        if exact:
            self._decoded[index] = time + offset
        # Subtitles may overlap for long, and that is no jump.
        lasts = 0 if packet.stream.type == "subtitle" else (packet.duration or 0) * packet.time_base
        if not early:
            self._ends[index] = max(self._ends.get(index, time + offset), time + offset + lasts)
        shown = time if packet.pts is None else max(time, packet.pts * packet.time_base)
        self._end = max(self._end, shown + offset + lasts)
        if offset:
            ticks = round(offset / packet.time_base)
            packet.dts = None if packet.dts is None else packet.dts + ticks
            packet.pts = None if packet.pts is None else packet.pts + ticks

    def show(self, pts: int | None, duration: int) -> int:
        """When a picture is shown, in ticks, later than all before it.

        That is its own `pts`. Where the file does not tell, it follows on the one before; so does one that is
        late, which is counted: some containers have its time guessed, and at a seam the pictures of the one
        recording may overlap those of the other by less than a jump.

        Args:
            duration: of the picture, in ticks.
        """
        if pts is None:
            pts = self._next_pts
        elif self._last_pts is not None and pts <= self._last_pts:
            self.late += 1
            # Half as long as usual, so that time catches up with what comes after.
            pts = self._last_pts + max(1, duration // 2)
        self._last_pts, self._next_pts = pts, pts + max(1, duration)
        return pts
