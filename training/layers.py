"""What networks that paint are made of: convolutions, normalisation by style, and changes of size."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.device import constant

BATCH_NORM_MOMENTUM = 0.03


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


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity (He et al. 2016)."""

    def __init__(self, channels: int, styles: int, *, branches: bool = False) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels, styles=styles, branch=branches)
        self.second = ConvNorm(channels, channels, styles=styles, branch=branches)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x, weights)), weights)


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


def twice(x: Tensor) -> Tensor:
    """`x` [n, c, h, w], every value in two rows and columns."""
    return F.interpolate(x, scale_factor=2.0)


def binomial(x: Tensor) -> Tensor:
    """`x` [n, c, h, w] less what alternates from place to place: 1, 2, 1 each way (Zhang 2019, 1904.11486).

    Residual blocks amplify that on a flat picture until a lattice of the network's own lies over it.
    """
    wider = F.pad(x, (1,) * 4, mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(wider, 2, stride=1), 2, stride=1)


def inner(x: Tensor) -> Tensor:
    """`x` [..., h, w] without its outermost rows and columns."""
    return x[..., 1:-1, 1:-1]
