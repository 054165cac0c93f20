"""The objective of a search; it uses validation days only, never test days (DESIGN 6)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from gangru_dist.config import RunConfig


def mean(ics: Sequence[float]) -> float:
    """Mean validation IC of the windows started so far; pruning compares it."""
    return math.fsum(ics) / len(ics)


def spread(ics: Sequence[float]) -> float:
    """Population standard deviation over the windows; 0 for one window."""
    center = mean(ics)
    return math.sqrt(math.fsum((ic - center) ** 2 for ic in ics) / len(ics))


def objective(ics: Sequence[float], penalty: float) -> float:
    """Mean - penalty x spread of the windows' validation IC."""
    return mean(ics) - penalty * spread(ics)


def yardstick(trial: RunConfig, base: RunConfig) -> RunConfig:
    """A trial's configuration with the label scale and universe of the base, for its validation.

    ICs against ranks and against returns are not comparable, nor are ICs of different universes.
    All trials are therefore validated on the same labels and universe.
    """
    label = dataclasses.replace(
        base.label, horizon=trial.label.horizon, entry_lag=trial.label.entry_lag
    )
    return dataclasses.replace(trial, label=label, universe=base.universe)


def step(window: int, epoch: int, *, done: bool, epochs: int) -> int:
    """Progress of a trial, comparable between trials: each window counts `epochs` steps.

    A window that stops early skips to its last step:

        epochs=10   window 0, epoch 3 -> 3   window 0 done at 7 -> 10   window 1, epoch 1 -> 11
    """
    return window * epochs + (epochs if done else epoch)
