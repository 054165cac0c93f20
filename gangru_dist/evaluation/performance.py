"""Figures of daily values: of the portfolio, of its benchmarks, and of the one against the other.

**Beside an index**, with the daily active return a(t) = r_long(t) - r_index(t): the tracking error
is the standard deviation (n - 1) of a x sqrt(days a year), the information ratio is the mean of a x
days a year over it, beta is the covariance of r_long and r_index over the variance of r_index. The
excess is long / index, so that its growth is the geometric excess; `annualized_difference` is the
arithmetic one, the annualized return of the portfolio less that of the index.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from gangru_dist.base.errors import EvaluationError
from gangru_dist.maths import metrics


def measure_value(value: Float[np.ndarray, " T"], days_per_year: int) -> dict[str, float]:
    """Figures of a daily value; NaN where undefined."""
    return {
        "total_return": float(value[-1] / value[0] - 1),
        "annualized_return": metrics.annualized_return(value, days_per_year),
        "annualized_volatility": metrics.annualized_volatility(value, days_per_year),
        "information_ratio": metrics.information_ratio(value, days_per_year),
        "max_drawdown": metrics.max_drawdown(value),
    }


def measure_excess(
    value: Float[np.ndarray, " T"], benchmark: Float[np.ndarray, " T"], days_per_year: int
) -> dict[str, float]:
    """Figures of value / benchmark, and the difference of the two annualized returns."""
    ours, theirs = (metrics.annualized_return(one, days_per_year) for one in (value, benchmark))
    found = measure_value(value / benchmark, days_per_year)
    return {**found, "annualized_difference": ours - theirs}


WORST = 5
"""Drawdowns that are listed of a daily value."""


def list_drawdowns(dates: pd.Series, value: Float[np.ndarray, " T"]) -> pd.DataFrame:
    """The deepest falls of a daily value from a high to the next one, deepest first.

    Columns: depth (a positive fraction), peak, trough, recovered (NaT: not yet), days (trading days
    from the peak to the recovery, or to the last day). A value of NaN alone has none.
    """
    fall = metrics.drawdown(value)
    highs = np.flatnonzero(fall == 0)
    rows = []
    for start, stop in zip(highs, [*highs, len(value)][1:], strict=True):
        if stop - start < 2:
            continue
        trough = start + int(np.argmin(fall[start:stop]))
        recovered = dates.iloc[stop] if stop < len(value) else pd.NaT
        days = min(stop, len(value) - 1) - start
        rows.append((-fall[trough], dates.iloc[start], dates.iloc[trough], recovered, days))
    table = pd.DataFrame(rows, columns=["depth", "peak", "trough", "recovered", "days"])
    table = table.astype({name: "datetime64[s]" for name in ("peak", "trough", "recovered")})
    return table.sort_values("depth", ascending=False, kind="stable", ignore_index=True)[:WORST]


def sample_index(closes: pd.Series, days: np.ndarray) -> tuple[Float[np.ndarray, " T"], int]:
    """The index as a daily value from 1, and the number of days it has no close of.

    Args:
        closes: Above 0, by ascending, unique days; its name is the reader's.
        days: (T,) datetime64[D], trading days. One without a close keeps the one before.

    Raises:
        EvaluationError: The closes begin later or end earlier than these days.
    """
    first, last = closes.index[0], closes.index[-1]
    if first > days[0] or last < days[-1]:
        raise EvaluationError(
            f"evaluation.index={closes.name} has closes from {first:%Y-%m-%d} to "
            f"{last:%Y-%m-%d}, the portfolio runs from {days[0]} to {days[-1]}. Give closes "
            "of that whole time, or leave evaluation.index out."
        )
    wanted = pd.DatetimeIndex(days)
    value = closes.reindex(wanted, method="ffill").to_numpy()
    return np.asarray(value / value[0]), int((~wanted.isin(closes.index)).sum())


def measure_against_index(
    long: Float[np.ndarray, " T"],
    net: Float[np.ndarray, " T"],
    index: Float[np.ndarray, " T"],
    days_per_year: int,
) -> dict[str, object]:
    """Figures of the index and of the portfolio beside it; NaN where undefined.

    Args:
        long: Daily value of the portfolio without costs.
        net: The same with costs.
        index: Daily value of the index.
        days_per_year: Trading days.
    """
    return {
        "value": measure_value(index, days_per_year),
        "excess": measure_excess(long, index, days_per_year),
        "excess_with_costs": measure_excess(net, index, days_per_year),
        **_measure_tracking(long, index, days_per_year),
        "with_costs": _measure_tracking(net, index, days_per_year),
    }


def _measure_tracking(long: np.ndarray, index: np.ndarray, days_per_year: int) -> dict[str, float]:
    ours, theirs = metrics.daily_returns(long), metrics.daily_returns(index)
    if len(ours) < 2:
        return dict.fromkeys(("tracking_error", "information_ratio", "beta"), np.nan)
    active, varies = ours - theirs, np.ptp(theirs) > 0
    error = float(active.std(ddof=1) * np.sqrt(days_per_year))
    return {
        "tracking_error": error,
        "information_ratio": active.mean() * days_per_year / error if error else np.nan,
        "beta": np.cov(ours, theirs)[0, 1] / theirs.var(ddof=1) if varies else np.nan,
    }
