"""The picks of a day, the newest rebalance's, and the factor's performance by industry."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from gangru_dist.base.errors import FactorError
from gangru_dist.config.settings import EvaluationConfig
from gangru_dist.evaluation.decomposition import average_traded_value
from gangru_dist.evaluation.ic import TRAILING, compute_return, compute_trailing_mean
from gangru_dist.evaluation.market import Market, Rebalances, filter_members
from gangru_dist.evaluation.portfolio import Portfolio, choose_top, find_share, find_targets
from gangru_dist.maths import metrics


def pick_best(
    scored: pd.DataFrame, market: Market, top: int, *, members_only: bool = False
) -> pd.DataFrame:
    """The best assets of one day, highest factor first; ties go to the alphabetically first.

    Columns: date, rank, asset, industry, factor, score, quantile, market_cap, at_limit, model.

    Args:
        scored: The day's rows of a factor table.
        market: Of that day alone.
        top: Number of assets.
        members_only: Leave out what the market does not mark as a member.

    Raises:
        FactorError: A row is of an asset that the market lacks, or none has a factor.
        EvaluationError: Nobody is a member.
    """
    day, known = market.dates[0], scored["asset"].isin(market.assets)
    if not known.all():
        raise FactorError(
            f"the panel has no row of {(~known).sum()} of the {len(known)} assets scored on {day}, "
            f"first {scored['asset'][~known].min()}: it has changed since. Run `gangru score`."
        )
    table = filter_members(scored, market) if members_only else scored
    table = table.dropna(subset="factor").sort_values(["factor", "asset"], ascending=[False, True])
    if table.empty:
        raise FactorError(f"{day} has too few scores for a factor (factor.min_assets).")
    table = table.head(top).reset_index(drop=True)
    column = pd.Index(market.assets).get_indexer(pd.Index(table["asset"]))
    table = table.assign(
        rank=np.arange(1, len(table) + 1),
        industry=market.name_industries(0, column),
        market_cap=market.market_cap[0, column],
        at_limit=market.name_limits(0, column),
    )
    order = ["date", "rank", "asset", "industry", "factor", "score", "quantile"]
    return table.reindex(columns=[*order, "market_cap", "at_limit", "model"])


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
    table = pd.DataFrame(
        {
            "rank": np.arange(1, len(order) + 1),
            "asset": market.assets[order],
            "industry": market.name_industries(day, order),
            "factor": rebalances.factor[row, order],
            "score": rebalances.score[row, order],
            "quantile": rebalances.quantile[row, order],
            "market_cap": market.market_cap[day, order],
            "at_limit": market.name_limits(day, order),
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
    return pd.DataFrame(
        {
            "asset": market.assets[gone],
            "industry": market.name_industries(int(rebalances.day[rebalances.newest]), gone),
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
