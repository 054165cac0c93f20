"""How well the factor ranks at the monthly rebalances (docs/method.md, 6).

Its information coefficients by month and holding period, the returns of its quantiles, how long it
ranks the same way, and how alike two factors rank.

A period runs from the entry day of one rebalance to that of the next. It is named after the
month of its return: the rebalance of 2019-01-31 gives the IC of 2019-02, as in the broker's
tables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from scipy import stats

from gangru_dist.evaluation.market import FACTOR_COLUMNS, Market, Rebalances
from gangru_dist.maths import metrics
from gangru_dist.maths.cross_section import cs_mean

TRAILING = 12
"""Months in "the last year" and in moving averages."""


def compute_return(market: Market, start: np.ndarray, stop: np.ndarray) -> Float[np.ndarray, "P N"]:
    """Return of each asset from the close of row start[p] to the close of row stop[p].

    A suspended asset keeps its last price, one that ended what it was settled at; NaN if it had not
    traded by `start`.
    """
    return np.asarray(market.price[stop] / market.price[start] - 1)


def compute_trailing_mean(
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


def _name_periods(market: Market, rebalances: Rebalances) -> np.ndarray:
    """(P,) str, the month after the rebalance day of each complete period, as `2019-02`."""
    days = market.dates[rebalances.day[rebalances.complete]]
    return np.array((days.astype("datetime64[M]") + 1).astype(np.str_))


def compute_monthly_ic(market: Market, rebalances: Rebalances) -> pd.DataFrame:
    """One row per complete period: month, rebalance, entry, exit, assets and ICs.

    `ic` is the factor's Spearman IC, with its moving average and cumulative sum; `ic_pearson` its
    Pearson IC; `ic_score` the Spearman IC of the raw prediction, before neutralization.
    """
    done = rebalances.complete
    earned = compute_return(market, rebalances.entry[done], rebalances.exit[done])
    factor = rebalances.factor[done]
    ic = metrics.rank_ic(factor, earned)
    months = _name_periods(market, rebalances)
    return pd.DataFrame(
        {
            "month": months,
            "rebalance": market.dates[rebalances.day[done]],
            "entry": market.dates[rebalances.entry[done]],
            "exit": market.dates[rebalances.exit[done]],
            "assets": (np.isfinite(factor) & np.isfinite(earned)).sum(axis=1),
            "ic": ic,
            "ic_mean_12": compute_trailing_mean(ic, months),
            "ic_cumulative": np.nancumsum(ic),
            "ic_pearson": metrics.ic(factor, earned),
            "ic_score": metrics.rank_ic(rebalances.score[done], earned),
        }
    )


def summarize_ic(
    values: Float[np.ndarray, " P"], months: Shaped[np.ndarray, " P"]
) -> dict[str, float | int | str]:
    """Mean, ICIR and both significance tests of the ICs of these months."""
    test = metrics.t_test(values)
    lags = metrics.newey_west_lags(test.count)
    kept = metrics.drop_nonfinite(values)
    return {
        "mean": metrics.mean(values),
        "std": float(kept.std(ddof=1)) if len(kept) > 1 else float("nan"),
        "icir": metrics.icir(values),
        "t": test.statistic,
        "p_value": test.p_value,
        "newey_west_t": metrics.newey_west_t(values, lags=lags),
        "latest": float(values[-1]),
        "mean_12": float(compute_trailing_mean(values, months)[-1]),
        "share_positive": metrics.mean((kept > 0).astype(np.float64)),
        "stars": metrics.mark_significance(test.p_value),
        "months": test.count,
        "newey_west_lags": lags,
    }


def measure_decay(market: Market, rebalances: Rebalances, horizons: Sequence[int]) -> pd.DataFrame:
    """Spearman IC of the factor at month-ends with the return over each holding period.

    Columns: horizon (trading days after entry), months, ic, std_error, newey_west_t. Long
    horizons overlap, so Newey-West uses at least as many lags as periods overlap; `std_error` is
    ic / newey_west_t. Month-ends without `horizon` days of prices after entry are left out.
    """
    rows = []
    for horizon in horizons:
        reachable = (rebalances.entry >= 0) & (rebalances.entry + horizon < len(market.dates))
        chosen = np.flatnonzero(rebalances.has_factor & reachable)
        entry = rebalances.entry[chosen]
        earned = compute_return(market, entry, entry + horizon)
        values = metrics.rank_ic(rebalances.factor[chosen], earned)
        count = len(metrics.drop_nonfinite(values))
        overlap = count_overlaps(entry[np.isfinite(values)], horizon)
        t = metrics.newey_west_t(values, lags=max(metrics.newey_west_lags(count), overlap))
        average = metrics.mean(values)
        rows.append((horizon, count, average, average / t if t else np.nan, t))
    return pd.DataFrame(rows, columns=["horizon", "months", "ic", "std_error", "newey_west_t"])


def count_overlaps(entry: Int[np.ndarray, " P"], horizon: int) -> int:
    """Largest number of later periods that start before a period of `horizon` days ends.

    `entry` is ascending. Counted rather than computed, as months have 15 to 23 trading days.
    """
    later = np.searchsorted(entry, entry + horizon) - np.arange(len(entry)) - 1
    return int(later.max(initial=0))


def tabulate_quantiles(market: Market, rebalances: Rebalances, quantiles: int) -> pd.DataFrame:
    """Equal-weighted return of each quantile in each complete period.

    Columns: month, q1 ... qQ, universe, long_short (qQ minus q1). From the close of one entry day
    to that of the next, without trading restrictions and costs. NaN for an empty quantile.
    """
    done = rebalances.complete
    earned = compute_return(market, rebalances.entry[done], rebalances.exit[done])
    number = np.where(np.isfinite(earned), rebalances.quantile[done], 0)
    table = pd.DataFrame({"month": _name_periods(market, rebalances)})
    for quantile in range(1, quantiles + 1):
        table[f"q{quantile}"] = cs_mean(earned, number == quantile)
    everyone = np.isfinite(rebalances.factor[done]) & np.isfinite(earned)
    table["universe"] = cs_mean(earned, everyone)
    table["long_short"] = table[f"q{quantiles}"] - table["q1"]
    return table


def summarize_quantiles(returns: pd.DataFrame, *, quantiles: int) -> pd.DataFrame:
    """One row per quantile: mean monthly return, annualized return and excess over the universe.

    Columns: quantile, mean_return, annualized_return (geometric, over the months with a value),
    mean_excess (monthly, over the universe), total_return (compounded over the same months).
    """
    rows = []
    for quantile in range(1, quantiles + 1):
        monthly = returns[f"q{quantile}"].to_numpy()
        excess = metrics.mean(monthly - returns["universe"].to_numpy())
        known = metrics.drop_nonfinite(monthly)
        annual = np.prod(1 + known) ** (12 / len(known)) - 1 if len(known) else np.nan
        rows.append((quantile, metrics.mean(monthly), annual, excess, compound_returns(monthly)))
    columns = ["quantile", "mean_return", "annualized_return", "mean_excess", "total_return"]
    return pd.DataFrame(rows, columns=columns)


def compound_returns(monthly: np.ndarray) -> float:
    """Compounded return of all months; NaN months are left out, NaN of none."""
    kept = metrics.drop_nonfinite(monthly)
    return float(np.prod(1 + kept) - 1) if len(kept) else float("nan")


def measure_monotonicity(summary: pd.DataFrame) -> float:
    """Spearman correlation of quantile number and mean return; 1 = the returns always rise."""
    kept = summary.dropna(subset=["mean_return"])
    if len(kept) < metrics.MIN_PAIRS or kept["mean_return"].nunique() < 2:
        return float("nan")
    return float(stats.spearmanr(kept["quantile"], kept["mean_return"]).statistic)


LAGS = (1, 2, 3, 6, 12)
"""Months between the two month-ends of an autocorrelation."""


def autocorrelate(rebalances: Rebalances) -> pd.DataFrame:
    """Spearman correlation of each month-end's factor with that of `lag` month-ends before.

    Columns: lag (months), months, correlation (their mean). Of the assets that have both.
    """
    rows = []
    for lag in LAGS:
        values = metrics.rank_ic(rebalances.factor[lag:], rebalances.factor[:-lag])
        kept = metrics.drop_nonfinite(values)
        rows.append((lag, len(kept), metrics.mean(kept)))
    return pd.DataFrame(rows, columns=["lag", "months", "correlation"])


def correlate_factors(ours: pd.DataFrame, theirs: pd.DataFrame, days: pd.Series) -> pd.DataFrame:
    """Spearman correlation of two factor tables on each day: rebalance, assets, correlation.

    Of the assets that both tables have; days that one of them lacks have NaN.
    """
    tables = [table.assign(date=pd.to_datetime(table["date"])) for table in (ours, theirs)]
    one, other = (table.loc[table["date"].isin(days), [*FACTOR_COLUMNS]] for table in tables)
    pairs = one.merge(other, on=["date", "asset"]).dropna()
    rows = []
    for day in days:
        both = pairs[pairs["date"] == day]
        first, second = both["factor_x"].to_numpy(), both["factor_y"].to_numpy()
        rows.append((day, len(both), metrics.rank_ic(first[None], second[None])[0]))
    return pd.DataFrame(rows, columns=["rebalance", "assets", "correlation"])
