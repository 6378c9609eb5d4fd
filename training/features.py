"""Features that tell what is in a picture (content) and how it is painted (style)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Vgg19(nn.Module):
    """The first five convolutions of VGG-19 (Simonyan and Zisserman 2015), relu1_1 to relu3_1.

    Reads torchvision's key names from a safetensors file, or takes torchvision's own weights, which it
    downloads once. The picture is mirrored at its border once and the
    convolutions are not padded, which is as good as mirroring before each of them and a quarter faster.
    """

    LAYERS = (0, 2, 5, 7, 10)
    POOL_BEFORE = (5, 10)
    CONTENT = 4
    MARGIN = 8

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        state = _torchvision() if weights is None else load_file(weights)
        self.convs = nn.ModuleList()
        for layer in self.LAYERS:
            weight = state[f"features.{layer}.weight"]
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3)
            conv.weight.data, conv.bias.data = weight.float(), state[f"features.{layer}.bias"].float()
            self.convs.append(conv)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None])
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        """The five activations of `image` [n, 3, h, w] in 0..1, from fine to coarse."""
        x, features = (image - self.mean) / self.std, []
        x = F.pad(x, (self.MARGIN,) * 4, mode="reflect")
        for layer, conv in zip(self.LAYERS, self.convs, strict=True):
            if layer in self.POOL_BEFORE:
                x = F.max_pool2d(x, 2, ceil_mode=True)
            x = F.relu(conv(x))
            features.append(x)
        return features


def _torchvision() -> dict[str, Tensor]:
    try:
        from torchvision.models import VGG19_Weights, vgg19
    except ImportError as error:
        raise ValueError('VGG-19 needs pip install "fauve[train]", or a file given by --vgg19') from error
    try:
        state: dict[str, Tensor] = vgg19(weights=VGG19_Weights.IMAGENET1K_V1).state_dict()
    except OSError as error:
        raise ValueError(f"torchvision's VGG-19 cannot be had ({error}); give a file by --vgg19") from error
    return state
