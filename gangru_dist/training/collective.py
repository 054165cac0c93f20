"""The workers of one window: sums and gathers over all of them.

The training core knows only this class, and runs the same in a test, a Tune trial and a worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor


@dataclass
class Collective:
    """torch.distributed's process group (gloo on CPU, NCCL on GPUs), or one process alone.

    Every worker calls the same methods in the same order.
    """

    rank: int = 0
    size: int = 1

    def all_sum(self, x: Tensor) -> Tensor:
        """Sum of `x` over the workers, in its place."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, in rank order, on every worker; nothing of it reaches storage."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


SINGLE = Collective()
"""One process, which is a window's only worker."""


def join_workers() -> Collective:
    """All workers of this process's group; this process alone if it is in none."""
    if dist.is_available() and dist.is_initialized():
        return Collective(dist.get_rank(), dist.get_world_size())
    return SINGLE
