"""Alphalens-reloaded on `to_alphalens` finds what our report says.

Where definitions agree: the IC (Spearman, of the month-end's factor with the return to the next,
entry day to entry day, last price carried over suspensions) and the quantiles (edges of
`pandas.qcut`). Alphalens has no entry lag and no monthly rebalance: both are in the prices it is
given, of the entry days alone.

Where they differ: alphalens's turnover of a quantile is the share of names that were not in it at
the rebalance before. Ours is half the sum of absolute weight changes of the long portfolio, which
has drifted since, keeps what cannot be sold and does not get what cannot be bought. Where prices
stand still and everything trades, the two are one number; elsewhere drift alone makes ours larger,
and stuck positions make it smaller. Alphalens also asks for a forward return before it cuts
quantiles, so of the last days, whose return is unknown, it has none.
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest

from gangru_dist.cross_section import cs_quantile
from gangru_dist.evaluation.ic import monthly_ic
from gangru_dist.evaluation.market import Rebalances, to_market, to_rebalances
from gangru_dist.panel.block import PanelBlock
from gangru_dist.scoring.table import to_alphalens
from tests.evaluation.worlds import config, evaluate, random_block, random_table

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    performance = pytest.importorskip("alphalens.performance")
    utils = pytest.importorskip("alphalens.utils")

pytestmark = pytest.mark.filterwarnings("ignore")  # alphalens and pandas 3


def factor_table(block: PanelBlock) -> pd.DataFrame:
    """Noise, in the quantiles that scoring gives."""
    table = random_table(block).sort_values(["date", "asset"], ignore_index=True)
    by_day = table.groupby("date")["factor"]
    return table.assign(quantile=by_day.transform(lambda x: cs_quantile(x.to_numpy()[None], 10)[0]))


def clean(
    table: pd.DataFrame, block: PanelBlock, lag: int, group: str | None = None
) -> tuple[pd.DataFrame, Rebalances]:
    """Alphalens's table of the month-ends, as docs/scores.md makes it."""
    market = to_market(block)
    rebalances = to_rebalances(table, market, entry_lag=lag)
    factor, prices, groups = to_alphalens(table, block)
    days = pd.DatetimeIndex(market.dates[rebalances.day[: rebalances.complete[-1] + 2]])
    factor = factor[factor.index.get_level_values("date").isin(days)].sort_index()
    factor.index = factor.index.remove_unused_levels()
    by = {
        None: None,
        "series": groups,
        "dict": dict(zip(groups.index.get_level_values("asset"), groups, strict=True)),
    }[group]
    found = utils.get_clean_factor_and_forward_returns(
        factor,
        prices.ffill().shift(-lag).loc[days],
        groupby=by,
        quantiles=10,
        periods=(1,),
        max_loss=1.0,
    )
    return found, rebalances


class TestReference:
    @pytest.mark.parametrize("seed", [0, 1])
    @pytest.mark.parametrize("lag", [0, 1])
    def test_the_same_ic(self, seed: int, lag: int) -> None:
        block = random_block(days=180, assets=60, seed=seed)
        table = factor_table(block)
        found, rebalances = clean(table, block, lag)
        theirs = performance.factor_information_coefficient(found).iloc[:, 0].dropna()
        ours = monthly_ic(to_market(block), rebalances)
        assert len(ours) >= 6
        assert list(theirs.index) == list(ours["rebalance"])
        np.testing.assert_allclose(theirs, ours["ic"], rtol=1e-12, atol=1e-14)

    def test_the_same_quantiles(self) -> None:
        block = random_block(days=180, assets=60)
        table = factor_table(block)
        found, _ = clean(table, block, 1)
        ours = table.set_index(["date", "asset"])["quantile"].reindex(found.index)
        assert (found["factor_quantile"] == ours).all()

    @pytest.mark.parametrize("group", ["series", "dict"])
    def test_industries_lose_no_row(self, group: str) -> None:
        block = random_block(days=120, assets=60)
        table = factor_table(block)
        plain, _ = clean(table, block, 1)
        grouped, _ = clean(table, block, 1, group)
        pd.testing.assert_frame_equal(grouped.drop(columns="group"), plain)
        by_group = performance.factor_information_coefficient(grouped, by_group=True)
        assert set(by_group.index.get_level_values("group")) == {"bank", "coal", "food"}

    def test_the_same_turnover_where_nothing_drifts_or_sticks(self) -> None:
        moving = random_block(days=180, assets=60)
        shape = moving.traded.shape
        nothing = np.zeros(shape, dtype=bool)
        block = dataclasses.replace(
            moving,
            traded=~nothing,
            adj_close=np.full(shape, 10.0),
            limit_up=nothing,
            limit_down=nothing,
            industry=np.zeros(shape, dtype=np.int16),
        )
        table = factor_table(block)
        report = evaluate(table, block, config(top_fraction=0.1))
        days = report.trades["rebalance"]
        quantile = table[table["date"].isin(days)].set_index(["date", "asset"])["quantile"]
        quantile.index = quantile.index.remove_unused_levels()
        theirs = performance.quantile_turnover(quantile, 10)
        assert len(theirs) == len(days) > 6
        np.testing.assert_allclose(theirs.to_numpy()[1:], report.trades["turnover"][1:], rtol=1e-12)
