"""Features that tell what is in a picture (content) and how it is painted (style)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from engines.errors import first_line

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Pretrained(nn.Module):
    """A frozen network that was trained on ImageNet; gives its activations from fine to coarse."""

    CONTENT: int
    """Index of the activation that tells what is in the picture, from the coarsest, -1."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None])

    def normalised(self, image: Tensor) -> Tensor:
        """`image` [n, 3, h, w] in 0..1 as the network knows pictures."""
        return (image - self.mean) / self.std


class Vgg19(Pretrained):
    """The first five convolutions of VGG-19 (Simonyan and Zisserman 2015), relu1_1 to relu3_1.

    The picture is mirrored at its border once and the convolutions are not padded, which is as good as
    mirroring before each of them and a quarter faster.
    """

    LAYERS = (0, 2, 5, 7, 10)
    POOL_BEFORE = (5, 10)
    CONTENT = -1
    MARGIN = 8

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(weights, f"features.{layer}") for layer in self.LAYERS)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        """The five activations of `image` [n, 3, h, w] in 0..1, the coarsest at a quarter of its size."""
        x, features = self.normalised(image), []
        x = F.pad(x, (self.MARGIN,) * 4, mode="reflect")
        for layer, conv in zip(self.LAYERS, self.convs, strict=True):
            if layer in self.POOL_BEFORE:
                x = F.max_pool2d(x, 2, ceil_mode=True)
            x = F.relu(conv(x))
            features.append(x)
        return features


class SqueezeNet(Pretrained):
    """SqueezeNet 1.1 (Iandola et al. 2016, arXiv 1602.07360) at the seven places that LPIPS reads.

    An eighth of VGG-19's arithmetic.
    """

    FIRES = (3, 4, 6, 7, 9, 10, 11, 12)
    POOL_BEFORE = (3, 6, 9)
    READ_AFTER = (4, 7, 9, 10, 11, 12)
    CONTENT = -5

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.stem = _conv(weights, "features.0", stride=2)
        self.fires = nn.ModuleList(
            nn.ModuleDict(
                {
                    "squeeze": _conv(weights, f"features.{fire}.squeeze"),
                    "narrow": _conv(weights, f"features.{fire}.expand1x1"),
                    "wide": _conv(weights, f"features.{fire}.expand3x3", padding=1),
                }
            )
            for fire in self.FIRES
        )
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        """The seven activations of `image` [n, 3, h, w] in 0..1, the coarsest at a sixteenth of its size."""
        x = F.relu(self.stem(self.normalised(image)))
        features = [x]
        for index, fire in zip(self.FIRES, self.fires, strict=True):
            if index in self.POOL_BEFORE:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            x = F.relu(fire["squeeze"](x))
            x = torch.cat([F.relu(fire["narrow"](x)), F.relu(fire["wide"](x))], 1)
            if index in self.READ_AFTER:
                features.append(x)
        return features


def _conv(weights: dict[str, Tensor], name: str, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    weight = weights[f"{name}.weight"]
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[-1], stride, padding)
    conv.weight.data, conv.bias.data = weight.float(), weights[f"{name}.bias"].float()
    return conv


NETWORKS: dict[str, type[Vgg19] | type[SqueezeNet]] = {"vgg19": Vgg19, "squeezenet1_1": SqueezeNet}
"""Pretrained networks, by torchvision's names."""


def weights_file(folder: Path, name: str) -> Path | None:
    """The file `NAME*.safetensors` or else `NAME*.pth` of `folder`, None if there is none."""
    files = [file for kind in ("safetensors", "pth") for file in sorted(folder.glob(f"{name}*.{kind}"))]
    return files[0] if files else None


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file by name; no code of it is run.

    Raises:
        ValueError: it is neither.
    """
    try:
        safe = file.suffix == ".safetensors"
        state = load_file(file) if safe else torch.load(file, "cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, EOFError and UnpicklingError for a broken file
        raise ValueError(f"{file}: cannot be read: {first_line(error)}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{file}: holds no tensors by name")
    return state


def pretrained(name: str, weights: Path | None) -> Pretrained:
    """The network `name` of `NETWORKS`.

    Args:
        weights: folder with a file `NAME*.safetensors` or `NAME*.pth` that has torchvision's key names; None
            takes torchvision's own weights, which it downloads once.

    Raises:
        ValueError: the weights cannot be had.
    """
    if weights is None:
        return NETWORKS[name](_torchvision(name))
    file = weights_file(weights, name)
    if file is None:
        raise ValueError(
            f"{weights}: no {name}*.safetensors or .pth there; without --weights torchvision's are used"
        )
    try:
        return NETWORKS[name](read_weights(file))
    except KeyError as error:
        raise ValueError(f"{file}: not a {name} of torchvision's names: no {error}") from error


def _torchvision(name: str) -> dict[str, Tensor]:
    try:
        from torchvision.models import get_model
    except (ImportError, RuntimeError) as error:  # RuntimeError: it does not fit the torch beside it
        raise ValueError(
            f'{name} needs pip install "fauve[train]", or a folder given by --weights'
        ) from error
    try:
        state: dict[str, Tensor] = get_model(name, weights="DEFAULT").state_dict()
    except OSError as error:
        raise ValueError(
            f"torchvision's {name} cannot be had ({error}); give a folder by --weights"
        ) from error
    return state
