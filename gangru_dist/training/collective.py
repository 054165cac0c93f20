"""Communication among the workers of one window: sums and gathered arrays.

`Alone` is one process; `Group` is torch.distributed's default process group. The training
core knows only this interface, and runs the same in a test, a Tune trial and a Train worker.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch.distributed as dist
from torch import Tensor


@runtime_checkable
class Collective(Protocol):
    """Sums and gathers over all workers; every worker calls the same in the same order."""

    rank: int
    size: int

    def all_sum(self, x: Tensor) -> Tensor:
        """Sum of `x` over the workers, in place of `x` where that is cheaper."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, in rank order, on every worker."""
        ...


class Alone:
    """One worker: sums are its own."""

    rank = 0
    size = 1

    def all_sum(self, x: Tensor) -> Tensor:
        """`x` itself."""
        return x

    def gather(self, value: Any) -> list[Any]:
        """The one value."""
        return [value]


class Group:
    """torch.distributed's process group (gloo on CPU, NCCL on GPUs)."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def all_sum(self, x: Tensor) -> Tensor:
        """Sum over the ranks; overwrites `x`."""
        dist.all_reduce(x)
        return x

    def gather(self, value: Any) -> list[Any]:
        """Pickled between our own workers; nothing of it reaches storage."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


def current() -> Collective:
    """`Group` inside a process group of several workers, else `Alone`."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return Group()
    return Alone()
