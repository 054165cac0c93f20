"""How long the factor ranks the same way, and how alike two factors rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from gangru_dist import metrics
from gangru_dist.evaluation.market import Rebalances

LAGS = (1, 2, 3, 6, 12)
"""Months between the two month-ends of an autocorrelation."""


def autocorrelation(rebalances: Rebalances) -> pd.DataFrame:
    """Spearman correlation of each month-end's factor with that of `lag` month-ends before.

    Columns: lag (months), months, correlation (their mean). Of the assets that have both.
    """
    rows = []
    for lag in LAGS:
        values = metrics.rank_ic(rebalances.factor[lag:], rebalances.factor[:-lag])
        kept = metrics.finite(values)
        rows.append((lag, len(kept), metrics.mean(kept)))
    return pd.DataFrame(rows, columns=["lag", "months", "correlation"])


def factor_correlation(ours: pd.DataFrame, theirs: pd.DataFrame, days: pd.Series) -> pd.DataFrame:
    """Spearman correlation of two factor tables on each day: rebalance, assets, correlation.

    Of the assets that both tables have; days that one of them lacks have NaN.
    """
    rows = []
    one, other = (
        {day: rows.set_index("asset")["factor"] for day, rows in _on(table, days)}
        for table in (ours, theirs)
    )
    for day in days:
        if day in one and day in other:
            both = pd.concat([one[day], other[day]], axis=1, join="inner").dropna().to_numpy()
            rows.append((day, len(both), metrics.rank_ic(both[None, :, 0], both[None, :, 1])[0]))
        else:
            rows.append((day, 0, np.nan))
    return pd.DataFrame(rows, columns=["rebalance", "assets", "correlation"])


def _on(table: pd.DataFrame, days: pd.Series) -> Any:
    dates = pd.to_datetime(table["date"])
    return table[dates.isin(days)].groupby(dates)
