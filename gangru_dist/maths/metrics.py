"""Figures of a factor and a portfolio as functions of arrays.

D dates, N assets, T daily values. Returns are fractions (0.01 = 1 %). A daily value is the worth
of one unit of capital; the first entry is the start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import stats

DAYS_PER_YEAR = 252
"""Trading days a year in annualized figures where nobody says otherwise [R]."""
MIN_PAIRS = 3
"""A correlation of fewer pairs is NaN: two points always correlate perfectly."""


@dataclass(frozen=True, kw_only=True)
class TTest:
    """Two-sided t-test of mean = 0."""

    statistic: float
    """mean / (standard deviation / sqrt(count)); NaN for fewer than two values."""
    p_value: float
    """Probability of a statistic at least as far from 0 if the true mean is 0."""
    count: int
    """Number of finite values."""


def ic(score: Float[np.ndarray, "D N"], forward_return: Float[np.ndarray, "D N"]) -> np.ndarray:
    """Pearson correlation over the assets of each date, shape (D,).

    Pairs with a NaN are left out. NaN where fewer than `MIN_PAIRS` pairs remain or one side is
    constant.
    """
    both = np.isfinite(score) & np.isfinite(forward_return)
    return _correlation(score, forward_return, both)


def rank_ic(
    score: Float[np.ndarray, "D N"], forward_return: Float[np.ndarray, "D N"]
) -> np.ndarray:
    """Spearman correlation over the assets of each date, shape (D,); ties get their mean rank.

    NaN as in `ic`. Ranks are taken among complete pairs only.
    """
    both = np.isfinite(score) & np.isfinite(forward_return)
    ours, theirs = (
        pd.DataFrame(np.where(both, side, np.nan)).rank(axis=1).to_numpy()
        for side in (score, forward_return)
    )
    return _correlation(ours, theirs, both)


def _correlation(a: np.ndarray, b: np.ndarray, take: Bool[np.ndarray, "D N"]) -> np.ndarray:
    """Pearson correlation of the taken pairs of each row, shape (D,)."""
    count = take.sum(axis=1, keepdims=True)
    a, b = (_deviations(side, take, count) for side in (a, b))
    product = (a * b).sum(axis=1)
    norm = np.sqrt((a * a).sum(axis=1)) * np.sqrt((b * b).sum(axis=1))
    valid = (count[:, 0] >= MIN_PAIRS) & (norm > 0)
    result = np.full(len(take), np.nan)
    result[valid] = np.clip(product[valid] / norm[valid], -1.0, 1.0)
    return result


def _deviations(values: np.ndarray, take: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Taken values minus their row mean, 0 elsewhere; exactly 0 in a constant row."""
    kept = np.where(take, values, 0.0).astype(np.float64)
    mean = kept.sum(axis=1, keepdims=True) / np.maximum(count, 1)
    high = np.where(take, values, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    low = np.where(take, values, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    return np.where(take & (high > low), kept - mean, 0.0)


def drop_nonfinite(values: Float[np.ndarray, " T"]) -> np.ndarray:
    """The values that are neither NaN nor infinite, in order."""
    return np.asarray(values[np.isfinite(values)], dtype=np.float64)


def mean(values: Float[np.ndarray, " T"]) -> float:
    """Mean of the finite values; NaN if there are none."""
    kept = drop_nonfinite(values)
    return float(kept.mean()) if len(kept) else float("nan")


def icir(values: Float[np.ndarray, " T"]) -> float:
    """Mean over standard deviation (n - 1) of the finite values; NaN for fewer than two."""
    kept = drop_nonfinite(values)
    if len(kept) < 2 or np.ptp(kept) == 0:
        return float("nan")
    return float(kept.mean() / kept.std(ddof=1))


def t_test(values: Float[np.ndarray, " T"]) -> TTest:
    """t-test of mean = 0 over the finite values, taken as independent [R]."""
    kept = drop_nonfinite(values)
    ratio = icir(values)
    statistic = ratio * float(np.sqrt(len(kept)))
    p_value = float(2 * stats.t.sf(abs(statistic), len(kept) - 1))
    return TTest(statistic=statistic, p_value=p_value, count=len(kept))


def mark_significance(p_value: float) -> str:
    """Significance: `*` below 10 %, `**` below 5 %, `***` below 1 %, else empty [R]."""
    return "*" * sum(p_value < level for level in (0.10, 0.05, 0.01))


def newey_west_t(values: Float[np.ndarray, " T"], *, lags: int) -> float:
    """Mean over its Newey-West standard error (Bartlett weights, no small-sample correction).

    `lags` = 0 gives the t of independent values with divisor n. NaN for fewer than two values
    or zero variance.

    Source:
        Newey and West (1987), equation 5, for a regression on a constant.
    """
    kept = drop_nonfinite(values)
    count = len(kept)
    if count < 2 or np.ptp(kept) == 0:
        return float("nan")
    deviation = kept - kept.mean()
    variance = float(deviation @ deviation) / count
    for lag in range(1, min(lags, count - 1) + 1):
        weight = 1 - lag / (lags + 1)
        variance += 2 * weight * float(deviation[lag:] @ deviation[:-lag]) / count
    return float(kept.mean() / np.sqrt(variance / count)) if variance > 0 else float("nan")


def newey_west_lags(count: int) -> int:
    """Number of lags by Newey and West's rule of thumb (1994): floor(4 (n / 100)^(2/9))."""
    return int(4 * (count / 100) ** (2 / 9))


def turnover(before: Float[np.ndarray, " N"], after: Float[np.ndarray, " N"]) -> float:
    """One-way turnover: half the sum of absolute weight changes. Weights include cash, sum to 1."""
    return float(np.abs(after - before).sum() / 2)


def daily_returns(value: Float[np.ndarray, " T"]) -> np.ndarray:
    """Day-over-day returns, shape (T - 1,)."""
    return np.asarray(value[1:] / value[:-1] - 1)


def annualized_return(value: Float[np.ndarray, " T"], days_per_year: int = DAYS_PER_YEAR) -> float:
    """Geometric: (last / first)^(days a year / (T - 1)) - 1; NaN for fewer than two values."""
    if len(value) < 2:
        return float("nan")
    return float((value[-1] / value[0]) ** (days_per_year / (len(value) - 1)) - 1)


def annualized_volatility(
    value: Float[np.ndarray, " T"], days_per_year: int = DAYS_PER_YEAR
) -> float:
    """Standard deviation (n - 1) of daily returns x sqrt(days a year); NaN for under 3 values."""
    if len(value) < 3:
        return float("nan")
    return float(daily_returns(value).std(ddof=1) * np.sqrt(days_per_year))


def information_ratio(value: Float[np.ndarray, " T"], days_per_year: int = DAYS_PER_YEAR) -> float:
    """Annualized return over annualized volatility; NaN if the volatility is 0."""
    volatility = annualized_volatility(value, days_per_year)
    if not volatility > 0:
        return float("nan")
    return annualized_return(value, days_per_year) / volatility


def drawdown(value: Float[np.ndarray, " T"]) -> np.ndarray:
    """Loss from the running maximum, shape (T,): 0 at a high, -0.2 = 20 % below it."""
    return np.asarray(value / np.maximum.accumulate(value) - 1)


def max_drawdown(value: Float[np.ndarray, " T"]) -> float:
    """Largest loss from a high, as a positive fraction; NaN for no values."""
    return float(-drawdown(value).min()) if len(value) else float("nan")
