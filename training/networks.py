"""The generator that paints and the discriminator that judges it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from training import brushwork
from training.device import constant
from training.losses import LUMA

BATCH_NORM_MOMENTUM = 0.03

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

OWN_COURSE = 0.3
"""How much the canvas has to say about which way touches lie, where edges that all run one way have 1."""

CANVAS_LEVEL = 1
"""Where the canvas's colours lie: at a quarter of the picture's size, where a value is as wide as a small
stroke. Its relief lies one level above."""

MARGIN = 4
"""Rows and columns more at each edge of a picture that is simplified, at half its size."""

CANVAS_SIDE = 192
"""The canvas repeats after this many values of its colours."""


class ConditionalAffine(nn.Module):
    """Scale and shift each channel by the styles in the mix (Dumoulin et al. 2017, arXiv 1610.07629).

    One row of scales and shifts for each style. The rows are blended by the weights of the styles and
    vanish with them, so that at strength 0 the shared trunk runs undisturbed.
    """

    def __init__(self, styles: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(styles, channels))
        self.shift = nn.Parameter(torch.zeros(styles, channels))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Apply to `x` [n, c, h, w] with `weights` [n or 1, styles], mix times `eased` strength."""
        scale = 1 + weights @ self.scale
        shift = weights @ self.shift
        return x * scale[:, :, None, None] + shift[:, :, None, None]


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the pictures of all processes of a training.

    torch's own synchronised one knows no CPUs. Folded away at export.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and torch.distributed.is_available() and torch.distributed.is_initialized()):
            return super().forward(x)
        x = x.float()
        moments = torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))])
        mean, square = mean_of_all(moments)
        variance = (square - mean.square()).clamp(min=0)
        n = x.numel() / len(mean) * torch.distributed.get_world_size()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


def eased(strength: Tensor) -> Tensor:
    """What of a style's scales, shifts and relief there is at `strength`: nearly all from a third on.

    Half of them would paint neither picture. With all of them, and most of the canvas's colours (`laid`),
    half strength is nearer to the style than a blend that keeps as much of the picture.
    """
    return laid(laid(laid(strength)))


def laid(strength: Tensor) -> Tensor:
    """What of the colours of its canvas there is at `strength`: three quarters at a half."""
    left = 1 - strength
    return 1 - left * left


def mean_of_all(x: Tensor) -> Tensor:
    """The mean of `x` over the processes of a training; gradients flow back to each of them."""
    return torch.distributed.nn.functional.all_reduce(x) / torch.distributed.get_world_size()


class Branch(nn.Module):
    """A 1x1 convolution and batch normalisation, beside those of a `ConvNorm`."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.norm = BatchNorm(outputs, momentum=BATCH_NORM_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.conv(x))
        return normalised


class ConvNorm(nn.Module):
    """A 3x3 convolution, batch normalisation (folded away at export) and perhaps a conditional affine.

    With a branch, a 1x1 convolution beside it is trained, too, and folded into it at export (Ding et al.
    2021, RepVGG, arXiv 2101.03697).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int = 1,
        padding: int = 1,
        styles: int | None = None,
        *,
        branch: bool = False,
    ) -> None:
        super().__init__()
        # Zeros beyond the edge would tell every layer where it is, and a frame would be painted there.
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding, padding_mode="replicate")
        self.norm: nn.Module = BatchNorm(outputs, momentum=BATCH_NORM_MOMENTUM)
        self.branch = Branch(inputs, outputs, stride) if branch else None
        self.affine = ConditionalAffine(styles, outputs) if styles else None

    @torch.no_grad()
    def merge_branch(self) -> None:
        """Have the convolution compute what its branch does, too, on the stored statistics of both."""
        if self.branch is None:
            return
        weight, bias = absorbed(self.norm, self.conv.weight, self.conv.bias)
        point, shift = absorbed(self.branch.norm, self.branch.conv.weight, torch.zeros_like(bias))
        weight[:, :, 1:2, 1:2] += point
        self.conv.weight.copy_(weight)
        self.conv.bias.copy_(bias + shift)
        # All of it is in the convolution now.
        self.norm.reset_parameters()
        self.norm.running_var.sub_(self.norm.eps)
        self.branch = None

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        if self.branch is not None:
            y = y + self.branch(x if self.conv.padding[0] else inner(x))
        return y if self.affine is None else self.affine(y, weights)


