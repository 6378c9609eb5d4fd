"""What a performer can turn while the picture runs, from wherever it is turned."""

import contextlib
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Self

from engines import Look
from pipeline.errors import SinkError
from pipeline.sinks.file import refuse_existing

log = logging.getLogger("fauve")

SWITCHES = ("bypass", "freeze", "blackout")
"""Controls that are on or off: the input as it is, the picture held, and black."""

SWITCHED = {True: (1, "1", "on", "true"), False: (0, "0", "off", "false")}
"""How that is said, in any case; True and 1.0 are 1."""

STEPS = {"next": 1, "previous": -1}
"""How the styles of a pack are gone through, one after the other, and round."""

LONGEST_CROSSFADE = 60.0
"""Seconds."""

COMPLAINTS, COMPLAINTS_WITHIN = 10, 10.0
"""Lines about what cannot be done, and the seconds in which there are no more: a fader sends 100 messages a
second, whatever is wrong with them."""


def crossfade_at(position: float) -> float:
    """Seconds that a fader or slider at `position`, 0..1, means: half of its way is for the first 7.5."""
    return float(LONGEST_CROSSFADE * position**3)


def crossfade_position(seconds: float) -> float:
    """Where a fader is, 0..1, that means so many seconds: the inverse of `crossfade_at`."""
    return float((seconds / LONGEST_CROSSFADE) ** (1 / 3))


def switched(name: str, value: Any) -> bool:
    """Whether `value` turns the switch `name` on or off.

    Raises:
        ValueError: it means neither.
    """
    said = value.lower() if isinstance(value, str) else value
    for on, words in SWITCHED.items():
        if said in words:
            return on
    raise ValueError(f"{name} is on or off, not {value!r}")


def leading(mix: Mapping[str, float]) -> str:
    """The style with the largest share: the one that is on, where one is."""
    return max(mix, key=mix.__getitem__)


@dataclass(frozen=True)
class Scene:
    """How one frame is to be shown."""

    look: Look
    bypass: bool = False
    freeze: bool = False
    blackout: bool = False

    def carried(self, moved: tuple[float, float] | None) -> Self:
        """The same for a scene that has moved that far."""
        return replace(self, look=self.look.carried(moved))


@dataclass(frozen=True)
class Fade:
    """Weights of styles by name, on their way `before` to `after` for `seconds` from the time `began`."""

    before: Mapping[str, float]
    after: Mapping[str, float]
    began: Fraction = Fraction(0)
    seconds: float = 0.0

    @property
    def ends(self) -> float:
        """When it is over, in seconds."""
        return float(self.began) + self.seconds

    def at(self, time: Fraction) -> Mapping[str, float]:
        """The weights at `time` seconds."""
        # A time that was rounded may be a little before.
        share = max(0.0, float(time - self.began) / self.seconds) if self.seconds > 0 else 1.0
        if share >= 1:
            return self.after
        total_before, total = sum(self.before.values()), sum(self.after.values())
        return {
            style: (1 - share) * self.before[style] / total_before + share * weight / total
            for style, weight in self.after.items()
        }


@dataclass(frozen=True)
class Setting:
    """What is turned, until something is turned again."""

    fade: Fade
    strength: float
    bypass: bool = False
    freeze: bool = False
    blackout: bool = False

    def scene_at(self, time: Fraction) -> Scene:
        """How the frame at `time` seconds is to be shown."""
        return Scene(Look(self.fade.at(time), self.strength), self.bypass, self.freeze, self.blackout)


class Complaints:
    """Warnings of what a controller sends that cannot be done.

    Args:
        controller: what they begin with, such as "OSC".
    """

    def __init__(self, controller: str) -> None:
        self.untold = 0
        """How many there would have been since the last one that was said."""
        self._controller = controller
        self._said: deque[float] = deque(maxlen=COMPLAINTS)
        """When, in seconds of `time.monotonic`."""

    def say(self, text: str) -> None:
        """Say what is wrong, unless much has been said of late."""
        now = time.monotonic()
        if len(self._said) == COMPLAINTS and now - self._said[0] < COMPLAINTS_WITHIN:
            self.untold += 1
            return
        self._said.append(now)
        more = f" (and {self.untold} more messages before)" if self.untold else ""
        self.untold = 0
        log.warning("%s %s%s", self._controller, text, more)


