"""Streams to servers and receivers: RTMP, RTSP, SRT, UDP, TCP, HLS."""

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.address import shown
from pipeline.errors import SinkError
from pipeline.frame import Frame, VideoInfo
from pipeline.sinks import Sink
from pipeline.sinks.muxer import INTERLEAVING, KEY_SECONDS, LiveEncoding, Muxer
from pipeline.sources.live import PAUSES, ffmpeg, srt_reason
from pipeline.stderr_tail import StderrTail

log = logging.getLogger("fauve")

ANSWER_WITHIN = 5.0
"""Seconds after which a server that takes nothing counts as lost."""

ACCEPT_WITHIN = 10.0
"""The same for one that is asked to accept the stream, the start of the child included."""

HOLDS = 1.0
"""Seconds after which a server that has accepted again is back: some accept, and then close, all evening."""

FIRST_SEGMENT = KEY_SECONDS + 1.0
"""Seconds after which HLS has written something, which may fail: a folder that is gone accepts anything."""

SOUND_TO_TELL = 400_000
"""Bytes of sound, a second of it, that are encoded before the server has accepted."""

LAST_PACKETS = 1.0
"""Seconds that a server gets to take what is left at the end."""

FORMATS = {
    "rtmp": "flv",
    "rtmps": "flv",
    "rtsp": "rtsp",
    "rtsps": "rtsp",
    "srt": "mpegts",
    "udp": "mpegts",
    "tcp": "mpegts",
    "rtp": "rtp_mpegts",
    "http": "mpegts",
    "https": "mpegts",
}
"""FFmpeg's muxer by the scheme of a URL."""

NEED_PORT = ("udp", "tcp", "srt", "rtp", "nut+udp", "nut+tcp")
"""Schemes that have no port of their own."""


@dataclass(frozen=True)
class Target:
    """Where a stream goes, and how."""

    url: str
    format: str
    options: dict[str, str]
    encoding: LiveEncoding


def parse(address: str, bits: int | None = None) -> Target:
    """The target that `address` means.

    `nut+udp://` and `nut+tcp://` send motion JPEG in NUT, for a receiver on the same machine: a third of
    the latency, ten times the bits. A path that ends with .m3u8 is written as HLS.

    Raises:
        SinkError: no such kind of output.
    """
    encoding = LiveEncoding(bits=bits)
    if address.endswith(".m3u8") and "://" not in address:
        options = {"hls_time": "1", "hls_list_size": "6", "hls_flags": "delete_segments"}
        return Target(f"file:{address}", "hls", options, encoding)
    scheme, _, rest = address.partition("://")
    scheme = scheme.lower()  # FFmpeg knows no others
    address = f"{scheme}://{rest}"
    if scheme in (*FORMATS, *NEED_PORT):
        check_host(address, scheme)
    if scheme in ("nut+udp", "nut+tcp"):
        url = address.removeprefix("nut+")
        if scheme == "nut+udp" and "pkt_size" not in url:
            # One motion JPEG picture is many packets; loopback carries large ones.
            url += ("&" if "?" in url else "?") + "pkt_size=60000&buffer_size=4000000"
        return Target(url, "nut", {"flush_packets": "1"}, LiveEncoding("mjpeg"))
    if scheme not in FORMATS:
        known = ", ".join(f"{known}://" for known in FORMATS)
        raise SinkError(
            f"{shown(address)}: no such output; streams begin with {known}, nut+udp:// or nut+tcp://"
        )
    url, options = address, {"flush_packets": "1"}
    if scheme == "udp" and "pkt_size" not in url:
        url += ("&" if "?" in url else "?") + "pkt_size=1316"
    if scheme.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    if scheme.startswith("rtmp"):
        options["flvflags"] = "no_duration_filesize"
    return Target(url, FORMATS[scheme], options, encoding)


