"""Checkpoints: written whole or not at all, and read without running code from the file."""

import os
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, texts and containers of them) under a temporary name and rename it."""
    temporary = path.with_name(path.name + ".part")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        ValueError: the file is missing or is no checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such checkpoint") from error
    except Exception as error:  # torch raises RuntimeError, EOFError and UnpicklingError for a broken file
        raise ValueError(f"{path}: not a checkpoint: {error}") from error
    if not isinstance(state, dict) or "generator" not in state:
        raise ValueError(f"{path}: not a checkpoint of a generator")
    return state
