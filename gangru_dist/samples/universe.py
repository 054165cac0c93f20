"""Which assets count on a day: members as known that day (SPEC 3)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from gangru_dist.config import UniverseConfig
from gangru_dist.panel.block import PanelBlock


def traded_days(traded: Bool[np.ndarray, "D N"], lookback: int) -> np.ndarray:
    """Days traded among the last `lookback`, the day itself included; (D, N) int32.

    Days before the block count as not traded.
    """
    total = np.cumsum(traded, axis=0, dtype=np.int32)
    total[lookback:] -= total[:-lookback].copy()
    return total


def universe_mask(block: PanelBlock, cfg: UniverseConfig, lookback: int) -> Bool[np.ndarray, "D N"]:
    """Members of the universe, day by day [R, D].

    Traded that day, a member that day if the panel marks members, not under special treatment,
    listed long enough, and traded on enough of the last `lookback` days. The first `lookback - 1`
    days of a block know too little of the past, so a caller reads that many days more than it
    asks about.
    """
    mask = (
        block.traded
        & (block.listed_days >= cfg.min_listed_days)
        & (traded_days(block.traded, lookback) >= cfg.min_traded_days)
    )
    if cfg.members and block.member.shape == mask.shape:
        mask &= block.member
    if cfg.exclude_st:
        mask &= ~block.is_st
    return mask
