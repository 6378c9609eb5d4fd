"""The shape of the house: who may import whom."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("engines", "pipeline", "training", "benchmarks")

MAY_IMPORT = {
    "engines": {"engines"},
    "pipeline": {"engines", "pipeline"},
    "training": {"engines", "pipeline", "training"},
    "benchmarks": {"engines", "pipeline", "training", "benchmarks"},
}

ONLY_IN = {
    "av": (
        "pipeline/sources",
        "pipeline/sinks",
        "pipeline/colour.py",
        "pipeline/gpu_video.py",
        "pipeline/hdr.py",
        "pipeline/orientation.py",
        "pipeline/nv12.py",
        "pipeline/verify.py",
        "pipeline/commands/doctor.py",
        "pipeline/commands/devices.py",
        "training/data.py",
        "benchmarks",
    ),
    "torch": (
        "training",
        "engines/torch.py",
        "engines/onnx_operators.py",
        "engines/onnx_to_torch.py",
        "engines/convolution.py",
        "pipeline/gpu_video.py",
        "pipeline/nv12.py",
        "benchmarks",
    ),
    "triton": ("engines/convolution.py",),
    "tensorrt": ("engines/tensorrt.py",),
    "pycuda": ("engines/tensorrt.py",),
    "cuda": ("engines/tensorrt.py",),
    "ray": ("pipeline/farm.py",),
    "openvino": ("engines/openvino.py", "benchmarks"),
    "onnxruntime": ("engines/onnxruntime.py", "training/quantize.py", "benchmarks"),
}
"""Which files may import a third-party library that is heavy or hard to have."""


def modules():
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    name = path.relative_to(ROOT).as_posix()
    package = name.partition("/")[0]
    for module in imported(path):
        if module in MAY_IMPORT or module == "tests":
            assert module in MAY_IMPORT[package], f"{name} imports {module}"
        if module in ONLY_IN:
            assert name.startswith(ONLY_IN[module]), f"{name} imports {module}"


def test_packages_whose_types_are_checked_tell_so():
    checked = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mypy"]["packages"]
    assert checked == [package for package in PACKAGES if (ROOT / package / "py.typed").exists()]
