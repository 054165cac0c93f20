"""What a process that trains sets once, whoever started it."""

from __future__ import annotations

import torch

from gangru_dist.config import RunConfig


def prepare_torch(cfg: RunConfig) -> None:
    """Threads, and what float32 matrix products on a GPU may be rounded to (`tf32`)."""
    torch.set_num_threads(cfg.resources.threads_per_worker)
    is_tf32 = cfg.training.precision == "tf32"
    torch.set_float32_matmul_precision("high" if is_tf32 else "highest")