def check_host(address: str, scheme: str) -> None:
    """Refuse at once where nobody can ever be; what may yet come is tried again and again.

    Raises:
        SinkError: there is no host or port in `address`, or none that can be.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:  # a port above 65535 or that is no number, half of an IPv6 address
        # What is no port may be a part of a password.
        raise SinkError(f"{shown(address)}: is no address of the form {scheme}://HOST:PORT") from error
    there = port if scheme in NEED_PORT else parts.hostname
    if not there:
        place = "HOST:PORT" if scheme in NEED_PORT else "HOST/..."
        raise SinkError(f"{shown(address)}: is not of the form {scheme}://{place}")


class StreamSink(Sink):
    """A stream to a server, which is connected again whenever it is lost.

    Frames are encoded here and handed to a child process that talks to the server, so that one which hangs
    freezes nothing else.

    Args:
        address: as `parse` takes it.
        bits: per second at most.

    Raises:
        SinkError: no such kind of output.
    """

    def __init__(self, address: str, info: VideoInfo, *, bits: int | None = None) -> None:
        self.name = shown(address)
        self.connected = False
        self.stopped: Callable[[], bool] = lambda: False
        """Whether the run is about to end, so that a server that takes nothing is not waited for."""
        self._target = parse(address, bits)
        self._info = info
        if self._target.format == "hls" and not Path(address).parent.is_dir():
            raise SinkError(f"{address}: there is no folder {Path(address).parent}")
        self._command = self._relay_command()
        self._child: subprocess.Popen[bytes] | None = None
        self._muxer: Muxer | None = None
        self._failures = 0
        self._said = ""
        self._not_before = 0.0
        self._busy_since: float | None = None
        self._asked_at = self._accepted_at = 0.0
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self._start()

    def _relay_command(self) -> list[str]:
        target = self._target
        if target.url.startswith("srt:"):
            program = [ffmpeg(self.name), "-loglevel", "error", "-probesize", "32", "-analyzeduration", "0"]
            # It reports as soon as the server has accepted; the first picture is dropped as in the relay.
            program += ["-progress", "pipe:1", "-stats_period", "0.1", "-f", "nut", "-i", "-"]
            program += [word for name, value in INTERLEAVING.items() for word in (f"-{name}", value)]
            return [*program, "-c", "copy", "-bsf:v", "noise=drop=not(n)", "-f", target.format, target.url]
        # Not what is called as ours in the folder where fauve runs.
        module = [sys.executable, "-P", "-m", "pipeline.sinks.stream_process"]
        return [*module, target.url, target.format, json.dumps({**INTERLEAVING, **target.options})]

    def _start(self) -> None:
        self._sent = False
        self._told = 0
        self._waits = True
        """Until the child says that the server has accepted."""
        self._asked_at = time.monotonic()
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C is for us; the child ends when its input does.
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._words = StderrTail(self._child.stderr)
        threading.Thread(target=self._listen, args=(self._child,), name="relay", daemon=True).start()
        self._busy_since = time.monotonic()
        try:
            self._muxer = Muxer(
                self.name, self._child.stdin, "nut", self._info, self._target.encoding, flush_packets="1"
            )
        except SinkError:
            self._fail()
        finally:
            self._busy_since = None

    def _listen(self, child: "subprocess.Popen[bytes]") -> None:
        """Wait for the child to say that the server has accepted."""
        assert child.stdout is not None
        with child.stdout as said:
            if said.readline() and child is self._child:
                self._accepted_at = time.monotonic()
                self.connected, self.lost = True, ""
            # FFmpeg's program goes on reporting, and would wait for a reader.
            deque(said, 0)

    def _watch(self) -> None:
        """Kill a child that takes nothing any more, or that the server does not accept; say who is back."""
        unwritten = FIRST_SEGMENT if self._target.format == "hls" else 0.0
        while not self._closed.wait(0.2):
            now, busy, child = time.monotonic(), self._busy_since, self._child
            limit = LAST_PACKETS if self.stopped() else ANSWER_WITHIN
            hangs = busy is not None and now - busy > limit
            ignored = self._waits and not self.connected and now - self._asked_at > ACCEPT_WITHIN
            if child is not None and (hangs or ignored):
                child.kill()
            elif self.connected and self._failures and now - self._accepted_at > HOLDS + unwritten:
                self._failures = 0
                self.reconnected += 1
                log.warning("%s is back", self.name)

    def write(self, frame: Frame) -> None:
        """Send one frame; while the server is lost it is left out, and counted."""
        if self._muxer is None:
            if time.monotonic() < self._not_before:
                self.left_out += 1
                return
            self._start()
        if self._waits and not (self._sent and self.connected):
            # The first picture tells the child what is to come and goes no further; a server that is being
            # asked has no use for what happens meanwhile.
            first, self._sent = not self._sent, True
            self._busy(lambda muxer: muxer.begin(frame) if first else None)
            self.left_out += 1
            return
        key, self._waits = self._waits, False
        if not self._busy(lambda muxer: muxer.write(frame, key=key)):
            self.left_out += 1

    def mux(self, packet: Any) -> None:
        """Send a piece of sound."""
        if self._waits:
            # Some sound tells the child what is to come; all of it would fill the pipe.
            self._told += packet.size
            if self._told > SOUND_TO_TELL:
                return
        self._busy(lambda muxer: muxer.mux(packet))

    def _busy(self, work: Callable[[Muxer], None]) -> bool:
        """Do `work` while `_watch` looks at the time that it takes; whether it was done."""
        if self._muxer is None:
            return False
        if self._child is not None and self._child.poll() is not None:
            self._fail()
            return False
        self._busy_since = time.monotonic()
        try:
            work(self._muxer)
            assert self._child is not None
            assert self._child.stdin is not None
            # A small picture would wait in the pipe's own buffer for the next ones.
            self._child.stdin.flush()
        except (SinkError, OSError):
            self._fail()
            return False
        finally:
            self._busy_since = None
        return True

    def _fail(self) -> None:
        """The server is lost: say so once, and try again later with a new child."""
        self.connected = False
        self._stop()
        pause = PAUSES[min(self._failures, len(PAUSES) - 1)]
        self._failures += 1
        self._not_before = time.monotonic() + pause
        # Its last words say why.
        words, silent = self._words.lines(), "it does not answer"
        if self._target.url.startswith("srt:"):
            said = srt_reason(words, silent)
        else:
            said = words[-1] if words else silent
        # Without the address of an object that FFmpeg begins its lines with.
        self.lost = re.sub(r"^\[[^]]*\] ", "", said.replace(self._target.url, self.name))
        if self._said != self.lost or self._failures == 1:
            log.warning("%s is lost (%s); it is tried again", self.name, self.lost)
            self._said = self.lost

    def _stop(self) -> None:
        child, muxer = self._child, self._muxer
        self._muxer = None
        if child is None:
            return
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1)
        if muxer is not None:
            muxer.abort()
        with contextlib.suppress(OSError):
            assert child.stdin is not None
            child.stdin.close()

    def close(self) -> None:
        """Send what is left, and end the connection properly.

        Raises:
            SinkError: the last segment of HLS cannot be written.
        """
        self._closed.set()
        muxer, child = self._muxer, self._child
        if child is None:
            return
        # A file stays without its end, of which a server's viewers see nothing.
        file = self._target.format == "hls"
        within = ANSWER_WITHIN if file else LAST_PACKETS
        if muxer is not None:
            killer = threading.Timer(within, child.kill)
            killer.start()
            with contextlib.suppress(SinkError, OSError):
                muxer.close()
            with contextlib.suppress(OSError):
                assert child.stdin is not None
                child.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(within + 0.5)
            killer.cancel()
        child.kill()
        child.wait()
        if file and muxer is not None and self.connected and child.returncode:
            words = self._words.lines()
            why = words[-1] if words else "the disk takes too long"
            raise SinkError(f"{self.name}: the last seconds are missing: {why}")

    def abort(self) -> None:
        """End it at once."""
        self._closed.set()
        self._stop()
