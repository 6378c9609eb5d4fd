"""What happens now: cameras, screens, streams, and files played as if they were live."""

import atexit
import logging
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import av.error
import numpy as np
from av.format import Flags

from engines import Image, Size
from pipeline.address import shown
from pipeline.channel import Cancelled, Channel
from pipeline.errors import SourceError
from pipeline.frame import Frame, VideoInfo
from pipeline.scaling import resize
from pipeline.sources import Source
from pipeline.sources.demuxer import RENUMBERED, open_input
from pipeline.sources.file import FileSource
from pipeline.sources.pattern import TIME_BASE, PatternSource
from pipeline.sources.resampler import SoundResampler
from pipeline.stderr_tail import StderrTail

log = logging.getLogger("fauve")

T = TypeVar("T")

PAUSES = (0.25, 0.5, 1.0)
"""Seconds between attempts to connect again; the last one repeats."""

HOLD = 0.5
"""Seconds without a frame after which the last one is shown again and again, at the source's rate."""

NEARLY = 1.0
"""Seconds before its length at which what a server gives as a whole may end."""

ASTRAY = 0.3
"""Seconds that a stream's own time may be off the clock, as networks deliver; what is further off has another
time: it was lost for a while, or begins anew, or its clock is not as fast as it says."""

SETTLED = 1.0
"""Seconds that a stream must be behind the clock for; one that stumbled catches up before."""

LEAP = 10.0
"""Seconds that sound, or what is held back, may be ahead of the clock; more is of another programme."""

NOTICED = 0.5
"""Seconds in which who reads a connection that has fallen silent notices it, and knows more about it."""

NOBODY = "nobody sends there"
"""What FFmpeg calls an immediate exit that was requested: the time to answer is over."""

ROUNDED = 0.03
"""Share of a side that a sender's own scaling may round by: such a picture has no other shape."""

STEP = round(Fraction(1, 1000) / TIME_BASE)
"""Least time between two pictures, in units of the time base: a millisecond, as Matroska and FLV count."""

LISTEN = {
    "rtmp": {"listen": "1"},
    "tcp": {"listen": "1"},
    "http": {"listen": "1"},
    # By default it waits less than no time; this is the longest, in seconds.
    "rtsp": {"rtsp_flags": "listen", "listen_timeout": "2147483"},
    "udp": RENUMBERED,
}
"""Options that make FFmpeg wait for a sender instead of asking one."""

CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
"""FFmpeg's device for cameras, by platform."""

MOTION_JPEG = {"v4l2": {"input_format": "mjpeg"}, "dshow": {"vcodec": "mjpeg"}}
"""What such a device is asked first: raw pictures of 1280x720 come at 10 a second through USB 2."""

SCREENS = {"linux": "x11grab", "darwin": "avfoundation", "win32": "gdigrab"}


@dataclass(frozen=True)
class Input:
    """What FFmpeg is asked to open."""

    url: str
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    preferred: Mapping[str, str] = field(default_factory=dict)
    """Options that are left out where it cannot be opened with them."""
    ends: bool = False
    """Is a file of this machine, which comes as fast as it is read, and whose end is no loss."""


