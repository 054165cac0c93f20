"""Settings `label.…`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import NEW, STRICT, Count, Exposure, require_unique
from gangru_dist.errors import ConfigError
from gangru_dist.registry import Registry

LABEL_TRANSFORMS: Registry[Callable[[np.ndarray, LabelConfig], np.ndarray]] = Registry(
    "label transform",
    items={
        "zscore": "gangru_dist.samples.labels:winsorized",
        "rank": "gangru_dist.samples.labels:normal_rank",
    },
)
"""Transform of a day's returns (N,), none missing; its result (N,) is z-scored to the labels."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class LabelConfig:
    """What is predicted."""

    horizon: int = Field(default=20, ge=1)
    """Holding period of the label [R]."""
    also: Annotated[tuple[Count, ...], NEW] = ()
    """Shorter holding periods that are predicted besides: the label is the mean of all periods'
    labels, z-scored again [D]."""
    entry_lag: int = Field(default=1, ge=0)
    """Days from signal to trade: 1 = score after the close, trade the next day [D]; report: 0."""
    winsorize_mad: float = Field(default=5.0, gt=0)
    """Per day: clip at median +- this x 1.4826 x MAD before the z-score [D]."""
    transform: Annotated[str, AfterValidator(LABEL_TRANSFORMS.validated)] = "zscore"
    """Name from `LABEL_TRANSFORMS`; `rank` replaces returns by normal scores of their ranks."""
    neutralize: Annotated[tuple[Exposure, ...], NEW] = ()
    """What a day's regression removes from the label before its last z-score, as
    `factor.neutralize` does from the factor [D]."""

    def __post_init__(self) -> None:
        require_unique("label.neutralize", self.neutralize)
        require_unique("label.also", tuple(str(period) for period in self.also))
        if max(self.also, default=0) >= self.horizon:
            raise ConfigError(
                f"label.also={list(self.also)} must be shorter than label.horizon={self.horizon}, "
                "which says how far a label reaches."
            )

    @property
    def horizons(self) -> tuple[int, ...]:
        """All holding periods, `horizon` first."""
        return (self.horizon, *self.also)

    @property
    def reach(self) -> int:
        """Trading days from a signal to the end of its label."""
        return self.entry_lag + self.horizon
