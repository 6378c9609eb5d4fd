"""Restyled pictures for somebody else's training: a transform among torchvision's."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image as PilImage
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import Transform
from torchvision.transforms.v2 import functional as F

import engines
from engines import Engine, Look, Style
from pipeline.scaling import stylizer

IMAGES = (tv_tensors.Image, tv_tensors.Video)
"""The tensors of torchvision that are painted."""

OVERSHOOT = 0.5
"""By how much a float image may leave 0..1, as bicubic resizing does: what is further is in other units."""


class StyleAugment(Transform):
    """Paints training images in a random mix of a pack's styles, at a random strength.

    What an image shows stays what it is and its texture changes, which makes networks look at shapes
    (Geirhos et al. 2019, arXiv 1811.12231). Labels, boxes and masks pass untouched. Takes PIL images ("RGB"
    or "L") and images, videos and tensors [..., 3 or 1, h, w], uint8, uint16 or float in 0..1, and gives back
    their kind, size and type; painted in 8 bits. All images of one sample are painted alike. A float image
    that is in 0..255, or normalised, is a ValueError, and whole numbers of another type are a TypeError: what
    is white in them, nothing tells.

    Can be sent to the workers of a `DataLoader`: each process makes an engine of its own when it first
    paints.

    Args:
        pack: a bundled style, a style pack, or an .onnx model.
        p: probability that a sample is painted.
        strength: lowest and highest, within 0..1.
        styles: of the pack; all if not given.
        concentration: of the Dirichlet distribution of the mix; towards 0, it is one style at a time.
        engine: as `engines.load` names it. OpenVINO and torch do not share a process.
        threads: CPU threads of each engine.

    Raises:
        StyleError: the pack cannot be used.
        ValueError: a probability, strength or concentration out of its range, or a style that the pack does
            not have.
    """

    def __init__(
        self,
        pack: str | Path | Style = "live",
        *,
        p: float = 0.5,
        strength: tuple[float, float] = (0.3, 1.0),
        styles: Sequence[str] | None = None,
        concentration: float = 0.5,
        engine: str = "onnxruntime",
        threads: int = 1,
    ) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p is a probability, within 0 and 1, not {p}")
        if not 0 <= strength[0] <= strength[1] <= 1:
            raise ValueError(f"strength is the lowest and the highest, within 0 and 1, not {strength}")
        if not 0 < concentration < math.inf:
            raise ValueError(f"concentration must be above 0 and finite, not {concentration}")
        self.p = p
        self.strength = strength
        self.concentration = concentration
        self.engine = engine
        self.threads = threads
        self._style = pack if isinstance(pack, Style) else engines.load_style(pack)
        self.styles = tuple(styles or self._style.mix or self._style.styles)
        Look(dict.fromkeys(self.styles, 1.0)).weights(self._style.styles)
        self._loaded: tuple[int, Engine] | None = None

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The look of this sample, None where it is left as it is; drawn from torch's generator."""
        if torch.rand(()) >= self.p:
            return {"look": None}
        low, high = self.strength
        alpha = torch.full((len(self.styles),), self.concentration, dtype=torch.float64)
        # torch's own Dirichlet is of equal weights where all of them are too small to be told from 0.
        logarithms = (
            torch.distributions.Gamma(alpha + 1, 1.0).sample().log() + torch.rand_like(alpha).log() / alpha
        )
        weights = logarithms.softmax(0)
        mix = dict(zip(self.styles, weights.tolist(), strict=True))
        return {"look": Look(mix, low + (high - low) * float(torch.rand(())))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """`inpt` painted with the look of `params`, or as it is if that is no image."""
        look = params["look"]
        # Boxes and masks are tensors, too.
        if look is None or (isinstance(inpt, tv_tensors.TVTensor) and not isinstance(inpt, IMAGES)):
            return inpt
        if isinstance(inpt, PilImage):
            if inpt.mode not in ("RGB", "L"):
                raise TypeError(f'a PIL image must be "RGB" or "L", not "{inpt.mode}"; convert it before')
            painted = self._painted(F.pil_to_tensor(inpt.convert("RGB")), look)
            return F.to_pil_image(painted).convert(inpt.mode)
        image = inpt.as_subclass(Tensor)
        if image.dtype not in (torch.uint8, torch.uint16) and not image.is_floating_point():
            raise TypeError(f"an image is uint8, uint16, or float in 0..1, not {image.dtype}")
        channels = image.shape[-3] if image.ndim >= 3 else 0
        if channels not in (1, 3):
            raise TypeError(f"an image is [..., 3 or 1, h, w], not {list(image.shape)}")
        if image.is_floating_point():
            low, high = (float(end) for end in image.aminmax())
            if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
                raise ValueError(
                    f"a float image is in 0..1, not {low:.2g}..{high:.2g}; paint it before it is normalised"
                )
            image = image.clamp(0, 1)  # in bytes, what is whiter than white would be black
        pixels = F.to_dtype(image, torch.uint8, scale=True).expand(*image.shape[:-3], 3, -1, -1)
        painted = self._painted(pixels.cpu(), look)
        if channels == 1:
            painted = F.rgb_to_grayscale(painted)
        painted = F.to_dtype(painted, image.dtype, scale=True).to(image.device)
        return tv_tensors.wrap(painted, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else painted

    def _painted(self, pixels: Tensor, look: Look) -> Tensor:
        """`pixels` uint8 [..., 3, h, w], painted."""
        height, width = pixels.shape[-2:]
        paint = stylizer(self._engine(), (width, height))
        images = pixels.reshape(-1, 3, height, width).permute(0, 2, 3, 1).contiguous().numpy()
        painted = np.stack([paint(image, look) for image in images])
        return torch.from_numpy(painted).permute(0, 3, 1, 2).reshape(pixels.shape)

    def _engine(self) -> Engine:
        """This process's engine; one from before a fork has lost its threads."""
        if self._loaded is None or self._loaded[0] != os.getpid():
            loaded = engines.load(self.engine, style=self._style, threads=self.threads)
            self._loaded = os.getpid(), loaded
        return self._loaded[1]

    def __getstate__(self) -> dict[str, Any]:
        # An engine cannot be sent to another process.
        return {**self.__dict__, "_loaded": None}
