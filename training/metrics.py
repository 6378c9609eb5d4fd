"""Measures that judge paintings and train none; distances of style and content are among the losses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.features import read_weights

LPIPS = ("squeeze.pth", "lpips_v0.1_squeeze.pth")
"""Names of a file with the heads of LPIPS: as its authors give it away, and one that says what it is."""


class NotAtHand(Exception):
    """What a measure needs, such as pretrained weights, is not there; the measure is left out."""


def perceptual_distance(
    features: Sequence[Tensor], targets: Sequence[Tensor], heads: Sequence[Tensor]
) -> Tensor:
    """LPIPS (Zhang et al. 2018, arXiv 1801.03924), [n].

    Args:
        features: activations of pictures, [n, c, h, w] each.
        targets: of the pictures to compare with.
        heads: of `lpips_heads`, for the same layers.
    """
    total = torch.zeros(len(features[0]))
    for x, y, head in zip(features, targets, heads, strict=True):
        x, y = (each / (each.norm(dim=1, keepdim=True) + 1e-10) for each in (x, y))
        total = total + ((x - y).square() * head).sum(1).mean((1, 2))
    return total


def lpips_heads(weights: Path | None) -> list[Tensor]:
    """The weights [1, c, 1, 1] of LPIPS v0.1 over SqueezeNet's activations.

    Args:
        weights: folder with a file of one of the names `LPIPS`.

    Raises:
        NotAtHand: there is none.
        ValueError: it is something else.
    """
    files = [] if weights is None else [weights / name for name in LPIPS if (weights / name).is_file()]
    if not files:
        raise NotAtHand(f"no {' or '.join(LPIPS)} in the folder of --weights")
    state = read_weights(files[0])
    try:
        return [state[f"lin{layer}.model.1.weight"] for layer in range(7)]
    except KeyError as error:
        raise ValueError(f"{files[0]}: not the heads of LPIPS: no {error}") from error


def noise_gain(frames: NDArray[np.uint8], painted: NDArray[np.uint8]) -> float:
    """How much more the painting of a still scene trembles than its pictures do, which carry sensor noise.

    The deviation over time of `painted` [t, h, w, 3] over that of `frames`, each the root of the mean
    variance of the pixels.
    """
    before, after = (np.var(each, axis=0, dtype=np.float64).mean() for each in (frames, painted))
    return float(np.sqrt(after / before))


def frechet_distance(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Distance of two normal distributions (Heusel et al. 2017, arXiv 1706.08500, eq. 6).

    Args:
        first: samples of one, [n, d].
        second: samples of the other, [m, d].
    """
    a, b = (np.cov(each, rowvar=False).reshape(each.shape[1], -1) for each in (first, second))
    values, vectors = np.linalg.eigh(a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    # The trace of the root of a b, by a symmetric matrix with the same eigenvalues.
    crossed = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0)).sum()
    means = np.square(first.mean(0) - second.mean(0)).sum()
    return float(means + np.trace(a) + np.trace(b) - 2 * crossed)
