"""Record of a finished model, beside its weights: the content of `model.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field


@dataclass(frozen=True, kw_only=True)
class GanEpoch:
    """One epoch of the GAN stage; means over its days."""

    stage: Literal["gan"] = "gan"
    epoch: int
    """From 1."""
    discriminator_loss: float
    generator_loss: float
    discriminator_accuracy: float
    """Share of real and generated samples that the discriminator classifies correctly."""
    distance: float
    """Mean |G(x, z) - x|, in standard deviations of a feature."""


@dataclass(frozen=True, kw_only=True)
class PredictorEpoch:
    """One epoch of the predictor stage; means over its days."""

    stage: Literal["predictor"] = "predictor"
    epoch: int
    """From 1."""
    train_loss: float
    """-IC on the training days."""
    valid_ic: float
    """IC on the validation days."""


EpochResult = GanEpoch | PredictorEpoch
"""One epoch, without times: a repeated run gives the same record."""
Epoch = Annotated[EpochResult, Field(discriminator="stage")]
"""`EpochResult` as a field of a record."""


@dataclass(frozen=True)
class TimedEpoch:
    """An epoch as a worker reports it: what is kept of it, and how fast it was."""

    result: EpochResult
    seconds: float
    samples_per_s: float
    """Of all workers together."""


def get_figures(result: EpochResult) -> dict[str, float]:
    """Figures of an epoch, by name."""
    return {name: x for name, x in asdict(result).items() if name not in ("stage", "epoch")}


@dataclass(frozen=True, kw_only=True)
class FeatureFigures:
    """Distribution of one feature over the assets and lags of one day."""

    mean: float
    std: float
    cs_std: float
    """Standard deviation across assets, root mean square over the lags."""
    histogram: tuple[int, ...]
    """Number of values per bin."""


@dataclass(frozen=True, kw_only=True)
class GanSamples:
    """Distributions of x and G(x, z) on the last training day."""

    day: str
    assets: int
    bin_centers: tuple[float, ...]
    """In standard deviations of a feature; the outer bins include all values beyond."""
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
    """Hash of the weights file."""
    identity: str
    """Hash of what decides the weights; see `config.identity.model_identity`."""
    package_version: str | None = None
    commit: str | None = None
    variant: str = ""
    features: tuple[str, ...] = ()
    workers: int = 1
    device: str = ""
    resumed_epochs: int = 0
    """Epochs that the last attempt restored from a checkpoint."""
    days_left_out: tuple[str, ...] = ()
    train_days: tuple[str, ...] = ()
    valid_days: tuple[str, ...] = ()
    seconds: float = 0.0
    """Duration of the last attempt."""
    first_step: float | None = None
    """Unix time of the last attempt's first step; None if nothing was left to train."""
    last_step: float | None = None
    """Unix time of its last step."""
    gan_samples: GanSamples | None = None
    """None for variant `gru` and for models of versions without this measurement."""
    architecture: dict[str, Any]
    """See `models.predictors.from_architecture`."""
    best_epoch: int
    best_valid_ic: float | None
    history: tuple[Epoch, ...]

    @property
    def gan_epochs(self) -> list[GanEpoch]:
        """Epochs of the first stage; empty for variant `gru`."""
        return [epoch for epoch in self.history if isinstance(epoch, GanEpoch)]

    @property
    def predictor_epochs(self) -> list[PredictorEpoch]:
        """Epochs of the second stage."""
        return [epoch for epoch in self.history if isinstance(epoch, PredictorEpoch)]
