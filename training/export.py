"""From a trained generator to a style pack, whose graphs take bytes and give bytes."""

import io
import json
import logging
import warnings
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines import Image, Style
from engines.style import Credit, write_pack
from training.checkpoint import load_checkpoint
from training.data import read_image
from training.networks import ConvNorm, Generator, UpsampleConv, UpsampleToImage, interpolating
from training.recipe import build_recipe

OPSET = 18

GOLDEN_SIDE = 120
"""Shorter side of the golden pair, in pixels: small in the repository, large enough for every layer."""

BYTES = torch.arange(12).view(3, 2, 2).permute(1, 2, 0).flatten()
"""The channels of `pixel_unshuffle(2)` (colour, row, column) in the order of a picture's bytes: row, column,
colour."""


class PackGraph(nn.Module):
    """The generator under the packs' contract: uint8 NHWC in and out, its numbers inside.

    Takes `image` uint8 [n, h, w, 3], `mix` float32 [styles] and `strength` float32 [1], gives `stylized`
    uint8 [n, h, w, 3]; n, h and w are dynamic, h and w multiples of 8.
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = fold(generator)

    def forward(self, image: Tensor, mix: Tensor, strength: Tensor) -> Tensor:
        n, height, width, _ = image.shape
        dtype = self.generator.encode_half.conv.weight.dtype
        mix, strength = mix.to(dtype), strength.to(dtype)
        # Padded as bytes, and never out of channels-last: the convolutions compute in it themselves. Two
        # pixels side by side are the channels of the first one, which steps down by two rows.
        wider = F.pad(image[None], (0, 0, 2, 2, 2, 2), mode="replicate")[0]
        x = wider.reshape(n, height + 4, width // 2 + 2, 6).to(dtype).permute(0, 3, 1, 2)
        residual = self.generator.residual(x, (mix * strength)[None]).permute(0, 2, 3, 1)
        rows = torch.stack([residual[..., :6], residual[..., 6:]], 2).reshape(n, height, width, 3)
        # 0..255 are exact even in bfloat16, so that strength 0 gives back every byte.
        painted = image.to(dtype) + strength * rows
        # Rounded here because TensorRT's cast to uint8 truncates.
        return painted.round().clamp(0, 255).to(torch.uint8)


def export_pack(
    checkpoint: Path, output: Path, *, preview: Path, int8: Path | None = None, force: bool = False
) -> Style:
    """Write the averaged generator of `checkpoint` as a style pack to the folder `output`.

    Args:
        preview: a photograph; painted for the preview, and small for the golden pair.
        int8: a folder of photographs to calibrate an int8 model on; without one, there is none.
        force: replace a pack that is there.

    Raises:
        StyleError: `output` is there and `force` is not given.
        ValueError: the checkpoint or the photograph cannot be read, or int8 would be another picture.
    """
    state = load_checkpoint(checkpoint)
    recipe = build_recipe(json.loads(state["recipe"]), str(checkpoint))
    generator = Generator(len(recipe.styles), recipe.widths, recipe.blocks)
    generator.load_state_dict(state["average"])
    photo = read_image(preview).permute(1, 2, 0).numpy()
    mix, strength = np.eye(len(recipe.styles), dtype=np.float32)[0], np.ones(1, np.float32)
    graph = PackGraph(generator)

    def painted(image: Image) -> Image:
        below, right = (-side % Generator.MULTIPLE for side in image.shape[:2])
        wider = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REFLECT_101)
        with torch.inference_mode():
            result = graph(*map(torch.from_numpy, (wider[None], mix, strength)))[0].numpy()
        return result[: image.shape[0], : image.shape[1]]

    small, large = (_shorter(photo, side) for side in (GOLDEN_SIDE, recipe.native_height))
    golden = io.BytesIO()
    np.savez_compressed(golden, image=small, stylized=painted(small), mix=mix, strength=strength)
    card = {"steps": state["step"], "parameters": sum(p.numel() for p in generator.parameters())}
    files = {"model.onnx": to_onnx(generator), "model.fp16.onnx": to_onnx(generator, torch.float16)}
    models = {"float32": "model.onnx", "float16": "model.fp16.onnx"}
    if int8 is not None:
        from training.quantize import quantized

        files["model.int8.onnx"], psnr = quantized(files["model.onnx"], len(recipe.styles), int8)
        models["int8"] = "model.int8.onnx"
        card["int8_psnr"] = round(psnr, 1)
    encoded, picture = cv2.imencode(".jpg", painted(large)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert encoded, "JPEG takes any 8-bit picture"
    return write_pack(
        output,
        name=recipe.name,
        title=recipe.title,
        credits=[Credit(s.name, s.title, s.artist, s.year, s.rights) for s in recipe.styles],
        files={**files, "golden.npz": golden.getvalue(), "preview.jpg": picture.tobytes()},
        models=models,
        multiple=Generator.MULTIPLE,
        native_height=recipe.native_height,
        license=recipe.license,
        capabilities={"mix": len(recipe.styles) > 1, "strength": True},
        recipe=recipe.digest(),
        card=card,
        force=force,
    )


def _shorter(image: Image, side: int) -> Image:
    """`image` with its shorter side at `side` pixels."""
    scale = side / min(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def fold(generator: Generator) -> Generator:
    """A copy of `generator` with plain convolutions, on 0..255, its pixels in the order of their bytes.

    Its `residual` takes [n, 6, h + 4, w/2 + 2], two pixels side by side as channels, and gives
    [n, 12, h/2, w/2], whose first six channels are the upper row.
    """
    folded = deepcopy(generator).eval().requires_grad_(False)
    for module in list(folded.modules()):
        for name, child in module.named_children():
            if isinstance(child, UpsampleConv):
                setattr(module, name, _transposed(child))
            elif isinstance(child, ConvNorm):
                weight, bias = _absorb(child.norm, child.conv.weight, child.conv.bias, output_axis=0)
                child.conv.weight.data, child.conv.bias.data = weight, bias
                child.norm = nn.Identity()
    folded.encode_half.conv = _from_rows(folded.encode_half.conv)
    folded.to_image = _to_image(folded.to_image)
    return folded


def _absorb(norm: nn.Module, weight: Tensor, bias: Tensor, output_axis: int) -> tuple[Tensor, Tensor]:
    assert isinstance(norm, nn.BatchNorm2d)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shape = [1, 1, 1, 1]
    shape[output_axis] = -1
    return weight * scale.view(shape), (bias - norm.running_mean) * scale + norm.bias


class _TransposedConv(nn.Module):
    """What an `UpsampleConv` becomes: a transposed convolution and its conditional affine."""

    def __init__(self, conv: nn.ConvTranspose2d, affine: nn.Module | None) -> None:
        super().__init__()
        self.conv = conv
        self.affine = affine

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        x = self.conv(F.pad(x, (1,) * 4, mode="replicate"))
        return x if self.affine is None else self.affine(x, weights)


def _transposed(layer: UpsampleConv) -> _TransposedConv:
    weight, bias = _absorb(layer.norm, interpolating(layer.weight), layer.bias, output_axis=1)
    conv = nn.ConvTranspose2d(*weight.shape[:3], stride=2, padding=3)
    conv.weight.data, conv.bias.data = weight, bias
    return _TransposedConv(conv, layer.affine)


def _from_rows(conv: nn.Conv2d) -> nn.Conv2d:
    """`conv` over 2x2 blocks as one over pairs of pixels that steps down by two rows; takes 0..255."""
    outputs = conv.out_channels
    weight = conv.weight.data[:, BYTES].view(outputs, 2, 6, 3, 3).permute(0, 2, 3, 1, 4)
    rows = nn.Conv2d(6, outputs, (6, 3), stride=(2, 1))
    rows.weight.data, rows.bias.data = weight.reshape(outputs, 6, 6, 3) / 255, conv.bias.data
    return rows


def _to_image(layer: UpsampleToImage) -> nn.Conv2d:
    weight, bias = layer.phase_weight() * 255, layer.bias.repeat_interleave(4) * 255
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, padding_mode="replicate")
    conv.weight.data, conv.bias.data = weight[BYTES], bias[BYTES]
    return conv


def to_onnx(generator: Generator, dtype: torch.dtype = torch.float32) -> bytes:
    """The ONNX model of `generator` under the packs' contract, computing in `dtype`, weights inside."""
    graph = PackGraph(generator).to(dtype)
    image = torch.zeros(2, 32, 48, 3, dtype=torch.uint8)
    mix, strength = torch.ones(generator.styles), torch.ones(1)
    n, h, w = torch.export.Dim("n"), torch.export.Dim("h"), torch.export.Dim("w")
    buffer = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports that torchvision is not there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        program = torch.onnx.export(
            graph,
            (image, mix, strength),
            input_names=["image", "mix", "strength"],
            output_names=["stylized"],
            dynamic_shapes={
                "image": {0: n, 1: Generator.MULTIPLE * h, 2: Generator.MULTIPLE * w},
                "mix": None,
                "strength": None,
            },
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        # The exporter notes the stack trace of every node: paths of this machine, in no fixed order.
        for noted in (program.model.graph, *program.model.graph.all_nodes()):
            noted.metadata_props.clear()
        program.save(buffer, external_data=False)
    return buffer.getvalue()
