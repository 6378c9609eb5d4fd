"""The training loop: steps, checkpoints, logs and sheets."""

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from engines.atomic_write import atomic_write
from training.checkpoint import load_checkpoint, restore, save_checkpoint
from training.cycle import training_of
from training.data import TORCHVISION, clip_frames, held_out_first, resize_shorter, write_png
from training.device import device_of, tried_convolutions
from training.distributed import any_of_all, processes, rank, world
from training.prefetch import batches, workers_for
from training.recipe import Recipe
from training.stylization import Material, StyleTraining, paint

Progress = Callable[[int, dict[str, float]], None]


def train(
    recipe: Recipe,
    material: Material,
    *,
    run: Path,
    resume: bool = False,
    start_from: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train the generator of `recipe` and return its last checkpoint.

    Under torchrun, every process trains on its share of each batch and the first one writes.

    Args:
        material: what it learns from.
        run: folder for the checkpoint, the log (`losses.jsonl`, and TensorBoard's) and the sheets; made if
            missing.
        resume: go on from the checkpoint in `run`.
        start_from: a checkpoint whose trunk, and styles of the same names, a new training begins with.
        device: "cpu", "cuda", or "auto" for CUDA where there is one.
        workers: processes that draw batches ahead; as many as the device makes use of if not given.
        progress: called after each step with its number (from 1) and the losses.

    Raises:
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after a checkpoint.
        OSError: something cannot be written; the checkpoint that was there before still is.
        ValueError: a path holds nothing usable, or the checkpoint belongs to another recipe, or another
            training runs in `run`.
        FloatingPointError: a loss or a weight is no longer finite; the checkpoint is one of before.
    """
    where = device_of(device)
    with processes(where):
        if recipe.batch % world():
            raise ValueError(f"a batch of {recipe.batch} cannot be shared by {world()} processes")
        if where.type == "cuda" and world() > 1:
            torch.cuda.set_device(rank() % torch.cuda.device_count())
        drawing = workers_for(where) if workers is None else workers
        try:
            return _train(recipe, material, run, resume, start_from, where, drawing, progress)
        except OSError as error:
            # A write that fails, as to a full disk, does not say to which file.
            error.filename = error.filename or str(run)
            raise


def _train(
    recipe: Recipe,
    material: Material,
    run: Path,
    resume: bool,
    start_from: Path | None,
    device: torch.device,
    workers: int,
    progress: Progress | None,
) -> Path:
    checkpoint = run / "checkpoint.pt"
    if checkpoint.exists() and not resume:
        raise ValueError(
            f"{checkpoint} is there already: --resume goes on with it, another -o starts a new one"
        )
    torch.manual_seed(recipe.seed)
    training = training_of(recipe, material, device)
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{run}: cannot be written: {error.strerror}; give another -o") from error
    done = 0
    if resume:
        state = load_checkpoint(checkpoint)
        if state.get("digest") != recipe.digest():
            raise ValueError(
                f"{checkpoint} was trained with another recipe, or other options; undo the change or give "
                "another -o"
            )
        for name, part in training.parts.items():
            # Where nothing was scaled, as on a device of another precision, the scaler has no state.
            if name != "scaler" or state.get(name):
                restore(part, state.get(name, {}), checkpoint)
        done = state["step"]
    elif start_from is not None:
        training.start_from(start_from)

    def save(step: int) -> None:
        state = {name: part.state_dict() for name, part in training.parts.items()}
        # A loss tells of the weights of the step before; broken ones must not replace the last that paint.
        for name, part in training.parts.items():
            if isinstance(part, torch.nn.Module) and not all(
                x.isfinite().all() for x in state[name].values()
            ):
                raise FloatingPointError(
                    f"step {step}: the {name} is no longer finite; a lower learning_rate may help"
                )
        save_checkpoint(
            checkpoint,
            {**state, "step": step, "digest": recipe.digest(), "recipe": json.dumps(recipe.changed())},
        )

    multiple = training.generator.multiple
    photos = sheet_pictures(material.photos, 6, multiple)
    clips = clip_frames(material.clips, max(recipe.photo_size, multiple), 4) if material.clips else []
    writes = rank() == 0
    with (
        _alone_in(run) if writes else nullcontext(),
        deferred_interrupt() as interrupted,
        closing(batches(training, done + 1, recipe.steps, workers)) as drawn,
        _log(run if writes else None, done) as log,
    ):
        for step in range(done + 1, recipe.steps + 1):
            began = time.perf_counter()
            batch = next(drawn)
            with tried_convolutions(device):
                numbers = training.step(step, batch)
            stop = any_of_all(interrupted.is_set())
            if writes:
                log(step, time.perf_counter() - began, numbers)
                if progress:
                    progress(step, numbers)
                    # Of several processes none may stop alone.
                    stop = stop or (world() == 1 and interrupted.is_set())
                if step % recipe.checkpoint_every == 0 or step == recipe.steps or stop:
                    save(step)
                if step % recipe.sheet_every == 0 or step == recipe.steps:
                    write_png(run / f"sheet-{step:05d}.png", training.sheet(photos))
                    if clips:
                        write_png(run / f"clip-{step:05d}.png", clip_sheet(training, clips))
            if stop and step < recipe.steps:
                raise KeyboardInterrupt(f"stopped after step {step} of {recipe.steps}")
    return checkpoint


@contextmanager
def _alone_in(run: Path) -> Iterator[None]:
    """Keep the folder of a training from others, each of which would write over what the other has learned.

    Raises:
        ValueError: another training runs in it.
    """
    lock = FileLock(run / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"{run}: another training runs in it; wait for its end, or give another -o"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _log(run: Path | None, done: int) -> Iterator[Callable[[int, float, dict[str, float]], None]]:
    """What writes the losses of a step to the log file and to TensorBoard; nothing without a folder."""
    if run is None:
        yield lambda step, seconds, numbers: None
        return
    from torch.utils.tensorboard import SummaryWriter  # a second to import

    def log(step: int, seconds: float, numbers: dict[str, float]) -> None:
        file.write(json.dumps({"step": step, "seconds": round(seconds, 3), **numbers}) + "\n")
        for name, value in numbers.items():
            board.add_scalar(f"loss/{name}", value, step)

    path = run / "losses.jsonl"
    before = path.read_bytes().splitlines(keepends=True) if done and path.exists() else []
    # A training that was killed had gone on after its checkpoint, perhaps to the middle of a line.
    try:
        kept = [line for line in before if line.endswith(b"\n") and json.loads(line)["step"] <= done]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: damaged; move it away to go on with an empty one") from error
    atomic_write(path, b"".join(kept))
    curves = run / "tensorboard"
    if not done and curves.exists():
        shutil.rmtree(curves)
    board: Any = SummaryWriter(str(curves), purge_step=done + 1 if done else None)
    try:
        with path.open("a", buffering=1) as file:
            yield log
    finally:
        board.close()


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into an event, to stop the loop between two steps and never within one."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    stops = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(stop, lambda number, frame: interrupted.set()) for stop in stops]
    try:
        yield interrupted
    finally:
        for stop, handler in zip(stops, previous, strict=True):
            signal.signal(stop, handler)


def sheet_pictures(photos: Path | str, n: int, multiple: int) -> list[Tensor]:
    """`n` photographs for the sheets, uint8 [3, h, w], held-out ones first.

    They are cut or padded to one size, a multiple of `multiple`: 288x384 or more, and of a dataset its own.
    """
    pictures = held_out_first(photos, n)
    sides = (288, 384)
    if str(photos).startswith(TORCHVISION):
        sides = (min(pictures[0].shape[-2:]),) * 2
    height, width = (-(-side // multiple) * multiple for side in sides)
    cut = [resize_shorter(picture, height)[:, :height, :width] for picture in pictures]
    return [torch.nn.functional.pad(picture, (0, width - picture.shape[2])) for picture in cut]


def clip_sheet(training: StyleTraining, pairs: list[tuple[Tensor, Tensor]]) -> np.ndarray:
    """A sheet uint8 RGB of consecutive frames: a row for each pair, in the first style at full strength.

    The two frames, the two paintings, and by how much these differ, four times as strong around grey.
    """
    rows = []
    multiple = training.generator.multiple
    for pair in pairs:
        height, width = (side // multiple * multiple for side in pair[0].shape[-2:])
        frames = [frame[:, :height, :width] for frame in pair]
        painted = [paint(training.average, frame, 0) for frame in frames]
        difference = (painted[1].int() - painted[0].int()) * 4 + 128
        rows.append(torch.cat([*frames, *painted, difference.clamp(0, 255).byte()], 2))
    widest = max(row.shape[2] for row in rows)
    padded = [torch.nn.functional.pad(row, (0, widest - row.shape[2])) for row in rows]
    return torch.cat(padded, 1).permute(1, 2, 0).numpy()
