"""What a film of high range says about the display it was graded on: SMPTE ST 2086 and CTA-861.3."""

import struct
from dataclasses import dataclass
from typing import Any

from pipeline.hdr import HLG, PQ

DISPLAY = struct.Struct("=22i")
"""FFmpeg's AVMasteringDisplayMetadata: ten fractions, then whether it has the primaries and the luminance."""

LIGHT = struct.Struct("=2I")
"""FFmpeg's AVContentLightMetadata."""

CHROMATICITY, LUMINANCE = 50_000, 10_000
"""Units of ST 2086 in one, and in one cd/m2."""


@dataclass(frozen=True, slots=True)
class Mastering:
    """What players fit their own display to."""

    display: tuple[int, ...] | None = None
    """x and y of red, green, blue and white, in 1/50,000; least and most luminance, in 1/10,000 cd/m2."""
    light: tuple[int, int] | None = None
    """Luminance of the brightest pixel and of the brightest frame's mean, in cd/m2."""

    def options(self, option: str) -> str:
        """These as the encoder takes them whose settings FFmpeg calls `option`."""
        display, light = MASTERING_OPTIONS[option]
        told = []
        if self.display is not None:
            red, green, blue, white = (self.display[at : at + 2] for at in (0, 2, 4, 6))
            range_ = self.display[9], self.display[8]
            unit, candela = (CHROMATICITY, LUMINANCE) if option == "svtav1-params" else (1, 1)
            places = {
                name: ",".join(f"{value / scale:.10g}" for value in pair)
                for name, pair, scale in (
                    *(("G", green, unit), ("B", blue, unit), ("R", red, unit)),
                    *(("WP", white, unit), ("L", range_, candela)),
                )
            }
            told.append(f"{display}=" + "".join(f"{name}({place})" for name, place in places.items()))
        if self.light is not None:
            told.append("{}={},{}".format(light, *self.light))
        return ":".join(told)

    def agrees_with(self, other: "Mastering | None") -> bool:
        """Whether both say the same, as near as AV1's units come to those of the others."""
        if other is None or self.light != other.light or (self.display is None) != (other.display is None):
            return False
        nearest = (1,) * 9 + (LUMINANCE // 256,)
        pairs = zip(self.display or (), other.display or (), nearest, strict=False)
        return all(abs(one - two) <= most for one, two, most in pairs)

    def __str__(self) -> str:
        least, most = (self.display or (0,) * 10)[8:]
        shown = f"{least / LUMINANCE:g} to {most / LUMINANCE:g} cd/m2" if self.display else "no display"
        return shown if self.light is None else f"{shown}, at most {self.light[0]} and {self.light[1]}"


MASTERING_OPTIONS = {
    "x264-params": ("mastering-display", "cll"),
    "x265-params": ("master-display", "max-cll"),
    "svtav1-params": ("mastering-display", "content-light"),
}
"""What encoders call the display and the light, by FFmpeg's name of their settings."""


def mastering_of(frame: Any) -> Mastering | None:
    """What a decoded frame of high range, an `av.VideoFrame`, says; None where that is nothing."""
    if frame.color_trc not in (PQ, HLG):
        return None
    display: tuple[int, ...] | None = None
    light: tuple[int, int] | None = None
    try:
        told = list(frame.side_data)
    except ValueError:
        # PyAV refuses all of it where one piece is of a kind that it does not know, such as EXIF.
        return None
    for data in told:
        content = bytes(data)
        if data.type.name == "MASTERING_DISPLAY_METADATA" and len(content) == DISPLAY.size:
            *values, has_primaries, has_luminance = DISPLAY.unpack(content)
            fractions = list(zip(values[::2], values[1::2], strict=True))
            if has_primaries and has_luminance and all(below > 0 for _, below in fractions):
                units = [CHROMATICITY] * 8 + [LUMINANCE] * 2
                display = tuple(
                    round(above * unit / below) for (above, below), unit in zip(fractions, units, strict=True)
                )
        elif data.type.name == "CONTENT_LIGHT_LEVEL" and len(content) == LIGHT.size:
            most, mean = LIGHT.unpack(content)
            light = most, mean
    return None if display is None and light is None else Mastering(display, light)
