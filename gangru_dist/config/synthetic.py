"""Settings `synthetic.…`."""

from __future__ import annotations

import datetime as dt

from pydantic import Field
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import STRICT


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class SyntheticConfig:
    """The synthetic market of `--bars synthetic`."""

    assets: int = Field(default=200, ge=20)
    """Number of assets; some list late, some delist."""
    first: dt.date = dt.date(2017, 1, 3)
    """First trading day."""
    last: dt.date = dt.date(2020, 6, 30)
    """Last trading day."""
    signal_ic: float = Field(default=0.1, ge=0, lt=1)
    """Planted correlation of the past 40 days' signal with the next 20 days' return; 0 = none."""
    seed: int = Field(default=0, ge=0)
    """Seed of all random numbers of the market."""
