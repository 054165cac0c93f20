"""Both kinds of x86 CPU on one machine: this process's, and one that has AVX2 and nothing newer.

`python -m tests.training.cpu_kinds` trains a tiny window twice and prints what came out, as JSON.
"""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from gangru_dist.config.settings import RunConfig
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.data import prepare
from gangru_dist.training.window import train_window
from tests.training.worlds import block, config, until, window

LIMITS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""Environment of a process that may use AVX2 and nothing newer; the Makefile has the same."""


@dataclass(frozen=True)
class Trained:
    """What a training left behind."""

    capability: str
    """Of torch's kernels in the process."""
    digest: str
    """Of all weights and optimizer states."""
    weights: list[float]
    """Of the networks, flat."""
    valid_ic: list[float]
    """By epoch."""


def train(cfg: RunConfig, seed: int = 0) -> Trained:
    """Both stages on a tiny made-up window."""
    world = block(0)
    chosen = window(world, cfg)
    data = prepare(until(world, chosen.refit), chosen, world.dates, cfg)
    state = train_window(data, TrainingState(cfg, seed), cfg, seed=seed)
    flat = torch.cat([weight.detach().flatten().double() for weight in state.network.parameters()])
    return Trained(
        capability=torch.backends.cpu.get_cpu_capability(),
        digest=hashlib.sha256(state.to_bytes("")).hexdigest(),
        weights=flat.tolist(),
        valid_ic=[e.valid_ic for e in state.progress.history if e.stage == "predictor"],
    )


def both(precision: str) -> list[Trained]:
    """The same training twice."""
    cfg = config(training={"precision": precision})
    return [train(cfg), train(cfg)]


def elsewhere(precision: str, **environment: str) -> list[Trained]:
    """`both` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.cpu_kinds", precision],
        env=os.environ | environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return [Trained(**values) for values in json.loads(done.stdout)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([asdict(one) for one in both(sys.argv[1])]))  # noqa: T201  # its output
