"""The sound of a live source on a loudspeaker, as late as the picture beside it is."""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SinkError
from pipeline.frame import Frame, Sound, VideoInfo
from pipeline.sinks import Sink
from pipeline.sinks.muxer import SAMPLE_RATE
from pipeline.sources.live import PAUSES

log = logging.getLogger("fauve")

Samples = NDArray[np.float32]

KEPT = 10 * SAMPLE_RATE
"""Samples that wait at most, for pictures that are very late."""

TOLERANCE = SAMPLE_RATE // 50
"""Samples that it may be off by before it jumps: 20 ms, half of what the eye forgives."""

FADE = SAMPLE_RATE // 200
"""Samples over which a jump goes from the old place to the new one, so that it does not click."""

LOOK_EVERY = 0.25
"""Seconds between two looks at whether the device still plays."""

SILENT_AFTER = 2.0
"""Seconds after which a device that asks for no samples counts as lost."""

_PORTAUDIO = threading.Lock()
"""Held while devices are opened, closed and listed: PortAudio does that in one thread at a time."""

_playing: set["SpeakerSink"] = set()
"""Those with a stream of PortAudio's."""


class SpeakerSink(Sink):
    """Plays the sound of a live source: speaker:, or speaker:NAME for a part of a device's name.

    A sample is heard when the picture of its moment is seen: `latency` seconds after it was captured. That
    is what the outputs beside it measure, so that lips match in a window or a virtual camera. A device that
    is pulled out is asked for again while the show goes on.

    Args:
        address: as above.

    Raises:
        SinkError: the source has no sound, or there is nothing to play it on.
    """

    def __init__(self, address: str, info: VideoInfo) -> None:
        self.name = address
        self.latency: Callable[[], float] = lambda: 0.0
        """Seconds from the capture of a picture until it is seen."""
        if not info.sound:
            raise SinkError(f"{address}: the input has no sound; --sound gives it that of another place")
        self._pieces: deque[tuple[int, Samples]] = deque()
        self._lock = threading.Lock()
        self._zeros: deque[float] = deque(maxlen=90)
        self._zero: float | None = None
        """`time.monotonic` at the source's time 0, by the median of three seconds: networks are unsteady."""
        self._next: int | None = None
        self._asked = 0.0
        """When the device last asked for samples."""
        self._closed = threading.Event()
        self._stream = self._open()
        self._watching = threading.Thread(target=self._watch, name="speaker", daemon=True)
        self._watching.start()

    def _open(self, *, anew: bool = False) -> Any:
        """A stream that plays.

        Args:
            anew: on a device that may have been plugged in since devices were listed.

        Raises:
            SinkError: there is no such device, or PortAudio is not here.
        """
        try:
            import sounddevice
        except ImportError as error:
            raise SinkError(f'{self.name}: needs pip install "fauve[live]"') from error
        except OSError as error:
            raise SinkError(f"{self.name}: needs PortAudio, on Debian: apt install libportaudio2") from error

        def play(out: Samples, count: int, clock: Any, status: Any) -> None:
            self._asked = time.monotonic()
            ahead = clock.outputBufferDacTime - clock.currentTime
            out[:] = self.samples(count, time.monotonic() + ahead)

        device = self.name.removeprefix("speaker:")
        with _PORTAUDIO:
            try:
                if anew and not _playing:
                    # PortAudio lists the devices when it begins, and lets go of all of them when it ends.
                    if sounddevice._initialized:
                        sounddevice._terminate()
                    sounddevice._initialize()
                self._asked = time.monotonic()
                stream = sounddevice.OutputStream(
                    SAMPLE_RATE, 0, device or None, 2, "float32", "low", callback=play
                )
                stream.start()
            except (sounddevice.PortAudioError, ValueError) as error:
                names = [each["name"] for each in sounddevice.query_devices() if each["max_output_channels"]]
                there = ", ".join(map(repr, names)) or "none at all"
                reason = str(error).partition(":")[0]
                raise SinkError(f"{self.name}: cannot be played on ({reason}); there is {there}") from error
            _playing.add(self)
        return stream

    def _watch(self) -> None:
        """Look after the device until the end, and give it back."""
        while not self._closed.wait(LOOK_EVERY):
            if self._stream.active and time.monotonic() - self._asked < SILENT_AFTER:
                continue
            self.lost = "the device plays no more"
            log.warning("%s is lost (%s); it is tried again", self.name, self.lost)
            self._give_back()
            if not self._found_again():
                return
            self.lost = ""
            log.warning("%s is back", self.name)
        self._give_back()

    def _found_again(self) -> bool:
        """Whether it plays again; False at the end."""
        attempt = 0
        while not self._closed.wait(PAUSES[min(attempt, len(PAUSES) - 1)]):
            attempt += 1
            try:
                self._stream = self._open(anew=True)
            except SinkError as error:
                self.lost = str(error).removeprefix(f"{self.name}: ")
            else:
                return True
        return False

    def _give_back(self) -> None:
        # What is wrong with a device that is gone is of no interest.
        with _PORTAUDIO, contextlib.suppress(Exception):
            _playing.discard(self)
            self._stream.abort()
            self._stream.close()

    def samples(self, count: int, heard_at: float) -> Samples:
        """The `count` samples, [count, 2], that are heard from `heard_at` on, in seconds of `time.monotonic`.

        Silence where there are none.
        """
        with self._lock:
            if self._zero is None:
                return np.zeros((count, 2), np.float32)
            wanted = round((heard_at - self.latency() - self._zero) * SAMPLE_RATE)
            begin = wanted if self._next is None else self._next
            played = self._between(begin, count)
            if abs(wanted - begin) > TOLERANCE:
                fading = np.linspace(0, 1, min(FADE, count), dtype=np.float32)[:, None]
                there = self._between(wanted, count)
                there[: len(fading)] *= fading
                there[: len(fading)] += played[: len(fading)] * (1 - fading)
                begin, played = wanted, there
            self._next = begin + count
            # As many stay behind as the latency may yet grow by.
            while self._pieces and self._pieces[0][0] + len(self._pieces[0][1]) < self._next - SAMPLE_RATE:
                self._pieces.popleft()
            return played

    def _between(self, begin: int, count: int) -> Samples:
        out = np.zeros((count, 2), np.float32)
        for at, piece in self._pieces:
            first, last = max(at, begin), min(at + len(piece), begin + count)
            if first < last:
                out[first - begin : last - begin] = piece[first - at : last - at]
        return out

    def write(self, frame: Frame) -> None:
        """Learn from a frame when its time was."""
        if frame.captured_at is not None:
            self._zeros.append(frame.captured_at - float(frame.time))
            with self._lock:
                self._zero = median(self._zeros)

    def mux(self, packet: Sound) -> None:
        """Have a piece of sound played when it is due."""
        samples = packet.samples
        begin = round(samples.pts * samples.time_base * SAMPLE_RATE)
        with self._lock:
            self._pieces.append((begin, np.ascontiguousarray(samples.to_ndarray().T, np.float32)))
            while self._pieces[-1][0] - self._pieces[0][0] > KEPT:
                self._pieces.popleft()

    def close(self) -> None:
        """Be silent; a device that does not let go is left to the end of the program."""
        self._closed.set()
        self._watching.join(1.0)

    def abort(self) -> None:
        """Be silent."""
        self.close()
