"""What a performer can turn while the picture runs, from wherever it is turned."""

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

from engines import Look
from pipeline.errors import SinkError

log = logging.getLogger("fauve")

SWITCHES = ("bypass", "freeze", "blackout")
"""Controls that are on or off: the input as it is, the picture held, and black."""

LONGEST_CROSSFADE = 60.0
"""Seconds."""


@dataclass(frozen=True)
class Scene:
    """How one frame is to be shown."""

    look: Look
    bypass: bool = False
    freeze: bool = False
    blackout: bool = False


class Controls:
    """One state for keyboard, OSC, MIDI and panel; each change takes effect between two frames.

    Controls by name: `style` (a style's name; crossfades to it), `mix/NAME` (its weight, 0..1), `strength`
    (0..1), `crossfade` (seconds; 0 cuts), `bypass`, `freeze` and `blackout` (on or off; `panic` is another
    name of the last), and `pack` (name or path of a style pack to go over to).

    Args:
        pack: the pack that is played.
        styles: its styles.
        look: to begin with.
        crossfade: seconds that a change of style takes.
        record: a file for every change with the time of the frame that it took effect at, one JSON object
            a line.

    Raises:
        SinkError: the record cannot be written.
    """

    def __init__(
        self,
        pack: str,
        styles: Sequence[str],
        look: Look,
        *,
        crossfade: float = 1.0,
        record: Path | None = None,
    ) -> None:
        self.play: Callable[[str], None] | None = None
        """Goes over to another pack; a `Deck` puts itself here."""
        self._lock = threading.RLock()
        self._listeners: list[Callable[[Mapping[str, Any]], None]] = []
        self._pending: list[tuple[str, Any]] = []
        self._pack = pack
        self._styles = tuple(styles)
        mix = dict(zip(styles, look.weights(styles).tolist(), strict=True))
        self._values: dict[str, Any] = {
            "strength": look.strength,
            "crossfade": crossfade,
            **dict.fromkeys(SWITCHES, False),
        }
        self._target: dict[str, float] = mix
        self._from: dict[str, float] = mix
        self._fade: tuple[Fraction, float] | None = None
        self._record: IO[str] | None = None
        if record is not None:
            try:
                self._record = record.open("w", encoding="utf-8")
            except OSError as error:
                raise SinkError(f"{record}: cannot be written: {error.strerror}") from error
            self._note(Fraction(0), "pack", pack)
            for name, value in self._values.items():
                self._note(Fraction(0), name, value)
            for style, weight in mix.items():
                self._note(Fraction(0), f"mix/{style}", weight)

    def set(self, name: str, value: Any) -> None:
        """Turn the control `name`; it takes effect at the next frame.

        Raises:
            ValueError: no such control, or a value that it cannot have.
        """
        name = "blackout" if name == "panic" else name
        with self._lock:
            value = self._checked(name, value)
            self._pending.append((name, value))
            self._foresee(name, value)
        self._tell()

    def toggle(self, name: str) -> None:
        """Turn a switch over.

        Raises:
            ValueError: no such switch.
        """
        switch = "blackout" if name == "panic" else name
        if switch not in SWITCHES:
            raise ValueError(f"no switch {name!r}; there is {', '.join(SWITCHES)}")
        with self._lock:
            self.set(switch, not self._values[switch])

    def _checked(self, name: str, value: Any) -> Any:
        if name in SWITCHES:
            return value not in (False, 0, "0", "off", "false", "")
        if name == "pack":
            return str(value)
        if name == "style":
            if value not in self._styles:
                raise ValueError(f"no style {value!r} here; there is {', '.join(self._styles)}")
            return value
        kind, _, style = name.partition("/")
        if kind == "mix" and style not in self._styles:
            raise ValueError(f"no style {style!r} here; there is {', '.join(self._styles)}")
        if name not in ("strength", "crossfade") and kind != "mix":
            raise ValueError(
                f"no control {name!r}; there is style, mix/NAME, strength, crossfade, pack, "
                f"{', '.join(SWITCHES)}"
            )
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} is a number, not {value!r}") from error
        largest = LONGEST_CROSSFADE if name == "crossfade" else 1.0
        if not 0 <= number <= largest:
            raise ValueError(f"{name} is within 0 and {largest:g}, not {number:g}")
        return number

    def _foresee(self, name: str, value: Any) -> None:
        """What everybody is shown at once, before the next frame."""
        if name == "style":
            self._shown_mix = {style: float(style == value) for style in self._styles}
        elif name.startswith("mix/"):
            self._shown_mix = {**self._shown(), name.removeprefix("mix/"): value}
        elif name in self._values:
            self._values[name] = value

    _shown_mix: Mapping[str, float] | None = None

    def _shown(self) -> Mapping[str, float]:
        return self._target if self._shown_mix is None else self._shown_mix

    @property
    def state(self) -> dict[str, Any]:
        """What is set: `pack`, `styles`, `mix` by style, `strength`, `crossfade` and the switches."""
        with self._lock:
            return {
                "pack": self._pack,
                "styles": list(self._styles),
                "mix": dict(self._shown()),
                **self._values,
            }

    def replay(self, time: Fraction, name: str, value: Any) -> None:
        """Turn the control `name` as it was turned at `time`; called in order, before `scene_at`.

        Raises:
            ValueError: as `set`.
        """
        value = self._checked(name, value)
        self._foresee(name, value)
        self._take_effect(time, name, value)

    def listen(self, listener: Callable[[Mapping[str, Any]], None]) -> None:
        """Have `listener` called with the state after each change, in whatever thread made it.

        It must not wait for anything: changes wait for it.
        """
        self._listeners.append(listener)

    def _tell(self) -> None:
        # One change after the other, so that everybody is told the last one last.
        with self._lock:
            state = self.state
            for listener in self._listeners:
                listener(state)

    def swapped(self, pack: str, styles: Sequence[str], look: Look) -> None:
        """Another pack is played from now on: weights of styles that it has, too, are kept.

        Args:
            look: its own, for where it has none of them.
        """
        with self._lock:
            if (pack, tuple(styles)) == (self._pack, self._styles):
                return
            self._pack, self._styles = pack, tuple(styles)
            kept = {style: self._target.get(style, 0.0) for style in styles}
            if not sum(kept.values()) > 0:
                kept = dict(zip(styles, look.weights(styles).tolist(), strict=True))
            self._from = self._target = kept
            self._fade = self._shown_mix = None
            # What was turned since the last frame may be of styles that are gone.
            self._pending = [event for event in self._pending if self._known(event[0], event[1])]
        self._tell()

    def _known(self, name: str, value: Any) -> bool:
        style = value if name == "style" else name.removeprefix("mix/")
        return style in self._styles or not (name == "style" or name.startswith("mix/"))

    def scene_at(self, time: Fraction) -> Scene:
        """How the frame at `time` seconds is to be shown; called in order, once for each frame."""
        with self._lock:
            for name, value in self._pending:
                self._take_effect(time, name, value)
                self._note(time, name, value)
            self._pending.clear()
            self._shown_mix = None
            values = self._values
            return Scene(
                Look(self._mix_at(time), values["strength"]), *(values[switch] for switch in SWITCHES)
            )

    def _take_effect(self, time: Fraction, name: str, value: Any) -> None:
        if name == "style":
            self._from = self._mix_at(time)
            self._target = {style: float(style == value) for style in self._styles}
            seconds = float(self._values["crossfade"])
            self._fade = (time, seconds) if seconds > 0 else None
        elif name.startswith("mix/"):
            mixed = {**self._target, name.removeprefix("mix/"): value}
            # With every weight at 0 there would be nothing to paint.
            if sum(mixed.values()) > 0:
                self._from, self._target, self._fade = self._mix_at(time), mixed, None
        elif name == "pack" and self.play is not None:
            self.play(value)

    def _mix_at(self, time: Fraction) -> dict[str, float]:
        if self._fade is None:
            return self._target
        began, seconds = self._fade
        share = float(time - began) / seconds
        if share >= 1:
            self._fade = None
            return self._target
        total_from, total = sum(self._from.values()), sum(self._target.values())
        return {
            style: (1 - share) * self._from[style] / total_from + share * self._target[style] / total
            for style in self._styles
        }

    def _note(self, time: Fraction, name: str, value: Any) -> None:
        if self._record is not None:
            event = {"time": round(float(time), 6), "control": name, "value": value}
            self._record.write(json.dumps(event, ensure_ascii=False) + "\n")
            self._record.flush()

    def close(self) -> None:
        """Finish the record."""
        with self._lock:
            if self._record is not None:
                self._record.close()
                self._record = None
