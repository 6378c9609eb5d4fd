"""Keys, from the terminal or a window."""

import contextlib
import os
import re
import select
import sys
import threading
from collections.abc import Callable

from pipeline.controls import Controls

STEP = 0.05
"""Of the strength, for one press."""

DIGITS = "1234567890"
"""Keys of the first ten styles, as they lie on a keyboard."""

ESCAPES = {"[A": "up", "[B": "down", "OA": "up", "OB": "down"}
"""What terminals send for the arrows, after the escape."""

KEYS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O?.)|.", re.DOTALL)
"""One key, as terminals send it (ECMA-48 and xterm; what comes after an escape is held with Alt)."""

BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O?)\Z")
"""A key whose rest is still to come."""


def keys(typed: str) -> tuple[list[str], str]:
    """The keys in what a terminal sent, "" for those without a meaning, and the beginning of one more."""
    begun = BEGUN.search(typed)
    end = begun.start() if begun else len(typed)
    found = KEYS.findall(typed[:end])
    return [ESCAPES.get(key[1:], "") if key[0] == "\x1b" else key for key in found], typed[end:]


def press(controls: Controls, stop: threading.Event, key: str) -> None:
    """Do what `key` means: a digit, n, p, up, down, b, f, space or q; nothing for others."""
    state = controls.state
    actions: dict[str, Callable[[], None]] = {
        "up": lambda: controls.set("strength", min(1.0, round(state["strength"] + STEP, 6))),
        "down": lambda: controls.set("strength", max(0.0, round(state["strength"] - STEP, 6))),
        "n": lambda: controls.step_style("next"),
        "p": lambda: controls.step_style("previous"),
        "b": lambda: controls.toggle("bypass"),
        "f": lambda: controls.toggle("freeze"),
        " ": lambda: controls.toggle("blackout"),
        "q": stop.set,
    }
    for digit, style in zip(DIGITS, state["styles"], strict=False):
        actions[digit] = lambda style=style: controls.set("style", style)  # type: ignore[misc]
    if key in actions:
        # Of another pack that has come since, the style may be gone.
        with contextlib.suppress(ValueError):
            actions[key]()


def in_foreground(number: int) -> bool:
    """Whether the terminal at the file descriptor `number` lets this process read it and change it.

    It stops a process that its shell has put into the background (with &, or with Ctrl-Z and bg).
    """
    if os.name == "nt":
        return True
    try:
        return os.tcgetpgrp(number) == os.getpgrp()
    except OSError:
        return True  # no shell's


def has_keys() -> bool:
    """Whether somebody can press keys for this process in a terminal."""
    # Without any input at all, as after <&-, there is none in Python either.
    return sys.stdin is not None and sys.stdin.isatty() and in_foreground(sys.stdin.fileno())


class Keyboard:
    """Reads keys from the terminal, one by one, without showing them."""

    def __init__(self, controls: Controls, stop: threading.Event) -> None:
        self._controls = controls
        self._stop = stop
        self._closed = threading.Event()
        self._restore: Callable[[], None] = lambda: None
        read = self._read_windows if os.name == "nt" else self._read_posix()
        self._thread = threading.Thread(target=read, name="keys", daemon=True)
        self._thread.start()

    def _read_posix(self) -> Callable[[], None]:
        import termios
        import tty

        number = sys.stdin.fileno()
        before = termios.tcgetattr(number)
        tty.setcbreak(number)

        def restore() -> None:
            # The terminal may be gone, or another's by now.
            with contextlib.suppress(termios.error):
                if in_foreground(number):
                    termios.tcsetattr(number, termios.TCSADRAIN, before)

        self._restore = restore

        def read() -> None:
            begun = ""
            while not self._closed.is_set():
                if not in_foreground(number):
                    self._closed.wait(0.1)
                elif select.select([number], [], [], 0.1)[0]:
                    try:
                        typed = os.read(number, 1024).decode("utf-8", "replace")
                    except OSError:
                        typed = ""
                    if not typed:
                        return  # the terminal is gone
                    pressed, begun = keys(begun + typed)
                    for key in pressed:
                        press(self._controls, self._stop, key)
                else:
                    begun = ""  # the escape key alone
                    with contextlib.suppress(termios.error):
                        # A shell that had stopped it (with Ctrl-Z) has set the terminal to lines again.
                        if termios.tcgetattr(number)[tty.LFLAG] & termios.ICANON:
                            tty.setcbreak(number, termios.TCSANOW)

        return read

    def _read_windows(self) -> None:
        import msvcrt

        while not self._closed.wait(0.05):
            while msvcrt.kbhit():  # type: ignore[attr-defined]
                key = msvcrt.getwch()  # type: ignore[attr-defined]
                if key in ("\x00", "\xe0"):
                    key = {"H": "up", "P": "down"}.get(msvcrt.getwch(), "")  # type: ignore[attr-defined]
                press(self._controls, self._stop, key)

    def close(self) -> None:
        """Give the terminal back as it was."""
        self._closed.set()
        self._thread.join(1.0)
        self._restore()
