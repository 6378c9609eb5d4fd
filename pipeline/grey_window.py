"""Pictures of one channel and more than eight bits, such as X-rays and microscopy: what of them is seen."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Image

DARKEST, BRIGHTEST = 0.5, 99.5
"""Percentiles of a picture that become black and white where nobody says what should."""


@dataclass(frozen=True)
class Window:
    """The values that are seen, as DICOM calls and maps them (PS3.3 section C.11.2.1.2.1)."""

    width: float
    """How many values there are from black to white, at least 1."""
    level: float
    """The value in the middle."""

    @classmethod
    def around(cls, values: NDArray[np.uint16]) -> "Window":
        """From nearly the darkest to nearly the brightest of `values`."""
        low, high = np.percentile(values, (DARKEST, BRIGHTEST))
        return cls(max(2.0, float(high - low + 1)), float(low + high + 1) / 2)

    def apply(self, values: NDArray[np.uint16]) -> Image:
        """`values` [h, w] as a grey picture, uint8 [h, w, 3]."""
        shifted = values - np.float32(self.level - 0.5)
        if self.width == 1:
            seen = (shifted > 0) * np.float32(255)
        else:
            seen = (shifted / np.float32(self.width - 1) + np.float32(0.5)) * 255
        plane = seen.round().clip(0, 255).astype(np.uint8)
        image: Image = cv2.merge((plane, plane, plane))
        return image


def grey_bits(frame: Any) -> int:
    """Bits of the one channel of a decoded frame; 0 for one with colours or an alpha."""
    components = frame.format.components
    return components[0].bits if frame.format.name.startswith("gray") and len(components) == 1 else 0


def grey_values(frame: Any) -> NDArray[np.uint16]:
    """The values [h, w] of a frame whose `grey_bits` are 9 to 16."""
    plane = frame.planes[0]
    order = ">u2" if frame.format.name.endswith("be") else "<u2"
    rows = np.frombuffer(plane, order).reshape(plane.height, plane.line_size // 2)
    return rows[:, : plane.width].astype(np.uint16)
