"""What a picture is painted over: its flat patches or pieces in middling light, and what there is to see."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training import brushwork
from training.canvas import places
from training.layers import LinearUpsample, inner, twice
from training.losses import LUMA

FLAT = 2e-3
"""Variance of the light, of 0..1, in a window that is flat no longer; a webcam's noise is far below."""

MIDDLE = 0.45
"""Luminance, of 0..1, of a picture that is neither light nor dark, which is painted as it is exposed."""

CORRECTED = 0.75
"""What power of the odds that a picture's light is off the middle by is corrected."""

LEAST, MOST = 0.75, 4.0
"""By what factor of its odds a value is darkened and lightened at most: faces in bright rooms stay light."""

SHADE = 4 / 255
"""Luminance, of 0..1, below which a place counts less for how a picture is exposed: bars are black."""

PATCH = 3
"""Side of the windows that a picture is simplified by, at half its size: brushes of six pixels."""

SEEN = 7.5 / 255
"""By how much the light differs from that around it, of 0..1, where half of all that can be there is seen."""

EDGE = 5 / 255
"""By how much the light changes over four pixels, of 0..1, where touches half follow its edges."""

WHOLE, CUT = 0.4, 0.15
"""How much there is to see, 0..1, from which on a picture is whole, and up to which it is all cut."""

AROUND = 9
"""Side of the windows over which what is seen counts, twice, in fours of pixels: eyes count for a face."""

MARGIN = 4
"""Rows and columns more at each edge of a picture that is simplified, at half its size."""


