"""Colours against the equations and against swscale at its most accurate."""

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from pipeline.colour import (
    BT709,
    BT2020,
    FULL,
    LIMITED,
    SMPTE170M,
    Colour,
    Decoded,
    colour_of,
    encodable,
    frame_of,
    is_yuv,
    to_yuv,
)
from tests.videos import picture

EXACT = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND


def flat(rgb, size=(16, 16)):
    return np.full((size[1], size[0], 3), rgb, np.uint8)


def planes(frame):
    return [np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, : p.width] for p in frame.planes]


@pytest.mark.parametrize(
    ("rgb", "matrix", "range_", "yuv"),
    [
        ((255, 255, 255), BT709, LIMITED, (235, 128, 128)),
        ((0, 0, 0), BT709, LIMITED, (16, 128, 128)),
        ((255, 255, 255), BT709, FULL, (255, 128, 128)),
        # The 100 % colour bars of the standards, rounded.
        ((255, 0, 0), BT709, LIMITED, (63, 102, 240)),
        ((0, 255, 0), BT709, LIMITED, (173, 42, 26)),
        ((0, 0, 255), BT709, LIMITED, (32, 240, 118)),
        ((255, 0, 0), SMPTE170M, LIMITED, (81, 90, 240)),
        ((0, 255, 0), SMPTE170M, LIMITED, (145, 54, 34)),
        ((0, 0, 255), SMPTE170M, LIMITED, (41, 240, 110)),
        ((255, 0, 0), BT2020, LIMITED, (74, 97, 240)),
    ],
)
def test_the_numbers_of_the_standards(rgb, matrix, range_, yuv):
    colour = Colour(matrix, range_)
    frame = to_yuv(flat(rgb), colour)
    assert np.abs([int(plane[4, 4]) for plane in planes(frame)] - np.array(yuv)).max() <= 1
    assert np.abs(Decoded().image(frame, colour).astype(int) - flat(rgb)).max() <= 1


@pytest.mark.parametrize("matrix", [BT709, SMPTE170M, BT2020, 4, 5, 7])
@pytest.mark.parametrize("range_", [LIMITED, FULL])
def test_there_and_back_is_the_same_picture(matrix, range_):
    colour = Colour(matrix, range_)
    image = np.random.default_rng(0).integers(0, 256, (33, 41, 3), np.uint8)
    frame = to_yuv(image, colour, "yuv444p")
    assert frame.format.name == "yuv444p"
    difference = Decoded().image(frame, colour).astype(int) - image
    assert np.abs(difference).max() <= 3
    assert abs(difference.mean()) < 0.2


@pytest.mark.parametrize(
    "name",
    ["yuv420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le", "yuv422p12le", "p010le", "yuva420p", "uyvy422"],
)
@pytest.mark.parametrize("matrix", [BT709, SMPTE170M])
@pytest.mark.parametrize("range_", [LIMITED, FULL])
def test_every_way_to_store_yuv_is_read_as_swscale_reads_it(name, matrix, range_):
    source = av.VideoFrame.from_ndarray(picture(3), format="rgb24")
    swscale = VideoReformatter()
    frame = swscale.reformat(
        source,
        format=name,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=range_,
        interpolation=EXACT,
    )
    wanted = swscale.reformat(
        frame,
        format="rgb24",
        src_colorspace=matrix,
        src_color_range=range_,
        dst_color_range=ColorRange.JPEG,
        interpolation=EXACT,
    ).to_ndarray()
    difference = Decoded().image(frame, Colour(matrix, range_)).astype(int) - wanted
    assert abs(difference.mean()) < 0.4, "a shift of all levels"
    assert np.abs(difference).mean() < 2, "chroma is interpolated differently at edges, and nothing else"


@pytest.mark.parametrize("name", ["rgb24", "bgr24", "gbrp", "rgba", "rgb48le", "bgra", "gray"])
def test_rgb_and_grey_are_read_as_they_are(name):
    image = picture(2)
    if name == "gray":
        image = np.repeat(image[..., :1], 3, -1)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=name)
    assert np.abs(Decoded().image(frame, colour_of(frame)).astype(int) - image).max() <= 1


@pytest.mark.parametrize("name", ["rgb555", "rgb565", "bgr555", "bgr565"])
def test_rgb_in_two_bytes_is_read_in_either_order(name):
    image = picture(3)
    little = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=f"{name}le")
    big = av.VideoFrame(little.width, little.height, f"{name}be")
    big.planes[0].update(np.frombuffer(little.planes[0], np.uint16).byteswap())
    for frame in (little, big):
        read = Decoded().image(frame, colour_of(frame))
        assert np.abs(read.astype(int) - image).mean() < 4


