"""The discriminators that judge what is painted."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm


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
