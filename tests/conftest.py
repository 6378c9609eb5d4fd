"""Tests marked `gpu` are skipped without an NVIDIA GPU, and fail there when FAUVE_FAIL_WITHOUT_GPU=1."""

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

# What the tests remember is theirs alone; the processes that they start are given it, too.
_kept = tempfile.TemporaryDirectory(prefix="fauve-tests-")
os.environ["XDG_CACHE_HOME"] = f"{_kept.name}/cache"
os.environ["XDG_CONFIG_HOME"] = f"{_kept.name}/config"


LONG = {"cli", "export", "farm", "hdr", "live", "obs", "panel", "parts", "rtmp", "webrtc"}
"""The files whose tests take longest: begun first, so that none is waited for at the end."""


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """What a command that runs in this process does to the log, such as saying a warning once, ends with the
    test."""
    log = logging.getLogger("fauve")
    filters, handlers, level = [*log.filters], [*log.handlers], log.level
    yield
    log.filters[:], log.handlers[:] = filters, handlers
    log.setLevel(level)


@pytest.fixture
def seeded() -> None:
    """The test draws the same random numbers from torch in every run."""
    import torch  # not in all of the processes that read this file

    torch.manual_seed(0)


def gpu() -> bool:
    """Whether the driver lists an NVIDIA GPU."""
    if shutil.which("nvidia-smi") is None:
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return "GPU 0" in listed.stdout


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked or gpu():
        return
    if os.environ.get("FAUVE_FAIL_WITHOUT_GPU") == "1":
        pytest.exit("FAUVE_FAIL_WITHOUT_GPU=1, and nvidia-smi lists no GPU here", returncode=1)
    for item in marked:
        item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU here"))