class Anchor:
    """Where the times of one connection, which begin anywhere, are on the clock of the run.

    From the first of them on they run beside the clock; what goes `ASTRAY` is anchored anew. What was kept
    back while a stream was opened comes all at once, so that the least delay of its first `SETTLED` seconds
    is its own. Sound waits until that is known, and has one place then.

    Args:
        ahead: seconds that they may be ahead of the clock; more than `ASTRAY` for what is held back until its
            time, which begins with its own delay.
        patient: however late they are, they are kept, as a film's are.
    """

    def __init__(self, ahead: float = ASTRAY, *, patient: bool = False) -> None:
        self.offset: float | None = None
        """The time of the clock at their time 0; None before the first."""
        self.late = False
        """Whether the last one is behind the clock, and may yet catch up."""
        self._ahead = ahead
        self._patient = patient
        self._late_since: float | None = None
        self._early = False
        """Whether the last one came with less delay than any before it."""
        self._settles_at = -math.inf
        self._waiting: list[Any] = []

    def place(self, at: float, now: float) -> float:
        """The time of the clock for what has the time `at` and comes `now`, all in seconds."""
        ahead = math.inf if self.offset is None else at + self.offset - now
        if ahead > self._ahead and self._ahead <= ASTRAY:
            self._settles_at = now + SETTLED
        self._early = ahead > 0 and now < self._settles_at
        if self.offset is None or ahead > self._ahead or self._early:
            self.offset = now - at
        self.late = now - (at + self.offset) > ASTRAY and not self._patient
        if not self.late:
            self._late_since = None
        elif self._late_since is None:
            self._late_since = now
        elif now - self._late_since > SETTLED:
            self.offset, self.late, self._late_since = now - at, False, None
        return at + self.offset

    def sound(self, now: float, *samples: Any) -> list[tuple[Any, float]]:
        """`samples` and those that have waited, with their times of the clock; nothing while they wait.

        Args:
            now: in seconds; infinity at the end, when nothing is waited for.
        """
        self._waiting += samples
        if self.offset is None or (self._early and now < self._settles_at):
            return []
        placed = [(each, float(each.pts * each.time_base) + self.offset) for each in self._waiting]
        self._waiting = []
        return placed


def fitted(image: Image, size: Size) -> Image:
    """`image` [h, w, 3] at `size`, with black bars where its shape is another, as a turned phone's."""
    shape, (width, height) = (image.shape[1], image.shape[0]), size
    if shape == size:
        return image
    scale = min(width / shape[0], height / shape[1])
    inner = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
    if inner[0] >= (1 - ROUNDED) * width and inner[1] >= (1 - ROUNDED) * height:
        return resize(image, size)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    whole = np.zeros((height, width, 3), np.uint8)
    whole[top : top + inner[1], left : left + inner[0]] = resize(image, inner)
    return whole


def open_source(
    address: str,
    *,
    size: Size | None = None,
    rate: Fraction | None = None,
    loop: bool = False,
    sound: bool = True,
    timeout: float = 5.0,
) -> Source:
    """The live source at `address`.

    Args:
        address: camera:0, camera:/dev/video2, screen:, screen:WIDTHxHEIGHT+X+Y, test:, a URL, listen:URL to
            wait for a sender, whip:[HOST]:PORT for a browser or OBS that sends by WebRTC, or a file.
        size: to ask a camera or the test pattern for.
        rate: the same.
        loop: play a file again and again.
        timeout: seconds after which a source that does not answer counts as lost.

    Raises:
        SourceError: there is nothing there.
    """
    if address.startswith("test:"):
        if address != "test:":
            raise SourceError(f"{address}: test: takes nothing behind it; there is --size, and --fps")
        return PatternSource(size or (1280, 720), rate or Fraction(30), sound=sound)
    if address.startswith("whip:"):
        from pipeline.sources.whip import WhipSource

        return WhipSource(address, sound=sound, timeout=timeout)
    if address.startswith("srt:"):
        return LiveSource(shown(address), SrtProgram(address, timeout).open, sound=sound, timeout=timeout)
    asked = parse(address, size, rate)
    return LiveSource(
        shown(address),
        lambda: open_container(address, asked, timeout),
        ends=asked.ends,
        loop=loop,
        sound=sound,
        timeout=timeout,
    )


def parse(address: str, size: Size | None = None, rate: Fraction | None = None) -> Input:
    """What FFmpeg must be asked to open for `address`, on this platform.

    Raises:
        SourceError: no such kind of input, or no such file.
    """
    kind, _, rest = address.partition(":")
    asked = {"framerate": str(rate)} if rate else {}
    if kind == "camera":
        return _camera(rest, asked, size)
    if kind == "screen":
        return _screen(rest, asked)
    if kind == "listen":
        scheme = rest.partition("://")[0].lower()
        if scheme not in LISTEN:
            raise SourceError(f"{shown(address)}: can listen for {', '.join(LISTEN)}")
        return Input(rest, None, LISTEN[scheme])
    if "://" in address:
        options = {"fflags": "nobuffer", "flags": "low_delay"}
        if kind == "rtsp":
            options |= {"rtsp_transport": "tcp"}
        # How much is looked at before the first picture is shown. A viewer who joins an RTMP server hears
        # sound first, and sees the picture from its next key frame on.
        options |= {"analyzeduration": "3000000" if kind.startswith("rtmp") else "500000"}
        return Input(address, None, options | RENUMBERED)
    # Of a name that is too long for one, pathlib's would raise.
    if not os.path.exists(address):
        raise SourceError(
            f"{address}: no such file; inputs are files, camera:0, screen:, test:, listen:, whip: and URLs"
        )
    return Input(f"file:{address}", ends=True)


