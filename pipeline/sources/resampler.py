"""Decoded sound of any kind made 48 kHz stereo, each piece of which follows on the one before."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from av.audio.resampler import AudioResampler

from pipeline.frame import Sound
from pipeline.sources.pattern import SAMPLE_RATE

TOLERANCE = SAMPLE_RATE // 20
"""Samples that a source's own time may be off by before it counts: 50 ms, more than containers round by."""


class SoundResampler:
    """The sound of one connection, whose times are counted on in samples.

    Containers round the times of pieces, Matroska and FLV to the millisecond: taken as they are, pieces would
    overlap and leave gaps.
    """

    def __init__(self) -> None:
        self._kind: tuple[str, str, int] | None = None
        self._resampler: AudioResampler
        self._next = 0

    def pieces(self, samples: Any, at: float) -> Iterator[Sound]:
        """What to hand on after `samples`, which may be of another kind than those before.

        Args:
            samples: an `av.AudioFrame`.
            at: when it begins by the source's own time, in seconds on the clock of the pictures.
        """
        kind = (samples.format.name, samples.layout.name, samples.sample_rate)
        begins = round(at * SAMPLE_RATE)
        if self._kind is None or abs(begins - self._next) > TOLERANCE:
            self._next = begins
        if kind != self._kind:
            # A resampler takes one kind only. Broadcasts go from stereo to mono between two programmes.
            self._kind, self._resampler = kind, AudioResampler("fltp", "stereo", SAMPLE_RATE)
        for piece in self._resampler.resample(samples):
            piece.pts, piece.time_base = self._next, Fraction(1, SAMPLE_RATE)
            self._next += piece.samples
            yield Sound(piece, 8 * piece.samples)
