"""Settings `windows.…`."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import NEW, STRICT
from gangru_dist.decides import Decides
from gangru_dist.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class WindowConfig:
    """Rolling refits [R]."""

    history_days: int = Field(default=400, ge=2)
    """Training days lie within this many trading days up to the refit day."""
    min_history_days: Annotated[int | None, NEW] = Field(default=None, ge=2)
    """Least history of a window, in trading days; None = `history_days` [D]."""
    half_life_days: Annotated[float | None, NEW] = Field(default=None, gt=0)
    """Age, in trading days, at which a training day has half the weight of the newest one in the
    predictor's loss; None = equal weights [D]."""
    sample_every: int = Field(default=5, ge=1)
    """One training day every this many trading days."""
    validation_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the training days, the last ones, used for validation and early stopping."""
    embargo: bool = True
    """Drop training days whose label reaches past the first validation day [D]."""
    refit_months: Annotated[tuple[int, ...], Decides.RUN] = (6, 12)
    """Refit on the last trading day on or before the end of these months."""
    first: Annotated[dt.date | None, Decides.NOTHING] = None
    """Skip refit days before this date."""
    last: Annotated[dt.date | None, Decides.NOTHING] = None
    """Skip refit days after this date."""

    @property
    def least_history(self) -> int:
        """Trading days without which a window is skipped."""
        return self.min_history_days or self.history_days

    def __post_init__(self) -> None:
        if (self.min_history_days or 0) > self.history_days:
            raise ConfigError(
                f"windows.min_history_days={self.min_history_days} is more than "
                f"windows.history_days={self.history_days}, which is the most that is taken."
            )
        if not self.refit_months or not all(1 <= month <= 12 for month in self.refit_months):
            raise ConfigError(
                f"windows.refit_months={list(self.refit_months)} must be months from 1 to 12."
            )
        if self.first and self.last and self.first > self.last:
            raise ConfigError(
                f"windows.first={self.first} is after windows.last={self.last}: no window is left."
            )
