"""MIDI controllers: knobs, faders and keys that turn the controls, learn which, and show what is set."""

import contextlib
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engines.atomic_write import atomic_write
from pipeline.controls import (
    STEPS,
    SWITCHES,
    Complaints,
    Controls,
    crossfade_at,
    crossfade_position,
    leading,
)
from pipeline.errors import SinkError
from pipeline.sinks.file import refuse_missing_folder

log = logging.getLogger("fauve")

PRESSED = 0.5
"""Position of a control, 0..1, from which on a pad or pedal is pressed; when it is let go, it sends 0."""

LARGEST = {"control": 127, "note": 127, "pitch": 16383}
"""What the positions 0..1 of controls, keys and pitch wheels are counted to; programs have none."""

TOUCHES = range(104, 113)
"""Notes by which faders of Mackie controllers say that they are touched, before they are moved."""

LOOK_EVERY = 1.0
"""Seconds between two looks at which inputs there are."""

SHOW_EVERY = 0.02
"""Seconds between two times that a controller is sent what is set: no more than it can take."""

RESTS = 0.5
"""Seconds without a message after which no hand is on a fader any more, so that its motor may move it."""

THROUGH = "Midi Through"
"""Beginning of the name of ALSA's own input, its first one, which no controller plays on."""

PROBE = b"\x7dfauve"
"""System exclusive message (of no manufacturer's) that only comes back where what is sent is heard again."""


def key_of(message: Any) -> str | None:
    """What a message comes from, such as "control 1/21"; None for others.

    Controls, notes and programs have a channel, from 1, and a number, from 0; "pitch 1" has a channel only.
    """
    match message.type:
        case "control_change":
            return f"control {message.channel + 1}/{message.control}"
        case "note_on" | "note_off":
            return f"note {message.channel + 1}/{message.note}"
        case "program_change":
            return f"program {message.channel + 1}/{message.program}"
        case "pitchwheel":
            return f"pitch {message.channel + 1}"
    return None


def position_of(message: Any) -> float:
    """How far a knob is turned, or how hard a key is pressed, 0..1; 0 for a key that is let go."""
    match message.type:
        case "control_change":
            return float(message.value / LARGEST["control"])
        case "note_on":
            return float(message.velocity / LARGEST["note"])
        case "note_off":
            return 0.0
        case "pitchwheel":
            return float((message.pitch + 8192) / LARGEST["pitch"])
    return 1.0  # a program, which says that it is chosen


def is_fader(control: str) -> bool:
    """Whether `control` is turned to any position, and not only on and off."""
    return control in ("strength", "crossfade") or (control.startswith("mix/") and "=" not in control)


def shown_position(control: str, state: Mapping[str, Any]) -> float | None:
    """Where the fader, 0..1, or how bright the light for `control` is, as `state` is; None shows nothing."""
    name, _, value = control.removeprefix("hold ").partition("=")
    name = "blackout" if name == "panic" else name
    if value:
        return float(value == leading(state["mix"])) if name == "style" else None
    if name == "crossfade":
        return crossfade_position(state[name])
    if name == "strength" or name in SWITCHES:
        return float(state[name])
    # A style that another pack had has no share any more.
    return state["mix"].get(name.removeprefix("mix/"), 0.0) if is_fader(name) else None


def input_names() -> list[str]:
    """Names of the MIDI inputs here.

    Raises:
        OSError: this machine has no sequencer.
    """
    return list(_sequencer().get_input_names())


def output_names() -> list[str]:
    """Names of the MIDI outputs here.

    Raises:
        OSError: this machine has no sequencer.
    """
    return list(_sequencer().get_output_names())


def _sequencer() -> Any:
    import mido

    # ALSA would complain on standard error.
    if sys.platform == "linux" and not Path("/dev/snd/seq").exists():
        raise OSError("this machine has no ALSA sequencer")
    return mido


def unnumbered(name: str) -> str:
    """A port's name without its number: ALSA's (" 20:0") of what is plugged in again, or that of Windows."""
    return re.sub(r" \d+(:\d+)?$", "", name)


