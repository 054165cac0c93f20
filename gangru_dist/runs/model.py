"""What is known of a finished model beside its weights: the content of `model.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field


@dataclass(frozen=True, kw_only=True)
class GanEpoch:
    """One epoch of the GAN stage: means over its days."""

    stage: Literal["gan"] = "gan"
    epoch: int
    """From 1."""
    discriminator_loss: float
    generator_loss: float
    discriminator_accuracy: float
    """Share of real and generated samples that the discriminator tells right."""
    distance: float
    """Mean |G(x, z) - x|, in standard deviations of a feature."""


@dataclass(frozen=True, kw_only=True)
class PredictorEpoch:
    """One epoch of the predictor stage: means over its days."""

    stage: Literal["predictor"] = "predictor"
    epoch: int
    """From 1."""
    train_loss: float
    """-IC of the training days."""
    valid_ic: float
    """IC of the validation days."""


EpochResult = GanEpoch | PredictorEpoch
"""One epoch; nothing timed, which would differ between a run and its repetition."""
Epoch = Annotated[EpochResult, Field(discriminator="stage")]
"""The same inside a record."""


@dataclass(frozen=True)
class TimedEpoch:
    """An epoch as a worker reports it: what is kept of it, and how fast it was."""

    result: EpochResult
    seconds: float
    samples_per_s: float
    """Of all workers together."""


def figures(result: EpochResult) -> dict[str, float]:
    """What an epoch measured, by name."""
    return {name: x for name, x in asdict(result).items() if name not in ("stage", "epoch")}


@dataclass(frozen=True, kw_only=True)
class FeatureFigures:
    """Values of one feature over the assets and lags of one day."""

    mean: float
    std: float
    cs_std: float
    """Across the assets of one lag, root mean square over the lags."""
    histogram: tuple[int, ...]
    """Values a bin."""


@dataclass(frozen=True, kw_only=True)
class GanSamples:
    """Distributions of x and G(x, z) on the last training day."""

    day: str
    assets: int
    bin_centers: tuple[float, ...]
    """Standard deviations of a feature; the outer bins hold what lies beyond."""
    real: dict[str, FeatureFigures]
    """By feature."""
    generated: dict[str, FeatureFigures]


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """A finished model of one window and seed."""

    window: str
    """Refit day, ISO."""
    seed: int
    model: str
    """First twelve hex digits of `sha256`."""
    sha256: str
    """Of the weights' file."""
    identity: str
    """What decided the weights; see `config.model_identity`."""
    package_version: str | None = None
    commit: str | None = None
    variant: str = ""
    features: tuple[str, ...] = ()
    workers: int = 1
    device: str = ""
    resumed_epochs: int = 0
    """Epochs that the last attempt found in a checkpoint."""
    days_left_out: tuple[str, ...] = ()
    train_days: tuple[str, ...] = ()
    valid_days: tuple[str, ...] = ()
    seconds: float = 0.0
    """Of the last attempt."""
    first_step: float | None = None
    """Unix time, of the last attempt; None if nothing was left to train. So the next."""
    last_step: float | None = None
    gan_samples: GanSamples | None = None
    """None of variant `gru`, and of versions that did not measure it."""
    architecture: dict[str, Any]
    """See `models.network.from_architecture`."""
    best_epoch: int
    best_valid_ic: float | None
    history: tuple[Epoch, ...]

    @property
    def gan_epochs(self) -> list[GanEpoch]:
        """The first stage; empty of variant `gru`."""
        return [epoch for epoch in self.history if isinstance(epoch, GanEpoch)]

    @property
    def predictor_epochs(self) -> list[PredictorEpoch]:
        """The second stage."""
        return [epoch for epoch in self.history if isinstance(epoch, PredictorEpoch)]
