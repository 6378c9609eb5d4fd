"""The child process of a window: shows pictures, and tells the keys (`python -m ...window_process`).

Xlib ends the program whose X server dies, and a driver that crashes its own: here that is this process alone.
SDL wants a thread for itself, on macOS the first one, which every window has here.
"""

import json
import os
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any

NOWHERE = ("offscreen", "dummy")
"""SDL's drivers that show nothing."""


class Refused(Exception):
    """There can be no such window."""


def opened(pygame: Any, size: tuple[int, int], full: bool, display: int) -> Any:
    """SDL's screen, for pictures of `size`.

    Raises:
        Refused: there is no such display.
    """
    pygame.display.init()
    # Without a display SDL goes over to these by itself, and shows the picture nowhere.
    if pygame.display.get_driver() in NOWHERE and not os.environ.get("SDL_VIDEODRIVER"):
        raise Refused("there is no display here (Linux: DISPLAY or WAYLAND_DISPLAY says which)")
    count = pygame.display.get_num_displays()
    if display >= count:
        raise Refused(f"there is no display {display}; there are {count}, from 0")
    # SDL scales to the screen and keeps the shape.
    flags = pygame.SCALED | pygame.RESIZABLE | (pygame.FULLSCREEN if full else 0)
    screen = pygame.display.set_mode(size, flags, display=display)
    pygame.display.set_caption("fauve")
    pygame.mouse.set_visible(not full)
    return screen


def pressed(pygame: Any) -> list[str]:
    """The keys since the last call, as `keyboard.press` names them; "q" when the window is closed."""
    keys = []
    for event in pygame.event.get():
        if event.type == pygame.QUIT:
            keys.append("q")
        elif event.type == pygame.KEYDOWN and event.key == pygame.K_F11:
            pygame.mouse.set_visible(not pygame.mouse.get_visible())
            pygame.display.toggle_fullscreen()
        elif event.type == pygame.KEYDOWN:
            arrows = {pygame.K_UP: "up", pygame.K_DOWN: "down"}
            keys.append(arrows.get(event.key, event.unicode))
    return keys


def main() -> None:
    """Show the picture in the shared memory of a name and size, as arguments say, at each line that comes in.

    It is answered, when the picture is seen, with a line of JSON: the keys, or what is wrong.
    """
    name, *numbers = sys.argv[1:]
    width, height, full, display = map(int, numbers)
    # Whoever made it gives it back; Python before 3.13 would do so here, too.
    resource_tracker.register = lambda name, rtype: None
    memory: Any = SharedMemory(name)
    screen: Any = None
    import pygame

    picture = pygame.image.frombuffer(memory.buf[: width * height * 3], (width, height), "RGB")
    try:
        for _ in sys.stdin:
            if screen is None:
                screen = opened(pygame, (width, height), bool(full), display)
            screen.blit(picture, (0, 0))
            pygame.display.flip()
            print(json.dumps(pressed(pygame)), flush=True)
    except pygame.error as error:
        print(json.dumps(f"no window can be opened: {error}"), flush=True)
    except Refused as error:
        print(json.dumps(str(error)), flush=True)


if __name__ == "__main__":
    main()
