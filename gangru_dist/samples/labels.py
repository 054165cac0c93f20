"""The label: the only module that looks forward (SPEC 3)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.special import ndtri  # scipy.stats would add 0.6 s to the start of every worker

from gangru_dist.config import LABEL_TRANSFORMS, LabelConfig
from gangru_dist.cross_section import cs_winsorize, cs_zscore
from gangru_dist.time_series import ts_carry_forward


def forward_return(
    adj_close: Float[np.ndarray, "D N"],
    traded: Bool[np.ndarray, "D N"],
    *,
    horizon: int,
    entry_lag: int,
) -> Float[np.ndarray, "D N"]:
    """Return of buying at t + entry_lag and selling `horizon` trading days later [R].

    Args:
        adj_close: Adjusted close, currency per share; NaN on days without a bar.
        traded: Whether the asset traded that day.
        horizon: Holding period, trading days.
        entry_lag: Days from signal to purchase.

    Returns:
        A fraction (0.01 = 1 %). NaN in the last `entry_lag + horizon` rows and where the asset
        is suspended on the entry day. An asset that is suspended or delisted before the exit
        keeps its last price.
    """
    reach = entry_lag + horizon
    result = np.full(adj_close.shape, np.nan)
    if reach >= len(adj_close):
        return result
    price = ts_carry_forward(adj_close)
    entry = slice(entry_lag, len(adj_close) - horizon)
    bought = np.where(traded[entry], price[entry], np.nan)
    result[:-reach] = price[reach:] / bought - 1.0
    return result


def training_label(returns: Float[np.ndarray, " N"], cfg: LabelConfig) -> Float[np.ndarray, " N"]:
    """One day's labels: winsorized and z-scored over the day's assets, or normal ranks [D].

    Args:
        returns: Forward returns of the day's universe, NaN = no label.
        cfg: Clip and transform.

    Returns:
        Mean 0, standard deviation 1 over the assets with a label, NaN elsewhere; all 0 if all
        returns are equal.
    """
    known = ~np.isnan(returns)
    result = np.full(returns.shape, np.nan)
    values = returns[known].astype(np.float64)
    if values.size == 0:
        return result
    result[known] = cs_zscore(LABEL_TRANSFORMS[cfg.transform](values, cfg)[None])[0]
    return result


def winsorized(values: Float[np.ndarray, " N"], cfg: LabelConfig) -> Float[np.ndarray, " N"]:
    """Returns clipped at median +- `winsorize_mad` x 1.4826 x MAD."""
    return np.asarray(cs_winsorize(values[None], mad=cfg.winsorize_mad)[0])


def normal_rank(values: Float[np.ndarray, " N"], cfg: LabelConfig) -> Float[np.ndarray, " N"]:
    """Normal scores of the returns' ranks."""
    return np.asarray(ndtri((pd.Series(values).rank().to_numpy() - 0.5) / values.size))
