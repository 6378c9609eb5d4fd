"""Where painted frames go."""

from abc import ABC, abstractmethod
from typing import Any

from pipeline.frame import Frame


class Sink(ABC):
    """Takes frames and packets from one thread, in order."""

    waiting: int = 1
    """Frames of a live source that may wait for it; what is watched wants the newest."""

    name: str = ""
    """What messages and statistics call it."""

    lost: str = ""
    """Why its server is not connected right now; empty while all is well."""

    reconnected: int = 0
    """How often its server came back after it was lost."""

    left_out: int = 0
    """Frames that it took and somebody did not get: its server was away, or a viewer was too slow."""

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Take one frame.

        Raises:
            SinkError: it cannot be written.
        """

    @abstractmethod
    def mux(self, packet: Any) -> None:
        """Take a packet of one of the source's other tracks, or a piece of a live source's `Sound`.

        Raises:
            SinkError: it cannot be written.
        """

    @abstractmethod
    def close(self) -> None:
        """Write what is left and put the result in its place.

        Raises:
            SinkError: it cannot be finished; nothing is left in its place.
        """

    @abstractmethod
    def abort(self) -> None:
        """Leave nothing behind; never raises."""
