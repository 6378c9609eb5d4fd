"""What a child process complained of, for whoever must say why it ended."""

import threading
from collections import deque
from typing import IO

KEPT = 10
"""Lines."""


class StderrTail:
    """The last lines of a child's standard error, read all the time, so that it never waits for a reader."""

    def __init__(self, said: IO[bytes] | None) -> None:
        assert said is not None, "the child has a pipe for them"
        self._said = said
        self._lines: deque[bytes] = deque(maxlen=KEPT)
        self._thread = threading.Thread(target=self._hear, name="last words", daemon=True)
        self._thread.start()

    def _hear(self) -> None:
        with self._said as said:
            self._lines.extend(said)

    def lines(self, within: float = 0.1) -> list[str]:
        """Those that are not empty, when the child has ended, or after `within` seconds."""
        self._thread.join(within)
        said = b"".join(self._lines.copy()).decode("utf-8", "replace").splitlines()
        return [line for line in said if line.strip()]