def _camera(which: str, asked: dict[str, str], size: Size | None) -> Input:
    device = CAMERAS.get(sys.platform)
    if device is None:
        raise SourceError(f"camera:{which}: cameras are not known on {sys.platform}")
    if size:
        asked["video_size"] = "{}x{}".format(*size)
    which = which or "0"
    if device == "v4l2":
        path = f"/dev/video{which}" if which.isdecimal() else which
        if not Path(path).exists():
            raise SourceError(f"camera:{which}: there is no {path}; `fauve devices` lists what there is")
        return Input(path, device, asked, MOTION_JPEG[device])
    if device == "dshow":
        return Input(f"video={numbered(which, 'video', 'camera')}", device, asked, MOTION_JPEG[device])
    return Input(which, device, {"framerate": "30", **asked})


def listed(device: str, kind: str) -> list[tuple[str, str]]:
    """Name and description of each "video" or "audio" input, as FFmpeg's `device` takes and lists them.

    Raises:
        av.error.FFmpegError, ValueError: it lists none.
    """
    from av.device import enumerate_input_devices

    # ALSA's are all of sound, and it does not say so.
    found = [each for each in enumerate_input_devices(device) if kind in (each.media_types or ["audio"])]
    return [
        (each.description if device == "dshow" else each.name, ", ".join(each.description.splitlines()))
        for each in found
    ]


def numbered(which: str, kind: str, address: str) -> str:
    """DirectShow's name of the input of that number, as it knows names only (not run on Windows).

    Args:
        which: a number, or a name, which stays as it is.
        kind: "video" or "audio".
        address: what `which` follows, for messages.

    Raises:
        SourceError: there are not so many.
    """
    if not which.isdecimal():
        return which
    names = [name for name, _ in listed("dshow", kind)]
    if int(which) >= len(names):
        there = ", ".join(names) or "none"
        raise SourceError(f"{address}:{which}: there is no such device; there is {there}, counted from 0")
    return names[int(which)]


def _screen(region: str, asked: dict[str, str]) -> Input:
    device = SCREENS.get(sys.platform)
    if device is None:
        raise SourceError(f"screen:{region}: screens are not known on {sys.platform}")
    options = {"framerate": "30", **asked}
    part = re.fullmatch(r"([1-9]\d*x[1-9]\d*)(?:\+(\d+)(?:\+(\d+))?)?", region)
    if region and part is None:
        raise SourceError(f"screen:{region}: is no part of a screen, such as screen:800x600+10+20")
    size, x, y = part.groups() if part else ("", "", "")
    if device == "avfoundation":
        return Input("Capture screen 0", device, options)
    if size:
        options["video_size"] = size
    if device == "gdigrab":
        if x:
            options |= {"offset_x": x, "offset_y": y or "0"}
        return Input("desktop", device, options)
    display = os.environ.get("DISPLAY")
    if not display:
        raise SourceError("screen: there is no X display here; DISPLAY is not set")
    return Input(f"{display}+{x},{y or 0}" if x else display, device, options)


def awaited(work: Callable[[], T]) -> T:
    """What `work` gives, however long it takes: Ctrl-C reaches who waits here, and does not reach FFmpeg."""
    done: Future[T] = Future()

    def do() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=do, name="open", daemon=True).start()
    # In turns, because a thread that waits for ever does not see Ctrl-C on Windows.
    while not done.done():
        wait([done], 0.2)
    return done.result()


