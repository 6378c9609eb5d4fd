"""A window, or a whole screen, by SDL."""

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from engines import Image
from pipeline.errors import SinkError
from pipeline.frame import Frame, VideoInfo
from pipeline.sinks import Sink
from pipeline.stderr_tail import StderrTail

ENDS_WITHIN = 1.0
"""Seconds that a window gets to close."""


class WindowSink(Sink):
    """The painted picture in a window: window:, window:full for the whole screen, window:full@1 for another.

    F11 goes over to the whole screen and back. It belongs to a child process, so that a display which dies
    takes nothing else along.

    Args:
        address: as above.

    Raises:
        SinkError: no such window, or pygame-ce is not installed; by `write`, there is no such display, or it
            is there no more.
    """

    def __init__(self, address: str, info: VideoInfo) -> None:
        self.name = address
        self.pressed: Callable[[str], None] = lambda key: None
        """Called with each key, as `keyboard.press` names it; "q" when the window is closed."""
        how, _, display = address.removeprefix("window:").partition("@")
        if how not in ("", "full") or (display and not display.isdecimal()):
            raise SinkError(f"{address}: there is window:, window:full and window:full@1")
        if find_spec("pygame") is None:
            raise SinkError(f'{address}: needs pip install "fauve[live]"')
        shape = (info.height, info.width, 3)
        # Twice through a pipe, a picture of 1920x1080 would be seen 10 ms later.
        try:
            self._memory = SharedMemory(create=True, size=math.prod(shape))
        except OSError as error:
            raise SinkError(f"{address}: there is no memory for it to share: {error.strerror}") from error
        numbers = (info.width, info.height, int(how == "full"), int(display or 0))
        # Not what is called as ours in the folder where fauve runs.
        command = [sys.executable, "-P", "-m", "pipeline.sinks.window_process", self._memory.name]
        try:
            self._child = subprocess.Popen(
                [*command, *map(str, numbers)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYGAME_HIDE_SUPPORT_PROMPT": "1"},
                # Ctrl-C is for us; the child ends when its input does.
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except BaseException:  # Ctrl-C, too
            self._memory.close()
            self._memory.unlink()
            raise
        self._picture: Image | None = np.ndarray(shape, np.uint8, self._memory.buf)
        self._words = StderrTail(self._child.stderr)

    def write(self, frame: Frame) -> None:
        """Show one frame, and take the keys that were pressed since the last one."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        assert self._picture is not None, "it is not closed"
        np.copyto(self._picture, frame.image)
        try:
            self._child.stdin.write(b"\n")
            self._child.stdin.flush()
            answer = self._child.stdout.readline()
        except OSError:
            answer = b""
        said = json.loads(answer) if answer else self._last_words()
        if isinstance(said, str):
            raise SinkError(f"{self.name}: {said}")
        for key in said:
            self.pressed(key)

    def _last_words(self) -> str:
        # Xlib goes on in indented lines with what helps nobody.
        words = [line for line in self._words.lines(ENDS_WITHIN) if not line[0].isspace()]
        return "the window is gone; its display ended, or failed" + (f" ({words[-1]})" if words else "")

    def mux(self, packet: Any) -> None:
        """A window is silent."""

    def close(self) -> None:
        """Close the window."""
        if self._picture is None:
            return
        self._picture = None
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(OSError):
            self._child.stdin.close()
        try:
            self._child.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._memory.close()
        self._memory.unlink()

    def abort(self) -> None:
        """Close the window."""
        self.close()
