"""What the long portfolio leans on: industries, size, volatility, turnover; what it could hold.

A style is standardized over the universe of its day, so the equal-weighted universe stands at 0
and 1 is one standard deviation above it. Suspended holdings outside the universe have no style.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from gangru_dist import metrics
from gangru_dist.evaluation.market import Market, Rebalances
from gangru_dist.evaluation.portfolio import Portfolio, top_assets

DAYS = 20
"""Trading days behind volatility, turnover and traded value."""
PARTICIPATION = 0.1
"""Share of a day's traded value that one order may take."""
UNKNOWN = "unknown"
"""Industry of assets whose industry is not known."""
STYLES = ("size", "volatility", "turnover")


def mean_traded(market: Market, day: int) -> Float[np.ndarray, " N"]:
    """Mean traded value of the days with a bar among the last `DAYS`; NaN of none."""
    recent = market.traded_value[max(0, day - DAYS + 1) : day + 1]
    known = np.isfinite(recent)
    total = np.where(known, recent, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def styles(market: Market, day: int, members: Bool[np.ndarray, " N"]) -> dict[str, np.ndarray]:
    """Style -> (N,) value over the members' mean, in their standard deviations; NaN outside.

    size: log market cap. volatility: log standard deviation of the last `DAYS` daily returns, all
    of which must be there. turnover: log of the mean traded value over the market cap.
    """
    cap = market.market_cap[day]
    returns = np.diff(market.price[max(0, day - DAYS) : day + 1], axis=0)
    returns = returns / market.price[max(0, day - DAYS) : day]
    whole = len(returns) == DAYS
    volatility = returns.std(axis=0, ddof=1) if whole else np.full(len(cap), np.nan)
    raw = {"size": cap, "volatility": volatility, "turnover": mean_traded(market, day) / cap}
    return {name: _standardized(values, members) for name, values in raw.items()}


def _standardized(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    known = members & np.isfinite(values) & (values > 0)
    result = np.full(len(values), np.nan)
    logs = np.log(values[known])
    if len(logs) > 1 and np.ptp(logs) > 0:
        result[known] = (logs - logs.mean()) / logs.std(ddof=1)
    return result


def style_exposures(market: Market, rebalances: Rebalances, long: Portfolio) -> pd.DataFrame:
    """One row a rebalance that was traded: rebalance, size, volatility, turnover.

    Weighted mean of the holdings' styles after the trade; NaN if none is known.
    """
    rows = []
    for row, weights in zip(long.trades["row"], long.weights, strict=True):
        day = int(rebalances.day[row])
        members = np.isfinite(rebalances.factor[row])
        found = styles(market, day, members)
        rows.append([_weighted(found[name], weights) for name in STYLES])
    table = pd.DataFrame(rows, columns=list(STYLES))
    days = rebalances.day[long.trades["row"].to_numpy()]
    table.insert(0, "rebalance", market.dates[days].astype("datetime64[s]"))
    return table


def _weighted(values: np.ndarray, weights: np.ndarray) -> float:
    known = np.isfinite(values) & (weights > 0)
    return float(np.average(values[known], weights=weights[known])) if known.any() else np.nan


def industry_weights(market: Market, rebalances: Rebalances, long: Portfolio) -> pd.DataFrame:
    """One row an industry: its share of what is held, of the universe, and the difference.

    Columns: industry, weight, universe, active (of the newest trade), active_mean (of all trades).
    The universe counts every member once; cash counts nowhere.
    """
    names = [*market.industries, UNKNOWN]
    held, universe = np.zeros((2, len(long.weights), len(names)))
    for place, (row, weights) in enumerate(zip(long.trades["row"], long.weights, strict=True)):
        groups = market.industry[rebalances.day[row]]  # -1, unknown, is the last
        np.add.at(held[place], groups, weights / max(weights.sum(), 1e-12))
        members = np.isfinite(rebalances.factor[row])
        np.add.at(universe[place], groups[members], 1 / members.sum())
    table = pd.DataFrame(
        {
            "industry": names,
            "weight": held[-1],
            "universe": universe[-1],
            "active": held[-1] - universe[-1],
            "active_mean": (held - universe).mean(axis=0),
        }
    )
    there = (held + universe).sum(axis=0) > 0
    kept: pd.DataFrame = table[there].reset_index(drop=True)
    return kept


def capacity(
    market: Market, rebalances: Rebalances, *, top_fraction: float, row: int
) -> dict[str, Any]:
    """What the newest targets trade a day, and the capital that they could take in one.

    `capital`: bought in equal parts on one day, nine tenths of the targets stay within
    `PARTICIPATION` of their mean traded value of `DAYS` days. In currency; None where unknown.
    """
    chosen = top_assets(rebalances.factor[row], top_fraction)
    traded = metrics.finite(mean_traded(market, int(rebalances.day[row]))[chosen])
    low, middle = np.quantile(traded, [0.1, 0.5]) if len(traded) else (np.nan, np.nan)
    figures = {
        "median_traded_value": middle,
        "lowest_tenth_traded_value": low,
        "capital": PARTICIPATION * low * int(chosen.sum()),
    }
    return {
        "targets": int(chosen.sum()),
        "days": DAYS,
        "participation": PARTICIPATION,
        **metrics.finite_or_none(figures),
    }
