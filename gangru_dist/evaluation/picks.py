"""The newest picks, and the factor's performance within each industry."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from gangru_dist.config.settings import EvaluationConfig
from gangru_dist.evaluation.decomposition import UNKNOWN, average_traded_value
from gangru_dist.evaluation.ic import TRAILING, compute_return, compute_trailing_mean
from gangru_dist.evaluation.market import Market, Rebalances
from gangru_dist.evaluation.portfolio import Portfolio, choose_top, find_share, find_targets
from gangru_dist.maths import metrics


def _rank(
    market: Market, rebalances: Rebalances, long: Portfolio, rules: EvaluationConfig, back: int
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Rank and target weight at a rebalance with a factor, `back` of them before the newest.

    1 = the highest factor, ties to the alphabetically first; NaN outside the universe. Nothing if
    there is no such rebalance.
    """
    rows = np.flatnonzero(rebalances.has_factor)
    if back >= len(rows):
        count = rebalances.factor.shape[1]
        return np.full(count, np.nan), np.zeros(count)
    row = int(rows[-1 - back])
    ranks = pd.Series(-rebalances.factor[row]).rank(method="first").to_numpy()
    return ranks, find_targets(market, rebalances, long, rules, row)


def rank_universe(
    market: Market, rebalances: Rebalances, long: Portfolio, rules: EvaluationConfig
) -> pd.DataFrame:
    """The universe of the newest rebalance, highest factor first.

    Columns: rank, asset, industry, factor, score, quantile, market_cap, at_limit (`up` or `down`
    if that day's close was at a price limit, else empty), industry_rank, weight (of the targets of
    the long portfolio before its trading rules, else 0), rank_before (at the rebalance before; NaN
    outside its universe), change (`new`: a target that was none at the rebalance before, else
    empty), traded_value (mean of 20 days, currency).
    """
    row = rebalances.newest
    day = int(rebalances.day[row])
    ranks, weights = _rank(market, rebalances, long, rules, 0)
    rank_before, before = _rank(market, rebalances, long, rules, 1)
    order = np.argsort(ranks)[: np.isfinite(ranks).sum()]  # NaN last
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
    table["weight"] = weights[order]
    table["rank_before"] = rank_before[order]
    table["change"] = np.where((weights > 0) & (before == 0), "new", "")[order]
    table["traded_value"] = average_traded_value(market, day)[order]
    return table


def list_dropped(
    market: Market, rebalances: Rebalances, long: Portfolio, rules: EvaluationConfig
) -> pd.DataFrame:
    """Targets of the rebalance before that are none of the newest, best rank before first.

    Columns: asset, industry (known at the newest, else `unknown`), rank_before, rank (NaN if the
    asset left the universe).
    """
    rank, weights = _rank(market, rebalances, long, rules, 0)
    rank_before, before = _rank(market, rebalances, long, rules, 1)
    gone = np.flatnonzero((before > 0) & (weights == 0))
    gone = gone[np.argsort(rank_before[gone])]
    names = np.array([*market.industries, UNKNOWN])
    return pd.DataFrame(
        {
            "asset": market.assets[gone],
            "industry": names[market.industry[rebalances.day[rebalances.newest], gone]],
            "rank_before": rank_before[gone],
            "rank": rank[gone],
        }
    )


def tabulate_industries(
    market: Market, rebalances: Rebalances, rules: EvaluationConfig
) -> pd.DataFrame:
    """One row per known industry: IC and excess return, of the latest period and the mean of 12.

    The mean is over the latest month and the 11 before it; NaN if one of them is missing or has no
    value. `ic` is Spearman's within the industry, NaN for fewer than three members. `excess` is
    the equal-weighted return of the industry's top (`top_fraction` of its members, or the share of
    the universe that `top_count` is; at least one) minus that of all its members over the period,
    without restrictions and costs. Members are the assets of the rebalance day's universe in the
    industry on that day. Columns: industry, assets (latest), ic_latest, ic_mean_12, excess_latest,
    excess_mean_12.
    """
    done = rebalances.complete[-TRAILING:]
    earned = compute_return(market, rebalances.entry[done], rebalances.exit[done])
    groups = market.industry[rebalances.day[done]]
    months = market.dates[rebalances.day[done]]
    tops = [find_share(int(n), rules) for n in np.isfinite(rebalances.factor[done]).sum(axis=1)]
    rows = []
    for number, name in enumerate(market.industries):
        inside = groups == number
        factor = np.where(inside & np.isfinite(earned), rebalances.factor[done], np.nan)
        if not np.isfinite(factor).any():
            continue
        ic = metrics.rank_ic(factor, earned)
        excess = np.full(len(factor), np.nan)
        for period, (values, returns) in enumerate(zip(factor, earned, strict=True)):
            if np.isfinite(values).any():
                top, members = choose_top(values, tops[period]), np.isfinite(values)
                excess[period] = returns[top].mean() - returns[members].mean()
        means = [compute_trailing_mean(values, months)[-1] for values in (ic, excess)]
        assets = int(np.isfinite(factor[-1]).sum())
        rows.append((name, assets, ic[-1], means[0], excess[-1], means[1]))
    columns = ["industry", "assets", "ic_latest", "ic_mean_12", "excess_latest", "excess_mean_12"]
    return pd.DataFrame(rows, columns=columns)