@pytest.mark.parametrize("pixels", ["gray", "gray10le"])
def test_grey_of_limited_range_is_read_whole(pixels):
    levels = np.array([[0, 16, 126, 235, 255]], np.uint8).repeat(2, 0)
    frame = av.VideoFrame.from_ndarray(levels, format="gray").reformat(format=pixels)
    read = dict.fromkeys((LIMITED, FULL, 0))
    for range_ in read:
        frame.color_range = range_
        read[range_] = Decoded().image(frame, Colour(BT709, LIMITED))[0, :, 0].tolist()
    assert np.abs(np.array(read[LIMITED]) - [0, 0, 128, 255, 255]).max() <= 1
    assert np.abs(np.array(read[FULL]) - levels[0]).max() <= 1
    assert read[0] == read[FULL]


@pytest.mark.parametrize("name", ["yuv444p", "yuv444p10le", "yuva444p", "nv24"])
def test_full_chroma_is_read_by_the_matrix_that_is_guessed(name):
    """HD without a tag is BT.709, also where swscale would take BT.601."""
    image = picture(3, 1280, 720)
    tagged = to_yuv(image, Colour(BT709, LIMITED), "yuv444p")
    frame = VideoReformatter().reformat(tagged, format=name, src_color_range=LIMITED, dst_color_range=LIMITED)
    frame.colorspace, frame.color_range = 2, 0
    assert is_yuv(frame.format)
    assert np.abs(Decoded().image(frame, colour_of(frame)).astype(int) - image).max() <= 4


@pytest.mark.parametrize("name", ["gray10le", "ya8", "monow", "pal8", "xyz12le", "gbrp", "bgr0"])
def test_what_has_no_matrix(name):
    assert not is_yuv(av.VideoFormat(name))


@pytest.mark.parametrize(
    ("size", "matrix"),
    [((1280, 720), BT709), ((1920, 1080), BT709), ((720, 576), SMPTE170M), ((640, 360), SMPTE170M)],
)
def test_an_untold_matrix_is_guessed_by_the_size_as_players_do(size, matrix):
    frame = av.VideoFrame(*size, "yuv420p")
    assert colour_of(frame) == Colour(matrix, LIMITED, 2, 2)


def test_what_the_file_tells_is_kept():
    frame = av.VideoFrame(1280, 720, "yuv420p")
    frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc = 5, FULL, 5, 6
    assert colour_of(frame) == Colour(5, FULL, 5, 6)


@pytest.mark.parametrize("matrix", [3, 8, 10, 14])
@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuva444p10le", "yuyv422"])
def test_a_matrix_that_swscale_does_not_have_is_no_error(matrix, pixels):
    frame = encodable(picture(0, 64, 48), Colour(BT2020), "yuv444p").reformat(format=pixels)
    frame.color_primaries, frame.colorspace = BT2020, BT2020
    image = Decoded().image(frame, colour_of(frame))
    frame.colorspace = matrix
    assert colour_of(frame).matrix == BT2020
    assert np.array_equal(Decoded().image(frame, colour_of(frame)), image)
    assert frame.colorspace == matrix
    if pixels.startswith("yuva"):
        assert Decoded().alpha(frame).min() == 255


def test_rgb_is_encoded_as_bt709_of_limited_range():
    frame = av.VideoFrame(640, 360, "rgb24")
    frame.color_range = FULL
    assert colour_of(frame) == Colour(BT709, LIMITED, 2, 2)


@pytest.mark.parametrize(
    ("pixels", "height"),
    [
        *((pixels, height) for pixels in ("yuv420p", "yuva420p") for height in range(2, 20, 2)),
        *((pixels, height) for pixels in ("yuv444p", "yuv422p10le") for height in range(2, 20)),
    ],
)
def test_every_line_of_a_picture_of_any_height_is_encoded(pixels, height):
    """With a colour for each two lines, none can be lost, moved or mixed with its neighbours."""
    colours = np.random.default_rng(height).integers(0, 256, (10, 1, 3), np.uint8)
    image = np.ascontiguousarray(np.broadcast_to(colours.repeat(2, 0)[:height], (height, 32, 3)))
    frame = encodable(image, Colour(BT709, LIMITED), pixels)
    assert (frame.width, frame.height, frame.format.name) == (32, height, pixels)
    found = planes(frame.reformat(format="yuv444p", interpolation="POINT"))
    expected = planes(to_yuv(image, Colour(BT709, LIMITED), "yuv444p"))
    assert len(found) == len(expected) == 3
    for plane, other in zip(found, expected, strict=True):
        assert np.abs(plane.astype(int) - other).max() <= 1


