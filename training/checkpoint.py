"""Checkpoints: written whole or not at all, and read without running code from the file."""

import io
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from engines.atomic_write import atomic_write


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, texts and containers of them).

    Raises:
        OSError: it cannot be written; the checkpoint that was there before still is.
    """
    # Not by torch itself, which says nothing of a full disk but that an assertion failed.
    content = io.BytesIO()
    torch.save(state, content)
    atomic_write(path, content.getbuffer())


def restore(part: Any, state: Any, path: Path) -> None:
    """Give `part`, a network or an optimiser, the state that it had in the checkpoint `path`.

    Raises:
        ValueError: it is of another shape, as those of earlier versions are, or empty: not in there.
    """
    try:
        part.load_state_dict(state)
    except (RuntimeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: its networks are of another shape, or of an earlier fauve; train anew, with --from if "
            "its recipe is of the same widths"
        ) from error


def save_trunk(path: Path, state: dict[str, Any]) -> None:
    """Write the averaged generator of a checkpoint alone, with its recipe: small enough to give away.

    Raises:
        OSError: it cannot be written.
    """
    weights = {name: value.contiguous() for name, value in state["average"].items()}
    atomic_write(path, save(weights, {"recipe": state["recipe"]}))


def load_trunk(path: Path) -> dict[str, Any]:
    """The averaged generator ("average") and the recipe of a checkpoint or of what `save_trunk` wrote.

    Raises:
        ValueError: the file is missing or is neither.
    """
    if path.suffix != ".safetensors":
        return load_checkpoint(path)
    try:
        with safe_open(path, "pt") as file:
            recipe = (file.metadata() or {}).get("recipe")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if recipe is None:
        raise ValueError(f"{path}: not the trunk of a training: there is no recipe in it")
    return {"average": weights, "recipe": recipe}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        ValueError: the file is missing or is no checkpoint.
    """
    try:
        content = io.BytesIO(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such checkpoint") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        # Not from the file itself: of one whose end is missing, torch says what the system calls an error.
        state = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own, of many kinds and lines, with advice that is not for here
        raise ValueError(f"{path}: not a checkpoint of fauve, or a broken one") from error
    if not isinstance(state, dict) or not {"generator", "average", "recipe"} <= state.keys():
        raise ValueError(f"{path}: not a checkpoint of a training: no generator or no recipe is in it")
    return state
