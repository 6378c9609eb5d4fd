"""Strokes have a size: paint at the style's own height and bring the picture back to the source's size."""

from collections.abc import Callable
from functools import partial
from math import isclose
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Engine, Image, Look, Size, Style

Detail = float | Literal["full"]

Paint = Callable[[Image, Look], Image]

QUICK = 480
"""Native height, in pixels, up to which a style is made to be quick: no source is enlarged for it."""

ENLARGED = 2
"""How many times a source is enlarged at most, for a style that is made for large pictures."""

STEPS = 16
"""Parts of a pixel that a picture is moved by."""

CUBIC = 0.75
"""How steep cubic interpolation falls at a pixel's distance."""

SLOPE_WINDOW = 3
"""Side of the window over which painting and input are compared, in pixels of half the working size."""

SLOPE_NOISE = 36.0
"""Variance (of 0..255) below which a step of the input counts as noise and is not carried over."""

SLOPE_LIMIT = 1.25
"""Bound on how much of an input's edge is carried over, so that none grows a halo."""

FIXED_POINT = 64
"""Slopes travel as int16 in units of 1/64: whole numbers halve the memory that the upsampling moves."""


def working_size(source: Size, native_height: int, multiple: int, detail: Detail = 1.0) -> Size:
    """The size to paint at, so that strokes are as large in the picture as the style's author meant.

    The shorter side becomes `native_height` times `detail`, never more than the source's own, or, for a style
    that is made for more than `QUICK` lines, the native height (and `ENLARGED` times the source's own). Both
    sides are rounded to `multiple`.

    Args:
        source: (width, height) of the upright source.
        detail: factor on the native height, above 0; "full" means the source's size.

    Raises:
        ValueError: `detail` is not above 0.
    """
    if detail == "full":
        return source
    if not detail > 0:
        raise ValueError(f"detail must be above 0 or 'full', not {detail}")
    shorter = min(source)
    most = max(shorter, min(native_height, ENLARGED * shorter)) if native_height > QUICK else shorter
    scale = min(native_height * detail, most) / shorter
    if isclose(scale, 1):
        return source
    width, height = (max(multiple, round(side * scale / multiple) * multiple) for side in source)
    return (width, height)


def stylizer(engine: Engine, source: Size, detail: Detail = 1.0) -> Paint:
    """What paints a frame of size `source` with `engine`, at the working size, and gives back the same size.

    Raises:
        ValueError: `detail` is not above 0.
    """
    return scaled(engine, size_for(engine.style, source, detail), source, carried=engine.style.carried)


def size_for(style: Style, source: Size, detail: Detail = 1.0) -> Size:
    """The `working_size` of a style; a graph of fixed size decides it itself.

    Raises:
        ValueError: `detail` is not above 0.
    """
    return style.size or working_size(source, style.native_height, style.multiple, detail)


def scaled(paint: Paint, size: Size, source: Size, *, carried: bool = False) -> Paint:
    """What paints a frame of size `source` by `paint` at `size`, and gives back the size of the source.

    Args:
        carried: it has a canvas that goes along with the scene (`Style.carried`).
    """
    if carried:
        paint = partial(between_pixels, paint)
    if size == source:
        return paint

    def paint_scaled(image: Image, look: Look) -> Image:
        if look.strength == 0:
            return image
        small = resize(image, size)
        painted = paint(small, at_working_size(look, size, source))
        if look.strength == 1:
            return upsample(painted, small, image)
        # What there is of the input comes from the input itself, which has detail that the small one lacks.
        share = look.strength
        full = cv2.addWeighted(painted, 1 / share, small, 1 - 1 / share, 0)
        blended: Image = cv2.addWeighted(upsample(full, small, image), share, image, 1 - share, 0)
        return blended

    return paint_scaled


def between_pixels(paint: Paint, image: Image, look: Look) -> Image:
    """What `paint` makes of `image`, also where the scene has moved by parts of a pixel.

    Engines carry a canvas along by whole pixels. By the rest the scene is moved back for them, and the
    painting moved on again.
    """
    rest = beyond_whole(look)
    if rest == (0.0, 0.0):
        return paint(image, look)
    return shifted(paint(shifted(image, -rest[0], -rest[1]), look), *rest)


def beyond_whole(look: Look) -> tuple[float, float]:
    """By what a scene has moved beyond the nearest whole pixels, in steps of 1/`STEPS` of one.

    None where nothing is painted: strength 0 gives back every byte.
    """
    if look.moved is None or look.strength == 0:
        return 0.0, 0.0
    right, down = (round((pixels - round(pixels)) * STEPS) / STEPS for pixels in look.moved)
    return right, down


