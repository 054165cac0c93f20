"""A worker's surroundings: the other workers of its window, and torch's settings and device.

`Alone` is one process; `Group` is torch.distributed's default process group. The training
core knows only this interface, and runs the same in a test, a Tune trial and a Train worker.
"""

from __future__ import annotations

import socket
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor

from gangru_dist.base.errors import TrainingError
from gangru_dist.config.settings import RunConfig
from gangru_dist.models.precision import arithmetic, describe_lack, device_of


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


def prepare_torch(cfg: RunConfig) -> None:
    """Set threads, and what float32 matrix products on a GPU may be rounded to (`tf32`)."""
    torch.set_num_threads(cfg.resources.threads_per_worker)
    torch.set_float32_matmul_precision(arithmetic(cfg).products)


def promised_device(cfg: RunConfig) -> torch.device:
    """The GPU that `resources.gpus_per_worker` asks for; the CPU where torch sees none."""
    on_gpu = cfg.resources.gpus_per_worker > 0 and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def require_precision(cfg: RunConfig, device: torch.device, group: Collective) -> None:
    """Check that the devices of all of a window's workers have the run's arithmetic.

    The driver has checked the nodes of that time; this worker may be on a later one, or a process
    that may use less of its CPU. Every worker raises alike, so that none waits for another.

    Raises:
        TrainingError: One lacks it; another attempt would fail too.
    """
    reason = describe_lack(cfg.training.precision, [device_of(device)])
    mine = f"{reason} on node {socket.gethostname()}" if reason else None
    found = [one for one in group.gather(mine) if one]
    if found:
        raise TrainingError(
            f"{found[0]}. The run keeps the precision it began with: keep its workers off that "
            "node, or start another --run with --set training.precision=float32."
        )
