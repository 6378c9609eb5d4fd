"""Inception v3 (Szegedy et al. 2016, arXiv 1512.00567), in whose features FID and ArtFID are taken."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engines.errors import first_line
from training.features import read_weights, weights_file
from training.metrics import NotAtHand

SIDE = 299
"""Of the pictures that it was trained on, in pixels."""

UNUSED = ("fc.", "AuxLogits.")
"""Layers that no feature depends on, and that a file may leave out."""


def load_inception(weights: Path | None, name: str) -> Any:
    """The network with the weights `NAME*.safetensors` or `NAME*.pth` of a folder, up to its 2048 features.

    Args:
        name: "inception_v3" for torchvision's weights, "art_inception" for those of ArtFID.

    Raises:
        NotAtHand: there are none, or torchvision is missing.
        ValueError: the file is something else.
    """
    file = None if weights is None else weights_file(weights, name)
    if file is None:
        raise NotAtHand(f"no {name}*.pth or .safetensors in the folder of --weights")
    try:
        from torchvision.models import Inception3
    except (ImportError, RuntimeError) as error:  # RuntimeError: it does not fit the torch beside it
        raise NotAtHand(f"torchvision cannot be imported: {error}") from error
    network = Inception3(aux_logits=True, transform_input=False, init_weights=False)
    network.fc = torch.nn.Identity()
    kept = {key: value for key, value in read_weights(file).items() if not key.startswith(UNUSED)}
    try:
        lacking = network.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{file}: not an Inception v3: {first_line(error)}") from error
    wrong = [key for key in [*lacking.missing_keys, *lacking.unexpected_keys] if not key.startswith(UNUSED)]
    if wrong:
        raise ValueError(f"{file}: not an Inception v3 of torchvision's names: {wrong[0]}")
    return network.eval().requires_grad_(False)


def inception_features(network: Any, pictures: list[Tensor]) -> NDArray[np.float64]:
    """Features [n, 2048] of uint8 pictures [3, h, w]."""
    features = []
    for picture in pictures:
        image = picture[None].float() / 255
        image = F.interpolate(image, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        with torch.inference_mode():
            features.append(network(image * 2 - 1)[0].double().numpy())
    return np.stack(features)