def message_to(key: str, position: float) -> Any:
    """The `mido.Message` that moves the fader with this key to `position`, or has its light as bright.

    Raises:
        ValueError: no message has this key.
    """
    from mido import Message

    kind, _, place = key.partition(" ")
    value = round(position * LARGEST[kind])
    if kind == "pitch":
        return Message("pitchwheel", channel=int(place) - 1, pitch=value - 8192)
    channel, number = (int(part) for part in place.split("/"))
    if kind == "note":
        return Message("note_on", channel=channel - 1, note=number, velocity=value)
    return Message("control_change", channel=channel - 1, control=number, value=value)


class Feedback:
    """Lights and motor faders of a controller, which show what is set, from wherever it was.

    Args:
        mapping: from what a message comes from to a control; more may be learned meanwhile.
    """

    def __init__(self, controls: Controls, mapping: Mapping[str, str]) -> None:
        self._controls = controls
        self._map = mapping
        self._port: Any = None
        self._sending = threading.Lock()
        self._shown: dict[str, float] = {}
        """Where the controller's faders are, and how bright its lights, as far as known."""
        self._moved: dict[str, float] = {}
        """When faders were moved by hand, in seconds of `time.monotonic`."""
        self._changed, self._closed = threading.Event(), threading.Event()
        controls.listen(lambda state: self._changed.set())
        self._showing = threading.Thread(target=self._show_changes, name="midi out", daemon=True)
        self._showing.start()

    def open(self, mido: Any, controller: str) -> None:
        """Show what is set at the output of the controller whose input has that name, if it has one."""
        try:
            plain = unnumbered(controller)
            names = [name for name in output_names() if unnumbered(name) == plain]
            if not names:
                log.info("there is no MIDI output %s, whose lights and faders would show what is set", plain)
                return
            # Of two alike, its own.
            self._port = mido.open_output(controller if controller in names else names[0])
            log.info("the lights and faders of %s show what is set", controller)
            self._port.send(mido.Message("sysex", data=PROBE))
        except Exception as error:  # rtmidi raises its own kinds
            log.warning("the lights and faders of %s cannot show what is set: %s", controller, error)
            self.let_go()
        self._changed.set()

    def let_go(self) -> None:
        """Send nothing more, until there is an output again."""
        with self._sending:
            port, self._port = self._port, None
            self._shown.clear()
            self._moved.clear()
            # What is unplugged cannot be closed everywhere.
            with contextlib.suppress(Exception):
                if port is not None:
                    port.close()

    def moved(self, key: str, position: float) -> None:
        """Take note that what has this key in the map was turned or pressed to `position` by hand."""
        if is_fader(self._map[key]):
            self._shown[key], self._moved[key] = position, time.monotonic()
        else:
            # Many pads light up while they are pressed, and go dark by themselves.
            self._shown.pop(key, None)
        self._changed.set()

    def _show_changes(self) -> None:
        later = False
        while not self._closed.is_set():
            self._changed.wait(RESTS if later else None)
            self._closed.wait(SHOW_EVERY)
            self._changed.clear()
            later = self._show(self._controls.state)

    def _show(self, state: Mapping[str, Any]) -> bool:
        """Send what is not shown yet; whether a fader that a hand is on is left for later."""
        later = False
        with self._sending:
            for key, control in dict(self._map).items():
                kind = key.partition(" ")[0]
                position = shown_position(control, state)
                if self._port is None or position is None or kind not in LARGEST:
                    continue
                position = round(position * LARGEST[kind]) / LARGEST[kind]
                if self._shown.get(key) == position:
                    continue
                if is_fader(control) and time.monotonic() - self._moved.get(key, -RESTS) < RESTS:
                    later = True
                    continue
                self._shown[key] = position
                try:
                    self._port.send(message_to(key, position))
                except ValueError:
                    continue  # a key that no message has
                except Exception as error:
                    log.warning("the controller's lights and faders show nothing more: %s", error)
                    self._port = None
        return later

    def close(self) -> None:
        """Let go of the output."""
        self._closed.set()
        self._changed.set()
        self._showing.join(2.0)
        self.let_go()