def open_container(address: str, asked: Input, timeout: float) -> Any:
    """An open container of FFmpeg's.

    Args:
        address: what was asked for; messages have it as `shown`.
        timeout: seconds without an answer after which reading fails.

    Raises:
        SourceError: it cannot be opened.
    """
    if asked.ends and not Path(address).is_fifo():
        return open_input(address)
    name = shown(address)
    # A listener waits for its sender as long as it takes.
    opens_within = None if address.startswith("listen:") else max(timeout, 10.0)
    patience = None if asked.ends else (opens_within, timeout)

    def opened(options: Mapping[str, str]) -> Any:
        return av.open(
            asked.url, format=asked.format, options=dict(options), timeout=patience, metadata_errors="replace"
        )

    if asked.preferred:
        try:
            return opened({**asked.options, **asked.preferred})
        except (av.error.FFmpegError, ValueError):
            log.info("%s: is opened without %s", name, dict(asked.preferred))
    try:
        container = opened(asked.options)
        asks = address.startswith(("http://", "https://"))
        if asks and container.duration:
            # A film, not a stream: what was looked at before the first picture is a part of it. A web server
            # gives it twice; who sends by TCP, or to one who listens, may not.
            container.close()
            container = opened({key: asked.options[key] for key in asked.options if key != "fflags"})
        return container
    except av.error.ExitError as error:
        raise SourceError(f"{name}: cannot be opened: {NOBODY}") from error
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if address.startswith("screen:") and "video_size" in asked.options:
            reason += "; a part of a screen must be all within it"
        raise SourceError(f"{name}: cannot be opened: {reason}") from error


def hurries(container: Any) -> bool:
    """Whether it comes as fast as it is read, so that the clock must hold it back: HLS, or any file."""
    return container.format.name == "hls" or bool(container.duration)


def ffmpeg(what: str) -> str:
    """Path of the FFmpeg program that imageio-ffmpeg brings, for the protocols that PyAV's wheel lacks.

    Raises:
        SourceError: it is not installed.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError as error:
        raise SourceError(f'{what}: SRT needs pip install "fauve[live]"') from error
    return str(get_ffmpeg_exe())


def srt_reason(words: list[str], unanswered: str = NOBODY) -> str:
    """Why SRT cannot be opened, by the last words of FFmpeg's program.

    Args:
        unanswered: what is said where nobody answers.
    """
    reason = re.sub(r"^Error opening \w+ files: ", "", words[-1]) if words else "Connection timed out"
    if reason == "Connection timed out":
        return unanswered
    # These come of anything; the first line, after the names of FFmpeg's objects, says of what.
    vague = reason in ("Input/output error", "Invalid argument")
    return re.sub(r"^(\[[^]]*\] )+", "", words[0]) if vague else reason


class SrtProgram:
    """The FFmpeg program that receives SRT, one at a time: the next one needs the port of the one before.

    Args:
        timeout: seconds without anything from the sender after which it ends.
    """

    def __init__(self, address: str, timeout: float = 5.0) -> None:
        self._address = address
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self._kill)

    def open(self) -> Any:
        """An open container of FFmpeg's.

        Raises:
            SourceError: nobody sends there, or the program is not installed.
        """
        self._kill()
        name = shown(self._address)
        command = [ffmpeg(name), "-loglevel", "error", "-fflags", "nobuffer"]
        command += ["-timeout", str(round(1e6 * self._timeout)), "-i", self._address]
        self._process = subprocess.Popen(
            [*command, "-c", "copy", "-f", "nut", "-"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        words = StderrTail(self._process.stderr)
        try:
            return av.open(self._process.stdout, format="nut", metadata_errors="replace")
        except (av.error.FFmpegError, ValueError) as error:
            self._kill()
            reason = srt_reason(words.lines()).replace(self._address, name)
            raise SourceError(f"{name}: cannot be opened: {reason}") from error

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Capture(Source):
    """What all sources have that give frames when they will: a clock that always goes on, and a held picture.

    A thread of the subclass puts; the newest frame wins. Where nothing comes for `HOLD` seconds the last
    picture is given again at the source's rate.

    Args:
        address: what messages call it.
        timeout: seconds without a picture after which it counts as lost, as a camera does that hangs; never
            by default, for those who find it out by themselves.
    """

    info: VideoInfo

    def __init__(self, address: str, timeout: float = math.inf) -> None:
        self.address = address
        self._timeout = timeout
        self._stopped = threading.Event()
        self._items: Channel[Any] = Channel(2, drop_oldest=True)
        self._began = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds on the clock of the run."""
        return time.monotonic() - self._began

    def _put(self, image: Image, at: float, duration: int = 0) -> None:
        """Hand on a picture of the time `at`, in seconds of the run, at the size that the run began with."""
        image = fitted(image, (self.info.width, self.info.height))
        self._items.put(
            Frame(image, round(at / TIME_BASE), duration, TIME_BASE, captured_at=time.monotonic())
        )
        self.dropped = self._items.dropped

    def _put_sound(self, samples: Any, counted: SoundResampler, at: float) -> None:
        """Hand on sound that begins at the time `at`, in seconds of the run."""
        for piece in counted.pieces(samples, at):
            self._items.put_packet(piece, piece.size)

    def __iter__(self) -> Iterator[Frame | Any]:
        period = float(1 / self.info.rate)
        hold = max(HOLD, 3 * period)
        silent = f"no picture for {self._timeout:g} s"
        newest: Frame | None = None
        captured_at, due = time.monotonic(), math.inf
        while True:
            try:
                # Sound may come while no picture does.
                item = self._items.get(max(0.0, min(hold, due - time.monotonic())))
            except TimeoutError:
                if not self.lost and time.monotonic() - captured_at > self._timeout + NOTICED:
                    self.lost = silent
                    log.warning("%s is lost (%s); its last picture is held", self.address, silent)
                if newest is None:
                    continue
                # Shown again: a picture that was captured before is no measure of latency.
                pts = round(self.now / TIME_BASE)
                item = replace(newest, pts=pts, captured_at=None)
            except (EOFError, Cancelled):
                return
            if isinstance(item, Frame):
                captured_at = item.captured_at or captured_at
                if item.captured_at and self.lost == silent:
                    self.lost = ""
                    self.reconnected += 1
                    log.warning("%s is back", self.address)
                if newest is not None and item.pts < newest.pts + STEP:
                    # It comes late, after the held picture was shown again.
                    item = replace(item, pts=newest.pts + STEP)
                newest = item
                due = time.monotonic() + (hold if newest.captured_at else period)
            yield item


