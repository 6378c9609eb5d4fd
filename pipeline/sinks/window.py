"""A window, or a whole screen, by SDL."""

import os
import sys
from collections.abc import Callable
from typing import Any

from pipeline.errors import SinkError
from pipeline.frame import Frame, VideoInfo
from pipeline.sinks import Sink

NOWHERE = ("offscreen", "dummy")
"""SDL's drivers that show nothing."""


class WindowSink(Sink):
    """The painted picture in a window: window:, window:full for the whole screen, window:full@1 for another.

    Made and fed by the thread that writes, as SDL wants it. F11 goes over to the whole screen and back.

    Args:
        address: as above.

    Raises:
        SinkError: no such window, or pygame-ce is not installed; by `write`, there is no such display.
    """

    def __init__(self, address: str, info: VideoInfo) -> None:
        self.name = address
        self.pressed: Callable[[str], None] = lambda key: None
        """Called with each key, as `keyboard.press` names it; "q" when the window is closed."""
        how, _, display = address.removeprefix("window:").partition("@")
        if how not in ("", "full") or (display and not display.isdecimal()):
            raise SinkError(f"{address}: there is window:, window:full and window:full@1")
        self._full = how == "full"
        self._display = int(display or 0)
        self._size = (info.width, info.height)
        self._screen: Any = None
        if sys.platform == "darwin":
            raise SinkError(
                f"{address}: macOS lets only a program's first thread have windows; use --preview"
            )
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame
        except ImportError as error:
            raise SinkError(f'{address}: needs pip install "fauve[live]"') from error
        self._pygame: Any = pygame

    def _open(self) -> None:
        pygame = self._pygame
        try:
            pygame.display.init()
            # Without a display SDL goes over to these by itself, and shows the picture nowhere.
            if pygame.display.get_driver() in NOWHERE and not os.environ.get("SDL_VIDEODRIVER"):
                raise SinkError(
                    f"{self.name}: there is no display here (Linux: DISPLAY or WAYLAND_DISPLAY says which)"
                )
            if self._display >= pygame.display.get_num_displays():
                count = pygame.display.get_num_displays()
                raise SinkError(
                    f"{self.name}: there is no display {self._display}; there are {count}, from 0"
                )
            # SDL scales to the screen and keeps the shape.
            flags = pygame.SCALED | pygame.RESIZABLE | (pygame.FULLSCREEN if self._full else 0)
            self._screen = pygame.display.set_mode(self._size, flags, display=self._display)
        except pygame.error as error:
            raise SinkError(f"{self.name}: no window can be opened: {error}") from error
        pygame.display.set_caption("fauve")
        pygame.mouse.set_visible(not self._full)

    def write(self, frame: Frame) -> None:
        """Show one frame, and take the keys that were pressed since the last one."""
        pygame = self._pygame
        if self._screen is None:
            self._open()
        surface = pygame.image.frombuffer(frame.image.tobytes(), self._size, "RGB")
        self._screen.blit(surface, (0, 0))
        pygame.display.flip()
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                self.pressed("q")
            elif event.type == pygame.KEYDOWN and event.key == pygame.K_F11:
                self._full = not self._full
                pygame.display.toggle_fullscreen()
                pygame.mouse.set_visible(not self._full)
            elif event.type == pygame.KEYDOWN:
                arrows = {pygame.K_UP: "up", pygame.K_DOWN: "down"}
                self.pressed(arrows.get(event.key, event.unicode))

    def mux(self, packet: Any) -> None:
        """A window is silent."""

    def close(self) -> None:
        """Close the window."""
        if self._screen is not None:
            self._screen = None
            self._pygame.display.quit()

    def abort(self) -> None:
        """Close the window."""
        self.close()
