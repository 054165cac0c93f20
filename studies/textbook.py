"""Five textbook factors and their equal mix: what any model must beat.

Of a stock on a day, over its last 20 trading days of the calendar: minus its return (reversal), the
deviation of its daily returns, its mean turnover rate, the mean size of its gaps between a close
and the next open, and its mean amplitude. Each is z-scored over the day's universe; the mix is the
mean of those that are known.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from jaxtyping import Float

from gangru_dist.config.settings import RunConfig
from gangru_dist.maths.cross_section import cs_zscore
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.universe import select_universe

NAME = "textbook"
"""Stands for the mix among the names of trials."""
DAYS = 20


def compute_mix(block: PanelBlock, cfg: RunConfig) -> Float[np.ndarray, "D N"]:
    """The mix on every day of a block; NaN outside the universe and in the first `DAYS` days."""
    members = select_universe(block, cfg.universe, cfg.samples.lookback)
    names = list(block.feature_names)

    def over_days(feature: str) -> pd.DataFrame:
        return pd.DataFrame(block.features[:, :, names.index(feature)].astype(np.float64))

    close = pd.DataFrame(np.where(block.traded, block.adj_close, np.nan)).ffill()
    least = DAYS // 2
    found = [
        close / close.shift(DAYS) - 1,
        over_days("daily_return").rolling(DAYS, min_periods=least).std(),
        over_days("turnover_rate").rolling(DAYS, min_periods=least).mean(),
        over_days("overnight_return").abs().rolling(DAYS, min_periods=least).mean(),
        over_days("amplitude").rolling(DAYS, min_periods=least).mean(),
    ]
    scored = [-cs_zscore(np.where(members, one.to_numpy(), np.nan)) for one in found]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a stock of which none is known
        return np.asarray(np.nanmean(scored, axis=0))
