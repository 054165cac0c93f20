"""What a process that trains or scores sets once, whoever started it."""

from __future__ import annotations

import torch

from gangru_dist.config import RunConfig


def prepare_torch(cfg: RunConfig) -> None:
    """Threads, and what float32 matrix products on a GPU may be rounded to (`tf32`)."""
    torch.set_num_threads(cfg.resources.threads_per_worker)
    is_tf32 = cfg.training.precision == "tf32"
    torch.set_float32_matmul_precision("high" if is_tf32 else "highest")


def promised_device(cfg: RunConfig) -> torch.device:
    """The GPU that `resources.gpus_per_worker` asks for; the CPU where torch sees none."""
    on_gpu = cfg.resources.gpus_per_worker > 0 and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")
