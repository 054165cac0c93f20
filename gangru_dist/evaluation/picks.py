"""The newest picks, and the factor's performance within each industry."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from gangru_dist.evaluation.decomposition import UNKNOWN, mean_traded
from gangru_dist.evaluation.ic import TRAILING, period_return, trailing_mean
from gangru_dist.evaluation.market import Market, Rebalances
from gangru_dist.evaluation.portfolio import top_assets
from gangru_dist.maths import metrics

__all__ = ["UNKNOWN", "before", "dropped", "industry_table", "newest", "ranked_universe"]


def newest(rebalances: Rebalances) -> int:
    """Row of the last rebalance with a factor, whether or not it is entered yet."""
    return int(np.flatnonzero(rebalances.has_factor)[-1])


def before(rebalances: Rebalances) -> int | None:
    """Row of the last rebalance before the newest that has a factor; None if there is none."""
    scored = np.flatnonzero(rebalances.has_factor)
    return int(scored[-2]) if len(scored) > 1 else None


def _order(factor: Float[np.ndarray, " N"]) -> Int[np.ndarray, " U"]:
    """Members of the universe, highest factor first, ties to the alphabetically first."""
    members = np.flatnonzero(np.isfinite(factor))
    return np.asarray(members[np.argsort(-factor[members], kind="stable")])


def ranked_universe(market: Market, rebalances: Rebalances, *, top_fraction: float) -> pd.DataFrame:
    """The universe of the newest rebalance, highest factor first.

    Columns: rank, asset, industry, factor, score, quantile, market_cap, at_limit (`up` or `down`
    if that day's close was at a price limit, else empty), industry_rank, weight (equal among the
    targets of the long portfolio, else 0), rank_before (at the rebalance before; NaN outside its
    universe), change (`new`: a target that was none at the rebalance before, else empty),
    traded_value (mean of 20 days, currency).
    """
    row = newest(rebalances)
    day = int(rebalances.day[row])
    order = _order(rebalances.factor[row])
    chosen = top_assets(rebalances.factor[row], top_fraction)
    rank_before, was = _before(rebalances, top_fraction)
    names = np.array([*market.industries, UNKNOWN])
    up, down = market.limit_up[day, order], market.limit_down[day, order]
    table = pd.DataFrame(
        {
            "rank": np.arange(1, len(order) + 1),
            "asset": market.assets[order],
            "industry": names[market.industry[day, order]],
            "factor": rebalances.factor[row, order],
            "score": rebalances.score[row, order],
            "quantile": rebalances.quantile[row, order],
            "market_cap": market.market_cap[day, order],
            "at_limit": np.where(up, "up", np.where(down, "down", "")),
        }
    )
    table["industry_rank"] = table.groupby("industry").cumcount() + 1
    table["weight"] = np.where(chosen, 1 / chosen.sum(), 0.0)[order]
    table["rank_before"] = rank_before[order]
    table["change"] = np.where(chosen & ~was, "new", "")[order]
    table["traded_value"] = mean_traded(market, day)[order]
    return table


def _before(
    rebalances: Rebalances, top_fraction: float
) -> tuple[Float[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Ranks and targets of the rebalance before the newest; nothing if there is none."""
    row = before(rebalances)
    ranks = np.full(rebalances.factor.shape[1], np.nan)
    if row is None:
        return ranks, np.zeros(len(ranks), dtype=bool)
    order = _order(rebalances.factor[row])
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks, top_assets(rebalances.factor[row], top_fraction)


def dropped(market: Market, rebalances: Rebalances, *, top_fraction: float) -> pd.DataFrame:
    """Targets of the rebalance before that are none of the newest, best rank before first.

    Columns: asset, industry (known at the newest, else `unknown`), rank_before, rank (NaN if the
    asset left the universe).
    """
    row = newest(rebalances)
    rank_before, was = _before(rebalances, top_fraction)
    gone = np.flatnonzero(was & ~top_assets(rebalances.factor[row], top_fraction))
    gone = gone[np.argsort(rank_before[gone])]
    order = _order(rebalances.factor[row])
    rank = np.full(len(rank_before), np.nan)
    rank[order] = np.arange(1, len(order) + 1)
    names = np.array([*market.industries, UNKNOWN])
    return pd.DataFrame(
        {
            "asset": market.assets[gone],
            "industry": names[market.industry[rebalances.day[row], gone]],
            "rank_before": rank_before[gone],
            "rank": rank[gone],
        }
    )


def industry_table(market: Market, rebalances: Rebalances, *, top_fraction: float) -> pd.DataFrame:
    """One row per known industry: IC and excess return, of the latest period and the mean of 12.

    The mean is over the latest month and the 11 before it; NaN if one of them is missing or has no
    value. `ic` is Spearman's within the industry, NaN for fewer than three members. `excess` is
    the equal-weighted return of the industry's top (`top_fraction` of its members, at least one)
    minus that of all its members over the period, without restrictions and costs. Members are
    the assets of the rebalance day's universe in the industry on that day. Columns: industry,
    assets (latest), ic_latest, ic_mean_12, excess_latest, excess_mean_12.
    """
    done = rebalances.complete[-TRAILING:]
    earned = period_return(market, rebalances.entry[done], rebalances.exit[done])
    groups = market.industry[rebalances.day[done]]
    months = market.dates[rebalances.day[done]]
    rows = []
    for number, name in enumerate(market.industries):
        inside = groups == number
        factor = np.where(inside & np.isfinite(earned), rebalances.factor[done], np.nan)
        if not np.isfinite(factor).any():
            continue
        ic = metrics.rank_ic(factor, earned)
        excess = _top_excess(factor, earned, top_fraction)
        rows.append(
            {
                "industry": name,
                "assets": int(np.isfinite(factor[-1]).sum()),
                "ic_latest": ic[-1],
                "ic_mean_12": trailing_mean(ic, months)[-1],
                "excess_latest": excess[-1],
                "excess_mean_12": trailing_mean(excess, months)[-1],
            }
        )
    columns = ["industry", "assets", "ic_latest", "ic_mean_12", "excess_latest", "excess_mean_12"]
    return pd.DataFrame(rows, columns=columns)


def _top_excess(
    factor: Float[np.ndarray, "P N"], earned: Float[np.ndarray, "P N"], fraction: float
) -> Float[np.ndarray, " P"]:
    """Mean return of the top minus that of all members, per period; NaN without members."""
    result = np.full(len(factor), np.nan)
    for period, (values, returns) in enumerate(zip(factor, earned, strict=True)):
        members = np.isfinite(values)
        if members.any():
            top = top_assets(values, fraction)
            result[period] = returns[top].mean() - returns[members].mean()
    return result


def universe_size(rebalances: Rebalances) -> Int[np.ndarray, " M"]:
    """Assets with a factor at each month-end."""
    return np.asarray(np.isfinite(rebalances.factor).sum(axis=1))
