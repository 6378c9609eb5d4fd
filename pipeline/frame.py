"""What travels from a source to a sink."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Self

from engines import Image
from pipeline.colour import Alpha, Colour
from pipeline.hdr import Gain
from pipeline.hdr_metadata import Mastering


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture and its exact place in time."""

    image: Image
    """uint8 [h, w, 3], RGB, upright; `nv12.Planes` where source, painter and sink have agreed on that."""
    pts: int
    """When it is shown, in units of `time_base`."""
    duration: int
    """For how long, in the same units; 0 if nobody knows."""
    time_base: Fraction
    """Seconds."""
    alpha: Alpha | None = None
    """How opaque each pixel is, None if all are."""
    gain: Gain | None = None
    """What lifts the picture to the high range of its source, None if that is not kept."""
    moved: tuple[float, float] | None = None
    """How far a canvas is to have gone along with the scene, right and down, in pixels; None if it stays."""
    captured_at: float | None = None
    """When a live source had it, in seconds of `time.monotonic`."""

    @property
    def time(self) -> Fraction:
        """When it is shown, in seconds."""
        return self.pts * self.time_base

    def with_image(self, image: Image) -> Self:
        """This place in time with another picture."""
        return replace(self, image=image)


@dataclass(frozen=True, slots=True)
class Sound:
    """A piece of a live source's sound, decoded: 48 kHz, stereo, on the clock of the pictures."""

    samples: Any
    """An `av.AudioFrame` in "fltp"; its pts counts samples."""
    size: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class Track:
    """A track beside the picture, such as sound."""

    index: int
    """Number of the track in its source; a packet's `stream_index`."""
    kind: str
    """"audio", "subtitle", "data", "attachment", or "cover" for a still picture."""
    codec: str
    """FFmpeg's name of its codec: "aac"."""
    template: Any
    """The `av` stream to make the output's stream from; only while the source is open."""
    packet: Any = None
    """The picture of a cover."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a source says about its pictures before the first one."""

    width: int
    """Of the upright picture, in pixels."""
    height: int
    rate: Fraction
    """Frames per second, on average."""
    time_base: Fraction
    """Unit of the pts of its frames, in seconds."""
    colour: Colour
    sample_aspect_ratio: Fraction = Fraction(1)
    """Width of a pixel through its height, for the upright picture."""
    frames: int = 0
    """How many there are, as the file says or its duration suggests; 0 if unknown."""
    tracks: tuple[Track, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Title and the like."""
    chapters: tuple[Any, ...] = ()
    """As `av` gives and takes them."""
    stream: Any = None
    """The `av` stream of the picture, for its language, title and timecode; only while the source is open."""
    alpha: bool = False
    """Whether its frames have one."""
    mastering: Mastering | None = None
    """Of high range that is kept: the display it was graded on; None if nobody knows."""
    live: bool = False
    """Whether its frames come when they will, so that what cannot keep up must leave some out."""
    sound: bool = False
    """Whether a live source gives `Sound` beside its frames."""
