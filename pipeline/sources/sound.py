"""Sound from another place than the picture's: a microphone, a mixer, a file, a stream."""

import contextlib
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from glob import glob
from typing import Any

import av.error

from pipeline.address import shown
from pipeline.channel import Channel
from pipeline.errors import SourceError
from pipeline.frame import Frame
from pipeline.sources import Source
from pipeline.sources.demuxer import packets_of
from pipeline.sources.live import (
    ASTRAY,
    LEAP,
    NOBODY,
    PAUSES,
    Anchor,
    Input,
    awaited,
    hurries,
    numbered,
    open_container,
    parse,
)
from pipeline.sources.resampler import SoundResampler

log = logging.getLogger("fauve")

SILENT = 5.0
"""Seconds without a piece that comes, or can be decoded, after which sound is lost."""

MICROPHONES = {"linux": "alsa", "darwin": "avfoundation", "win32": "dshow"}
"""FFmpeg's device for sound, by platform."""


ALSA = {
    "ALSA_CONFIG_DIR": ("/usr/share/alsa",),
    "ALSA_PLUGIN_DIR": ("/usr/lib/*/alsa-lib", "/usr/lib64/alsa-lib", "/usr/lib/alsa-lib"),
}
"""Where systems keep ALSA's settings and plugins, by the variable that says so."""


def find_alsa() -> bool:
    """Whether ALSA is here; PyAV's own looks for its settings where it was built, unless it is told."""
    for name, places in ALSA.items():
        for path in [path for place in places for path in glob(place)][:1]:
            os.environ.setdefault(name, path)
    return "ALSA_CONFIG_DIR" in os.environ


def parse_sound(address: str) -> Input:
    """What FFmpeg must be asked to open for `address`: microphone:NAME, a URL or a file.

    Raises:
        SourceError: no such kind of sound, or no such file.
    """
    kind, _, name = address.partition(":")
    if kind != "microphone":
        return parse(address)
    device = MICROPHONES.get(sys.platform)
    if device is None:
        raise SourceError(f"{address}: microphones are not known on {sys.platform}")
    if device == "alsa":
        find_alsa()
        return Input(name or "default", device)
    which = name or "0"
    if device == "dshow":
        return Input(f"audio={numbered(which, 'audio', 'microphone')}", device)
    return Input(f":{which}", device)


class WithSound(Source):
    """A live source with the sound of another place in the place of its own, on the clock of its pictures.

    Sound that is lost is asked for again, while the picture goes on, and `lost` says so.

    Args:
        picture: the live source.
        address: of the sound, as `parse_sound` takes it.
        loop: play a file of sound again and again; after its end it is silent otherwise.

    Raises:
        SourceError: there is no sound there.
    """

    def __init__(self, picture: Source, address: str, *, loop: bool = False) -> None:
        self._picture = picture
        self._address = address
        self._name = shown(address)
        self._loop = loop
        self._sound_lost = ""
        """Why there is no sound right now; empty while all is well."""
        self.info = replace(picture.info, sound=True)
        self._asked = parse_sound(address)
        self._container = awaited(self._connect)
        self._items: Channel[Any] = Channel(1, drop_oldest=True)
        self._zero: float | None = None
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for work, name in ((self._read_picture, "picture"), (self._read_sound, "sound"))
        ]

    def _connect(self) -> Any:
        container = open_container(self._address, self._asked, SILENT)
        if not container.streams.audio:
            container.close()
            raise SourceError(f"{self._name}: there is no sound in it")
        return container

    def _read_picture(self) -> None:
        try:
            for item in self._picture:
                if not isinstance(item, Frame):
                    continue
                if self._zero is None and item.captured_at is not None:
                    self._zero = item.captured_at - float(item.time)
                self.lost = "; ".join(filter(None, [self._picture.lost, self._sound_lost]))
                self.dropped = self._picture.dropped + self._items.dropped
                self.reconnected = self._picture.reconnected
                if not self._items.put(item):
                    return
            self._items.close()
        except BaseException as error:
            self._items.close(error)

    def _read_sound(self) -> None:
        until: float | None = None
        while not self._stopped.is_set():
            try:
                until = self._read_connection(until)
                reason = "it ended"
                if self._stopped.is_set() or (self._asked.ends and not self._loop):
                    return
                if self._asked.ends and until is not None:
                    self._container = self._connect()
                    continue
            except (SourceError, av.error.FFmpegError) as error:
                # Of FFmpeg's errors the text has the whole address.
                told = getattr(error, "strerror", None) or str(error)
                reason = NOBODY if isinstance(error, av.error.ExitError) else told
            until = None
            self._reconnect(reason)

    def _reconnect(self, reason: str) -> None:
        """Ask for the sound until it is there again, or nobody wants it any more."""
        self._sound_lost = f"{self._name}: the sound is lost ({reason.removeprefix(f'{self._name}: ')})"
        log.warning("%s; it is tried again", self._sound_lost)
        attempt = 0
        while not self._stopped.wait(PAUSES[min(attempt, len(PAUSES) - 1)]):
            attempt += 1
            with contextlib.suppress(SourceError):
                self._container = self._connect()
                self._sound_lost = ""
                log.warning("%s: the sound is back", self._name)
                return

    def _read_connection(self, begins: float | None) -> float | None:
        """Hand on what one connection gives; when it ends, in seconds of the run, if it gave anything.

        Args:
            begins: when its sound does; now if not given.
        """
        counted = SoundResampler()
        until: float | None = None

        def hand_on(sound: list[tuple[Any, float]]) -> None:
            for samples, at in sound:
                for piece in counted.pieces(samples, at):
                    self._items.put_packet(piece, piece.size)

        with self._container as container:
            paced = self._asked.ends or hurries(container)
            ahead = math.inf if self._asked.ends else LEAP if paced else ASTRAY
            anchor = Anchor(ahead, patient=self._asked.ends or bool(container.duration))
            # What does not go on without us waits for the first picture.
            while paced and self._zero is None and not self._stopped.wait(0.01):
                pass
            for samples in self._decoded(container):
                if self._stopped.is_set():
                    break
                if self._zero is None or samples.pts is None:
                    continue
                at = float(samples.pts * samples.time_base)
                now = time.monotonic() - self._zero
                if until is None and begins is not None:
                    anchor.place(at, begins)
                at = anchor.place(at, now)
                if paced and at > now and self._stopped.wait(at - now):
                    break
                hand_on(anchor.sound(now, samples))
                until = at + samples.samples / samples.sample_rate
            hand_on(anchor.sound(math.inf))
        return until

    def _decoded(self, container: Any) -> Iterator[Any]:
        """Its sound, without what is damaged.

        Raises:
            av.error.FFmpegError: it cannot be read on, or none can be decoded, at all or for `SILENT`.
        """
        began, heard, damage = time.monotonic(), 0.0, None
        for packet in packets_of(container, container.streams.audio[0], self._name):
            try:
                decoded = packet.decode()
            except av.error.InvalidDataError as error:
                damage = error
                if time.monotonic() - (heard or began) > SILENT:
                    raise
                continue
            heard = time.monotonic()
            yield from decoded
        if damage is not None and not heard:
            raise damage

    def __iter__(self) -> Iterator[Frame | Any]:
        for thread in self._threads:
            thread.start()
        yield from self._items

    def close(self) -> None:
        """Let go of both."""
        self._stopped.set()
        self._items.cancel()
        self._picture.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(1.0)
