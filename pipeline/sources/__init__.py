"""Where frames come from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from pipeline.frame import Frame, VideoInfo


class Source(ABC):
    """Frames of a constant size, and the packets of the tracks beside them, in the order they come in."""

    info: VideoInfo

    lost: str = ""
    """Why a live source is not connected right now; empty while all is well."""

    dropped: int = 0
    """Frames of a live source that were replaced by newer ones before anybody took them."""

    reconnected: int = 0
    """How often a live source that was lost came back."""

    @abstractmethod
    def __iter__(self) -> Iterator[Frame | Any]:
        """Frames, and `av.Packet`s of `info.tracks`; can be iterated once.

        Raises:
            SourceError: it stopped being readable. An error never looks like the end.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back the file or device."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