class Midi:
    """Takes messages from the input whose name holds `name`, by a map from their source to a control.

    Without hardware, or without a sequencer, it says so in `description`, and waits: an input that is plugged
    in, or in again, is taken from then on.

    Args:
        name: a part of the input's name; empty takes the first controller's, and stays with it.
        mapping: JSON file of what does what, such as {"control 1/21": "strength", "note 10/36":
            "style=pointillism", "note 10/37": "hold blackout"} (see `take`); written when something is
            learned.

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
        self._complaints = Complaints("MIDI")
        self._learning: str | None = None
        self._learned: tuple[str, str] | None = None
        self._input = ""
        """The name of the input that is open; empty for none."""
        self._port: Any = None
        self._positions: dict[str, float] = {}
        """What each knob, key and wheel sent last."""
        self._held: set[str] = set()
        """Switches that are on while something is pressed."""
        self._map: dict[str, str] = self._read()
        try:
            import mido
        except ImportError as error:
            raise SinkError('--midi needs pip install "fauve[live]"') from error
        self._mido: Any = mido
        self._feedback = Feedback(controls, self._map)
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
            asked = self._name.lower()
            found = next(
                (name for name in names if (asked in name.lower() if asked else THROUGH not in name)), None
            )
            if found is None:
                there = ", ".join(names) or "none"
                self.description = f"no MIDI input {self._name!r} here; there is {there}"
                return
            self._port, self._input = self._mido.open_input(found, callback=self.take), found
            self.description = f"MIDI is taken from {found}"
            # ALSA numbers what is plugged in again anew.
            self._name = self._name or unnumbered(found)
            self._feedback.open(self._mido, found)
        except Exception as error:  # rtmidi raises its own kinds where a machine has no sequencer
            self._let_go()
            self.description = f"no MIDI here: {error}"

    def _let_go(self) -> None:
        port, self._port, self._input = self._port, None, ""
        if port is not None:
            port.close()
        self._feedback.let_go()
        # Nobody can let go of a pad that is not there any more.
        while self._held:
            self._controls.set(self._held.pop(), False)

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
        """Do what a `mido.Message` means, by what the map has for it.

        "strength", "crossfade" and "mix/NAME" go where a fader is, or as high as a key is hit hard. "bypass",
        "freeze" and "blackout" are on and off as a control is, and turned over by a key or program; "hold
        blackout" is on while a key is pressed. "style=NAME", "strength=0.5" and the like are set, and "style
        next" and "style previous" are gone to, each time that something is pressed.
        """
        if message.type == "sysex" and bytes(message.data) == PROBE:
            log.info("what is sent to the MIDI controller comes back; nothing more is sent")
            self._feedback.let_go()
        key = key_of(message)
        if key is None:
            return
        position = position_of(message)
        turned = message.type in ("control_change", "pitchwheel")
        pressed = position >= PRESSED if turned else position > 0
        before, self._positions[key] = self._positions.get(key, 0.0), position
        if turned or pressed:
            self._learn(key, message)
        control = self._map.get(key)
        if control is None:
            return
        self._feedback.moved(key, position)
        name, _, value = control.partition("=")
        verb, _, which = control.partition(" ")
        try:
            if verb == "hold":
                self._hold(which, pressed, message)
            elif verb == "style" and which in STEPS:
                # Once while a knob is turned up, but each time for a pad that never sends 0.
                if pressed and (not turned or before < PRESSED or before == position):
                    self._controls.step_style(which)
            elif value:
                if pressed:
                    self._controls.set(name, value)
            elif name in (*SWITCHES, "panic"):
                if turned:
                    self._controls.set(name, pressed)
                elif pressed:
                    self._controls.toggle(name)
            elif turned or pressed:
                self._controls.set(name, crossfade_at(position) if name == "crossfade" else position)
        except ValueError as error:
            self._complaints.say(f"{key}: {error}")

    def _learn(self, key: str, message: Any) -> None:
        """Have what has this key turn what waits for it, if anything does."""
        control = self._learning
        if control is None:
            return
        if is_fader(control) and message.type == "note_on" and message.note in TOUCHES:
            return
        self._learning = None
        self._map[key], self._learned = control, (key, control)
        self._write()
        self.changed()

    def _hold(self, switch: str, pressed: bool, message: Any) -> None:
        if switch not in (*SWITCHES, "panic"):
            raise ValueError(f"nothing but {', '.join(SWITCHES)} can be held, not {switch!r}")
        if message.type == "program_change":
            raise ValueError(f"a program does not say when it is let go, so that it cannot hold {switch}")
        (self._held.add if pressed else self._held.discard)(switch)
        self._controls.set(switch, pressed)

    def close(self) -> None:
        """Let go of the input and the output."""
        self._closed.set()
        self._watching.join(2.0)
        self._let_go()
        self._feedback.close()