def absorbed(norm: nn.Module, weight: Tensor, bias: Tensor, output_axis: int = 0) -> tuple[Tensor, Tensor]:
    """`weight` and `bias` of a convolution, with the batch normalisation `norm` behind it, by its stored
    statistics, in them.

    Args:
        output_axis: of the weight, along which the convolution has its outputs.
    """
    assert isinstance(norm, nn.BatchNorm2d)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shape = [1, 1, 1, 1]
    shape[output_axis] = -1
    return weight * scale.view(shape), (bias - norm.running_mean) * scale + norm.bias


def interpolating(weight: Tensor) -> Tensor:
    """The weight [inputs, outputs, k + 2, k + 2] of the transposed convolution, stride 2, that equals
    linear interpolation by 2 and then a convolution with `weight` [outputs, inputs, k, k], k even.

    Every phase of its output has the same gain, so that nothing paints a checkerboard (Odena et al. 2016,
    doi:10.23915/distill.00003), at the arithmetic of a plain transposed convolution and without the enlarged
    tensor in memory.
    """
    outputs, inputs, kernel, _ = weight.shape
    row = constant((0.5, 1.0, 0.5), weight.device).to(weight.dtype)
    flipped = weight.flip(2, 3).transpose(0, 1).reshape(inputs * outputs, 1, kernel, kernel)
    full = F.conv2d(flipped, torch.outer(row, row)[None, None], padding=2)
    return full.view(inputs, outputs, kernel + 2, kernel + 2)


class UpsampleConv(nn.Module):
    """Linear interpolation by 2 and a 2x2 convolution, computed as one transposed convolution."""

    def __init__(self, inputs: int, outputs: int, styles: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 2, 2))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.norm: nn.Module = BatchNorm(outputs, momentum=BATCH_NORM_MOMENTUM)
        self.affine = ConditionalAffine(styles, outputs) if styles else None

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        x = F.pad(x, (1,) * 4, mode="replicate")
        x = self.norm(F.conv_transpose2d(x, interpolating(self.weight), self.bias, stride=2, padding=3))
        return x if self.affine is None else self.affine(x, weights)


