"""From a trained generator to a style pack, whose graphs take bytes and give bytes."""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from engines import Image, Look, Style, parity
from engines.onnxruntime import OnnxRuntimeEngine
from engines.style import Credit, refuse_what_is_there, write_pack
from training.canvas import CANVAS_LEVEL
from training.checkpoint import load_trunk, restore
from training.data import read_image
from training.generator import Generator, eased, laid
from training.layers import (
    ConvNorm,
    LinearUpsample,
    UpsampleConv,
    UpsampleToImage,
    absorbed,
    inner,
    interpolating,
)
from training.recipe import StyleRecipe, stored_recipe
from training.simplify import MARGIN
from training.stylization import generator_of

OPSET = 18

GOLDEN_SIDE = 96
"""Shorter side of the golden pair, in pixels: small in the repository, large enough for every layer."""

PREVIEW_SIDE = 480
"""Shorter side of the preview, in pixels, at most."""

BYTES = torch.arange(12).view(3, 2, 2).permute(1, 2, 0).flatten()
"""The channels of `pixel_unshuffle(2)` (colour, row, column) in the order of a picture's bytes: row, column,
colour."""


class PackGraph(nn.Module):
    """The generator under the packs' contract: uint8 NHWC in and out, its numbers inside.

    Takes `image` uint8 [n, h, w, 3], `mix` float32 [styles], `strength` float32 [1] and `origin` int64 [2],
    gives `stylized` uint8 [n, h, w, 3]; n, h and w are dynamic, h and w multiples of the generator's.

    Args:
        dtype: what it computes in.
        float32: layers that compute in float32 all the same, of `layers`.
    """

    def __init__(
        self, generator: Generator, dtype: torch.dtype = torch.float32, float32: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.generator = fold(generator)
        for name in layers(generator):
            own = torch.float32 if name in float32 else dtype
            self.generator.set_submodule(name, _In(own, self.generator.get_submodule(name)))

    def forward(self, image: Tensor, mix: Tensor, strength: Tensor, origin: Tensor) -> Tensor:
        n, height, width, _ = image.shape
        dtype = self.dtype
        mix, strength = mix.to(dtype), strength.to(dtype)
        weights, covered = (mix * eased(strength))[None], (mix * laid(strength))[None]
        # In places of the canvas, of which a block has the same number each way.
        corner = origin * (self.generator.multiple >> (CANVAS_LEVEL + 1))
        # Padded as bytes, in whose order the convolutions compute themselves. Two pixels side by side are the
        # channels of the first one, which steps down by two rows.
        edge = 2 * MARGIN if self.generator.simplify else 2
        wider = F.pad(image[None], (0, 0, edge, edge, edge, edge), mode="replicate")[0]
        pairs = wider.reshape(n, height + 2 * edge, width // 2 + edge, 6).to(dtype).permute(0, 3, 1, 2)
        seen, detail = pairs, None
        if self.generator.simplify:
            seen, detail = self.generator.simplify(pairs, covered, corner)
        levels = self.generator.levels(seen, detail, weights, covered, corner)
        added = self.generator.to_residual(levels, weights)
        # 0..255 are exact even in bfloat16, so that strength 0 gives back every byte.
        image = image.to(dtype)
        if self.generator.simplify:
            added = _rows(added + self.generator.upsample(inner(seen))) - image
        else:
            added = _rows(added)
        # Rounded here because TensorRT's cast to uint8 truncates.
        return (image + strength * added).round().clamp(0, 255).to(torch.uint8)


def _rows(blocks: Tensor) -> Tensor:
    """`blocks` [n, 12, h/2, w/2], whose first six channels are the upper row, as pixels [n, h, w, 3]."""
    n, _, height, width = blocks.shape
    rows = blocks.permute(0, 2, 3, 1).reshape(n, height, width, 2, 6).transpose(2, 3)
    return rows.reshape(n, 2 * height, 2 * width, 3)


class _In(nn.Module):
    """A layer that computes in `dtype`, whatever it is given."""

    def __init__(self, dtype: torch.dtype, layer: nn.Module) -> None:
        super().__init__()
        self.dtype = dtype
        self.layer = layer.to(dtype)

    def forward(self, *inputs: Any) -> Any:
        return self.layer(*map(self._cast, inputs))

    def _cast(self, x: Any) -> Any:
        return x.to(self.dtype) if isinstance(x, Tensor) and x.is_floating_point() else x


def layers(generator: Generator) -> list[str]:
    """Names of the layers that each have a precision of their own, first to last."""
    names = ("canvases", "encode", "blocks", "decode")
    inner = ((name, generator.get_submodule(name)) for name in names)
    numbered = (f"{name}.{index}" for name, part in inner for index in range(len(part)))
    before = ["simplify", "upsample"] if generator.simplify else []
    return [*before, "course", *numbered, "to_image"]


def export_pack(
    checkpoint: Path,
    output: Path,
    *,
    preview: Path,
    back: bool = False,
    int8: Path | None = None,
    force: bool = False,
) -> Style:
    """Write the averaged generator of `checkpoint` as a style pack to the folder `output`.

    Args:
        preview: a photograph; painted for the preview, and small for the golden pair.
        back: of a training with a cycle, the generator that paints photographs from paintings.
        int8: a folder of photographs to calibrate an int8 model on (`training.quantize`); without one, there
            is none.
        force: replace a pack that is there.

    Raises:
        StyleError: `output` is there and `force` is not given, or it is no pack, or cannot be written.
        ValueError: the checkpoint or the photograph cannot be read, there is no way back in it, or a model
            would paint another picture.
    """
    refuse_what_is_there(output, force)
    state = load_trunk(checkpoint)
    recipe = stored_recipe(state["recipe"], str(checkpoint))
    styles, title = recipe.styles, recipe.title
    if back:
        if "back_average" not in state:
            raise ValueError(
                f"{checkpoint}: trained in one direction only; a recipe with a cycle has a way back"
            )
        title = f"{recipe.title}, and back to photographs"
        styles = (StyleRecipe(recipe.name, "", title, "", 0, rights=styles[0].rights),)
    generator = generator_of(recipe, styles)
    restore(generator, state["back_average" if back else "average"], checkpoint)
    photo = read_image(preview).permute(1, 2, 0).numpy()
    names = [style.name for style in styles]
    mix, strength = Look().weights(names), np.ones(1, np.float32)
    graph = PackGraph(generator)
    small, large = (_shorter(photo, side) for side in (GOLDEN_SIDE, recipe.native_height))
    golden = io.BytesIO()
    stylized, shown = (paint(graph, image, mix) for image in (small, large))
    np.savez_compressed(golden, image=small, stylized=stylized, mix=mix, strength=strength)
    kept = layers_in_float32(generator, small, names)
    files = {"model.onnx": to_onnx(generator), "model.fp16.onnx": to_onnx(generator, torch.float16, kept)}
    models = {"float32": "model.onnx", "float16": "model.fp16.onnx"}
    made = Style(recipe.name, title, tuple(names), models, generator.multiple, carried=True, files=files)
    check_models(made, [(small, stylized), (large, shown)])
    card: dict[str, Any] = {
        "steps": state.get("step"),
        "parameters": sum(p.numel() for p in generator.parameters()),
        "float32_layers": kept,
    }
    if int8 is not None:
        from training.quantize import quantized

        files["model.int8.onnx"], convolutions, psnr = quantized(files["model.onnx"], names, int8)
        models["int8"] = "model.int8.onnx"
        card["int8_convolutions"] = convolutions
        card["int8_psnr"] = round(psnr, 1)
    shown = _shorter(shown, min(PREVIEW_SIDE, recipe.native_height))
    encoded, picture = cv2.imencode(".jpg", shown[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert encoded, "JPEG takes any 8-bit picture"
    return write_pack(
        output,
        name=recipe.name,
        title=title,
        credits=[_credit(style) for style in styles],
        files={**files, "golden.npz": golden.getvalue(), "preview.jpg": picture.tobytes()},
        models=models,
        multiple=generator.multiple,
        native_height=recipe.native_height,
        license=recipe.license,
        recipe=recipe.digest(),
        card=card,
        force=force,
    )


def check_models(style: Style, pictures: Sequence[tuple[Image, Image]]) -> None:
    """Compare what ONNX Runtime paints by each model of `style` with what the network painted.

    Args:
        pictures: photographs, each with its painting in the first style at full strength.

    Raises:
        ValueError: a model paints something else.
    """
    for precision, name in style.models.items():
        with OnnxRuntimeEngine(style, precision=precision) as engine:
            for image, expected in pictures:
                agrees, difference = parity.agreement(engine(image, Look()), expected, precision)
                if not agrees:
                    size = f"{image.shape[1]}x{image.shape[0]}"
                    raise ValueError(
                        f"{name} does not paint what the network paints ({difference} at {size}): "
                        "no pack is written; train on, or report it with the checkpoint"
                    )


def _credit(style: StyleRecipe) -> Credit:
    others = tuple(Path(path).name for path in style.reals)  # not where they lie on this machine
    return Credit(style.name, style.title, style.artist, style.year, style.rights, others)


def paint(graph: PackGraph, image: Image, mix: NDArray[np.float32]) -> Image:
    """`image` of any size, painted at full strength."""
    below, right = (-side % graph.generator.multiple for side in image.shape[:2])
    wider = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REFLECT_101)
    with torch.inference_mode():
        inputs = (wider[None], mix, np.ones(1, np.float32), np.zeros(2, np.int64))
        result = graph(*map(torch.from_numpy, inputs))[0].numpy()
    return result[: image.shape[0], : image.shape[1]]


def layers_in_float32(generator: Generator, photo: Image, styles: Sequence[str]) -> list[str]:
    """The layers that must stay in float32 for the rest to paint in float16 what the generator paints.

    The fewest at the end, or at the beginning, with which `photo` and the built-in frames of
    `engines.parity` are as close as every engine must come in 16 bits; usually none.
    """
    size = (photo.shape[1], photo.shape[0])
    trials = [(photo, Look()), *parity.trials(styles, size)]
    mixes = [look.weights(styles) for _, look in trials]

    def painted(graph: PackGraph) -> Iterator[Image]:
        for (image, _), mix in zip(trials, mixes, strict=True):
            yield paint(graph, image, mix)

    expected = list(painted(PackGraph(generator)))

    def agrees(kept: list[str]) -> bool:
        pairs = zip(painted(PackGraph(generator, torch.float16, kept)), expected, strict=True)
        return all(parity.agreement(*pair, "float16")[0] for pair in pairs)

    names = layers(generator)
    choices = (kept for n in range(len(names)) for kept in (names[len(names) - n :], names[:n]))
    return next((kept for kept in choices if agrees(kept)), names)


def _shorter(image: Image, side: int) -> Image:
    """`image` with its shorter side at `side` pixels."""
    scale = side / min(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def fold(generator: Generator) -> Generator:
    """A copy of `generator` with plain convolutions, on 0..255, its pixels in the order of their bytes.

    Where it simplifies, `simplify` takes [n, 6, h + 16, w/2 + 8], two pixels side by side as channels, and
    gives the patches [n, 3, h/2 + 4, w/2 + 4], in -0.5..0.5, and the detail that `levels` takes; `upsample`
    makes pixels.
    Else `levels` takes pairs of pixels itself, [n, 6, h + 4, w/2 + 2]. `upsample` and `to_residual` give
    [n, 12, h/2, w/2], whose first six channels are the upper row.
    """
    folded = deepcopy(generator).eval().requires_grad_(False)
    for module in list(folded.modules()):
        for name, child in module.named_children():
            if isinstance(child, UpsampleConv):
                setattr(module, name, _transposed(child))
            elif isinstance(child, ConvNorm):
                child.merge_branch()
                weight, bias = absorbed(child.norm, child.conv.weight, child.conv.bias)
                child.conv.weight.data, child.conv.bias.data = weight, bias
                child.norm = nn.Identity()
    if folded.simplify is None:
        folded.encode[0].conv = _from_pairs(folded.encode[0].conv)
    else:
        folded.simplify = _SimplifyPairs(folded.simplify)
        folded.encode[0].conv = _from_patches(folded.encode[0].conv, folded.upsample)
        folded.upsample = _to_pixels(folded.upsample)
    folded.to_image = _to_image(folded.to_image)
    return folded


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
    weight, bias = absorbed(layer.norm, interpolating(layer.weight), layer.bias, output_axis=1)
    conv = nn.ConvTranspose2d(*weight.shape[:3], stride=2, padding=3)
    conv.weight.data, conv.bias.data = weight, bias
    return _TransposedConv(conv, layer.affine)


class _SimplifyPairs(nn.Module):
    """What simplifies a picture, but of pairs of pixels, on 0..255."""

    def __init__(self, simplify: nn.Module) -> None:
        super().__init__()
        self.halve = nn.Conv2d(6, 3, (2, 1), stride=(2, 1))
        self.halve.weight.data = torch.eye(3).repeat(1, 2)[..., None, None].repeat(1, 1, 2, 1) / (4 * 255)
        nn.init.constant_(self.halve.bias, -0.5)
        self.simplify = simplify

    def forward(self, x: Tensor, weights: Tensor, corner: Tensor) -> tuple[Tensor, Tensor]:
        simplified: tuple[Tensor, Tensor] = self.simplify(self.halve(x), weights, corner)
        return simplified


def _from_patches(conv: nn.Conv2d, upsample: LinearUpsample) -> nn.Conv2d:
    """`conv` after `upsample` as one."""
    # A convolution of its weights with the others, both turned.
    weight = F.conv2d(conv.weight.data, upsample.weight.flip(2, 3).transpose(0, 1), padding=2)
    patches = nn.Conv2d(3, conv.out_channels, 5)
    patches.weight.data, patches.bias.data = weight, conv.bias.data + 0.5 * weight.sum((1, 2, 3))
    return patches


def _to_pixels(upsample: LinearUpsample) -> nn.Conv2d:
    conv = nn.Conv2d(3, 12, 3)
    conv.weight.data = upsample.weight[BYTES] * 255
    nn.init.constant_(conv.bias, 0.5 * 255)
    return conv


def _from_pairs(conv: nn.Conv2d) -> nn.Conv2d:
    """`conv` over 2x2 blocks as one over pairs of pixels that steps down by two rows; takes 0..255."""
    outputs = conv.out_channels
    weight = conv.weight.data[:, BYTES].view(outputs, 2, 6, 3, 3).permute(0, 2, 3, 1, 4)
    pairs = nn.Conv2d(6, outputs, (6, 3), stride=(2, 1))
    pairs.weight.data, pairs.bias.data = weight.reshape(outputs, 6, 6, 3) / 255, conv.bias.data
    return pairs


def _to_image(layer: UpsampleToImage) -> nn.Conv2d:
    weight, bias = layer.phase_weight() * 255, layer.bias.repeat_interleave(4) * 255
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, padding_mode="replicate")
    conv.weight.data, conv.bias.data = weight[BYTES], bias[BYTES]
    return conv


def to_onnx(generator: Generator, dtype: torch.dtype = torch.float32, float32: Sequence[str] = ()) -> bytes:
    """The ONNX model of `generator` under the packs' contract, weights inside, computing as `PackGraph`."""
    # A Ctrl-C while the exporter itself imports it would come out as a failure of the exporter.
    import torch._dynamo

    graph = PackGraph(generator, dtype, float32)
    image = torch.zeros(2, 2 * generator.multiple, 3 * generator.multiple, 3, dtype=torch.uint8)
    mix, strength, origin = torch.ones(generator.styles), torch.ones(1), torch.zeros(2, dtype=torch.int64)
    n, h, w = torch.export.Dim("n"), torch.export.Dim("h"), torch.export.Dim("w")
    buffer = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports that torchvision is not there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        program = torch.onnx.export(
            graph,
            (image, mix, strength, origin),
            input_names=["image", "mix", "strength", "origin"],
            output_names=["stylized"],
            dynamic_shapes={
                "image": {0: n, 1: generator.multiple * h, 2: generator.multiple * w},
                "mix": None,
                "strength": None,
                "origin": None,
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
