"""int8: a style's graph with quantised convolutions, calibrated on photographs."""

import logging
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnxruntime import InferenceSession
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from engines import Image, Look, parity
from training.data import image_files, readable

PHOTOS = 24
"""How many photographs are looked at; every third judges the result, the others calibrate."""

SIDE = 256
"""Shorter side in pixels that they are looked at."""

MULTIPLE = 32
"""Pixels that the sides of a picture are multiples of: enough for generators of five levels."""

CONVOLUTIONS = {"Conv": 0, "ConvTranspose": 1}
"""And the axis of its weights that each has its outputs along."""

FEWEST = 16
"""Channels that a convolution has to make for int8 to be of use: what is bound by memory gains nothing."""

LOWEST = parity.LOWEST_PSNR + 3
"""dB to the float32 model: more than every engine must reach, for other frames, and 16 bits in the rest."""

Feed = dict[str, np.ndarray]


def quantized(model: bytes, styles: Sequence[str], photos: Path) -> tuple[bytes, list[str], float]:
    """`model` with as many int8 convolutions as paint what it paints, what they are, and the lowest PSNR.

    That is over photographs of `photos` and the built-in frames of `engines.parity`, and at least `LOWEST`.
    The convolutions are found by how much each alone would change, which differs by a factor of a hundred:
    where strokes are begun and where they become pixels, eight bits are a tremble; between, nothing is seen.

    Explicit and symmetric, weights by channel, as TensorRT wants it (NVIDIA, Working with Quantized Types).
    Those of fewer than `FEWEST` channels stay as they are, so that what sees the bytes and makes them does.

    Args:
        styles: names, in the order of the graph's `mix`.

    Raises:
        ValueError: there are too few photographs, or no convolution can be in int8.
    """
    paths = image_files([photos])
    paths = paths[:: max(1, len(paths) // PHOTOS)][:PHOTOS]
    feeds = [
        # One in three judges: each style calibrates and judges in turn.
        _feed(image.permute(1, 2, 0).numpy(), Look({styles[index // 3 % len(styles)]: 1.0}), styles)
        for index, (_, image) in enumerate(readable(paths))
    ]
    if len(feeds) < 3:
        raise ValueError(f"{photos}: {len(feeds)} photographs are too few to calibrate int8; give 3 or more")
    calibrating = [feed for index, feed in enumerate(feeds) if index % 3]
    judging = feeds[::3] + [_feed(*trial, styles) for trial in parity.trials(styles, (SIDE, SIDE))]
    expected = _painted(model, judging)
    graph = onnx.load_model_from_string(model).graph
    shapes = {each.name: each.dims for each in graph.initializer}
    outputs = {
        node.name: shapes[node.input[1]][CONVOLUTIONS[node.op_type]]
        for node in graph.node
        if node.op_type in CONVOLUTIONS
    }

    def judged(chosen: Collection[str]) -> tuple[bytes, float]:
        content = _with_int8(model, [name for name in outputs if name not in chosen], calibrating)
        pairs = zip(_painted(content, judging), expected, strict=True)
        return content, min(cv2.PSNR(one, other) for one, other in pairs)

    alone = {name: judged([name])[1] for name in outputs if outputs[name] >= FEWEST}
    chosen = sorted(alone, key=alone.__getitem__, reverse=True)
    while chosen:
        content, psnr = judged(chosen)
        if psnr >= LOWEST:
            return content, [name for name in outputs if name in chosen], psnr
        chosen.pop()
    raise ValueError(
        f"int8 paints something else than float32: PSNR {max(alone.values(), default=0):.1f} dB with it in a "
        f"single layer, and {LOWEST:.0f} are needed; export without --int8, or calibrate on "
        f"photographs more like what will be painted"
    )


def _with_int8(model: bytes, kept: list[str], feeds: Sequence[Feed]) -> bytes:
    """`model` with all convolutions but `kept` in int8, for activations as large as `feeds` make them."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "model.onnx"
        logging.disable(logging.WARNING)  # it advises steps that this graph does not need
        try:
            quantize_static(
                onnx.load_model_from_string(model),
                output,
                _Feeds(feeds),
                op_types_to_quantize=list(CONVOLUTIONS),
                nodes_to_exclude=kept,
                per_channel=True,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                    "OpTypesToExcludeOutputQuantization": list(CONVOLUTIONS),
                },
            )
        finally:
            logging.disable(logging.NOTSET)
        return output.read_bytes()


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next inputs, None at the end."""
        return next(self._left, None)


def _feed(image: Image, look: Look, styles: Sequence[str]) -> Feed:
    scale = SIDE / min(image.shape[:2])
    height, width = (max(1, round(side * scale) // MULTIPLE) * MULTIPLE for side in image.shape[:2])
    return {
        "image": cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)[None],
        "mix": look.weights(styles),
        "strength": np.array([look.strength], np.float32),
        "origin": np.zeros(2, np.int64),
    }


def _painted(model: bytes, feeds: Sequence[Feed]) -> list[Image]:
    session = InferenceSession(model, providers=["CPUExecutionProvider"])
    return [session.run(["stylized"], feed)[0] for feed in feeds]
