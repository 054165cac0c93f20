"""Operations on panels of D days and N assets; NaN = no value that day.

`cs_*` work across the assets of each day on its own: missing values are left out of every
statistic and stay missing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

MAD_TO_SIGMA = 1.4826
"""Ratio of standard deviation to median absolute deviation (MAD) of a normal distribution."""
FLAT = 1e-12
"""Relative spread below which float64 values count as equal: rounding only."""
FLAT_SCORE = 1e-6
"""The same for scores, which networks compute in float32 (eps 1.2e-7)."""


def cs_winsorize(
    x: Float[np.ndarray, "D N"], *, mad: float, clip_tied: bool = True
) -> Float[np.ndarray, "D N"]:
    """Clip each day at its median +- `mad` x 1.4826 x MAD.

    If more than half of a day's values are equal, its MAD is 0 and all values become the median;
    with `clip_tied` False they stay as they are.
    """
    result = x.copy()
    some = ~np.isnan(x).all(axis=1)
    if not some.any():
        return result
    values = x[some]
    middle = np.nanmedian(values, axis=1, keepdims=True)
    spread = np.nanmedian(np.abs(values - middle), axis=1, keepdims=True)
    reach = mad * MAD_TO_SIGMA * spread
    if not clip_tied:
        reach = np.where(spread > 0, reach, np.inf)
    result[some] = np.clip(values, middle - reach, middle + reach)
    return result


def cs_mean(
    x: Float[np.ndarray, "D N"], chosen: Bool[np.ndarray, "D N"]
) -> Float[np.ndarray, " D"]:
    """Mean of each day's chosen values; NaN of none."""
    total = np.where(chosen, x, 0.0).sum(axis=1)
    count = chosen.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _day_mean(x: Float[np.ndarray, "D N"]) -> Float[np.ndarray, "D 1"]:
    return cs_mean(x, ~np.isnan(x))[:, None]


def cs_zscore(x: Float[np.ndarray, "D N"], *, flat: float = FLAT) -> Float[np.ndarray, "D N"]:
    """Mean 0 and standard deviation 1 (divisor N, not N - 1); all 0 if the values are equal.

    Values count as equal if their standard deviation is at most `flat` times the largest |value|.
    """
    deviation = x - _day_mean(x)
    std = np.sqrt(_day_mean(deviation**2))
    size = np.where(np.isnan(x), 0.0, np.abs(x)).max(axis=1, keepdims=True, initial=0.0)
    equal = std <= flat * size
    scaled = deviation / np.where(equal, 1.0, std)
    return np.asarray(np.where(equal & ~np.isnan(x), 0.0, scaled))


def cs_quantile(x: Float[np.ndarray, "D N"], q: int) -> Int[np.ndarray, "D N"]:
    """Quantile of each value within its day: 1 = lowest ... `q` = highest, 0 = no value.

    The edges are those of `pandas.qcut` (and so of alphalens): linear between the sorted
    values, right-closed. Equal values fall into the same quantile, so quantiles can be empty if
    there are ties or fewer values than `q`.
    """
    known = ~np.isnan(x)
    ranks = pd.DataFrame(x).rank(axis=1, method="min").to_numpy()
    below = np.where(known, ranks - 1, 0).astype(np.int64)  # values strictly smaller
    gaps = np.maximum(known.sum(axis=1, keepdims=True) - 1, 1)
    quantile = np.maximum(-(-below * q // gaps), 1)  # ceil, in integers: exact at the edges
    return np.asarray(np.where(known, quantile, 0), dtype=np.int16)


def _demean(
    x: Float[np.ndarray, "D N"], groups: Int[np.ndarray, "D N"] | None
) -> Float[np.ndarray, "D N"]:
    """Deviation from the mean of the day's group (None: of the day)."""
    if groups is None:
        return np.asarray(x - _day_mean(x))
    known = ~np.isnan(x)
    width = int(groups.max(initial=-1)) + 2  # code -1 is a group of its own
    cell = (groups.astype(np.int64) + 1) + width * np.arange(len(x))[:, None]
    size = np.bincount(cell[known], minlength=width * len(x))
    total = np.bincount(cell[known], weights=x[known], minlength=width * len(x))
    return np.asarray(x - (total / np.maximum(size, 1))[cell])


def cs_neutralize(
    score: Float[np.ndarray, "D N"],
    *,
    groups: Int[np.ndarray, "D N"] | None = None,
    exposure: Float[np.ndarray, "D N"] | None = None,
) -> Float[np.ndarray, "D N"]:
    """Residual of a daily least-squares regression on group dummies and one exposure.

    Computed by partialling out (Frisch, Waugh, Lovell): score and exposure are demeaned within
    the groups, then one slope per day is fitted. The result equals the regression on dummies.

    Args:
        score: Any unit; NaN = no score.
        groups: Group codes, e.g. industries; unknown (-1) is a group of its own. None = one
            group, i.e. an intercept only.
        exposure: One regressor, e.g. log market cap. An asset without it gets the mean exposure
            of its group.

    Returns:
        Residuals in the unit of `score`; NaN where `score` is NaN. The only member of a group
        has residual 0.

    Source:
        Frisch & Waugh (1933), Lovell (1963).
    """
    residual = _demean(score, groups)
    if exposure is None:
        return residual
    seen = np.where(np.isnan(score), np.nan, exposure)
    regressor = np.nan_to_num(_demean(seen, groups), nan=0.0)
    product = (regressor * np.nan_to_num(residual, nan=0.0)).sum(axis=1, keepdims=True)
    square = (regressor**2).sum(axis=1, keepdims=True)
    size = (np.nan_to_num(seen, nan=0.0) ** 2).sum(axis=1, keepdims=True)
    flat = square <= FLAT * size
    slope = np.where(flat, 0.0, product / np.where(flat, 1.0, square))
    return np.asarray(residual - slope * regressor)