class Controls:
    """One state for keyboard, OSC, MIDI and panel; each change takes effect between two frames.

    Controls by name: `style` (a style's name; crossfades to it), `mix/NAME` (its weight, 0..1), `strength`
    (0..1), `crossfade` (seconds; 0 cuts), `bypass`, `freeze` and `blackout` (on or off; `panic` is another
    name of the last), and `pack` (name or path of a style pack to go over to).

    Args:
        pack: the pack that is played.
        styles: its styles.
        look: to begin with.
        crossfade: seconds that a change of style takes, up to `LONGEST_CROSSFADE`.
    """

    def __init__(
        self,
        pack: str,
        styles: Sequence[str],
        look: Look,
        *,
        crossfade: float = 1.0,
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
        self._fade = Fade(mix, mix)
        self._crossfade = crossfade
        """Seconds, as last taken effect: of what is turned before one frame, the order counts."""
        self._time = Fraction(0)
        self._first: Fraction | None = None
        """The time of the first frame."""
        self._record: IO[str] | None = None

    def record(self, path: Path, *, force: bool = False) -> None:
        """Write every change to `path`, with the time of the frame that it took effect at.

        Times count from the first frame, as whatever is painted again may begin at any time of its own.

        One JSON object a line: what is set now, then what is turned. Where the file cannot be written any
        more, this is logged, and the show goes on without it.

        Args:
            force: replace a file that is there.

        Raises:
            SinkError: there is a file already, or it cannot be written.
        """
        try:
            path.exists()
        except OSError as error:  # such as a name that is too long
            raise SinkError(f"{path}: cannot be written: {error.strerror}") from error
        refuse_existing(path, force)
        with self._lock:
            # The largest share first: replayed, none may be the last one that goes.
            mix = sorted(self._shown().items(), key=lambda share: share[1], reverse=True)
            begins: dict[str, Any] = {
                "pack": self._pack,
                **self._values,
                **{f"mix/{style}": weight for style, weight in mix},
            }
            try:
                # The name of a pack's folder can be any bytes, which JSON has escapes for.
                self._record = path.open("w", encoding="utf-8", errors="backslashreplace")
                for name, value in begins.items():
                    self._write(self._record, Fraction(0), name, value)
            except OSError as error:
                if self._record is not None:
                    self._end_record()
                    if path.is_file():
                        path.unlink()
                raise SinkError(f"{path}: cannot be written: {error.strerror}") from error

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

    def step_style(self, step: str) -> None:
        """Go over to the next or previous style, as `STEPS` names them."""
        with self._lock:
            place = self._styles.index(leading(self._shown())) + STEPS[step]
            self.set("style", self._styles[place % len(self._styles)])

    def _checked(self, name: str, value: Any) -> Any:
        if name in SWITCHES:
            return switched(name, value)
        if name == "pack":
            if not (isinstance(value, str) and value and value.isprintable()):
                raise ValueError(f"pack is a name or path, not {value!r}")
            return value
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
        except OverflowError:
            number = float("inf")
        largest = LONGEST_CROSSFADE if name == "crossfade" else 1.0
        if not 0 <= number <= largest:
            raise ValueError(f"{name} is within 0 and {largest:g}, not {number:g}")
        return number

    def _foresee(self, name: str, value: Any) -> None:
        """What everybody is shown at once, before the next frame."""
        if name == "style":
            self._shown_mix = {style: float(style == value) for style in self._styles}
        elif name.startswith("mix/"):
            mixed = self._mixed(self._shown(), name, value)
            self._shown_mix = self._shown() if mixed is None else mixed
        elif name in self._values:
            self._values[name] = value

    _shown_mix: Mapping[str, float] | None = None

    def _shown(self) -> Mapping[str, float]:
        return self._fade.after if self._shown_mix is None else self._shown_mix

    def _mixed(self, mix: Mapping[str, float], name: str, value: float) -> Mapping[str, float] | None:
        """`mix` with another share of one style; None where nothing would be left to paint."""
        mixed = {**mix, name.removeprefix("mix/"): value}
        return mixed if sum(mixed.values()) > 0 else None

    @property
    def pack_pending(self) -> str:
        """The pack that is asked for at the next frame; empty where none is."""
        with self._lock:
            return next((value for name, value in reversed(self._pending) if name == "pack"), "")

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
        """Another pack is played from now on: of styles that it has, too, weights are kept, and fades go on.

        Args:
            look: its own; its mix, if it has one, is what the pack was asked for by, and is shown. What it
                has for no mix is shown where the pack has none of the styles.
        """
        with self._lock:
            if (pack, tuple(styles)) == (self._pack, self._styles):
                return
            self._pack, self._styles = pack, tuple(styles)
            before, after = (
                {style: mix.get(style, 0.0) for style in styles}
                for mix in (self._fade.before, self._fade.after)
            )
            if look.mix or not sum(after.values()) > 0:
                before = after = dict(zip(styles, look.weights(styles).tolist(), strict=True))
            elif not sum(before.values()) > 0:
                before = after
            self._fade, self._shown_mix = replace(self._fade, before=before, after=after), None
            self._note("pack", pack)
            # What was turned since the last frame may be of styles that are gone.
            self._pending = [event for event in self._pending if self._known(event[0], event[1])]
        self._tell()

    def _known(self, name: str, value: Any) -> bool:
        style = value if name == "style" else name.removeprefix("mix/")
        return style in self._styles or not (name == "style" or name.startswith("mix/"))

    @property
    def setting(self) -> Setting:
        """What is turned and has taken effect."""
        return Setting(self._fade, self._values["strength"], *(self._values[switch] for switch in SWITCHES))

    def scene_at(self, time: Fraction) -> Scene:
        """How the frame at `time` seconds is to be shown; called in order, once for each frame."""
        with self._lock:
            self._first = time if self._first is None else self._first
            self._time = time - self._first
            pending, self._pending = self._pending, []
            for name, value in pending:
                self._take_effect(time, name, value)
                # Another pack is noted when it is there, if it ever is.
                if name != "pack":
                    self._note(name, value)
            self._shown_mix = None
            return self.setting.scene_at(time)

    def _take_effect(self, time: Fraction, name: str, value: Any) -> None:
        if name == "style":
            chosen = {style: float(style == value) for style in self._styles}
            fade = Fade(self._fade.at(time), chosen, time, self._crossfade)
            # Begun anew each time that the same is asked for, as by a key that is held, it would never end.
            if chosen != self._fade.after or fade.ends < self._fade.ends:
                self._fade = fade
        elif name.startswith("mix/"):
            mixed = self._mixed(self._fade.after, name, value)
            if mixed is not None:
                # On the way to another style it goes on to there; otherwise this is so at once.
                self._fade = replace(self._fade, after=mixed)
        elif name == "crossfade":
            self._crossfade = value
        elif name == "pack" and self.play is not None:
            self.play(value)

    def _note(self, name: str, value: Any) -> None:
        """Record a change with the frame in hand; a record that cannot be written ends, and nothing else."""
        if self._record is None:
            return
        try:
            self._write(self._record, self._time, name, value)
        except OSError as error:
            log.error("%s: the controls are not recorded any more: %s", self._record.name, error.strerror)
            self._end_record()

    def _write(self, record: IO[str], time: Fraction, name: str, value: Any) -> None:
        event = {"time": round(float(time), 6), "control": name, "value": value}
        record.write(json.dumps(event, ensure_ascii=False) + "\n")
        record.flush()

    def _end_record(self) -> None:
        if self._record is not None:
            # What could not be written is tried again, and has been told of.
            with contextlib.suppress(OSError):
                self._record.close()
            self._record = None

    def close(self) -> None:
        """Finish the record."""
        with self._lock:
            self._end_record()
