"""Batches drawn ahead by processes of their own, so that a GPU need not wait for the CPU to draw them."""

import logging
import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from training.batch import Batch
from training.distributed import world
from training.stylization import StyleTraining

log = logging.getLogger("fauve")

MOST_WORKERS = 8
"""More draw faster than any GPU paints."""

SHARED_MEMORY = Path("/dev/shm")

AHEAD = 2
"""Batches that each worker has ready."""


def workers_for(device: torch.device) -> int:
    """How many processes draw batches for `device`: none for the CPU, which has enough to do."""
    if device.type == "cpu" or not hasattr(os, "fork"):
        return 0
    return max(0, min(MOST_WORKERS, ((os.cpu_count() or 1) - 2) // world()))


def batches(training: StyleTraining, first: int, last: int, workers: int) -> Generator[Batch, None, None]:
    """The batches of the steps `first` to `last`, the same whoever draws them.

    Args:
        workers: processes that draw them ahead; 0 draws each when it is asked for.
    """
    if workers and first <= last:
        workers = _with_room(training.batch(first), workers)
    if not workers:
        yield from map(training.batch, range(first, last + 1))
        return
    yield from DataLoader(
        _Drawn(training),
        batch_size=None,
        sampler=range(first, last + 1),
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_apart,
        pin_memory=training.device.type == "cuda",
        # Forked, they share the pictures in memory.
        multiprocessing_context="fork",
        prefetch_factor=AHEAD,
        # Its seed is of no use here; of torch's own generator, it would change what is drawn from that.
        generator=torch.Generator(),
    )


class _Drawn(Dataset[Batch]):
    def __init__(self, training: StyleTraining) -> None:
        self.training = training

    def __getitem__(self, step: int) -> Batch:
        return self.training.batch(step)


def _as_it_is(batch: Any) -> Any:
    return batch


def _apart(worker: int) -> None:
    """Leave the process group: what stops it, as Ctrl-C or torchrun's SIGTERM, is for the training, which
    draws what it needs until its checkpoint, and then ends its workers."""
    os.setpgrp()


def _with_room(batch: Batch, workers: int) -> int:
    """How many of `workers` can hand over their batches by shared memory, of which containers have little."""
    if not SHARED_MEMORY.exists():
        return workers
    # The one that is being drawn or read besides; and every process of the training has its workers.
    each = (AHEAD + 1) * batch.nbytes() * world()
    fit = min(workers, shutil.disk_usage(SHARED_MEMORY).free // each)
    if fit < workers:
        log.warning("%s has room for the batches of %d of %d workers", SHARED_MEMORY, fit, workers)
    return fit
