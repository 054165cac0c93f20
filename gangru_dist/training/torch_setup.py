"""Torch settings of every process that trains or scores."""

from __future__ import annotations

import socket

import torch

from gangru_dist.config import RunConfig
from gangru_dist.errors import TrainingError
from gangru_dist.models.precision import arithmetic, device_of, lacking
from gangru_dist.training.collective import Collective


def prepare_torch(cfg: RunConfig) -> None:
    """Threads, and what float32 matrix products on a GPU may be rounded to (`tf32`)."""
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
    reason = lacking(cfg.training.precision, [device_of(device)])
    told = f"{reason} on node {socket.gethostname()}" if reason else None
    found = [one for one in group.gather(told) if one]
    if found:
        raise TrainingError(
            f"{found[0]}. The run keeps the precision it began with: keep its workers off that "
            "node, or start another --run with --set training.precision=float32."
        )