class UpsampleToImage(nn.Module):
    """Linear interpolation by 2 and a 4x4 convolution to RGB, computed at the lower size.

    Gives the four output pixels of each input pixel as channels (`pixel_shuffle` order): a last layer at
    full size would move sixteen channels through memory for every pixel of the picture.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, inputs, 4, 4))
        self.bias = nn.Parameter(torch.zeros(3))

    def phase_weight(self) -> Tensor:
        """The weight [12, inputs, 3, 3] of the equal convolution before `pixel_shuffle(2)`."""
        # Output row 2i + p takes tap p + 2 - 2a of the transposed convolution from input row i + a.
        inputs = self.weight.shape[1]
        taps = interpolating(self.weight).view(inputs, 3, 3, 2, 3, 2).flip(2, 4)
        return taps.permute(1, 3, 5, 0, 2, 4).reshape(12, inputs, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1,) * 4, mode="replicate")
        return F.conv2d(x, self.phase_weight(), self.bias.repeat_interleave(4))


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


class LinearUpsample(nn.Module):
    """Linear interpolation by 2, to the four pixels of each as channels, in `pixel_shuffle` order."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]])
        of_one_colour = torch.einsum("py,qx->pqyx", row, row).view(4, 3, 3)
        weight = torch.einsum("cd,pyx->cpdyx", torch.eye(3), of_one_colour).reshape(12, 3, 3, 3)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Of `x` [n, 3, h, w]: [n, 12, h - 2, w - 2]."""
        return F.conv2d(x, self.weight)


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
        detail = self.detail(lit)
        pieces = self.cut(lit, detail[:, :1], weights, corner)
        # As much wider as both filters take.
        small = F.pad(F.avg_pool2d(pieces, 2), (2 * (PATCH - 1),) * 4, mode="replicate")
        small = F.pad(self.patches(self.patches(small)), (1,) * 4, mode="replicate")
        broad = F.pixel_shuffle(self.upsample(small), 2)
        share = (weights @ self.broad.to(weights.dtype))[:, :, None, None]
        # Once more at the full size, so that their edges have no stairs.
        return self.patches(pieces + share * (broad - pieces)), detail


class Canvas(nn.Module):
    """Brushwork for what is flat: it stays where it is whatever moves over it, or goes along as a whole.

    A picture's sky gives a network nothing to paint strokes on but noise, which trembles. Strokes laid on a
    canvas do not (`training.brushwork`): each style takes as much of each layer of its coats into each
    channel as it likes. Noise as an input makes textures (Ulyanov et al. 2016, arXiv 1603.03417), and
    injected into the levels, detail (Karras et al. 2019, arXiv 1812.04948). Of smooth noise a small network
    makes worms, which follow its contours; a stroke has to be there already, with edges and a colour of its
    own.

    The grain is part of a checkpoint: it is what the rest has learned to paint by.

    Args:
        grain: colours or relief of `brushwork.grain`, int8 [layers, side, side].
        coats: those that each style may paint by.
        channels: of the level that it is added to.
    """

    grain: Tensor
    allowed: Tensor

    def __init__(self, grain: NDArray[np.int8], coats: Sequence[Sequence[str]], channels: int) -> None:
        super().__init__()
        each = len(grain) // (len(brushwork.COATS) + len(brushwork.LYING))
        layers = np.repeat(list(brushwork.COATS), each)
        self.lying = each * len(brushwork.LYING)
        """How many layers, the first ones, are of touches that lie one way; as many, the last, of another."""
        allowed = torch.tensor([[float(name in own) for name in layers] for own in coats])
        self.register_buffer("allowed", allowed)
        self.register_buffer("grain", torch.from_numpy(grain)[None].clone())
        # From nothing it would not grow: it is of use only after the layers behind it have shaped it.
        self.share = nn.Parameter(0.25 * torch.randn(len(coats), channels, len(layers)))
        self.grid: Tensor | None = None
        """Where it has been carried to with the picture, [n, h, w, 2] as `flow.warp` takes it."""

    def forward(self, x: Tensor, weights: Tensor, corner: Tensor, ways: Tensor) -> Tensor:
        """What to add to `x` [n, c, h, w].

        Args:
            weights: [n or 1, styles], how much there is of each style.
            corner: row and column, of either sign, that lie on the picture's corner, int64 [2], of
                `CANVAS_SIDE` each way.
            ways: [n or 1, `brushwork.WAYS`, h, w], how much there is of the touches of each direction.
        """
        height, width = x.shape[-2:]
        side = self.grain.shape[-1]
        rows, columns = places(corner * (side // CANVAS_SIDE), (height, width), side, x.device)
        others, lying = (
            layers.index_select(2, rows).index_select(3, columns).to(self.share.dtype)
            for layers in (self.grain[:, self.lying : -self.lying], self._every_way())
        )
        lying = (ways[:, :, None] * lying).sum(1)
        if self.grid is not None:
            others, lying = (self._along(each, self.grid) for each in (others, lying))
        own = (self.share * self.allowed[:, None]).flatten(1) * brushwork.STEP
        share = (weights @ own).unflatten(1, self.share.shape[1:])
        laid = share[..., : self.lying] @ lying.flatten(2).to(share.dtype)
        laid = laid + share[..., self.lying :] @ others.flatten(2).to(share.dtype)
        return laid.unflatten(2, (height, width))

    def _every_way(self) -> Tensor:
        """The touches of each direction, int8 [`brushwork.WAYS`, layers, side, side].

        Where rows are taken for columns, an angle becomes what it lacks of a quarter turn, and from right to
        left, of half a turn.
        """
        level, risen = self.grain[0, : self.lying], self.grain[0, -self.lying :]
        upright, steep = level.mT, risen.mT
        # Not by `flip`, which ONNX has as a slice that goes backwards, and few runtimes know.
        mirrored = torch.arange(self.grain.shape[-1] - 1, -1, -1, device=self.grain.device)
        falling, fallen = (each.index_select(-1, mirrored) for each in (steep, risen))
        return torch.stack([level, risen, steep, upright, falling, fallen])

    @staticmethod
    def _along(spread: Tensor, grid: Tensor) -> Tensor:
        places = F.interpolate(grid.permute(0, 3, 1, 2), spread.shape[2:], mode="area").permute(0, 2, 3, 1)
        spread = spread.float().expand(len(grid), -1, -1, -1)
        return F.grid_sample(spread, places, "bicubic", "reflection", align_corners=False)


class Course(nn.Module):
    """Which way touches lie: along what there is to see, and else as the canvas has it.

    Args:
        grain: the course of `brushwork.grain`.
    """

    grain: Tensor
    value: Tensor
    ways: Tensor

    def __init__(self, grain: NDArray[np.int8]) -> None:
        super().__init__()
        self.register_buffer("grain", torch.from_numpy(grain)[None].clone())
        # Which row and column of it each place has. Where ONNX divides whole numbers it asks for their signs.
        value = torch.arange(brushwork.COARSE * grain.shape[-1]) // brushwork.COARSE
        self.register_buffer("value", value, persistent=False)
        angles = 2 * torch.pi * torch.arange(brushwork.WAYS) / brushwork.WAYS
        ways = torch.stack([angles.cos(), angles.sin()], 1)[..., None, None]
        self.register_buffer("ways", ways, persistent=False)

    def forward(self, size: Sequence[int], corner: Tensor, edges: Tensor | None) -> Tensor:
        """How much there is of the touches of each direction, [n or 1, `brushwork.WAYS`, h, w], 0 to 1.

        Two directions at most, one of them mostly: touches laid over one another lose their edges. The sum of
        the squares is 1, so that what is laid has the same contrast everywhere.

        Args:
            size: (h, w), in places of the canvas.
            corner: as for the `Canvas`.
            edges: [n, 2, h, w], which way they run, as `Detail` tells it; None where nobody knows.
        """
        rows, columns = (
            self.value.index_select(0, each)
            for each in places(corner, size, len(self.value), self.grain.device)
        )
        course = self.grain.index_select(2, rows).index_select(3, columns).to(self.ways.dtype)
        course = course * (OWN_COURSE * brushwork.STEP)
        if edges is not None:
            course = course + edges
        # Twice the angle, of length 1.
        course = course * ((course * course).sum(1, keepdim=True) + 1e-4).rsqrt()
        beside = float(np.cos(2 * np.pi / brushwork.WAYS))
        near = F.relu(F.conv2d(course, self.ways) - beside)
        near = near * near
        return near * ((near * near).sum(1, keepdim=True) + 1e-4).rsqrt()


def places(corner: Tensor, size: Sequence[int], side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The rows and the columns of a canvas that repeats after `side` under a picture of `size`, (h, w)."""
    rows, columns = (
        (torch.arange(length, device=device) + first) % side
        for length, first in zip(size, corner, strict=True)
    )
    return rows, columns


