"""Settings `evaluation.…`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import STRICT, Count
from gangru_dist.decides import Decides


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class EvaluationConfig:
    """The monthly evaluation."""

    top_fraction: float = Field(default=0.1, gt=0, le=1)
    """Share of the universe held by the long portfolio [R]."""
    cost_bps: float = Field(default=15.0, ge=0)
    """One-way trading cost in basis points; figures are reported with and without costs."""
    picks: int = Field(default=50, ge=1)
    """Best assets listed overall [R]."""
    picks_per_industry: int = Field(default=10, ge=1)
    """Best assets listed per industry [R]."""
    members: Annotated[bool, Decides.RUN | Decides.IF_CHANGED] = True
    """Evaluate only the members of `panel.members`, where the panel marks them [D]."""
    index: Annotated[str | None, Decides.RUN | Decides.IF_CHANGED] = None
    """File of an index's daily closes, with the columns date and close: a second benchmark."""
    decay_horizons: tuple[Count, ...] = Field(default=(1, 5, 10, 20, 40, 60), min_length=1)
    """Holding periods of the IC decay, in trading days."""
