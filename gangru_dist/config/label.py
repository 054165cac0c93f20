"""Settings `label.…`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import NEW, STRICT, Exposure, require_unique
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
    entry_lag: int = Field(default=1, ge=0)
    """Days from signal to trade: 1 = score after the close, trade the next day [D]; report: 0."""
    winsorize_mad: float = Field(default=5.0, gt=0)
    """Per day: clip at median +- this x 1.4826 x MAD before the z-score [D]."""
    transform: Annotated[str, AfterValidator(LABEL_TRANSFORMS.validated)] = "zscore"
    """Name from `LABEL_TRANSFORMS`; `rank` replaces returns by normal scores of their ranks."""
    neutralize: Annotated[tuple[Exposure, ...], NEW] = ()
    """What a day's regression removes of the label before its last z-score, as
    `factor.neutralize` does of the factor [D]."""

    def __post_init__(self) -> None:
        require_unique("label.neutralize", self.neutralize)

    @property
    def reach(self) -> int:
        """Trading days from a signal to the end of its label."""
        return self.entry_lag + self.horizon
