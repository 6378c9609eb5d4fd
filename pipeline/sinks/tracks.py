"""What becomes of the tracks beside the picture: copied packet for packet, or re-encoded where it must be."""

from collections.abc import Sequence
from typing import Any

from pipeline.frame import Track
from pipeline.languages import QUICKTIME

TEXT = {"language", "title", "handler_name", "timecode", "creation_time", "comment", "filename", "mimetype"}
"""Metadata of a track that stays true when it moves to another file."""


USUAL_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


BROADCAST = frozenset(
    {"h264", "hevc", "mpeg2video", "aac", "ac3", "eac3", "dts", "mp2", "mp3", "opus", "dvb_subtitle"}
    | {"klv", "scte_35", "timed_id3"}
)
"""What transport streams hold; FFmpeg's muxer does not tell."""


def codecs_of(container: Any) -> frozenset[str]:
    """FFmpeg's names of the codecs that a container which is being written can hold."""
    return BROADCAST if container.format.name == "mpegts" else frozenset(container.supported_codecs)


class CopiedTrack:
    """A track whose packets go over as they are.

    Raises:
        ValueError: the container cannot hold it.
    """

    def __init__(self, container: Any, track: Track) -> None:
        if track.kind != "attachment" and track.codec not in codecs_of(container):
            raise ValueError(f"{container.format.name} does not hold {track.codec}")
        self.stream: Any = container.add_stream_from_template(track.template)
        describe(self.stream, track.template)
        self.moved = 0
        """Packets whose time had to be moved, because it did not rise."""
        self._last: int | None = None

    def packets(self, packet: Any) -> Sequence[Any]:
        """What to mux for `packet` of the source."""
        packet.stream = self.stream
        if packet.dts is None:
            packet.dts = packet.pts
        if self._last is not None and packet.dts is not None and packet.dts <= self._last:
            packet.dts = self._last + 1
            packet.pts = max(packet.pts or packet.dts, packet.dts)
            self.moved += 1
        self._last = packet.dts
        return [packet]

    def flush(self) -> Sequence[Any]:
        """What is left to mux at the end."""
        return []


class ReencodedTrack:
    """Sound that the container cannot hold, in the codec that suits it.

    Raises:
        ValueError: the container can hold no sound.
    """

    def __init__(self, container: Any, track: Track, codec: str) -> None:
        source = track.template.codec_context
        rate = 48000 if codec == "libopus" else source.sample_rate
        # A file that does not say which channel is which has them in the usual order.
        layout = USUAL_LAYOUTS.get(source.channels, "stereo")
        if not source.layout.name.endswith("channels"):
            layout = source.layout.name
        self.stream: Any = container.add_stream(codec, rate=rate, layout=layout)
        describe(self.stream, track.template)
        self.moved = 0
        self._decoder = source

    def packets(self, packet: Any) -> Sequence[Any]:
        """What to mux for `packet` of the source."""
        return [out for frame in self._decoder.decode(packet) for out in self.stream.encode(frame)]

    def flush(self) -> Sequence[Any]:
        """What is left to mux at the end."""
        left = [out for frame in self._decoder.decode(None) for out in self.stream.encode(frame)]
        return [*left, *self.stream.encode(None)]


def describe(stream: Any, template: Any) -> None:
    """Give `stream` the language, title and disposition of `template`."""
    stream.metadata.update({key: text for key, text in template.metadata.items() if key.lower() in TEXT})
    language = stream.metadata.get("language")
    if language and stream.container.format.name == "mov":
        stream.metadata["language"] = QUICKTIME.get(language, language)
    stream.disposition = template.disposition
