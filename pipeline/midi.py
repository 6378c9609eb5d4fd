"""MIDI controllers: knobs, faders and keys that turn the controls, and learn which."""

import json
import logging
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines.atomic_write import atomic_write
from pipeline.controls import SWITCHES, Controls, crossfade_at
from pipeline.errors import SinkError
from pipeline.sinks.file import refuse_missing_folder

log = logging.getLogger("fauve")

PRESSED = 64
"""Value of a control from which on a pad or pedal is pressed; when it is let go, it sends 0."""

LOOK_EVERY = 1.0
"""Seconds between two looks at which inputs there are."""


def key_of(message: Any) -> str | None:
    """What a message comes from, such as "control 1/21" or "note 10/36" (channel/number); None for others."""
    if message.type == "control_change":
        return f"control {message.channel + 1}/{message.control}"
    if message.type == "note_on" and message.velocity:
        return f"note {message.channel + 1}/{message.note}"
    return None


def input_names() -> list[str]:
    """Names of the MIDI inputs here.

    Raises:
        OSError: this machine has no sequencer.
    """
    import mido

    # ALSA would complain on standard error.
    if sys.platform == "linux" and not Path("/dev/snd/seq").exists():
        raise OSError("this machine has no ALSA sequencer")
    return list(mido.get_input_names())


class Midi:
    """Takes messages from the input whose name holds `name`, by a map from their source to a control.

    Without hardware, or without a sequencer, it says so in `description`, and waits: an input that is plugged
    in, or in again, is taken from then on.

    Args:
        name: a part of the input's name; empty takes the first, and stays with it.
        mapping: JSON file of what does what, such as {"control 1/21": "strength", "note 10/36":
            "style=pointillism"}; written when something is learned.

    Raises:
        SinkError: the map cannot be read or its folder is missing, or mido is not installed.
    """

    def __init__(self, controls: Controls, name: str, mapping: Path | None) -> None:
        self.changed: Callable[[], None] = lambda: None
        """Called whenever `state` has changed, by whatever thread changed it."""
        self.description = ""
        """Where messages are taken from, or why from nowhere."""
        self._controls = controls
        self._name = name
        self._file = mapping
        self._learning: str | None = None
        self._learned: tuple[str, str] | None = None
        self._input = ""
        """The name of the input that is open; empty for none."""
        self._port: Any = None
        self._map: dict[str, str] = self._read()
        try:
            import mido
        except ImportError as error:
            raise SinkError('--midi needs pip install "fauve[live]"') from error
        self._mido: Any = mido
        self._look()
        if not self.connected:
            log.warning("%s; it is waited for", self.description)
        self._closed = threading.Event()
        self._watching = threading.Thread(target=self._watch, name="midi", daemon=True)
        self._watching.start()

    @property
    def connected(self) -> bool:
        """Whether there is an input to take messages from."""
        return self._port is not None

    def _watch(self) -> None:
        """Look after the input until the end."""
        while not self._closed.wait(LOOK_EVERY):
            before = self.description
            self._look()
            if self.description != before:
                log.warning("%s", self.description)
                self.changed()

    def _look(self) -> None:
        """Let go of an input that is gone, and take the one that was asked for if it is there."""
        try:
            names = input_names()
            if self._input in names:
                return
            self._let_go()
            found = next((found for found in names if self._name.lower() in found.lower()), None)
            if found is None:
                there = ", ".join(names) or "none"
                self.description = f"no MIDI input {self._name!r} here; there is {there}"
                return
            self._port, self._input = self._mido.open_input(found, callback=self.take), found
            self.description = f"MIDI is taken from {found}"
            # ALSA numbers what is plugged in again anew.
            self._name = self._name or re.sub(r" \d+:\d+$", "", found)
        except Exception as error:  # rtmidi raises its own kinds where a machine has no sequencer
            self._let_go()
            self.description = f"no MIDI here: {error}"

    def _let_go(self) -> None:
        port, self._port, self._input = self._port, None, ""
        if port is not None:
            port.close()

    def _read(self) -> dict[str, str]:
        if self._file is None:
            return {}
        refuse_missing_folder(self._file)
        try:
            if not self._file.exists():
                return {}
            content = json.loads(self._file.read_text("utf-8"))
            return {str(key): str(control) for key, control in content.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise SinkError(f"{self._file}: not a map of MIDI controls: {error}") from error

    @property
    def state(self) -> dict[str, Any]:
        """What it listens to (`input`, in words), waits to learn (`waits`), and learned last (`learned`).

        `waits` is the control that the next knob or key will turn, `learned` a key and its control.
        """
        return {"input": self.description, "waits": self._learning, "learned": self._learned}

    def _write(self) -> None:
        """Keep the map, as far as it can be written: a knob turns what it has learned all the same."""
        if self._file is None:
            return
        try:
            atomic_write(self._file, (json.dumps(self._map, indent=2) + "\n").encode())
        except OSError as error:
            log.error("%s: what MIDI has learned cannot be kept: %s", self._file, error.strerror)

    def learn(self, control: str) -> None:
        """Let the next knob or key turn `control`, such as "strength" or "style=pointillism"; "" for none."""
        self._learning = control or None
        self.changed()

    def take(self, message: Any) -> None:
        """Do what a `mido.Message` means."""
        key = key_of(message)
        if key is None:
            return
        learning, self._learning = self._learning, None
        if learning is not None:
            self._map[key], self._learned = learning, (key, learning)
            self._write()
            self.changed()
        control = self._map.get(key)
        if control is None:
            return
        name, _, value = control.partition("=")
        try:
            if value:
                if message.type == "note_on" or message.value >= PRESSED:
                    self._controls.set(name, value)
            elif name in (*SWITCHES, "panic"):
                if message.type == "note_on":
                    self._controls.toggle(name)
                else:
                    self._controls.set(name, message.value >= PRESSED)
            else:
                position = (message.velocity if message.type == "note_on" else message.value) / 127
                self._controls.set(name, crossfade_at(position) if name == "crossfade" else position)
        except ValueError as error:
            log.warning("MIDI %s: %s", key, error)

    def close(self) -> None:
        """Let go of the input."""
        self._closed.set()
        self._watching.join(2.0)
        self._let_go()
