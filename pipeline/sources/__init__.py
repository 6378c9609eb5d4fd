"""Where frames come from."""

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol, Self

from pipeline.frame import Frame, VideoInfo


class Source(Protocol):
    """Frames of a constant size, and the packets of the tracks beside them, in the order they come in."""

    info: VideoInfo

    def __iter__(self) -> Iterator[Frame | Any]:
        """Frames, and `av.Packet`s of `info.tracks`; can be iterated once.

        Raises:
            SourceError: it stopped being readable. An error never looks like the end.
        """

    def close(self) -> None:
        """Give back the file or device."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