class Simplify(nn.Module):
    """What a picture is painted over: flat patches of it in middling light, or of its pieces.

    Args:
        grain, cuts: as of `Cut`.
        broad: how much broader than by one filter each style's patches are, 0..1: at 1 they are those of the
            picture at half its size, filtered twice.
    """

    broad: Tensor

    def __init__(self, grain: NDArray[np.int8], cuts: Sequence[str], broad: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("broad", torch.tensor(broad)[:, None], persistent=False)
        self.exposure = Exposure()
        self.cut = Cut(grain, cuts)
        self.patches = Kuwahara()
        self.upsample = LinearUpsample()
        self.detail = Detail()

    def forward(self, x: Tensor, weights: Tensor, corner: Tensor) -> tuple[Tensor, Tensor]:
        """The patches of `x` [n, 3, h, w], RGB in -0.5..0.5, [n, 3, h - 4, w - 4], and the `Detail` of it
        without four rows and columns at each edge.

        `weights` and `corner` as for `Cut`.
        """
        lit = self.exposure(x)
        detail = self.detail_of(lit)
        pieces = self.cut(lit, detail[:, :1], weights, corner)
        share = (weights @ self.broad.to(weights.dtype))[:, :, None, None]
        return self.patches_of(pieces, share), detail

    def detail_of(self, lit: Tensor) -> Tensor:
        """The `Detail` of `lit` [n, 3, h, w], [n, 3, (h - 8) / 2, (w - 8) / 2]."""
        return self.detail(lit)

    def patches_of(self, pieces: Tensor, share: Tensor) -> Tensor:
        """The patches of `pieces` [n, 3, h, w], `share` of the way to broader ones, [n, 3, h - 4, w - 4]."""
        # As much wider as both filters take.
        small = _halved(pieces, 2 * (PATCH - 1))
        broad = self._twice(self.patches(self.patches(small)))
        # Once more at the full size, so that their edges have no stairs.
        return self.patches(pieces + share * (broad - pieces))

    def _twice(self, x: Tensor) -> Tensor:
        """`x` twice as large, by linear interpolation."""
        return F.pixel_shuffle(self.upsample(_wider(x, 1)), 2)


class SimplifyEnlarged(Simplify):
    """What a picture of twice the size is painted over, which is seen from twice as far: its patches and its
    detail are those of the picture at half its size.
    """

    def detail_of(self, lit: Tensor) -> Tensor:
        """As `Simplify.detail_of`."""
        return twice(super().detail_of(_halved(lit, MARGIN // 2)))

    def patches_of(self, pieces: Tensor, share: Tensor) -> Tensor:
        """As `Simplify.patches_of`."""
        return self.patches(self._twice(super().patches_of(_halved(pieces, PATCH - 1), share)))


def _halved(x: Tensor, wider: int) -> Tensor:
    """`x` at half its size, with `wider` more rows and columns at each edge."""
    return _wider(F.avg_pool2d(x, 2), wider)


def _wider(x: Tensor, by: int) -> Tensor:
    """`x` with `by` more rows and columns at each edge, as its outermost ones."""
    return F.pad(x, (by,) * 4, mode="replicate")


class Exposure(nn.Module):
    """A picture in the light of most pictures, whatever light it was taken in.

    A painting's light is far from that of a dim room, which a network of fixed weights gives too little of
    the style; one with instance norms adapts, but flickers. So it is done as a camera does it, by the mean
    light of the frame, which changes as slowly as the scene. Every value's odds, v / (1 - v), are multiplied:
    black stays black, so that a fade to black remains one.
    """

    luminance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("luminance", torch.tensor(LUMA).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [n, 3, h, w], RGB in -0.5..0.5, in its new light."""
        # Over so many places, in 32 bits.
        light = F.conv2d(x, self.luminance).float() + 0.5
        counts = (light / SHADE).clamp(max=1)
        shade, share = (each.mean((2, 3), keepdim=True) for each in (light * counts, counts))
        light = (shade / share.clamp(min=1e-4)).clamp(0.01, 0.99)
        gain = (MIDDLE / (1 - MIDDLE) * (1 - light) / light).pow(CORRECTED).clamp(LEAST, MOST).to(x.dtype)
        x = x + 0.5
        return gain * x / (1 + (gain - 1) * x) - 0.5


class Kuwahara(nn.Module):
    """A picture in flat patches with edges between them, as a painter lays it in.

    Every pixel becomes a mean of the means of the windows that it lies in, the flat ones of which count most:
    beside an edge those on its own side. The Kuwahara filter (Kuwahara et al. 1976,
    doi:10.1007/978-1-4684-0769-3_13) takes the flattest of four, which jumps from frame to frame; weights
    that fall with the variance do not (Papari et al. 2007, doi:10.1109/TIP.2007.903912). With all windows in
    place of four it is two box filters.
    """

    luminance: Tensor

    def __init__(self) -> None:
        super().__init__()
        # With a variance of 1/8 where `FLAT` is: what 16 bits hold well, weights and all.
        unit = (8 * FLAT) ** 0.5
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        self.register_buffer("luminance", weights / unit, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [n, 3, h, w], RGB, without two rows and columns at each edge, [n, 3, h - 4, w - 4].

        Of -0.5..0.5, not of 0..1: about 0 few bits hold more.
        """
        light = F.conv2d(x, self.luminance)
        mean = _box(x)
        mean_light = F.conv2d(mean, self.luminance)
        variance = (_box(light * light) - mean_light * mean_light).clamp(min=0)
        flat = 1 / (1 / 8 + variance)
        flat = flat * flat * flat
        return _box(mean * flat) / _box(flat)


def _box(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, PATCH, stride=1)


class Detail(nn.Module):
    """How much there is to see around each place, 0 to 1: nothing on a wall, much in a face; and which way it
    runs.

    It is wide and soft, so that it goes along with what moves as smoothly as that does. The way is that of
    the smoothed structure tensor (Brox et al. 2006, doi:10.1016/j.imavis.2005.09.010), along which touches
    are laid as a painter models a form (Kyprianidis and Kang 2011, doi:10.1111/j.1467-8659.2011.01882.x).
    """

    luminance: Tensor

    def __init__(self) -> None:
        super().__init__()
        # With a square of 1/8 where half is seen, as for the `Kuwahara` filter.
        weights = torch.tensor(LUMA).view(1, 3, 1, 1) / (8**0.5 * SEEN)
        self.register_buffer("luminance", weights, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Of `x` [n, 3, h, w], RGB in -0.5..0.5, with four rows and columns of its own at each edge:
        [n, 3, (h - 8) / 2, (w - 8) / 2].

        The first channel is how much; the others, cosine and sine of twice the angle that edges run at, down
        from the right, and as long as they are plain and agree, 0 to 1.
        """
        light = F.conv2d(F.avg_pool2d(x, 2), self.luminance)
        # No variance, a difference of squares: in a bright sky bfloat16 would see much. Nor is a ramp seen.
        difference = inner(light) - _box(light)
        seen = 1 - 1 / (1 + 8 * _box(difference * difference))
        # Between the places, so that both differences are of the same one.
        right = F.avg_pool2d(light[..., 1:] - light[..., :-1], (2, 1), stride=1)
        down = F.avg_pool2d(light[..., 1:, :] - light[..., :-1, :], (1, 2), stride=1)
        across, along = right * right, down * down
        tensor = torch.cat([along - across, -2 * right * down, along + across], 1)
        tensor = _box(F.avg_pool2d(tensor, 2, stride=1))
        edges = tensor[:, :2] / (tensor[:, 2:] + (EDGE / SEEN) ** 2 / 8)
        seen = torch.cat([seen, edges], 1)
        for _ in range(2):
            seen = F.pad(seen, (AROUND // 2,) * 4, mode="replicate")
            seen = F.avg_pool2d(F.avg_pool2d(seen, (AROUND, 1), 1), (1, AROUND), 1)
        return seen


class Cut(nn.Module):
    """A picture in pieces, as the cubists saw one: cut along the broad touches of a canvas, each piece of it
    seen from nearer, so that it is made of what otherwise would lie over it.

    Where there is much to see it stays whole. Places are whole numbers that do not depend on the picture, so
    that all runtimes, in whatever precision, take the same ones.

    Args:
        grain: the cuts of `brushwork.grain`.
        cuts: the coat that each style cuts along; "" for none.
    """

    grain: Tensor
    along: Tensor

    def __init__(self, grain: NDArray[np.int8], cuts: Sequence[str]) -> None:
        super().__init__()
        self.register_buffer("grain", torch.from_numpy(grain).clone())
        along = torch.tensor([[float(own == name) for name in brushwork.CUTTING] for own in cuts])
        self.register_buffer("along", along, persistent=False)
        self.grid: Tensor | None = None
        """As a `Canvas` has it."""

    def forward(self, x: Tensor, seen: Tensor, weights: Tensor, corner: Tensor) -> Tensor:
        """`x` [n, 3, h, w], in pieces.

        Args:
            seen: how much there is to see, [n, 1, (h - 8) / 2, (w - 8) / 2].
            weights: [n or 1, styles], how much there is of each style.
            corner: as for the `Canvas`, of what `seen` tells of.
        """
        height, width = x.shape[-2:]
        side = self.grain.shape[-1]
        first = corner * brushwork.FINE - MARGIN
        rows, columns = places(first, (height, width), side, x.device)
        cuts = weights @ self.along.to(weights.dtype) @ self.grain.to(weights.dtype).flatten(1)
        away = cuts.unflatten(1, (2, side, side)).index_select(2, rows).index_select(3, columns)
        if self.grid is not None:
            away = _carried(away, self.grid)
        down, right = away.round().to(torch.int64).unbind(1)
        row = (down + torch.arange(height, device=x.device)[:, None]).clamp(0, height - 1)
        column = (right + torch.arange(width, device=x.device)).clamp(0, width - 1)
        place = (row * width + column).flatten(1)[:, None].expand(x.shape[0], 3, height * width)
        pieces = x.flatten(2).gather(2, place).unflatten(2, (height, width))
        share = ((WHOLE - twice(seen)) / (WHOLE - CUT)).clamp(0, 1)
        return x + F.pad(share, (MARGIN,) * 4, mode="replicate") * (pieces - x)


def _carried(away: Tensor, grid: Tensor) -> Tensor:
    """How far `away`, [n or 1, 2, h, w], down and right, what is seen lies where the canvas has been carried
    along `grid`, as the `Canvas` has it, of the places within the margin.
    """
    away = away[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    size = away.shape[-2:]
    positions = F.interpolate(grid.permute(0, 3, 1, 2), size, mode="area")
    away = away.expand(len(grid), -1, -1, -1)
    away = F.grid_sample(away, positions.permute(0, 2, 3, 1), "nearest", "reflection", align_corners=False)
    # What was one place to the right is where the grid is further on by one.
    x_down, x_right = torch.gradient(positions[:, 0] * (size[1] / 2), dim=(1, 2))
    y_down, y_right = torch.gradient(positions[:, 1] * (size[0] / 2), dim=(1, 2))
    down, right = away.unbind(1)
    turned = torch.stack([x_right * down - y_right * right, y_down * right - x_down * down], 1)
    turned = turned / (x_right * y_down - x_down * y_right)[:, None]
    return F.pad(turned, (MARGIN,) * 4, mode="replicate")
