"""What the CPU is called and what it can do."""

import os
import platform
from pathlib import Path

INSTRUCTION_SETS = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "asimd")
"""The ones that decide how fast a network runs, best first, as /proc/cpuinfo spells them."""


def cpu_name() -> str:
    """The CPU's marketing name, or the machine's architecture where the system does not tell."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """How many CPU cores this process may use, which on a shared machine are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def instruction_sets() -> list[str]:
    """Which of `INSTRUCTION_SETS` this CPU has; empty where the system does not tell."""
    for line in _cpuinfo():
        if line.startswith(("flags", "Features")):
            flags = set(line.partition(":")[2].split())
            return [name for name in INSTRUCTION_SETS if name in flags]
    return []


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return []
