"""Settings `universe.…`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import STRICT
from gangru_dist.decides import Decides


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class UniverseConfig:
    """Which assets belong to a day's universe [R, D]; they must have traded that day."""

    exclude_st: bool = True
    """Exclude assets under special treatment that day [R]."""
    min_listed_days: int = Field(default=120, ge=0)
    """Minimum trading days since listing: half a year [R, D]."""
    min_traded_days: int = Field(default=30, ge=1)
    """Minimum days traded among the last `samples.lookback` [D]."""
    members: Annotated[bool, Decides.MODEL | Decides.IF_CHANGED] = True
    """Train only on the members of `panel.members`, where the panel marks them [D]."""
    min_assets: int = Field(default=10, ge=3)
    """Training and validation days with fewer labeled assets are skipped and logged [D]."""
