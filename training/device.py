"""What lets a CUDA device work on while Python asks it for more."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor


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