def shifted(image: Image, right: float, down: float) -> Image:
    """`image` moved by half a pixel at most, by cubic interpolation; what comes in at an edge is like it."""
    across, along = (np.array([_cubic(place + by) for place in range(-2, 3)]) for by in (right, down))
    moved: Image = cv2.filter2D(image, -1, np.outer(along, across), borderType=cv2.BORDER_REPLICATE)
    return moved


def _cubic(away: float) -> float:
    """The weight of a pixel that lies so far away (Keys 1981), as steep as in OpenCV and PyTorch."""
    x = abs(away)
    if x <= 1:
        return ((2 - CUBIC) * x - (3 - CUBIC)) * x * x + 1
    return -CUBIC * (((x - 5) * x + 8) * x - 4) if x < 2 else 0.0


def at_working_size(look: Look, size: Size, source: Size) -> Look:
    """`look` of a picture of size `source`, for the same at `size`, where the scene moves by fewer pixels."""
    if look.moved is None:
        return look
    (right, down), (width, height) = look.moved, source
    return look.carried((right * size[0] / width, down * size[1] / height))


def resize(image: Image, size: Size) -> Image:
    """`image` [h, w, 3] at `size`: by the average of four pixels for each halving, the rest interpolated."""
    width, height = size
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    resized: Image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR if shrinks else cv2.INTER_CUBIC)
    return resized


def resample(image: Image, size: Size) -> Image:
    """`image` [h, w, 3] at any `size`, for those who look at nothing else: each way by itself.

    By area where it becomes smaller, so that nothing fine turns into moire, and by a cubic where it grows.
    """
    for width, height in ((size[0], image.shape[0]), size):
        shrinks = width <= image.shape[1] and height <= image.shape[0]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        image = cv2.resize(image, (width, height), interpolation=interpolation)
    return image


def upsample(painted: Image, small: Image, image: Image) -> Image:
    """`painted` at the size of `image`, its edges as sharp as the input's are.

    The painting is interpolated, and the detail that the working size lost is added back in luminance, in
    proportion to how the painting follows the input around that place: the slope of the local linear fit of
    the guided filter (He et al. 2013, doi:10.1109/TPAMI.2012.213), upsampled as in the fast guided filter
    (He and Sun 2015, arXiv 1505.00996). Unlike the filter itself this leaves the brush strokes, which the
    input knows nothing of, as they are.

    Args:
        painted: the stylized picture at the working size, [h, w, 3].
        small: the input at the working size, [h, w, 3].
        image: the input at the output size, [H, W, 3].

    Returns:
        [H, W, 3].
    """
    height, width = image.shape[:2]
    size = (width, height)
    if painted.shape[0] >= height and painted.shape[1] >= width:
        return resize(painted, size)
    enlarged: Image = cv2.resize(painted, size, interpolation=cv2.INTER_CUBIC)
    small_luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    slope = local_slope(cv2.cvtColor(painted, cv2.COLOR_RGB2GRAY), small_luma)
    gain = np.rint(slope * FIXED_POINT).astype(np.int16)
    lost = cv2.subtract(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
        cv2.resize(small_luma, size, interpolation=cv2.INTER_CUBIC),
        dtype=cv2.CV_16S,
    )
    detail = cv2.multiply(
        lost, cv2.resize(gain, size, interpolation=cv2.INTER_LINEAR), scale=1 / FIXED_POINT, dtype=cv2.CV_16S
    )
    sharpened: Image = cv2.add(enlarged, cv2.merge((detail, detail, detail)), dtype=cv2.CV_8U)
    return sharpened


def local_slope(painted: NDArray[np.uint8], luma: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How much `painted` rises where `luma` does, both [h, w]: the slope of their fit in a small window.

    At half the size, as in the fast guided filter, because slopes change slowly: [h / 2, w / 2], rounded up.
    """
    half = ((luma.shape[1] + 1) // 2, (luma.shape[0] + 1) // 2)
    p, g = (
        cv2.resize(plane, half, interpolation=cv2.INTER_AREA).astype(np.float32) for plane in (painted, luma)
    )

    def mean(x: NDArray[np.float32]) -> NDArray[np.float32]:
        blurred: NDArray[np.float32] = cv2.blur(
            x, (SLOPE_WINDOW, SLOPE_WINDOW), borderType=cv2.BORDER_REFLECT_101
        )
        return blurred

    mean_g = mean(g)
    covariance = mean(p * g) - mean(p) * mean_g
    variance = mean(g * g) - mean_g * mean_g
    return np.clip(covariance / (variance + SLOPE_NOISE), -SLOPE_LIMIT, SLOPE_LIMIT)
