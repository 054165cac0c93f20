"""What a search maximizes: figures of validation days alone, never of a test day (DESIGN 6)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from gangru_dist.config import RunConfig


def mean(ics: Sequence[float]) -> float:
    """Mean validation IC of the windows begun so far; what pruning compares."""
    return math.fsum(ics) / len(ics)


def spread(ics: Sequence[float]) -> float:
    """Population standard deviation over the windows; 0 of one window."""
    center = mean(ics)
    return math.sqrt(math.fsum((ic - center) ** 2 for ic in ics) / len(ics))


def objective(ics: Sequence[float], penalty: float) -> float:
    """Mean - penalty x spread of the windows' validation IC."""
    return mean(ics) - penalty * spread(ics)


def yardstick(trial: RunConfig, base: RunConfig) -> RunConfig:
    """A trial's configuration with the base's label scale and universe: what it is judged on.

    An IC against ranks and one against returns are not the same figure; nor are the ICs of two
    universes. Trials are judged on one scale, whatever they were trained on.
    """
    label = dataclasses.replace(
        trial.label, transform=base.label.transform, winsorize_mad=base.label.winsorize_mad
    )
    return dataclasses.replace(trial, label=label, universe=base.universe)


def step(window: int, epoch: int, *, done: bool, epochs: int) -> int:
    """Where a trial stands, comparable over trials: a window counts `epochs` steps, always.

    A window that stops early jumps to its end:

        epochs=10   window 0, epoch 3 -> 3   window 0 done at 7 -> 10   window 1, epoch 1 -> 11
    """
    return window * epochs + (epochs if done else epoch)
