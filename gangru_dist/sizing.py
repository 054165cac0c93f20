"""Estimate of hours, threads and memory for a run, from measured speeds.

Measured on one thread of a two-core AMD machine at the sizes of preset `default`: the predictor
trains 11,000 samples per second, a GAN epoch goes through 1,200, scoring through 14,000. The rest
is arithmetic: a sample is one stock on one day. GPUs were not measured; train one window on yours
and scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

TRAIN_PER_SECOND = 11_000.0
"""Samples per second and thread of the predictor, forward and backward. Measured."""
GAN_PER_SECOND = 1_200.0
"""Samples per second and thread of a GAN epoch, both players. Measured."""
SCORE_PER_SECOND = 14_000.0
"""Samples per second and thread, generator and predictor, forward only. Measured."""
DISCRIMINATOR = 0.89
"""Share of a GAN epoch that does not grow with the generator. Measured: 2 x 128 goes through 630
samples per second."""
PENALTY = 0.9
"""Time of the gradient penalty (R1), as a share of the discriminator's. Measured."""
STOPS_EARLY = 12
"""A typical number of predictor epochs (at most 50); models of the whole market took 10 and 11."""
WORKER_GB = 1.5
"""Memory of a worker beside its data. Measured: 0.3 (torch) + 0.7 (Ray), plus a margin."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Data and sizes of one model; the defaults are those of preset `default`."""

    epochs: int = STOPS_EARLY
    """Predictor epochs."""
    gan_epochs: int = 5
    train_days: float = 64
    """Days of samples: every fifth of 400, a fifth of these for validation."""
    valid_days: float = 16
    older_days: float = 0
    """Days before these, which the GAN alone sees."""
    panel_days: int = 440
    """Days that a window reads."""
    scored_days: float = 122
    """Half a year."""
    channels: int = 18
    """Values per day of a sample."""
    gan_channels: int = 18
    """Those of them that the GAN sees."""
    lookback: int = 40
    hidden: int = 64
    layers: int = 1
    gan_hidden: int = 64
    gan_layers: int = 1
    penalty: bool = False
    """Whether the discriminator has a gradient penalty."""
    workers: int = 1
    """Workers that share a window."""

    @property
    def cost(self) -> float:
        """Multiplications of one sample's recurrent layers, against the default's.

        Larger layers are faster a multiplication: 2 x 128 take 0.7 of what this says.
        """
        one = Shape()
        of_one = one._multiplications(one.channels, one.hidden, one.layers)
        return self._multiplications(self.channels, self.hidden, self.layers) / of_one

    @property
    def gan_cost(self) -> float:
        """Time of one sample in the GAN stage, against the default's."""
        one = Shape()
        generator = self._multiplications(self.gan_channels, self.gan_hidden, self.gan_layers)
        generator /= one._multiplications(one.gan_channels, one.gan_hidden, one.gan_layers)
        width = self.lookback * self.gan_channels / (one.lookback * one.gan_channels)
        discriminator = width * (1 + PENALTY * self.penalty)
        return DISCRIMINATOR * discriminator + (1 - DISCRIMINATOR) * generator

    def _multiplications(self, channels: int, hidden: int, layers: int) -> float:
        sizes = (channels, *[hidden] * layers)
        return self.lookback * sum(h * (inputs + h) for inputs, h in pairwise(sizes))


DEFAULT = Shape()


@dataclass(frozen=True, kw_only=True)
class Size:
    """Resources of a run."""

    train_hours: float
    """Wall time on the given threads; windows are not split, so some threads end up idle."""
    score_hours: float
    thread_hours: float
    """Training and scoring of all models."""
    worker_gb: float
    """Memory of one worker."""
    at_once: int
    """Models trained in parallel."""

    @property
    def hours(self) -> float:
        """Training, then scoring."""
        return self.train_hours + self.score_hours


def size(stocks: float, models: int, at_once: int, shape: Shape = DEFAULT) -> Size:
    """Estimate for a number of models.

    Args:
        stocks: Members of the universe per day.
        models: Refit days x seeds.
        at_once: Groups of `shape.workers` threads that the cluster has room for.
        shape: Days, epochs and sizes of one model.
    """
    train_rate, score_rate = TRAIN_PER_SECOND / shape.cost, SCORE_PER_SECOND / shape.cost
    epoch = stocks * (shape.train_days / train_rate + shape.valid_days / score_rate)
    gan_days = shape.older_days + shape.train_days
    gan = stocks * gan_days / GAN_PER_SECOND * shape.gan_cost * shape.gan_epochs
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
