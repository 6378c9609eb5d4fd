"""The child process of a stream: NUT on standard input, out to a server (`python -m ...stream_process`).

FFmpeg opens network outputs while it holds Python's global lock, and a server that does not answer would
freeze every thread: here it freezes only this process, which can be killed.
"""

import json
import math
import os
import sys
import time
from typing import Any, BinaryIO

import av
import av.error

AGAIN = 1.0
"""Seconds after which the headers of NUT by UDP are sent again, without which who begins to read later sees
nothing: FFmpeg alone repeats them after 1, 8, 64 MB and so on."""

FILE_ID = b"nut/multimedia container\0"
"""What a file begins with; it may not come again, and needs not come at all."""


class Datagrams:
    """What NUT is written to, again and again, that goes out by UDP as one stream.

    Raises:
        av.error.FFmpegError: it cannot be sent there.
    """

    def __init__(self, url: str) -> None:
        self._target: Any = av.open(url, "w", format="data", options={"flush_packets": "1"})
        self._stream = self._target.add_data_stream()

    def write(self, data: bytes) -> int:
        """Send `data`."""
        packet: Any = av.Packet(bytes(data).removeprefix(FILE_ID))
        packet.stream = self._stream
        self._target.mux(packet)
        return len(data)


def open_file(url: str, flags: int, options: dict[str, str]) -> BinaryIO:
    """A file of FFmpeg's HLS muxer, which goes on in silence where it cannot write to its own.

    Raises:
        OSError: it cannot be written.
    """
    return open(url.removeprefix("file:"), "wb")


def relay(url: str, format: str, options: dict[str, str]) -> None:
    """Copy packets from standard input to `url` until the input ends.

    Prints "open" on standard output when the server has accepted. The first picture only tells what is to
    come: it is old by then, and players that begin with it would stay behind by its age.

    Raises:
        av.error.FFmpegError: the server refuses or is gone.
        OSError: a file cannot be written.
    """
    source: Any = av.open(
        os.fdopen(0, "rb", buffering=0), format="nut", options={"probesize": "32", "fpsprobesize": "0"}
    )
    datagrams = Datagrams(url) if format == "nut" and url.startswith("udp:") else None

    def begin() -> Any:
        opener = open_file if format == "hls" else None
        target: Any = av.open(datagrams or url, "w", format=format, options=options, io_open=opener)
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        target.start_encoding()
        return target, streams, time.monotonic()

    target, streams, began = begin()
    print("open", flush=True)
    pictures, first = 0, math.inf
    for packet in source.demux():
        if not packet.size:
            continue  # the end
        at = packet.pts * packet.time_base
        if packet.stream.type == "video":
            pictures += 1
            first = at if pictures == 2 else first
        # Of sound that stops, its encoder keeps some until it goes on, and FLV has no time before its first.
        if at < first:
            continue
        if packet.dts is None:
            # NUT has no decoding times, and FFmpeg does not guess the first; nothing is reordered here.
            packet.dts = packet.pts
        key = packet.is_keyframe and packet.stream.type == "video"
        if datagrams and key and time.monotonic() - began > AGAIN:
            target.close()
            target, streams, began = begin()
        packet.stream = streams[packet.stream_index]
        target.mux(packet)
    target.close()


def main() -> None:
    """Relay as the arguments say: URL, format, options as JSON."""
    url, format, options = sys.argv[1:]
    try:
        relay(url, format, json.loads(options))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        print(getattr(error, "strerror", None) or error, file=sys.stderr, flush=True)
        os._exit(1)  # closing a connection that hangs would hang, too


if __name__ == "__main__":
    main()
