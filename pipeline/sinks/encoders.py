"""The video encoders that a file can be written with, and their defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.errors import SinkError


@dataclass(frozen=True, slots=True)
class Encoder:
    """One of FFmpeg's encoders, as users name and set it."""

    name: str
    """FFmpeg's name of it."""
    codec: str
    """FFmpeg's name of what it makes."""
    pixels: str = "yuv420p"
    """Pixel format that it is fed."""
    odd_pixels: str = "yuv444p"
    """The same for a picture with an odd side."""
    crf: int | None = None
    """Default quality; None if the codec has none to choose."""
    worst_crf: int = 51
    preset: str | None = None
    """Default effort; None if the codec has none to choose."""
    preset_option: str = "preset"
    """What FFmpeg calls the effort."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What is always set."""
    tag: str | None = None
    """Four letters for .mp4 and .mov that more players know than FFmpeg's own."""

    def settings(self, name: str, crf: int | None, preset: str | None) -> dict[str, str]:
        """FFmpeg's options for quality and effort; the defaults where None is given.

        Raises:
            SinkError: the codec has no such setting, or not that value.
        """
        settings = dict(self.options)
        if crf is not None and self.crf is None:
            raise SinkError(f"--crf: {name} has no quality to choose")
        if preset is not None and self.preset is None:
            raise SinkError(f"--preset: {name} has no effort to choose")
        if self.crf is not None:
            crf = self.crf if crf is None else crf
            if not 0 <= crf <= self.worst_crf:
                raise SinkError(f"--crf: {name} takes 0 to {self.worst_crf}, not {crf}")
            settings["crf"] = str(crf)
        if self.preset is not None:
            settings[self.preset_option] = preset or self.preset
        return settings


ENCODERS = {
    "h264": Encoder("libx264", "h264", crf=20, preset="veryfast"),
    "h265": Encoder(
        "libx265",
        "hevc",
        crf=20,
        preset="veryfast",
        options={"x265-params": "log-level=error"},
        tag="hvc1",
    ),
    "av1": Encoder("libsvtav1", "av1", odd_pixels="yuv420p", crf=26, worst_crf=63, preset="9"),
    "vp9": Encoder(
        "libvpx-vp9",
        "vp9",
        odd_pixels="yuv420p",
        crf=28,
        worst_crf=63,
        preset="5",
        preset_option="cpu-used",
        options={"b": "0", "deadline": "realtime", "row-mt": "1"},
    ),
    "prores": Encoder("prores_ks", "prores", "yuv422p10le", "yuv444p10le", options={"profile": "hq"}),
    "ffv1": Encoder("ffv1", "ffv1", "bgr0", "bgr0"),
}
"""By the name that users type."""