class LiveSource(Capture):
    """What FFmpeg reads: a camera, a screen, a stream, or a file at its own pace.

    A source that is lost is connected again after growing pauses, at the size that it began with.

    Args:
        address: what messages call it.
        connect: opens it: an open container of FFmpeg's.
        ends: its end is the end, and no loss.
        loop: begin again at that end.
        sound: give the first track of sound, too.
        timeout: seconds without a picture after which it counts as lost, unless it is a file.

    Raises:
        SourceError: it cannot be opened the first time.
    """

    def __init__(
        self,
        address: str,
        connect: Callable[[], Any],
        *,
        ends: bool = False,
        loop: bool = False,
        sound: bool = True,
        timeout: float = math.inf,
    ) -> None:
        super().__init__(address, math.inf if ends else timeout)
        self._connect = connect
        self._ends = ends
        self._loop = loop
        self._shown = False
        """Whether the last connection gave a picture."""
        self._over = False
        """Whether it gave all that there is."""
        self._attempts = 0
        """To connect, since one did."""
        self._file = awaited(self._open)
        file = self._file.info
        audio = next((track for track in file.tracks if track.kind == "audio"), None) if sound else None
        self.info = replace(
            file,
            time_base=TIME_BASE,
            live=True,
            tracks=(),
            chapters=(),
            stream=None,
            frames=0,
            rate=min(file.rate, Fraction(240)),
            sound=audio is not None,
        )
        self._thread = threading.Thread(target=self._read, name="capture", daemon=True)
        # A film waits until somebody looks; of what goes on without us, the newest is wanted.
        if not self._paced:
            self._start()

    def _start(self) -> None:
        self._began = time.monotonic()
        self._thread.start()

    def __iter__(self) -> Iterator[Frame | Any]:
        if self._thread.ident is None:
            self._start()
        return super().__iter__()

    def _open(self) -> FileSource:
        container = self._connect()
        self._paced = self._ends or hurries(container)
        self._film = self._ends or bool(container.duration)
        # FFmpeg takes 25 pictures a second for granted then, whatever a camera gives.
        self._timed = self._paced or not container.format.flags & Flags.no_timestamps.value
        # Of a film on a server, the length is known; a stream has none.
        start, length = container.start_time or 0, container.duration
        self._until = (start + length) / av.time_base - NEARLY if length else math.inf
        file = FileSource(self.address, container=container)
        if file.info.alpha:
            file.flatten((0, 0, 0))
        # Not before: who joins waits for the next key frame, which may take longer.
        file.patience = self._timeout
        return file

    def _read(self) -> None:
        """Read until stopped; connect again whenever it is lost."""
        try:
            while not self._stopped.is_set():
                again = False
                try:
                    self._read_connection()
                    reason = "it ended"
                    if self._over and not self._loop:
                        self._items.close()
                        return
                    again = self._over and self._shown
                except SourceError as error:
                    reason = NOBODY if isinstance(error.__cause__, av.error.ExitError) else str(error)
                self._file.close()
                if self._shown:
                    self._attempts = 0
                if self._stopped.is_set() or not self._reconnect(reason, again=again):
                    return
        except BaseException as error:
            self._items.close(error)

    def _lose(self, reason: str) -> None:
        self.lost = reason
        why = reason.removeprefix(f"{self.address}: ")
        log.warning("%s is lost (%s); its last picture is held", self.address, why)

    def _reconnect(self, reason: str, *, again: bool) -> bool:
        if not again:
            self._lose(reason)
        while True:
            if not again and self._stopped.wait(PAUSES[min(self._attempts, len(PAUSES) - 1)]):
                return False
            self._attempts += 1
            try:
                self._file = self._open()
            except SourceError as error:
                if again:
                    self._lose(str(error))
                self.lost, again = str(error), False
                continue
            if not again:
                self.lost = ""
                self.reconnected += 1
                log.warning("%s is back", self.address)
            return True

    def _read_connection(self) -> None:
        """Hand on what one connection gives, on the run's clock."""
        self._shown = self._over = False
        last, ends = -math.inf, 0.0
        leap = math.inf if self._ends else LEAP
        anchor = Anchor(leap if self._paced else ASTRAY, patient=self._film)
        audio = next((track for track in self._file.info.tracks if track.kind == "audio"), None)
        counted = SoundResampler()
        heard = math.inf

        def hand_on(sound: list[tuple[Any, float]]) -> None:
            for samples, begins in sound:
                # What comes before the first picture of another programme has no time yet.
                if begins - self.now <= leap:
                    self._put_sound(samples, counted, begins)

        for item in self._file:
            if self._stopped.is_set():
                return
            if isinstance(item, Frame):
                now = self.now
                last = float(item.time) if self._timed else now
                begins = anchor.place(last, now)
                self._shown = True
                if self._paced and begins > now and self._stopped.wait(begins - now):
                    return
                # What comes late is shown when it comes; the sound keeps its place, in case it catches up.
                begins = now if anchor.late else begins
                self._put(item.image, begins, round(item.duration * item.time_base / TIME_BASE))
                ends = begins + float(item.duration * item.time_base)
            elif self.info.sound and audio is not None and item.stream_index == audio.index:
                try:
                    decoded = audio.template.codec_context.decode(item)
                except av.error.FFmpegError as error:
                    # Sound that never could be decoded would take the picture with it, again and again.
                    if self.now - heard > self._timeout:
                        why = f"its sound cannot be decoded any more: {error.strerror}"
                        raise SourceError(f"{self.address}: {why}") from error
                    continue
                heard = self.now
                for samples in decoded:
                    if anchor.offset is not None and samples.pts is not None:
                        hand_on(anchor.sound(self.now, samples))
        hand_on(anchor.sound(math.inf))
        self._over = self._ends or last >= self._until
        if self._over:
            # Its last picture has its time, too, before it ends or begins again.
            self._stopped.wait(max(0.0, ends - self.now))

    def close(self) -> None:
        """Stop reading; a connection that does not answer is left to its end."""
        self._stopped.set()
        self._items.cancel()
        if self._thread.ident is not None:
            self._thread.join(1.0)
        if not self._thread.is_alive():
            self._file.close()
