"""The one seam between pictures and runtimes: an engine is called with an image and a look."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import InferenceError
from engines.look import Look
from engines.style import Inputs, Place, Style

Hint = Literal["latency", "throughput"]
"""What to optimise for: one picture soon, or many pictures altogether."""

Image = NDArray[np.uint8]
"""A picture, uint8 [height, width, 3], RGB."""


class Engine(ABC):
    """One style pack on one runtime; called by up to `streams` threads at a time.

    A subclass implements `_infer` and `close`, and says in `device` and `precision` what really executes.
    """

    name: str
    """The runtime as users type it, such as "openvino"."""

    device: str
    """The device that executes, in the runtime's own words."""

    precision: str
    """The precision that executes: "float32", "bfloat16", "float16" or "int8"."""

    kernels: str = ""
    """Which ones paint, where what is installed beside the runtime decides that: "fused" or "plain"."""

    streams: int = 1
    """How many calls may run at the same time, each in a thread of its own."""

    lends: bool = True
    """Whether what `_infer` gives is overwritten by the thread's next call, so that it must be copied."""

    def __init__(self, style: Style) -> None:
        self.style = style

    def __call__(self, image: Image, look: Look) -> Image:
        """Paint `image` [h, w, 3] and return a picture of the same size, which later calls leave alone.

        Any size from 1x1 works: the picture is mirrored beyond its edges up to the graph's multiple, and
        cropped back. Where the scene has moved, so much is mirrored on at either side that the graph's blocks
        and the canvas lie where they lay on the scene: it is painted as before, only elsewhere.
        A pack with a fixed size (`style.size`) takes that size only.

        Raises:
            ValueError: not uint8 [h, w, 3], or a look that this pack does not know.
            InferenceError: the runtime failed.
        """
        if image.ndim != 3:
            raise ValueError(f"an image is uint8 [h, w, 3], not {image.dtype} {list(image.shape)}")
        painted: Image = self.infer(image[None], look)[0]
        return painted

    def infer(self, batch: NDArray[np.uint8], look: Look) -> NDArray[np.uint8]:
        """Paint a batch [n, h, w, 3] with one look; otherwise as calling the engine."""
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3 or 0 in batch.shape:
            raise ValueError(f"an image is uint8 [h, w, 3], not {batch.dtype} {list(batch.shape[1:])}")
        height, width = batch.shape[1:3]
        if self.style.size and (width, height) != self.style.size:
            fixed = "{}x{}".format(*self.style.size)
            raise ValueError(f"{self.style.name} paints pictures of {fixed} only, not {width}x{height}")
        place = self.style.place((width, height), look)
        if any(place.margins):
            batch = mirror(batch, place)
        stylized = self._infer(np.ascontiguousarray(batch), place.inputs)
        if stylized.dtype != np.uint8 or stylized.shape != batch.shape:
            raise InferenceError(
                f"{self.style.name} gave {stylized.dtype} {list(stylized.shape)} for a picture of "
                f"{list(batch.shape)}: this model cannot paint this size"
            )
        painted = stylized[:, place.top : place.top + height, place.left : place.left + width]
        return painted.copy() if self.lends or any(place.margins) else painted

    @abstractmethod
    def _infer(self, batch: NDArray[np.uint8], inputs: Inputs) -> NDArray[np.uint8]:
        """Run the graph on a contiguous batch whose size it takes; what it gives lives as `lends` says.

        Args:
            inputs: what it takes beside the batch, by name.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what the runtime holds; the engine must not be called afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def mirror(batch: NDArray[np.uint8], place: Place) -> NDArray[np.uint8]:
    """`batch` [n, h, w, 3] with pixels mirrored on at the margins of `place`, repeatedly if it is tiny."""
    return np.stack([cv2.copyMakeBorder(image, *place.margins, cv2.BORDER_REFLECT_101) for image in batch])
