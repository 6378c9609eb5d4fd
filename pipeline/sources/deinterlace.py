"""Whole pictures from the half pictures of television, by FFmpeg's bwdif."""

from collections import deque
from fractions import Fraction
from typing import Any

import av
import av.error
from av.filter import Graph


class Deinterlacer:
    """Turns interlaced frames into whole ones, one for one and at their times; others pass as they are.

    A frame comes out when the next one has gone in.

    Args:
        like: a frame of the size and pixel format to come.
        time_base: of the frames.
    """

    def __init__(self, like: av.VideoFrame, time_base: Fraction) -> None:
        self._form = (like.width, like.height, like.format.name)
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=like.width, height=like.height, format=like.format, time_base=time_base
        )
        bwdif = self._graph.add("bwdif", "mode=send_frame:deint=interlaced")
        source.link_to(bwdif)
        bwdif.link_to(self._graph.add("buffersink"))
        self._graph.configure()
        self._stamps: deque[tuple[int | None, int | None]] = deque()

    def takes(self, frame: av.VideoFrame) -> bool:
        """Whether `frame` has the size and pixel format that this was made for."""
        return (frame.width, frame.height, frame.format.name) == self._form

    def push(self, frame: av.VideoFrame | None) -> list[av.VideoFrame]:
        """Take a frame, or None for the end, and return those that are ready."""
        if frame is not None:
            # The filter counts time in halves of its own; the frames keep theirs.
            self._stamps.append((frame.pts, frame.duration))
        self._graph.vpush(frame)
        ready: list[Any] = []
        while True:
            try:
                whole: Any = self._graph.vpull()
            except (BlockingIOError, EOFError):
                return ready
            whole.pts, whole.duration = self._stamps.popleft()
            ready.append(whole)
