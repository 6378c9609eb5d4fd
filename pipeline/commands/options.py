"""Options that several verbs share."""

import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import click

from engines import Look, Style, load_style
from pipeline.temporal_filter import MOST

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
PRECISION = click.Choice(["auto", "float32", "bfloat16", "float16", "int8"])


class Mix(click.ParamType):  # type: ignore[type-arg]
    """Weights of styles, such as a=0.7,b=0.3, as a mapping."""

    name = "NAME=WEIGHT,..."

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> dict[str, float]:
        """Parse the text of the option."""
        mix: dict[str, float] = {}
        for part in value.split(","):
            name, separator, weight = part.partition("=")
            try:
                if not name.strip() or not separator or name.strip() in mix:
                    raise ValueError
                mix[name.strip()] = float(weight)
            except ValueError:
                self.fail(
                    f"{part!r} is not a style and its weight, given once, such as cubism=0.7", param, context
                )
        return mix


class Detail(click.ParamType):  # type: ignore[type-arg]
    """A factor above 0, or "full"."""

    name = "detail"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> float | str:
        """Parse the text of the option."""
        if value == "full":
            return "full"
        try:
            detail = float(value)
        except ValueError:
            detail = 0
        if not 0 < detail < float("inf"):
            self.fail(f"{value!r} is neither a number above 0 nor 'full'", param, context)
        return detail


LONGEST_SIDE = 65535
"""Pixels; no codec or kind of picture that is written holds more."""

LARGEST_DENOMINATOR = 1001
"""Of a rate: those of television are 24000/1001, 30000/1001 and 60000/1001."""


class Share(click.FloatRange):
    """A number within bounds, which NaN is not."""

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """Parse the text of the option."""
        share = super().convert(value, param, context)
        # It is neither below a bound nor above one.
        if math.isnan(share):
            self.fail(f"{value!r} is not a number from {self.min} to {self.max}", param, context)
        return share


class Dimensions(click.ParamType):  # type: ignore[type-arg]
    """A size such as 1280x720."""

    name = "WIDTHxHEIGHT"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[int, int]:
        """Parse the text of the option."""
        found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value.lower())
        width, height = (int(side) for side in found.groups()) if found else (0, 0)
        if not (0 < width <= LONGEST_SIDE and 0 < height <= LONGEST_SIDE):
            self.fail(f"{value!r} is no size such as 1280x720, of {LONGEST_SIDE} at most", param, context)
        return width, height


COLOURS = {"black": "000000", "white": "ffffff", "grey": "808080", "green": "00ff00", "blue": "0000ff"}
"""By name, in hexadecimal."""


class Colour(click.ParamType):  # type: ignore[type-arg]
    """A colour such as #1a2b3c or white, as (red, green, blue)."""

    name = "COLOUR"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[int, int, int]:
        """Parse the text of the option."""
        if isinstance(value, tuple):
            return value
        digits = COLOURS.get(value.lower(), value.removeprefix("#"))
        try:
            red, green, blue = bytes.fromhex(digits)
        except ValueError:
            self.fail(f"{value!r} is neither #rrggbb nor {', '.join(COLOURS)}", param, context)
        return red, green, blue


class Address(click.ParamType):  # type: ignore[type-arg]
    """Where something is served, such as 8080, :8080 (this machine), 0.0.0.0:8080 or [::]:8080 (for all)."""

    name = "[HOST]:PORT"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, int]:
        """Parse the text of the option."""
        if isinstance(value, tuple):
            return value
        host, _, port = value.rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            self.fail(f"{value!r} is no address such as :8080", param, context)
        return host.strip("[]") or "127.0.0.1", int(port)


class Rate(click.ParamType):  # type: ignore[type-arg]
    """Frames per second, such as 25 or 30000/1001."""

    name = "FPS"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Fraction:
        """Parse the text of the option."""
        try:
            rate = Fraction(value).limit_denominator(LARGEST_DENOMINATOR)
        except (ValueError, ZeroDivisionError):
            rate = Fraction(0)
        if not 0 < rate <= 1000:
            self.fail(f"{value!r} is no rate such as 25 or 30000/1001", param, context)
        return rate


def look(mix: dict[str, float] | None, strength: float, pack: Style) -> Look:
    """The look that the options `--mix` and `--strength` ask for, checked against the pack's styles."""
    try:
        usual = Look(pack.mix, strength)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--strength") from error
    try:
        chosen = Look(mix, strength) if mix else usual
        chosen.weights(pack.styles)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--mix") from error
    return chosen


def _all(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


engine_options = _all(
    click.option(
        "--engine",
        default="auto",
        show_default=True,
        help="Name of the engine, as `fauve doctor` lists them.",
    ),
    click.option(
        "--precision",
        type=PRECISION,
        default="auto",
        show_default=True,
        help="auto takes the fastest precision that the engine offers.",
    ),
    click.option("--threads", type=click.IntRange(1), help="CPU threads of the engine (default: all cores)."),
)
"""Which runtime paints."""

onnx_options = _all(
    click.option(
        "--layout", type=click.Choice(["nchw", "nhwc"]), help="For an .onnx model that does not say its own."
    ),
    click.option(
        "--range",
        "value_range",
        type=click.Choice(["0..255", "0..1", "-1..1"]),
        help="For an .onnx model that does not say its own.",
    ),
)
"""What somebody else's ONNX model leaves unsaid."""


def load_any(style: str, layout: Any, value_range: Any) -> Style:
    """One of several styles, of which only .onnx models want to know what `onnx_options` say.

    Raises:
        StyleError: as `engines.load_style`.
    """
    if Path(style).suffix.lower() != ".onnx":
        return load_style(style)
    return load_style(style, layout=layout, value_range=value_range)


detail_option = click.option(
    "--detail",
    type=Detail(),
    default=1.0,
    show_default=True,
    metavar="FACTOR|full",
    help="Fineness of the strokes: a factor on the style's own height, or full for the size of the video.",
)

score_option = click.option(
    "--score", is_flag=True, help="Report how still the painting holds: its flicker score, 0 is best."
)


follow_option = click.option(
    "--follow/--no-follow",
    default=True,
    show_default=True,
    help="Whether dots, strokes and facets follow a panning camera, or stay where they are on the screen.",
)


steady_option = click.option(
    "--steady",
    type=Share(0, MOST),
    default=0.0,
    show_default=True,
    help="Share of the frame before that is mixed into each one, moved along as the video has moved: 0.75 "
    "halves the flicker of what moves.",
)


def told_frames(count: int) -> str:
    """How many frames there are, in words."""
    return f"{count} frame" if count == 1 else f"{count} frames"


def told_flicker(report: Mapping[str, Any]) -> str:
    """What `Flicker.report` found, in words."""
    if not report["pairs"]:
        return "no flicker score: no two neighbouring frames that can be compared"
    if report["score"] is None:
        return "no flicker score: the painting is of one colour"
    return (
        f"flicker {report['score']:.3f} (moved along, the painting changes by {report['painting']:.1f} grey "
        f"levels, the video by {report['video']:.1f}; {report['pairs']} pairs of frames)"
    )
