import itertools
import struct

import av
import numpy as np
import pytest

from pipeline.orientation import Orientation, orientation_of
from pipeline.sources.file import FileSource
from tests.videos import make_video, picture, turn

TURNS = [
    (a, b, c, d)
    for a, b, c, d in itertools.product((-1, 0, 1), repeat=4)
    if abs(a) == abs(d) != abs(b) == abs(c)
]
"""The eight ways a picture can lie, mirrored ones included."""


class Turned:
    """A frame with a display matrix."""

    def __init__(self, a, b, c, d, scale=1 << 16):
        values = (
            [int(v * scale) for v in (a, b)] + [0] + [int(v * scale) for v in (c, d)] + [0, 0, 0, 1 << 30]
        )
        self.side_data = {"DISPLAYMATRIX": struct.pack("=9i", *values)}


def displayed(image, a, b, c, d):
    """Each pixel moved as the standard says, by its definition."""
    height, width = image.shape[:2]
    points = [(a * x + c * y, b * x + d * y) for y in range(height) for x in range(width)]
    left, top = min(x for x, _ in points), min(y for _, y in points)
    right, bottom = max(x for x, _ in points), max(y for _, y in points)
    result = np.zeros((bottom - top + 1, right - left + 1, 3), np.uint8)
    for (x, y), pixel in zip(points, image.reshape(-1, 3), strict=True):
        result[y - top, x - left] = pixel
    return result


@pytest.mark.parametrize("turned", TURNS)
def test_all_eight(turned):
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    upright = orientation_of(Turned(*turned)).upright(image)
    assert np.array_equal(upright, displayed(image, *turned))


def test_eight_there_are():
    assert len(TURNS) == 8


def test_no_matrix_and_one_of_zeros_leave_it():
    assert orientation_of(type("Frame", (), {"side_data": {}})()) == Orientation()
    assert orientation_of(Turned(0, 0, 0, 0)) == Orientation()


def exif(order="<", tag=0x010F, value=0):
    """A marker segment of JPEG with one tag of EXIF."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    body = b"Exif\0\0" + head + struct.pack(order + "IHHHIHHI", 8, 1, tag, 3, 1, value, 0, 0)
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body


def test_a_film_of_photographs_is_turned_by_its_own_matrix(tmp_path):
    """PyAV gives no side data of pictures with EXIF, and the file of a film has none."""
    path = tmp_path / "in.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            for packet in stream.encode(frame):
                content = bytes(packet)
                tagged = av.Packet(content[:2] + exif() + content[2:])
                tagged.pts = tagged.dts = packet.pts
                tagged.time_base, tagged.stream, tagged.is_keyframe = packet.time_base, stream, True
                container.mux(tagged)
    turn(path, (0, 1, -1, 0))
    with FileSource(path) as source:
        frames = list(source)
    assert len(frames) == 3
    assert frames[0].image.shape == (96, 64, 3)
    expected = np.rot90(picture(0), -1)
    assert np.abs(frames[0].image.astype(int) - expected).mean() < 8


def test_a_slanted_matrix_is_rounded_to_a_quarter_turn():
    assert orientation_of(Turned(0.1, 0.99, -0.99, 0.1)) == orientation_of(Turned(0, 1, -1, 0))


@pytest.mark.parametrize("turned", TURNS)
def test_a_file_comes_out_as_it_is_to_be_shown(tmp_path, turned):
    path = make_video(tmp_path / "a.mp4", frames=2, audio=False)
    with FileSource(path) as source:
        lying = next(iter(source)).image
    with FileSource(turn(path, turned)) as source:
        frame = next(iter(source))
        assert (source.info.width, source.info.height) == (frame.image.shape[1], frame.image.shape[0])
    assert np.array_equal(frame.image, displayed(lying, *turned))