def twice(x: Tensor) -> Tensor:
    """`x` [n, c, h, w], every value in two rows and columns."""
    return F.interpolate(x, scale_factor=2.0)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity (He et al. 2016)."""

    def __init__(self, channels: int, styles: int, *, branches: bool = False) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels, styles=styles, branch=branches)
        self.second = ConvNorm(channels, channels, styles=styles, branch=branches)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x, weights)), weights)


def binomial(x: Tensor) -> Tensor:
    """`x` [n, c, h, w] less what alternates from place to place: 1, 2, 1 each way (Zhang 2019, 1904.11486).

    Residual blocks amplify that on a flat picture until a lattice of the network's own lies over it.
    """
    wider = F.pad(x, (1,) * 4, mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(wider, 2, stride=1), 2, stride=1)


class Generator(nn.Module):
    """Paints one picture in any mix of its styles, at any strength.

    Space-to-depth by 2, then a level for each width, each at half the size of the one before, residual
    blocks at the lowest one, and up again; a `Canvas` lies under the second level. With skips from level to
    level it is a U-Net (Ronneberger et al. 2015, arXiv 1505.04597), without them the ResNet of Johnson et al.
    (2016, arXiv 1603.08155). What it sees, and adds its residual to, is the picture, perhaps simplified by a
    `Kuwahara` filter at half its size: detail finer than any brush would keep a photograph a photograph. The
    residual starts near zero, and strength 0 is the identity for ever.

    Args:
        styles: how many styles share the trunk.
        widths: channels of each level, from half the picture's size down.
        blocks: residual blocks at the lowest level.
        skips: add what a level held on the way down to what it holds on the way up.
        simplified: paint over the picture simplified, and not over all its detail.
        branches: each 3x3 convolution has a 1x1 one beside it, which is gone once it is exported.
        coats: of the canvas, those that each style may paint by; all if not given.
        spared: how much of each style's canvas gives way to `Detail`, 0..1; nothing if not given. This and
            what follows only where the picture is simplified.
        cuts: the coat of the canvas that each style cuts the picture along, "" for none; none if not given.
        broad: how much broader each style's patches are, as `Simplify` has it; nothing if not given.
    """

    spared: Tensor

    def __init__(
        self,
        styles: int,
        widths: Sequence[int] = (16, 32, 64),
        blocks: int = 4,
        *,
        skips: bool = True,
        simplified: bool = True,
        branches: bool = False,
        coats: Sequence[Sequence[str]] | None = None,
        spared: Sequence[float] | None = None,
        cuts: Sequence[str] | None = None,
        broad: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.styles = styles
        self.skips = skips
        self.multiple = 2 ** len(widths)
        """Sides of a picture must be multiples of this, in pixels."""
        first, last = widths[0], widths[-1]
        grain = brushwork.grain(CANVAS_SIDE)
        self.simplify = None
        if simplified:
            self.simplify = Simplify(grain.cuts, cuts or [""] * styles, broad or [0.0] * styles)
        self.upsample = LinearUpsample() if simplified else None
        coats = [tuple(brushwork.COATS)] * styles if coats is None else coats
        self.register_buffer("spared", torch.tensor([0.0] * styles if spared is None else [*spared]), False)
        self.canvases = nn.ModuleList(
            Canvas(layers, coats, channels)
            for layers, channels in zip((grain.relief, grain.colours), widths, strict=False)
        )
        self.course = Course(grain.course)
        self._laid_for: Tensor | None = None
        """The `Detail` that touches are laid along in place of the picture's own."""
        self.corner = torch.zeros(2, dtype=torch.int64)
        """Row and column of the canvas that lie on the picture's corner; training moves them about."""
        self.encode = nn.ModuleList([ConvNorm(12, first, padding=0, styles=styles, branch=branches)])
        self.encode.extend(
            ConvNorm(high, low, stride=2, styles=styles, branch=branches) for high, low in pairwise(widths)
        )
        self.blocks = nn.ModuleList(ResidualBlock(last, styles, branches=branches) for _ in range(blocks))
        self.decode = nn.ModuleList(
            UpsampleConv(low, high, styles) for low, high in pairwise(reversed(widths))
        )
        self.to_image = UpsampleToImage(first)
        self._initialise()

    def _initialise(self) -> None:
        """He initialisation (He et al. 2015, arXiv 1502.01852), but for the last layer; every residual block
        begins as the identity (Goyal et al. 2017, arXiv 1706.02677).
        """
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, UpsampleConv)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith(("second.norm.weight", "second.branch.norm.weight")):
                nn.init.zeros_(parameter)
        nn.init.normal_(self.to_image.weight, std=1e-3)

    def levels(
        self,
        x: Tensor,
        detail: Tensor | None,
        weights: Tensor,
        covered: Tensor,
        corner: Tensor | None = None,
    ) -> list[Tensor]:
        """What each level holds on the way down, and after the residual blocks in place of the last one.

        Args:
            x: [n, 12, h/2 + 2, w/2 + 2], as `base` gives it.
            detail: [n, 3, h/4, w/4], as `base` gives it.
            weights: [n or 1, styles], mix times `eased` strength.
            covered: [n or 1, styles], mix times `laid` strength, by which the canvas's colours are there.
            corner: as for the `Canvas`; `self.corner` if not given.
        """
        held = []
        corner = self.corner if corner is None else corner
        followed = detail if self._laid_for is None else self._laid_for
        room = None
        if detail is not None:
            spared = weights @ self.spared.to(weights.dtype)
            room = 1 - spared[:, None, None, None] * detail[:, :1]
        for index, layer in enumerate(self.encode):
            x = F.relu(layer(x, weights))
            if index == 0:
                size = [side // 2**CANVAS_LEVEL for side in x.shape[-2:]]
                ways = self.course(size, corner, None if followed is None else followed[:, 1:])
            if index < len(self.canvases):
                at_level = index == CANVAS_LEVEL
                marks = self.canvases[index](
                    x, covered if at_level else weights, corner, ways if at_level else twice(ways)
                )
                if room is not None:
                    marks = marks * (room if at_level else twice(room))
                x = x + marks
            held.append(x)
        for block in self.blocks:
            x = block(x, weights)
        return [*held[:-1], binomial(x)]

    def to_residual(self, levels: Sequence[Tensor], weights: Tensor) -> Tensor:
        """What full strength adds to a picture of these `levels`, [n, 12, h/2, w/2] in the same order.

        `weights` as for `levels`.
        """
        x = levels[-1]
        for layer, skipped in zip(self.decode, reversed(levels[:-1]), strict=True):
            x = layer(x, weights)
            x = F.relu(x + skipped if self.skips else x)
        return self.to_image(x)

    def paint(self, image: Tensor, mix: Tensor, strength: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The painted `image` as `forward` gives it, and the levels on the way to it."""
        weights, covered = (mix * share(strength)[:, None] for share in (eased, laid))
        base, detail = self.base(image, covered)
        levels = self.levels(base, detail, weights, covered)
        residual = self.to_residual(levels, weights)
        painted = F.pixel_shuffle(inner(base) + residual, 2)
        return image + strength[:, None, None, None] * (painted - image), levels

    def base(self, image: Tensor, covered: Tensor) -> tuple[Tensor, Tensor | None]:
        """What there is of `image` to paint over: [n, 12, h/2 + 2, w/2 + 2], its 2x2 blocks of pixels in
        `pixel_unshuffle` order and a block more at each edge; and its `Detail`, if it is simplified.

        `covered` as for `levels`.
        """
        if self.simplify is None:
            return F.pixel_unshuffle(F.pad(image, (2,) * 4, mode="replicate"), 2), None
        # Variances are differences that bfloat16 would not leave much of.
        with torch.autocast(image.device.type, enabled=False):
            small = F.avg_pool2d(F.pad(image.float(), (2 * MARGIN,) * 4, mode="replicate"), 2)
            patches, detail = self.simplify(small - 0.5, covered.float(), self.corner)
            return self.upsample(patches) + 0.5, detail

    def features(self, image: Tensor) -> list[Tensor]:
        """What the trunk sees in `image` [n, 3, h, w], whatever the style: its levels at strength 0."""
        none = torch.zeros(1, self.styles, device=image.device)
        return self.levels(*self.base(image, none), none, none)

    def forward(self, image: Tensor, mix: Tensor, strength: Tensor) -> Tensor:
        """Paint `image`.

        Args:
            image: [n, 3, h, w], RGB in 0..1; h and w multiples of `multiple`.
            mix: [n, styles], weights that sum to 1.
            strength: [n], 0 (the input) to 1 (the full style).

        Returns:
            [n, 3, h, w], near 0..1 but not clamped, so that gradients do not die at the ends.
        """
        return self.paint(image, mix, strength)[0]

    def move_canvas(self, rng: torch.Generator) -> None:
        """Lay the picture's corner on another place of the canvas, so that none is learned by heart."""
        self.corner = torch.randint(CANVAS_SIDE, (2,), generator=rng)

    @contextmanager
    def canvas_carried(self, grid: Tensor, image: Tensor) -> Iterator[None]:
        """Within, the canvas as it lies for `image` moves with it, along `grid` [n, h, w, 2] as `flow.warp`
        takes it.
        """
        _, self._laid_for = self.base(image, torch.zeros(1, self.styles, device=image.device))
        carried = [module for module in self.modules() if isinstance(module, Canvas | Cut)]
        for module in carried:
            module.grid = grid
        try:
            yield
        finally:
            self._laid_for = None
            for module in carried:
                module.grid = None

    def merge_branches(self) -> None:
        """Take the branches into the convolutions that they stand beside."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.merge_branch()

    def freeze_trunk(self) -> None:
        """Train nothing but the styles' scales and shifts from now on: what makes a style, in a few kB."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(of_styles(name))

    def start_from(self, state: Mapping[str, Tensor], trained: Sequence[str], styles: Sequence[str]) -> None:
        """Take over the trunk of another generator, and its styles by name.

        A generator that is wider, or has more blocks, begins with what the other one paints: channels and
        blocks that are new have no say yet (Chen et al. 2016, Net2Net, arXiv 1511.05641, but by zeros).

        Args:
            state: the other generator's, of no more channels at any level and no more blocks. What coats
                each style may paint by stays this generator's.
            trained: names of the other generator's styles, in its order.
            styles: names of this generator's; those that the other one does not know begin as the mean of
                those of its own that paint by one of the same coats, or of all.

        Raises:
            ValueError: the other generator is wider or deeper, or has another number of levels or another
                version's canvas.
        """
        own = self.state_dict()
        # Styles that knew nothing of a layer leave it as it is.
        taken = {name: torch.zeros_like(value) for name, value in own.items() if ".affine." in name}
        taken |= {name: value for name, value in own.items() if name.startswith(("canvases.", "simplify."))}
        for name, value in own.items():
            if name not in state and name.startswith("blocks."):
                taken[name] = torch.zeros_like(value) if ".second.norm." in name else value
            if name not in state and ".branch." in name:
                taken[name] = torch.zeros_like(value) if ".norm.weight" in name else value
        coats, of_others = (each.get("canvases.0.allowed") for each in (own, state))
        if of_others is None or coats.shape[1:] != of_others.shape[1:]:
            raise ValueError("the checkpoint has another version's canvas; give one of this fauve")
        kin = _kin(coats, of_others)
        for name, value in state.items():
            if name.startswith("canvases.") and name.endswith(".allowed"):
                continue
            if of_styles(name):
                known = dict(zip(trained, value, strict=True))
                means = torch.tensordot(kin, value, 1)
                value = torch.stack([known.get(*each) for each in zip(styles, means, strict=True)])
            # A canvas of fewer coats would be taken for one with bare ones.
            grows = name in own and not name.endswith(".grain")
            taken[name] = _grown(value, own[name]) if grows else value
        shapes = {name: value.shape for name, value in own.items()}
        if {name: value.shape for name, value in taken.items()} != shapes:
            raise ValueError(
                "the checkpoint's generator is wider or deeper than the recipe's, or has another number of "
                "widths or another version's canvas"
            )
        self.load_state_dict(taken)

    def freeze_statistics(self) -> None:
        """Run on the stored batch-norm statistics from now on, as the exported network will."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def macs_per_pixel(self) -> float:
        """Multiply-accumulates per pixel of the picture, as exported."""
        total = 0.0
        for module, scale in self._scales():
            if module is self.encode[0].conv and self.simplify is not None:
                total += module.out_channels * 3 * 5 * 5 * scale  # made one with `upsample`
                total += self.upsample.weight.numel() * scale
            elif isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):  # branches are folded away
                total += module.weight.numel() * scale
            elif isinstance(module, UpsampleConv):
                total += interpolating(module.weight).numel() * scale / 4
            elif isinstance(module, UpsampleToImage):
                total += module.phase_weight().numel() * scale
        for level, canvas in enumerate(self.canvases):
            total += canvas.share[0].numel() * 4.0 ** -(level + 1)
        return total

    def _scales(self) -> list[tuple[nn.Module, float]]:
        """Each convolution with the area of its output relative to the picture's."""
        areas = [4.0 ** -(level + 1) for level in range(len(self.encode))]
        parts = [*zip(self.encode, areas, strict=True), (self.blocks, areas[-1]), (self.to_image, areas[0])]
        parts += zip(self.decode, reversed(areas[:-1]), strict=True)
        return [(module, area) for part, area in parts for module in part.modules()]


def _kin(coats: Tensor, of_others: Tensor) -> Tensor:
    """How much each of other styles counts for what a style begins as, [styles, others], in shares.

    Args:
        coats, of_others: the coats that each style may paint by, as a `Canvas` has them.
    """
    kin = (coats @ of_others.T > 0).to(coats.dtype)
    kin[kin.sum(1) == 0] = 1
    return kin / kin.sum(1, keepdim=True)


def _grown(value: Tensor, own: Tensor) -> Tensor:
    """`value` in the corner of `own`, at least as large, with no weight on the inputs that are new."""
    if value.dim() != own.dim() or any(a > b for a, b in zip(value.shape, own.shape, strict=True)):
        return value
    grown = own.clone()
    if value.dim() == 4:
        grown[:, value.shape[1] :] = 0
    grown[tuple(map(slice, value.shape))] = value
    return grown


def of_styles(name: str) -> bool:
    """Whether the parameter of this name has a row for each style; all others are the trunk's."""
    return ".affine." in name or (name.startswith("canvases.") and name.endswith(".share"))


def inner(x: Tensor) -> Tensor:
    """`x` [..., h, w] without its outermost rows and columns."""
    return x[..., 1:-1, 1:-1]


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches as painting (high) or not (low), at one or more scales.

    PatchGAN (Isola et al. 2017, arXiv 1611.07004) under a Lipschitz bound by spectral normalisation (Miyato
    et al. 2018, arXiv 1802.05957), with a network for each scale (Wang et al. 2018, arXiv 1711.11585). The
    layers are shared, each style has a score of its own.
    """

    def __init__(self, styles: int, widths: Sequence[int] = (32, 64, 128), scales: int = 1) -> None:
        super().__init__()
        self.scales = nn.ModuleList(_Patches(styles, [3, *widths]) for _ in range(scales))

    def forward(self, image: Tensor, style: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Judge `image` [n, 3, h, w] in 0..1 as a painting of `style` [n].

        Returns:
            The scores of each scale, [n, 1, h/8, w/8] and coarser, and the middle features of all scales.
        """
        x = image * 2 - 1
        scores, features = [], []
        for index, patches in enumerate(self.scales):
            if index:
                x = F.avg_pool2d(x, 2)
            score, seen = patches(x, style)
            scores.append(score)
            features += seen
        return scores, features


class _Patches(nn.Module):
    def __init__(self, styles: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(inputs, outputs, 4, 2, 1)) for inputs, outputs in pairwise(channels)
        )
        self.score = spectral_norm(nn.Conv2d(channels[-1], styles, 3, 1, 1))

    def forward(self, x: Tensor, style: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        with _normalised(*self.layers, self.score):
            for layer in self.layers:
                x = F.leaky_relu(layer(x), 0.2)
                features.append(x)
            return _score_of(self.score(x), style), features


class DenseDiscriminator(nn.Module):
    """Scores a whole small picture by fully connected layers (Goodfellow et al. 2014, arXiv 1406.2661).

    Args:
        styles: how many styles have a score.
        side: of the pictures, in pixels; up to 64 or so, since every pixel has weights of its own.
        widths: of the hidden layers.
    """

    def __init__(self, styles: int, side: int, widths: Sequence[int] = (512, 256)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            spectral_norm(nn.Linear(inputs, outputs)) for inputs, outputs in pairwise([3 * side**2, *widths])
        )
        self.score = spectral_norm(nn.Linear(widths[-1], styles))

    def forward(self, image: Tensor, style: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """As `PatchDiscriminator.forward`, with one score [n, 1, 1, 1] and features of one position."""
        x, features = (image * 2 - 1).flatten(1), []
        with _normalised(*self.layers, self.score):
            for layer in self.layers:
                x = F.leaky_relu(layer(x), 0.2)
                features.append(x[..., None, None])
            return [_score_of(self.score(x)[..., None, None], style)], features


@contextmanager
def _normalised(*layers: nn.Module) -> Iterator[None]:
    """Within, the weights of `layers` are normalised once, in 32 bits: CUDA's autocast would do it in 16."""
    with parametrize.cached():
        with torch.autocast(next(layers[0].parameters()).device.type, enabled=False):
            _ = [layer.weight for layer in layers]
        yield


def _score_of(scores: Tensor, style: Tensor) -> Tensor:
    return scores.gather(1, style.view(-1, 1, 1, 1).expand(-1, 1, *scores.shape[2:]))
