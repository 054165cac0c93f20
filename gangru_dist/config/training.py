"""Settings `training.…`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import NEW, STRICT
from gangru_dist.decides import Decides
from gangru_dist.errors import ConfigError

PLAIN_PRECISIONS = frozenset({"float32", "float64"})
"""Of `training.precision`: what every device has, so that nobody need be asked for it."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class TrainingConfig:
    """Training of the predictor, and settings shared with the GAN stage."""

    epochs: int = Field(default=50, ge=1)
    """Maximum passes over the training days [R]."""
    patience: int = Field(default=10, ge=1)
    """Stop after this many epochs without a better validation IC [R]."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Adam's learning rate [R]."""
    weight_decay: Annotated[float, NEW] = Field(default=0.0, ge=0)
    """The predictor's weights shrink by this x `learning_rate` each step (AdamW) [D]."""
    dropout: Annotated[float, NEW] = Field(default=0.0, ge=0, lt=1)
    """Share of a sample's channels that the predictor does not see in a training step, drawn per
    asset; the others are scaled up [D]."""
    average_epochs: Annotated[float, NEW] = Field(default=0.0, ge=0)
    """What is validated and kept is the exponential mean of the predictor's weights over about so
    many epochs; 0 = the newest weights [D]."""
    seeds: Annotated[tuple[int, ...], Decides.RUN] = (0,)
    """One model per seed; their standardized scores are averaged."""
    precision: Literal["float32", "tf32", "bf16", "float64", "auto"] = "float32"
    """Arithmetic of the networks; a device that does not support it is an error. tf32: faster
    matrix products, GPUs only. bf16: autocast, weights stay float32. auto: bf16 if all devices of
    the run support it, else float32, decided once when the run starts (docs/training.md)."""
    compile: bool = False
    """Run the networks through `torch.compile`; faster on GPUs, not on CPUs."""
    checkpoint_every: Annotated[int, Decides.NOTHING] = Field(default=1, ge=1)
    """Epochs between checkpoints: the most an interruption can cost."""
    tensorboard: Annotated[bool, Decides.NOTHING] = False
    """Also write every epoch's figures for TensorBoard, below `runs/<run>/tensorboard`; has no
    effect on a search."""

    def __post_init__(self) -> None:
        is_set = len(set(self.seeds)) == len(self.seeds) > 0
        if not is_set or min(self.seeds) < 0 or max(self.seeds) >= 2**63:
            raise ConfigError(
                f"training.seeds={list(self.seeds)} must be at least one number, unique, each "
                "from 0 to 2^63 - 1."
            )
