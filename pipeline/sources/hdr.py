"""High dynamic range brought to the range that styles are made for, by FFmpeg's colour management."""

from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipeline.colour import (
    BT709,
    FULL,
    IDENTITY,
    LIMITED,
    LUMA,
    ONE_THREAD,
    SAME_MATRIX,
    UNSPECIFIED,
    Colour,
    colour_of,
)
from pipeline.hdr import high_luminance, small_size

SDR = Colour(BT709, LIMITED, primaries=1, transfer=1)
"""What is painted of a picture of high dynamic range."""

SCALE = (
    "out_transfer=bt709:out_primaries=bt709:out_color_matrix=bt709:out_range=pc:intent=perceptual:"
    "flags=accurate_rnd+full_chroma_int"
)


class ToneMapper:
    """Brings PQ and HLG pictures to BT.709, bright parts compressed and not cut off.

    The peak comes from the mastering metadata of the frames, or is what the transfer can hold.

    Args:
        like: a frame of the size and pixel format to come.
    """

    def __init__(self, like: av.VideoFrame, time_base: Any) -> None:
        self._form = (like.width, like.height, like.format.name)
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=like.width, height=like.height, format=like.format, time_base=time_base
        )
        scale = self._graph.add("scale", SCALE)
        pixels = self._graph.add("format", "gbrp")
        source.link_to(scale)
        scale.link_to(pixels)
        pixels.link_to(self._graph.add("buffersink"))
        self._graph.configure()

    def takes(self, frame: av.VideoFrame) -> bool:
        """Whether `frame` has the size and pixel format that this was made for."""
        return (frame.width, frame.height, frame.format.name) == self._form

    def map(self, frame: av.VideoFrame) -> av.VideoFrame:
        """`frame` in BT.709, of the same size and at the same time."""
        stamps = frame.pts, frame.duration
        if frame.colorspace not in (*LUMA, UNSPECIFIED, IDENTITY):
            # swscale refuses those that it does not have.
            frame.colorspace = colour_of(frame).matrix
        self._graph.vpush(frame)
        mapped: Any = self._graph.vpull()
        mapped.pts, mapped.duration = stamps
        return mapped  # type: ignore[no-any-return]


class LuminanceReader:
    """Reads how bright a picture of high range is, at the size of a gain map."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def read(self, frame: av.VideoFrame) -> NDArray[np.float32]:
        """The luminance of `frame` in cd/m2."""
        width, height = small_size(frame.width, frame.height)
        # Neither side may be left to be guessed.
        small: Any = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="yuv444p10le",
            src_color_range=FULL if frame.color_range == FULL else LIMITED,
            dst_color_range=LIMITED,
            interpolation="AREA",
            threads=ONE_THREAD,
            **SAME_MATRIX,
        )
        rows = [np.frombuffer(plane, np.uint16).reshape(height, -1)[:, :width] for plane in small.planes]
        return high_luminance(np.stack(rows), int(frame.color_trc))