def rows(frame):
    """The bytes of each plane, with what pads its rows."""
    return [np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height] for p in frame.planes]


def samples(frame):
    """The numbers of each plane of a planar format."""
    depth = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
    found = zip(rows(frame), frame.planes, strict=True)
    return [content.view(depth)[:, : plane.width] for content, plane in found]


@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv422p10le"])
def test_no_row_is_written_over_by_the_one_before(pixels):
    """swscale writes beyond the end of a row, which is seen where another thread has begun the next one."""
    image = np.random.default_rng(0).integers(0, 256, (71, 66, 3), np.uint8)
    luma = planes(to_yuv(image, Colour(), "yuv444p"))[0].astype(int)
    for _ in range(80):
        assert np.array_equal(samples(to_yuv(image, Colour(), pixels))[0], 4 * luma)


@pytest.mark.parametrize("size", [(66, 71), (66, 72), (67, 72)])
def test_alpha_beside_yuv_is_read_as_it_is(size):
    alpha = np.random.default_rng(0).integers(0, 256, (size[1], size[0]), np.uint8)
    frame = encodable(picture(0, *size), Colour(), "yuva420p", alpha)
    assert np.array_equal(Decoded().alpha(frame), alpha)


SUBSAMPLED = ["yuv420p", "yuv422p", "yuv440p", "yuv411p", "yuv420p10le", "yuv422p10le"]


@pytest.mark.parametrize("pixels", [*SUBSAMPLED, "nv12", "p010le"])
@pytest.mark.parametrize("size", [(127, 71), (127, 72), (128, 71), (1, 1)])
def test_an_odd_picture_is_read_as_the_even_one_that_it_was_cropped_from(pixels, size):
    width, height = size
    whole = to_yuv(picture(4, 128, 72), Colour(), pixels)
    cropped = frame_of(rows(whole), size, pixels)
    expected = Decoded().image(whole, Colour())[:height, :width]
    if size == (1, 1):
        # There is no second sample to go on to.
        assert np.abs(Decoded().image(cropped, Colour()).astype(int) - expected).max() <= 2
    else:
        assert np.array_equal(Decoded().image(cropped, Colour()), expected)


@pytest.mark.parametrize("pixels", SUBSAMPLED)
@pytest.mark.parametrize("size", [(127, 71), (125, 72), (128, 71), (3, 1)])
def test_an_odd_picture_is_encoded_as_one_that_goes_on_like_its_edge(pixels, size):
    image = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    padded = np.pad(image, ((0, -size[1] % 4), (0, -size[0] % 4), (0, 0)), "edge")
    frame = to_yuv(image, Colour(), pixels)
    assert (frame.width, frame.height, frame.format.name) == (*size, pixels)
    expected = frame_of(rows(to_yuv(padded, Colour(), pixels)), size, pixels)
    for plane, other in zip(samples(frame), samples(expected), strict=True):
        assert np.array_equal(plane, other)


def test_frames_for_the_encoder_are_tagged():
    frame = to_yuv(picture(0), Colour(5, FULL, 5, 6))
    assert frame.format.name == "yuv420p"
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (5, FULL, 5, 6)


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (2, 2)])
def test_what_a_gpu_decodes_is_the_same_picture(size):
    """NV12 is the planes of 4:2:0 in another order."""
    planar = av.VideoFrame.from_ndarray(picture(1, *size), format="rgb24").reformat(format="yuv420p")
    colour = Colour(BT709, LIMITED)
    rows, half = ((size[1] + 1) // 2, (size[0] + 1) // 2)
    interleaved = av.VideoFrame(*size, "nv12")
    luma, cb, cr = planes(planar)
    for plane, content in zip(
        interleaved.planes, (luma, np.stack([cb, cr], -1).reshape(rows, 2 * half)), strict=True
    ):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : content.shape[1]] = content
        plane.update(padded)
    assert np.array_equal(Decoded().image(interleaved, colour), Decoded().image(planar, colour))
