"""Settings `factor.…`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import STRICT, Exposure
from gangru_dist.decides import Decides


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class FactorConfig:
    """From a raw prediction to the factor [R]."""

    winsorize_mad: float = Field(default=5.0, gt=0)
    """Per day: clip at median +- this x 1.4826 x MAD."""
    neutralize: tuple[Exposure, ...] = ("industry", "size")
    """Exposures that the cross-sectional regression removes."""
    quantiles: int = Field(default=10, ge=2, le=1000)
    """Number of quantiles; 1 = lowest factor."""
    members: Annotated[bool, Decides.RUN | Decides.IF_CHANGED] = True
    """Score only the members of `panel.members`, where the panel marks them [D]."""
    min_assets: int = Field(default=10, ge=2)
    """A day with fewer scored assets gets no factor; the summary lists it."""
