"""What NVIDIA's driver says of this machine, asked without any of the heavy libraries."""

import ctypes
import sys
from functools import cache

DRIVER = {"win32": "nvcuda.dll"}.get(sys.platform, "libcuda.so.1")


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
