"""One process or several: who am I, and what do the others say?

Started by `torchrun`, a run has several processes, each with its share of every batch: NCCL between
GPUs, gloo between CPUs. Started by itself it is alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # before there is a group, which else it keeps for ever

from media.device import resolve_device

_PATIENCE = timedelta(hours=6)  # the others wait while the leader follows sequences


@dataclass(frozen=True)
class Place:
    """A process among `world`, and the device it computes on."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this one writes files."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """The device in words, and how many of them."""
        name = str(self.device)
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        return name if self.world == 1 else f"{self.world} x {name}"

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Of all processes' tensors."""
        if self.world > 1:
            if self.device.type == "cuda":
                values = values.to(self.device)  # NCCL takes no others
            dist.all_reduce(values)
            values /= self.world
        return values

    def agree(self, value: float) -> float:
        """Take the leader's number, for decisions that all have to make alike."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return shared.item()


@contextmanager
def join(device: str) -> Iterator[Place]:
    """Find the other processes that torchrun started, and leave them at the end.

    By then nothing of the caller's may refer to what computed with them (a function of its own that
    has returned does it): the group lives as long as that does, and its threads with it, and one of
    these that lets a tensor go while Python ends, ends the process with SIGABRT.

    Args:
        device: see `media.device.resolve_device`; with several processes "auto" and "cuda" mean one
            GPU each.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Place(0, 1, resolve_device(device))
        return
    target = resolve_device(device)
    if target.type == "cuda":
        target = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(target)
    backend = "nccl" if target.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Place(dist.get_rank(), world, target)
    finally:
        dist.destroy_process_group()
