"""Returns of the factor's quantiles, and whether they rise with the factor."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from gangru_dist import metrics
from gangru_dist.evaluation.ic import month_names, period_return
from gangru_dist.evaluation.market import Market, Rebalances

MONTHS_PER_YEAR = 12


def quantile_returns(market: Market, rebalances: Rebalances, *, quantiles: int) -> pd.DataFrame:
    """Equal-weighted return of each quantile in each complete period.

    Columns: month, q1 ... qQ, universe, long_short (qQ minus q1). From the close of one entry day
    to that of the next, without trading restrictions and costs. NaN for an empty quantile.
    """
    done = rebalances.complete
    earned = period_return(market, rebalances.entry[done], rebalances.exit[done])
    number = np.where(np.isfinite(earned), rebalances.quantile[done], 0)
    names = month_names(market, rebalances)
    table = pd.DataFrame({"month": [names[row] for row in done]})
    for quantile in range(1, quantiles + 1):
        table[f"q{quantile}"] = _mean_where(earned, number == quantile)
    everyone = np.isfinite(rebalances.factor[done]) & np.isfinite(earned)
    table["universe"] = _mean_where(earned, everyone)
    table["long_short"] = table[f"q{quantiles}"] - table["q1"]
    return table


def _mean_where(values: np.ndarray, take: np.ndarray) -> np.ndarray:
    """Row mean of the taken values; NaN if there are none."""
    count = take.sum(axis=1)
    total = np.where(take, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def quantile_summary(returns: pd.DataFrame, *, quantiles: int) -> pd.DataFrame:
    """One row per quantile: mean monthly return, annualized return and excess over the universe.

    Columns: quantile, mean_return, annualized_return (geometric, over the months with a value),
    mean_excess (monthly, over the universe).
    """
    rows = []
    for quantile in range(1, quantiles + 1):
        monthly = returns[f"q{quantile}"].to_numpy()
        excess = monthly - returns["universe"].to_numpy()
        rows.append((quantile, metrics.mean(monthly), compounded(monthly), metrics.mean(excess)))
    columns = ["quantile", "mean_return", "annualized_return", "mean_excess"]
    return pd.DataFrame(rows, columns=columns)


def compounded(monthly: np.ndarray) -> float:
    """Annualized geometric mean of monthly returns; NaN months are left out."""
    kept = metrics.finite(monthly)
    if not len(kept):
        return float("nan")
    return float(np.prod(1 + kept) ** (MONTHS_PER_YEAR / len(kept)) - 1)


def monotonicity(summary: pd.DataFrame) -> float:
    """Spearman correlation of quantile number and mean return; 1 = the returns always rise."""
    kept = summary.dropna(subset=["mean_return"])
    if len(kept) < metrics.MIN_PAIRS or kept["mean_return"].nunique() < 2:
        return float("nan")
    return float(stats.spearmanr(kept["quantile"], kept["mean_return"]).statistic)
