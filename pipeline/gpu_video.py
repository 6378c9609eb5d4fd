"""Video that stays on an NVIDIA GPU from its decoder to its encoder, so that only packets cross the bus.

Each frame's image is `nv12.Planes`, and everything from decoder to encoder is PyTorch, so that the same
arithmetic runs on any device: it is that of `scaling`, within `nv12.TOLERANCE`. Packets, times and other
tracks are PyAV's, as ever. Run on the CPU, over NV12 there; not run on a GPU.
"""

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import av

from engines import Engine, Look, Size
from pipeline.colour import Colour, rgb_from_yuv, yuv_from_rgb
from pipeline.errors import SourceError
from pipeline.frame import Frame
from pipeline.nv12 import Planes, grey, levels, nv12, rgb
from pipeline.orientation import Orientation
from pipeline.scaling import (
    FIXED_POINT,
    SLOPE_LIMIT,
    SLOPE_NOISE,
    SLOPE_WINDOW,
    Detail,
    at_working_size,
    beyond_whole,
    size_for,
)
from pipeline.sources.file import FileSource

if TYPE_CHECKING:
    from torch import Tensor

    from engines.torch import TorchEngine


class DeviceSource(FileSource):
    """A video file whose frames stay on the GPU that decodes them: each one's image is `Planes`.

    Raises:
        SourceError: as `FileSource`, or the video is none that can stay there; says why.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        start: int | None = None,
        end: int | None = None,
        entry: int | None = None,
    ) -> None:
        super().__init__(
            path, tracks=False, start=start, end=end, entry=entry, decoder="cuda", on_device=True
        )
        reason = self._stays_not()
        if reason is not None:
            self.close()
            raise SourceError(f"{self.path}: {reason}")

    def _stays_not(self) -> str | None:
        """Why the frames cannot stay on the device; None if they can."""
        frame = next(item for item in self._waiting if isinstance(item, av.VideoFrame))
        if frame.format.name not in ("cuda", "nv12"):
            return f"NVIDIA's decoder does not take this {self._video.codec_context.name}"
        held = getattr(frame.sw_format, "name", frame.format.name)
        if held != "nv12":
            return f"it has more than 8 bits ({held})"
        if frame.width % 2 or frame.height % 2:
            return f"NV12 has no odd sides, and it is {frame.width}x{frame.height}"
        if self._orientation != Orientation():
            return "it is to be turned upright"
        if self._tone_mapper is not None:
            return "it is HDR"
        return None

    def _deinterlaced(self, frame: av.VideoFrame | None) -> list[av.VideoFrame]:
        """`frame` as it is: what makes interlaced ones whole works in host memory."""
        if frame is None:
            return []
        if frame.interlaced_frame:
            raise SourceError(f"{self.path}: is interlaced, which needs copies; leave out --decoder cuda")
        return [frame]

    def _frame(self, frame: av.VideoFrame, pts: int, duration: int) -> Frame:
        if (frame.width, frame.height) != self._size:
            self._say_resized(frame, pts)
        return Frame(cast(Any, Planes.of(frame)), pts, duration, cast(Fraction, self._video.time_base))


class DevicePainter:
    """Paints `Planes` of one size as `scaling.stylizer` paints images, where they lie.

    Args:
        size: (width, height) of the video.
        colour: how its numbers mean colours.
    """

    def __init__(self, engine: Engine, size: Size, colour: Colour, detail: Detail = 1.0) -> None:
        import torch

        self._engine = cast("TorchEngine", engine)
        self._size, self._working = size, size_for(engine.style, size, detail)
        on = self._engine.torch_device
        self._from_yuv = torch.from_numpy(rgb_from_yuv(colour)).to(on)
        self._from_rgb = torch.from_numpy(yuv_from_rgb(colour)).to(on)

    def __call__(self, planes: Planes, look: Look) -> Planes:
        """The painted picture, finished: nothing is left for the device to do."""
        import torch

        # On the default stream it would wait for the decoder, and for what other threads paint.
        with self._engine.own_stream(), torch.no_grad():
            image = rgb(planes, self._from_yuv)
            if planes.y.shape != self._size[::-1]:
                image = resized(image, self._size)
            if self._working == self._size:
                painted = self._painted(image, look)
            elif look.strength == 0:
                painted = image
            else:
                small, share = resized(image, self._working), look.strength
                done = self._painted(small, at_working_size(look, self._working, self._size))
                if share < 1:
                    done = levels(small + (done - small) / share)
                painted = upsampled(done, small, image)
                if share < 1:
                    painted = levels(image + share * (painted - image))
            return nv12(painted, self._from_rgb)

    def _painted(self, image: "Tensor", look: Look) -> "Tensor":
        """`scaling.between_pixels` for `image` float32 [1, 3, h, w] in whole levels."""
        rest = beyond_whole(look) if self._engine.style.carried else (0.0, 0.0)
        moves = rest != (0.0, 0.0)
        given = shifted(image, -rest[0], -rest[1]) if moves else image
        painted = self._engine.paint_on_device(_packed(given), look).permute(2, 0, 1)[None].float()
        return shifted(painted, *rest) if moves else painted


def shifted(image: "Tensor", right: float, down: float) -> "Tensor":
    """`scaling.shifted` for `image` float32 [1, 3, h, w] in whole levels."""
    import torch

    height, width = image.shape[2:]
    theta = torch.tensor([[[1, 0, -2 * right / width], [0, 1, -2 * down / height]]], device=image.device)
    grid = torch.nn.functional.affine_grid(theta, list(image.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(image, grid, "bicubic", "border", align_corners=False)
    return levels(moved)


def resized(image: "Tensor", size: Size) -> "Tensor":
    """`scaling.resize` for `image` float32 [1, 3, h, w] in whole levels."""
    width, height = size
    while image.shape[2] >= 2 * height and image.shape[3] >= 2 * width:
        image = levels(_halved(_halved(image, 2), 3))
    shrinks = image.shape[2] >= height and image.shape[3] >= width
    return _interpolated(image, (height, width), "bilinear" if shrinks else "bicubic")


def _halved(x: "Tensor", axis: int) -> "Tensor":
    """`x` with half as many entries along `axis`, by area: of an odd side, each has its part of three."""
    import torch

    side, x = x.shape[axis], x.movedim(axis, -1)
    half = side // 2
    halved = x[..., : 2 * half : 2] + x[..., 1::2]
    if side % 2:
        gone = torch.arange(half, device=x.device) / half
        halved += x[..., 2::2] * (gone + 1 / half) - x[..., : 2 * half : 2] * gone
    return (halved * (half / side)).movedim(-1, axis)


def upsampled(painted: "Tensor", small: "Tensor", image: "Tensor") -> "Tensor":
    """`scaling.upsample` for pictures float32 [1, 3, h, w] in whole levels."""
    size = (image.shape[2], image.shape[3])
    if painted.shape[2] >= size[0] and painted.shape[3] >= size[1]:
        return resized(painted, size[::-1])
    enlarged = _interpolated(painted, size, "bicubic")
    small_luma = grey(small)
    gain = (_slope(grey(painted), small_luma) * FIXED_POINT).round()
    lost = grey(image) - _interpolated(small_luma, size, "bicubic")
    detail = lost * _interpolated(gain, size, "bilinear", bounded=False) / FIXED_POINT
    return levels(enlarged + detail.round())


def _slope(painted: "Tensor", luma: "Tensor") -> "Tensor":
    """`scaling.local_slope` for planes float32 [1, 1, h, w]."""
    import torch

    half = ((luma.shape[2] + 1) // 2, (luma.shape[3] + 1) // 2)
    p, g = (levels(torch.nn.functional.interpolate(x, half, mode="area")) for x in (painted, luma))

    def mean(x: "Tensor") -> "Tensor":
        wider = torch.nn.functional.pad(x, (SLOPE_WINDOW // 2,) * 4, mode="reflect")
        return torch.nn.functional.avg_pool2d(wider, SLOPE_WINDOW, stride=1)

    mean_g = mean(g)
    covariance = mean(p * g) - mean(p) * mean_g
    variance = mean(g * g) - mean_g * mean_g
    return (covariance / (variance + SLOPE_NOISE)).clamp(-SLOPE_LIMIT, SLOPE_LIMIT)


def _interpolated(x: "Tensor", size: tuple[int, int], mode: str, *, bounded: bool = True) -> "Tensor":
    import torch

    y: Tensor = torch.nn.functional.interpolate(x, size, mode=mode, align_corners=False)
    return levels(y) if bounded else y.round()


def _packed(image: "Tensor") -> "Tensor":
    """`image` float32 [1, 3, h, w] as uint8 [h, w, 3]."""
    return image[0].permute(1, 2, 0).contiguous().byte()
