"""int8: a style's graph with quantised convolutions, calibrated on photographs."""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnxruntime import InferenceSession
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from engines import Image
from engines.parity import LOWEST_INT8_PSNR
from training.data import image_files, read_image

PHOTOS = 24
"""How many photographs are looked at; every third judges the result, the others calibrate."""

SIDE = 256
"""Shorter side in pixels that they are looked at."""

MULTIPLE = 32
"""Pixels that the sides of a photograph are multiples of: enough for generators of five levels."""

CONVOLUTIONS = ("Conv", "ConvTranspose")

Feed = dict[str, np.ndarray]


def quantized(model: bytes, styles: int, photos: Path) -> tuple[bytes, float]:
    """`model` with int8 convolutions, and the lowest PSNR (dB) to `model` over photographs of `photos`.

    Explicit and symmetric, weights by channel, as TensorRT wants it (NVIDIA, Working with Quantized Types).
    The first and the last convolution stay as they are: they see the bytes and make them.

    Raises:
        ValueError: there are too few photographs, or the result is too far from `model`.
    """
    paths = image_files([photos])
    if len(paths) < 3:
        raise ValueError(f"{photos}: {len(paths)} photographs are too few to calibrate int8; give 3 or more")
    paths = paths[:: max(1, len(paths) // PHOTOS)][:PHOTOS]
    feeds = [_feed(path, index % styles, styles) for index, path in enumerate(paths)]
    judging = feeds[::3]
    proto = onnx.load_model_from_string(model)
    convolutions = [node.name for node in proto.graph.node if node.op_type in CONVOLUTIONS]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "model.onnx"
        logging.disable(logging.WARNING)  # it advises steps that this graph does not need
        try:
            quantize_static(
                proto,
                output,
                _Feeds([feed for index, feed in enumerate(feeds) if index % 3]),
                op_types_to_quantize=list(CONVOLUTIONS),
                nodes_to_exclude=[convolutions[0], convolutions[-1]],
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
        content = output.read_bytes()
    pairs = zip(_painted(content, judging), _painted(model, judging), strict=True)
    psnr = min(cv2.PSNR(one, other) for one, other in pairs)
    if psnr < LOWEST_INT8_PSNR:
        raise ValueError(
            f"int8 paints something else than float32: PSNR {psnr:.1f} dB, and {LOWEST_INT8_PSNR:.0f} are "
            f"needed; export without --int8, or calibrate on photographs more like what will be painted"
        )
    return content, psnr


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next inputs, None at the end."""
        return next(self._left, None)


def _feed(path: Path, style: int, styles: int) -> Feed:
    photo = read_image(path).permute(1, 2, 0).numpy()
    scale = SIDE / min(photo.shape[:2])
    height, width = (max(1, round(side * scale) // MULTIPLE) * MULTIPLE for side in photo.shape[:2])
    image = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    mix = np.eye(styles, dtype=np.float32)[style]
    return {"image": image[None], "mix": mix, "strength": np.ones(1, np.float32)}


def _painted(model: bytes, feeds: Sequence[Feed]) -> list[Image]:
    session = InferenceSession(model, providers=["CPUExecutionProvider"])
    return [session.run(["stylized"], feed)[0] for feed in feeds]
