"""The bounded queue between two threads, which also carries the end and the errors."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

PACKETS_LIMIT = 64 << 20
"""Bytes of packets that may wait beside the frames: many minutes of sound, for badly interleaved files."""


class Cancelled(Exception):
    """The other end of a channel is gone."""


class Channel(Generic[T]):
    """A queue of frames, at most `capacity` of them, with the packets of other tracks travelling beside.

    Packets do not count as frames, so that sound never waits for pictures; the order in which things were
    put is kept. One thread puts and closes, one iterates.

    Args:
        drop_oldest: where it is full, what has waited longest makes room for the newest.
    """

    def __init__(self, capacity: int, *, drop_oldest: bool = False) -> None:
        self.capacity = capacity
        self.dropped = 0
        """Frames that made room for newer ones."""
        self._drop_oldest = drop_oldest
        self._items: deque[tuple[T, int | None]] = deque()
        self._frames = 0
        self._bytes = 0
        self._closed = False
        self._error: BaseException | None = None
        self._cancelled = False
        self._changed = threading.Condition()

    def put(self, frame: T) -> bool:
        """Append `frame`, waiting while the channel is full; False if nobody will read it."""
        with self._changed:
            if self._drop_oldest and self._frames >= self.capacity and not self._over:
                self._drop()
            self._changed.wait_for(lambda: self._frames < self.capacity or self._over)
            return self._append(frame, None)

    def _drop(self) -> None:
        oldest = next(index for index, (_, size) in enumerate(self._items) if size is None)
        del self._items[oldest]
        self._frames -= 1
        self.dropped += 1

    def put_packet(self, packet: T, size: int) -> bool:
        """Append a packet of `size` bytes; very many of its kind are waited for, or drop the oldest."""
        with self._changed:
            while self._drop_oldest and self._bytes >= PACKETS_LIMIT and not self._over:
                self._drop_packet()
            self._changed.wait_for(lambda: self._bytes < PACKETS_LIMIT or self._over)
            return self._append(packet, size)

    def _drop_packet(self) -> None:
        oldest, size = next((index, size) for index, (_, size) in enumerate(self._items) if size is not None)
        del self._items[oldest]
        self._bytes -= size

    @property
    def _over(self) -> bool:
        """Whether nothing more is taken."""
        return self._cancelled or self._closed

    def _append(self, item: T, size: int | None) -> bool:
        if self._over:
            return False
        self._items.append((item, size))
        if size is None:
            self._frames += 1
        else:
            self._bytes += size
        self._changed.notify_all()
        return True

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more will come: iteration ends after what is in the channel, or raises `error` there."""
        with self._changed:
            self._closed, self._error = True, error
            self._changed.notify_all()

    def cancel(self) -> None:
        """Give up at either end: what waits is thrown away, `put` returns False, iteration raises."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Items in the order in which they were put.

        Raises:
            Cancelled: after `cancel`.
            BaseException: the error that the channel was closed with, after the items before it.
        """
        while True:
            try:
                yield self.get()
            except EOFError:
                return

    def get(self, timeout: float | None = None) -> T:
        """The next item, waiting `timeout` seconds for it at most.

        Raises:
            TimeoutError: none came.
            EOFError: the channel is closed and empty.
            Cancelled, BaseException: as iterating does.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._closed or self._cancelled, timeout):
                raise TimeoutError
            if self._cancelled:
                raise Cancelled
            if not self._items:
                raise EOFError if self._error is None else self._error
            item, size = self._items.popleft()
            if size is None:
                self._frames -= 1
            else:
                self._bytes -= size
            self._changed.notify_all()
            return item
