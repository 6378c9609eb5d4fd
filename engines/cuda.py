"""What NVIDIA's driver says of this machine, and what those who use its GPU share; needs no heavy library."""

import ctypes
import sys
import threading
from functools import cache

DRIVER = {"win32": "nvcuda.dll"}.get(sys.platform, "libcuda.so.1")

CAPTURING = threading.Lock()
"""Held while a CUDA graph is captured, and by who waits for the whole device, which nobody may while a stream
of the context is captured: PyTorch does before it captures, and its compiler when it measures kernels."""


@cache
def gpus() -> int:
    """How many NVIDIA GPUs the driver finds; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
