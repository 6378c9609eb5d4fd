"""An encoder whose packets nobody wants, to see how fast frames come."""

import time
from typing import Any

import av.error

from pipeline.errors import SinkError
from pipeline.frame import Frame, VideoInfo
from pipeline.sinks import Sink
from pipeline.sinks.encoders import Encoding, VideoEncoder

WARM_UP = 10
"""Frames until all is prepared."""


class Clock(Sink):
    """Encodes frames for nobody."""

    seconds = 0.0
    """What they took so far, but for the first `WARM_UP` if there were as many."""

    def __init__(self, encoding: Encoding, info: VideoInfo) -> None:
        self._encoding, self._encoder = encoding, VideoEncoder(encoding, info)
        self._frames, self._began = 0, time.monotonic()

    def write(self, frame: Frame) -> None:
        """Encode one frame.

        Raises:
            SinkError: the encoder refuses it.
        """
        try:
            self._encoder.encode(frame)
        except av.error.FFmpegError as error:
            raise SinkError(f"{self._encoding} refuses its frames: {error.strerror}") from error
        self._frames += 1
        if self._frames == WARM_UP:
            self._began = time.monotonic()
        self.seconds = time.monotonic() - self._began

    def mux(self, packet: Any) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is kept."""

    def abort(self) -> None:
        """Nothing is kept."""
