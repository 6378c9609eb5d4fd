"""Where painted frames go."""

from typing import Any, Protocol

from pipeline.frame import Frame


class Sink(Protocol):
    """Takes frames and packets from one thread, in order."""

    def write(self, frame: Frame) -> None:
        """Take one frame.

        Raises:
            SinkError: it cannot be written.
        """

    def mux(self, packet: Any) -> None:
        """Take a packet of one of the source's other tracks.

        Raises:
            SinkError: it cannot be written.
        """

    def close(self) -> None:
        """Write what is left and put the result in its place.

        Raises:
            SinkError: it cannot be finished; nothing is left in its place.
        """

    def abort(self) -> None:
        """Leave nothing behind; never raises."""
