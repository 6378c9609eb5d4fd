"""The device that a training runs on, and what lets CUDA work on while Python asks it for more."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}


def autocast_of(choice: str, device: torch.device) -> torch.dtype | None:
    """What convolutions compute in on `device` by a recipe's `autocast`, None for float32.

    A processor without instructions for bfloat16 takes ten times as long in it.
    """
    if choice != "auto":
        return AUTOCAST[choice]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else None


def device_of(choice: str) -> torch.device:
    """The device of "cpu", "cuda", or "auto" for CUDA where there is one.

    Raises:
        ValueError: CUDA is asked for and not there.
    """
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    if choice == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: torch finds no CUDA here; take cpu")
    return torch.device(choice)


@cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """`values` on `device`, copied there once: each copy waits for all that the device was asked before."""
    # One made in inference mode could never be trained through.
    with torch.inference_mode(False):
        return torch.tensor(values).to(device)


@contextmanager
def tried_convolutions(device: torch.device) -> Iterator[None]:
    """Within, cuDNN tries its convolutions on each new shape and keeps the fastest: for shapes that recur.

    Matrix products stay in full float32, as Gram matrices need it.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
