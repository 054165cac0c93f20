"""Information coefficients at the monthly rebalances (SPEC 7).

A period runs from the entry day of one rebalance to that of the next. It is named after the
month of its return: the rebalance of 2019-01-31 gives the IC of 2019-02, as in the broker's
tables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from gangru_dist import metrics
from gangru_dist.evaluation.market import Market, Rebalances

TRAILING = 12
"""Months in "the last year" and in moving averages."""


def period_return(market: Market, start: np.ndarray, stop: np.ndarray) -> Float[np.ndarray, "P N"]:
    """Return of each asset from the close of row start[p] to the close of row stop[p].

    A suspended or delisted asset keeps its last price; NaN if it had not traded by `start`.
    """
    return np.asarray(market.price[stop] / market.price[start] - 1)


def trailing_mean(
    values: Float[np.ndarray, " P"], months: Shaped[np.ndarray, " P"]
) -> Float[np.ndarray, " P"]:
    """Moving average over the last `TRAILING` calendar months.

    `months` is ascending, in any unit that numpy casts to datetime64[M]. NaN where one of the
    months is missing or has no value.
    """
    since = months.astype("datetime64[M]").astype(np.int64)
    row = since - since[:1]
    spread = np.full(row[-1] + 1 if len(row) else 0, np.nan)
    spread[row] = values
    return np.asarray(pd.Series(spread).rolling(TRAILING).mean().to_numpy()[row])


def month_names(market: Market, rebalances: Rebalances) -> list[str]:
    """The month after each rebalance day, as `2019-02`."""
    months = market.dates[rebalances.day].astype("datetime64[M]") + 1
    return [str(month) for month in months]


def monthly_ic(market: Market, rebalances: Rebalances) -> pd.DataFrame:
    """One row per complete period: month, rebalance, entry, exit, assets and ICs.

    `ic` is the factor's Spearman IC, with its moving average and cumulative sum; `ic_pearson` its
    Pearson IC; `ic_score` the Spearman IC of the raw prediction, before neutralization.
    """
    done = rebalances.complete
    earned = period_return(market, rebalances.entry[done], rebalances.exit[done])
    factor = rebalances.factor[done]
    ic = metrics.rank_ic(factor, earned)
    months = np.array(month_names(market, rebalances))[done]
    return pd.DataFrame(
        {
            "month": months,
            "rebalance": market.dates[rebalances.day[done]].astype("datetime64[s]"),
            "entry": market.dates[rebalances.entry[done]].astype("datetime64[s]"),
            "exit": market.dates[rebalances.exit[done]].astype("datetime64[s]"),
            "assets": (np.isfinite(factor) & np.isfinite(earned)).sum(axis=1),
            "ic": ic,
            "ic_mean_12": trailing_mean(ic, months),
            "ic_cumulative": np.nancumsum(ic),
            "ic_pearson": metrics.ic(factor, earned),
            "ic_score": metrics.rank_ic(rebalances.score[done], earned),
        }
    )


def ic_summary(
    values: Float[np.ndarray, " P"], months: Shaped[np.ndarray, " P"]
) -> dict[str, float | int | str | None]:
    """Mean, ICIR and both significance tests of the ICs of these months; None for NaN."""
    test = metrics.t_test(values)
    lags = metrics.newey_west_lags(test.count)
    kept = metrics.finite(values)
    figures = {
        "mean": metrics.mean(values),
        "std": float(kept.std(ddof=1)) if len(kept) > 1 else float("nan"),
        "icir": metrics.icir(values),
        "t": test.statistic,
        "p_value": test.p_value,
        "newey_west_t": metrics.newey_west_t(values, lags=lags),
        "latest": float(values[-1]),
        "mean_12": float(trailing_mean(values, months)[-1]),
        "share_positive": metrics.mean((kept > 0).astype(np.float64)),
    }
    return {
        **metrics.finite_or_none(figures),
        "stars": metrics.stars(test.p_value),
        "months": test.count,
        "newey_west_lags": lags,
    }


def ic_decay(market: Market, rebalances: Rebalances, horizons: Sequence[int]) -> pd.DataFrame:
    """Spearman IC of the factor at month-ends with the return over each holding period.

    Columns: horizon (trading days after entry), months, ic, std_error, newey_west_t. Long
    horizons overlap, so Newey-West uses at least as many lags as periods overlap; `std_error` is
    ic / newey_west_t. Month-ends without `horizon` days of prices after entry are left out.
    """
    rows = []
    for horizon in horizons:
        entry, values = _horizon_ic(market, rebalances, horizon)
        count = len(metrics.finite(values))
        overlap = overlapping(entry[np.isfinite(values)], horizon)
        t = metrics.newey_west_t(values, lags=max(metrics.newey_west_lags(count), overlap))
        average = metrics.mean(values)
        rows.append((horizon, count, average, average / t if t else np.nan, t))
    return pd.DataFrame(rows, columns=["horizon", "months", "ic", "std_error", "newey_west_t"])


def overlapping(entry: Int[np.ndarray, " P"], horizon: int) -> int:
    """Largest number of later periods that start before a period of `horizon` days ends.

    `entry` is ascending. Counted rather than computed, as months have 15 to 23 trading days.
    """
    later = np.searchsorted(entry, entry + horizon) - np.arange(len(entry)) - 1
    return int(later.max(initial=0))


def _horizon_ic(
    market: Market, rebalances: Rebalances, horizon: int
) -> tuple[Int[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    """Entry and IC of each month-end with a factor and `horizon` days of prices after entry."""
    reachable = (rebalances.entry >= 0) & (rebalances.entry + horizon < len(market.dates))
    chosen = np.flatnonzero(rebalances.has_factor & reachable)
    start = rebalances.entry[chosen]
    earned = period_return(market, start, start + horizon)
    return start, metrics.rank_ic(rebalances.factor[chosen], earned)
