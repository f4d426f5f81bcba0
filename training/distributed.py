"""Where this process stands among those that train together. Imports torch alone.

Start several with `torchrun --nproc-per-node=N -m training.cli train ...`; without torchrun there
is one process and nothing here does anything.
"""

import gc
import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from model.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Rank:
    """One process of `size`; rank 0 writes and reports."""

    index: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes checkpoints and reports."""
        return self.index == 0

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def agree(self, decision: bool) -> bool:
        """Rank 0's decision, known to all."""
        if self.size == 1:
            return decision
        flag = torch.tensor([int(decision)], device=self.device)
        distributed.broadcast(flag, 0)
        return bool(flag.item())

    def close(self) -> None:
        """Leave the process group; call it last, when nothing needs the models any more.

        DDP lies in reference cycles that keep the group alive after it was destroyed, and a group
        that is still alive when the interpreter ends aborts the process (its threads are not
        joined; pytorch/pytorch#190489). So the cycles are collected here.
        """
        if self.size > 1:
            distributed.barrier()
            distributed.destroy_process_group()
            gc.collect()


def join(device: str = "auto") -> Rank:
    """Join the processes that torchrun started (or stand alone) on `auto`, `cpu` or `cuda`.

    Raises ConfigError if cuda is asked for and there is none.
    """
    local, size = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise ConfigError("cuda was asked for, and torch finds no CUDA device; use cpu or auto.")
    place = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    if size > 1:
        distributed.init_process_group("nccl" if cuda else "gloo")
    return Rank(int(os.environ.get("RANK", 0)), size, place)
