"""Select a day's universe by the panel's days up to that day."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from gangru_dist.config.settings import UniverseConfig
from gangru_dist.panel.block import PanelBlock


def select_universe(
    block: PanelBlock, cfg: UniverseConfig, lookback: int
) -> Bool[np.ndarray, "D N"]:
    """Members of the universe on each day [R, D].

    They traded that day, are members if the panel marks members, are not under special treatment,
    have been listed long enough, and traded on enough of the last `lookback` days. The first
    `lookback - 1` days of a block lack history, so callers read that many days before the first
    day they need.
    """
    mask = (
        block.traded
        & (block.listed_days >= cfg.min_listed_days)
        & (count_traded_days(block.traded, lookback) >= cfg.min_traded_days)
    )
    if cfg.members and block.member.shape == mask.shape:
        mask &= block.member
    if cfg.exclude_st:
        mask &= ~block.is_st
    return mask


def count_traded_days(traded: Bool[np.ndarray, "D N"], lookback: int) -> np.ndarray:
    """Days traded among the last `lookback`, including the day itself; (D, N) int32.

    Days before the block count as not traded.
    """
    total = np.cumsum(traded, axis=0, dtype=np.int32)
    total[lookback:] -= total[:-lookback].copy()
    return total
