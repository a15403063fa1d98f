"""Several processes that train one model (`torchrun`): who is who, and which part of a batch is whose."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from FewShotSegLib.errors import ConfigError


@dataclass(frozen=True)
class Share:
    """Process number `rank` of `world`."""

    rank: int = 0
    world: int = 1

    def of(self, samples: int) -> slice:
        """Which samples of a batch are this process's. Raises ConfigError when they cannot be shared evenly."""
        if samples % self.world:
            raise ConfigError(
                f"A batch of {samples} for {self.world} processes",
                f"a multiple of {self.world}",
                "change --batch or the processes",
            )
        part = samples // self.world
        return slice(self.rank * part, (self.rank + 1) * part)


@contextmanager
def processes(device: torch.device) -> Iterator[tuple[Share, torch.device]]:
    """This process's share and device. Under `torchrun` the processes find each other, and part at the end."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Share(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Share(dist.get_rank(), world), device
    finally:
        gc.collect()  # a DistributedDataParallel that outlives its group aborts some processes at their end
        dist.destroy_process_group()


def mean_of(value: torch.Tensor, share: Share) -> torch.Tensor:
    """The mean of a number over the processes."""
    if share.world > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
        value = value / share.world
    return value


def first_says(yes: bool, share: Share) -> bool:
    """What the first process says: a decision by the clock must be the same in all of them."""
    if share.world == 1:
        return yes
    said = [yes]
    dist.broadcast_object_list(said, src=0)
    return said[0]
