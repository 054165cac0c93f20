"""The label: the only module that looks forward (docs/method.md, 2)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from gangru_dist.config.settings import LABEL_TRANSFORMS, Exposure, LabelConfig
from gangru_dist.maths.cross_section import cs_neutralize, cs_winsorize, cs_zscore

_NOISE = 1e-10
"""Of z-scores: a residual below is rounding."""


def compute_forward_return(
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
    price = pd.DataFrame(adj_close).ffill().to_numpy()
    entry = slice(entry_lag, len(adj_close) - horizon)
    bought = np.where(traded[entry], price[entry], np.nan)
    result[:-reach] = price[reach:] / bought - 1.0
    return result


def make_label(
    returns: Float[np.ndarray, "H N"],
    cfg: LabelConfig,
    exposures: Mapping[Exposure, Shaped[np.ndarray, " N"]] | None = None,
) -> Float[np.ndarray, " N"]:
    """One day's labels: winsorized and z-scored over the day's assets, or normal ranks [D].

    Args:
        returns: Forward returns of the day's universe over each of `cfg.horizons`, whose labels
            are averaged; NaN = no label.
        cfg: Clip and transform.
        exposures: Of the same assets, as known on the signal day, to be removed: "industry", names,
            of which the empty one is a group of its own; "size", log market caps, of which NaN
            counts as its industry's mean.

    Returns:
        Mean 0, standard deviation 1 over the assets with a label, NaN elsewhere; all 0 if all
        returns are equal.
    """
    known = ~np.isnan(returns).any(axis=0)
    result = np.full(known.shape, np.nan)
    values = returns[:, known].astype(np.float64)
    if values.size == 0:
        return result
    transform = LABEL_TRANSFORMS[cfg.transform]
    label = cs_zscore(np.stack([transform(period, cfg) for period in values]))
    if len(label) > 1:
        label = cs_zscore(label.mean(axis=0, keepdims=True))
    if exposures:
        about = {name: values[None, known] for name, values in exposures.items()}
        if "industry" in about:
            about["industry"] = np.unique(about["industry"][0], return_inverse=True)[1][None]
        residual = cs_neutralize(label, groups=about.get("industry"), exposure=about.get("size"))
        label = cs_zscore(np.where(np.abs(residual) < _NOISE, 0.0, residual))
    result[known] = label[0]
    return result


def winsorize(values: Float[np.ndarray, " N"], cfg: LabelConfig) -> Float[np.ndarray, " N"]:
    """Returns clipped at median +- `winsorize_mad` x 1.4826 x MAD."""
    return np.asarray(cs_winsorize(values[None], mad=cfg.winsorize_mad)[0])


def rank_normal(values: Float[np.ndarray, " N"], cfg: LabelConfig) -> Float[np.ndarray, " N"]:
    """Normal scores of the returns' ranks."""
    from scipy.special import ndtri  # the only use of scipy in a worker

    return np.asarray(ndtri((pd.Series(values).rank().to_numpy() - 0.5) / values.size))
