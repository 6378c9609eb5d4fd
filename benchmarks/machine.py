"""The facts of the machine that numbers were measured on, and the file that holds both."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engines.cpu import cpu_name, instruction_sets
from engines.parity import version

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Processor, GPUs, cores, instruction sets, system and the versions that decide speed."""
    packages = ("av", "numpy", "opencv-python-headless", "openvino", "onnxruntime", "torch", "tensorrt")
    return {
        "cpu": cpu_name(),
        "gpus": nvidia(),
        "cores": os.cpu_count(),
        "instruction_sets": instruction_sets(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "versions": {package: found for package in packages if (found := version(package))},
    }


def nvidia() -> list[str]:
    """NVIDIA's GPUs here, each with its driver's version."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()


def write_results(name: str, results: Mapping[str, Any]) -> Path:
    """Write `results` with the machine's facts to `results/name.json` and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    report = {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), **results}
    path.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return path
