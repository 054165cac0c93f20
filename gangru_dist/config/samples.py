"""Settings `samples.…`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import STRICT, FeatureName, require_unique
from gangru_dist.decides import Decides

ChannelKind = Literal["shape", "level"]
"""How a feature becomes a channel of a sample."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class SampleConfig:
    """One sample: lookback days x features, standardized."""

    features: Annotated[tuple[FeatureName, ...], Decides.MODEL | Decides.IF_CHANGED] = ()
    """Names from `panel.features`, in the order of the model's input; empty = all, in panel order.
    Runs that differ here share one panel."""
    lookback: int = Field(default=40, ge=2)
    """Days of features in one sample, including the day itself [R]."""
    mad_clip: float = Field(default=5.0, gt=0)
    """Along time: clip at median +- this x 1.4826 x MAD [D]."""
    z_clip: float = Field(default=5.0, gt=0)
    """Across assets: clip the z-score at +- this [D]."""
    channels: Annotated[
        tuple[ChannelKind, ...], Decides.MODEL | Decides.IF_CHANGED, Field(min_length=1)
    ] = ("shape",)
    """`shape` = z-scored along time, then across assets [R]; `level` = the level that `shape`
    removes, z-scored across assets only [D]. With both, the channels are concatenated."""

    def __post_init__(self) -> None:
        require_unique("samples.features", self.features)
        require_unique("samples.channels", self.channels)
