"""Settings `gan.…`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import NEW, STRICT, Count
from gangru_dist.config.samples import ChannelKind


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class GanConfig:
    """Generator, discriminator and their training."""

    hidden: int = Field(default=128, ge=1)
    """LSTM units per layer [D]."""
    layers: int = Field(default=2, ge=1)
    """LSTM layers [D]."""
    noise_channels: int = Field(default=8, ge=0)
    """Noise values per day of a sample; the noise is 0 outside GAN training [D]."""
    channels: tuple[Count, Count] = (32, 64)
    """Feature maps of the discriminator's two strided convolutions [D]."""
    dropout: float = Field(default=0.25, ge=0, lt=1)
    """Share of the discriminator's feature maps dropped, per sample [D]."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the training days; the GAN is not stopped early."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Adam's learning rate for both networks [R]."""
    discriminator_learning_rate: Annotated[float | None, NEW] = Field(default=None, gt=0)
    """Adam's learning rate for the discriminator; None = `learning_rate` [D]."""
    spectral_norm: Annotated[bool, NEW] = False
    """Divide each weight of the discriminator by its largest singular value [D]."""
    gradient_penalty: Annotated[float, NEW] = Field(default=0.0, ge=0)
    """Weight, in the discriminator's loss, of half the mean squared gradient of its logit with
    respect to a real sample (R1) [D]."""
    history_days: Annotated[int | None, NEW] = Field(default=None, ge=2)
    """The GAN's training days lie within this many trading days up to the refit day, older ones
    than the predictor's too; None = `windows.history_days` [D]."""
    reconstruction_weight: float = Field(default=0.0, ge=0)
    """Weight of the mean |G(x, z) - x| in the generator's loss; report: 0."""
    feature_matching: Annotated[float, NEW] = Field(default=0.0, ge=0)
    """Weight, in the generator's loss, of the squared distance between the mean features that the
    discriminator sees in real and in generated samples [D]."""
    sees: Annotated[ChannelKind | None, NEW] = None
    """Which of `samples.channels` generator and discriminator see; the other kind reaches the
    predictor as it is. None = all [D]."""
    output: Annotated[Literal["replace", "beside"], NEW] = "replace"
    """What the predictor gets: the generator's output in place of the sample [R], or both, their
    channels concatenated [D]."""
