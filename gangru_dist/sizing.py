"""Hours and memory of a run, from measured speeds: the one model of what work costs.

Measured on one thread of a two-core AMD machine at the default sizes (SPEC 5): the predictor
trains 1,450 samples a second and scores 4,500. Everything else is arithmetic: a sample is one
stock on one day. GPUs were not measured, so no figure is given for them: train one window on
yours and divide.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

TRAIN_PER_SECOND = 1450.0
"""Samples a second and thread, forward and backward, GRU of the default sizes. Measured."""
SCORE_PER_SECOND = 4500.0
"""Samples a second and thread, forward alone. Measured."""
GAN_COST = 2.0
"""A GAN epoch against one of the predictor, in time. Assumption, not studied."""
STOPS_EARLY = 20
"""Epochs until the predictor typically stops early (at most 50)."""
WORKER_GB = 1.5
"""Torch, Ray's worker and run helpers, beside the data. Measured: 0.3 + 0.7, and room."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What one model works on; as it stands, preset `default`."""

    epochs: int = STOPS_EARLY
    """Of the predictor."""
    gan_epochs: int = 5
    train_days: float = 64
    """Days of samples: every fifth of 400, a fifth of them for validation."""
    valid_days: float = 16
    panel_days: int = 440
    """Days that a window reads."""
    scored_days: float = 122
    """Half a year."""
    channels: int = 18
    """Values of a sample a day."""
    lookback: int = 40
    hidden: int = 128
    layers: int = 2
    workers: int = 1
    """That share a window."""

    @property
    def cost(self) -> float:
        """Multiplications of one sample's recurrent layers, against the default's."""
        return self._multiplications / Shape()._multiplications

    @property
    def _multiplications(self) -> float:
        sizes = (self.channels, *[self.hidden] * self.layers)
        return self.lookback * sum(h * (inputs + h) for inputs, h in pairwise(sizes))


DEFAULT = Shape()


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a run needs."""

    train_hours: float
    """On the threads that are there; windows are whole, so some threads end up idle."""
    score_hours: float
    thread_hours: float
    """Training and scoring of all models, added up."""
    worker_gb: float
    """Memory of one worker."""
    at_once: int
    """Models trained at once."""

    @property
    def hours(self) -> float:
        """Training, then scoring."""
        return self.train_hours + self.score_hours


def size(stocks: float, models: int, at_once: int, shape: Shape = DEFAULT) -> Size:
    """What so many models need.

    Args:
        stocks: Members of the universe a day.
        models: Refit days x seeds.
        at_once: Groups of `shape.workers` threads that the cluster has room for.
        shape: Days, epochs and sizes of one model.
    """
    train_rate, score_rate = TRAIN_PER_SECOND / shape.cost, SCORE_PER_SECOND / shape.cost
    epoch = stocks * (shape.train_days / train_rate + shape.valid_days / score_rate)
    gan = stocks * shape.train_days / train_rate * GAN_COST * shape.gan_epochs
    train, score = epoch * shape.epochs + gan, stocks * shape.scored_days / score_rate
    used = max(1, min(at_once, models))
    rounds = -(-models // used)
    # the block, its standardized copy, and a day's activations
    data_gb = 3 * 4 * shape.panel_days * stocks * shape.channels / 1e9
    return Size(
        train_hours=rounds * train / shape.workers / 3600,
        score_hours=models * score / used / shape.workers / 3600,
        thread_hours=models * (train + score) / 3600,
        worker_gb=WORKER_GB + data_gb / shape.workers,
        at_once=used,
    )
