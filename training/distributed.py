"""Several processes that train one generator, each with its share of every batch (`torchrun`).

Every process draws the same batch from the same seed and keeps its own share of it, batch normalisation and
gradients are means over all of them: so many processes give the gradients that one would.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started; alone, nothing happens."""
    if "RANK" not in os.environ or distributed.is_initialized():
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Which of the processes this is; the first one writes what is to be written."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def share(batch: Tensor) -> Tensor:
    """This process's share of a batch that all of them drew."""
    return batch[rank() :: world()]


def of_all(mine: Tensor) -> Tensor:
    """The batch of which `mine` is this process's share."""
    if world() == 1:
        return mine
    mine = mine.contiguous()
    shares = [torch.empty_like(mine) for _ in range(world())]
    distributed.all_gather(shares, mine)
    return torch.stack(shares, 1).flatten(0, 1)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their means over all processes."""
    if world() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients]) / world()
    distributed.all_reduce(together)
    parts = together.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def any_of_all(value: bool) -> bool:
    """Whether it is true in one of the processes: what all of them must do together."""
    if world() == 1:
        return value
    flag = torch.tensor(float(value), device="cuda" if distributed.get_backend() == "nccl" else "cpu")
    distributed.all_reduce(flag, distributed.ReduceOp.MAX)
    return bool(flag)
