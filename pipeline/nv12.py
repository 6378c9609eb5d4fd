"""A picture as the planes of NV12 on a device: what a decoder there gives and an encoder takes.

Lent and taken by DLPack; what is between them and R, G and B is PyTorch, so that the same arithmetic runs on
any device: it is that of `colour`, within `TOLERANCE`.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np
from av.video.frame import CudaContext
from numpy.typing import NDArray

from pipeline.colour import Colour, rgb_from_yuv, tagged
from pipeline.motion import LINES

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 3
"""Levels by which a picture that is decoded or resized here may differ from the same on the CPU, where OpenCV
interpolates in whole numbers: a level of chroma is up to two of a colour."""

LUMA = (0.299, 0.587, 0.114)
"""What of R, G and B OpenCV calls grey (BT.601)."""


@dataclass(frozen=True, slots=True)
class Planes:
    """A picture in NV12 on a device: what stands in for a frame's image there."""

    y: "Tensor"
    """uint8 [h, w]."""
    cbcr: "Tensor"
    """uint8 [h / 2, w / 2, 2]."""

    @classmethod
    def of(cls, frame: av.VideoFrame) -> "Planes":
        """Copies of the planes of `frame`, which the decoder then has back."""
        import torch

        if frame.format.name != "cuda":
            return cls._copied(frame.reformat(format="nv12"))
        # The decoder works on the legacy default stream of the same context, and does not wait.
        stream = torch.cuda.default_stream()
        with torch.cuda.stream(stream):
            planes = cls._copied(frame)
        # Nor does it wait for the copies. Painters have streams of their own, so that none holds this up.
        stream.synchronize()
        return planes

    @classmethod
    def _copied(cls, frame: av.VideoFrame) -> "Planes":
        import torch

        # As capsules: PyAV takes no stream, and torch would name its own.
        y, cbcr = (torch.utils.dlpack.from_dlpack(cast(Any, plane).__dlpack__()) for plane in frame.planes)
        return cls(y.clone(), cbcr.clone())

    def grey(self, colour: Colour) -> NDArray[np.uint8]:
        """The picture as `motion.small_grey` gives it, in host memory.

        Args:
            colour: how its numbers mean colours.
        """
        import torch

        height, width = self.y.shape
        scale = min(1.0, LINES / min(height, width))
        size = (round(height * scale), round(width * scale))
        planes = (self.y[None, None].float(), self.cbcr.permute(2, 0, 1)[None].float())
        small = [levels(torch.nn.functional.interpolate(plane, size, mode="area")) for plane in planes]
        matrix = torch.from_numpy(rgb_from_yuv(colour)).to(self.y.device)
        found: NDArray[np.uint8] = grey(_transformed(torch.cat(small, 1), matrix))[0, 0].byte().cpu().numpy()
        return found

    def frame(self, colour: Colour, pixels: str) -> av.VideoFrame:
        """The picture for an encoder, tagged with `colour`.

        Args:
            pixels: "cuda" lends the planes to an encoder on the device; any other format is made of a copy in
                host memory.
        """
        if pixels == "cuda":
            # Which FFmpeg takes from the thread, at the first frame.
            current_context()
            # An encoder wants all of its frames from one context.
            context = _context(self.y.get_device())
            frame = av.VideoFrame.from_dlpack((self.y, self.cbcr), "nv12", cuda_context=context)
        else:
            frame = av.VideoFrame.from_dlpack((self.y.cpu(), self.cbcr.cpu()), "nv12")
        return tagged(frame, colour, pixels, "BICUBIC")


def current_context() -> None:
    """Make the context that PyTorch works in, the GPU's primary one, the calling thread's."""
    import torch

    # What only asks for memory may be given some that is there, and leave the thread as it was.
    torch.zeros(1, device="cuda")


@cache
def _context(device: int) -> CudaContext:
    """FFmpeg's view of the context that PyTorch works in."""
    return CudaContext(device, primary_ctx=False, current_ctx=True)


def rgb(planes: Planes, matrix: "Tensor") -> "Tensor":
    """`planes` as whole levels of R, G and B, float32 [1, 3, h, w], by `matrix` of `rgb_from_yuv`."""
    import torch

    size = planes.y.shape
    chroma = planes.cbcr.permute(2, 0, 1)[None].float()
    chroma = levels(torch.nn.functional.interpolate(chroma, size, mode="bilinear"))
    return _transformed(torch.cat([planes.y[None, None].float(), chroma], 1), matrix)


def nv12(image: "Tensor", matrix: "Tensor") -> Planes:
    """`image` float32 [1, 3, h, w] as `Planes`, by `matrix` of `yuv_from_rgb`."""
    import torch

    yuv = _transformed(image, matrix)
    # The average of the four pixels that share the sample.
    chroma = levels(torch.nn.functional.avg_pool2d(yuv[:, 1:], 2))
    return Planes(yuv[0, 0].byte(), chroma[0].permute(1, 2, 0).contiguous().byte())


def _transformed(x: "Tensor", matrix: "Tensor") -> "Tensor":
    """Whole levels of `x` [1, 3, h, w] times `matrix` [3, 4]."""
    import torch

    # No convolution: on CUDA that would take TF32, which has ten bits.
    rows = [sum(x[:, column] * row[column] for column in range(3)) + row[3] for row in matrix]
    return levels(torch.stack(rows, 1))


def grey(image: "Tensor") -> "Tensor":
    """What OpenCV calls grey of `image` float32 [1, 3, h, w], [1, 1, h, w]."""
    return levels((image * image.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True))


def levels(x: "Tensor") -> "Tensor":
    """`x` in whole levels of 0..255."""
    # A half goes up, as in OpenCV's arithmetic of whole numbers; torch would round it to even.
    return (x + 0.5).floor().clamp(0, 255)
