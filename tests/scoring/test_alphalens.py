"""What alphalens makes of `to_alphalens` is what our report says.

Alphalens's definitions are spelled out here by hand (joins, `pandas.qcut`, scipy's Spearman, sets
of names), for it needs much to install. `make oracles` installs it, and `TestLibrary` holds it
equal to the hand's.

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
import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gangru_dist.evaluation.ic import compute_monthly_ic
from gangru_dist.evaluation.market import Rebalances, to_market, to_rebalances
from gangru_dist.maths.cross_section import cs_quantile
from gangru_dist.panel.block import PanelBlock
from gangru_dist.scoring.reader import to_alphalens
from tests.evaluation.worlds import config, evaluate, random_block, random_table

Inputs = tuple[pd.Series, pd.DataFrame, pd.Series]


def factor_table(block: PanelBlock) -> pd.DataFrame:
    """Noise, in the quantiles that scoring gives."""
    table = random_table(block).sort_values(["date", "asset"], ignore_index=True)
    by_day = table.groupby("date")["factor"]
    return table.assign(quantile=by_day.transform(lambda x: cs_quantile(x.to_numpy()[None], 10)[0]))


def month_ends(table: pd.DataFrame, block: PanelBlock, lag: int) -> tuple[Inputs, Rebalances]:
    """Factor, prices and industries of the month-ends, as docs/scores.md makes them."""
    market = to_market(block)
    rebalances = to_rebalances(table, market, entry_lag=lag)
    factor, prices, groups = to_alphalens(table, block)
    days = pd.DatetimeIndex(market.dates[rebalances.day[: rebalances.complete[-1] + 2]])
    factor = factor[factor.index.get_level_values("date").isin(days)].sort_index()
    factor.index = factor.index.remove_unused_levels()
    return (factor, prices.ffill().shift(-lag).loc[days], groups), rebalances


def clean(inputs: Inputs) -> pd.DataFrame:
    """By hand: return to the next row of prices, factor, group and quantile by (date, asset)."""
    factor, prices, groups = inputs
    earned = (prices.shift(-1) / prices - 1).stack(future_stack=True)  # noqa: PD013 (`melt` loses the index)
    found = pd.DataFrame({"1D": earned.reindex(factor.index), "factor": factor})
    found["group"] = groups.reindex(factor.index)
    found = found.dropna()
    by_day = found.groupby("date")["factor"]
    return found.assign(
        factor_quantile=by_day.transform(lambda day: pd.qcut(day, 10, labels=False) + 1)
    )


def ics(found: pd.DataFrame, by: list[str]) -> pd.Series:
    """By hand: Spearman of each day, or of each day and group."""
    return found.groupby(by)[["factor", "1D"]].apply(
        lambda rows: stats.spearmanr(rows["factor"], rows["1D"]).statistic
    )


def new_names(quantile: pd.Series, which: int) -> list[float]:
    """By hand: the share of a quantile's names that were not in it the day before."""
    days = quantile[quantile == which].groupby("date")
    members = [set(day.index.get_level_values("asset")) for _, day in days]
    return [len(now - before) / len(now) for before, now in itertools.pairwise(members)]


def still_world() -> tuple[pd.DataFrame, PanelBlock]:
    """Prices stand still, everything trades."""
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
    return factor_table(block), block


def quantiles_on(table: pd.DataFrame, days: pd.Series) -> pd.Series:
    """Scoring's quantile by (date, asset)."""
    quantile = table[table["date"].isin(days)].set_index(["date", "asset"])["quantile"]
    quantile.index = quantile.index.remove_unused_levels()
    return quantile


class TestReference:
    def test_the_form_alphalens_asks_for(self) -> None:
        block = random_block(days=180, assets=60)
        (factor, prices, groups), _ = month_ends(factor_table(block), block, 1)
        assert list(factor.index.names) == ["date", "asset"]
        assert factor.index.is_unique
        for dates in (factor.index.levels[0], prices.index):
            assert isinstance(dates, pd.DatetimeIndex)
            assert dates.tz is None
        assert set(factor.index.levels[0]) <= set(prices.index)
        assert set(factor.index.levels[1]) <= set(prices.columns)
        assert np.isfinite(factor).all()
        assert factor.index.isin(groups.index).all()
        assert set(groups) == {"bank", "coal", "food"}

    @pytest.mark.parametrize("seed", [0, 1])
    @pytest.mark.parametrize("lag", [0, 1])
    def test_the_same_ic(self, seed: int, lag: int) -> None:
        block = random_block(days=180, assets=60, seed=seed)
        inputs, rebalances = month_ends(factor_table(block), block, lag)
        theirs = ics(clean(inputs), ["date"])
        ours = compute_monthly_ic(to_market(block), rebalances)
        assert len(ours) >= 6
        assert list(theirs.index) == list(ours["rebalance"])
        np.testing.assert_allclose(theirs, ours["ic"], rtol=1e-12, atol=1e-14)

    def test_the_same_quantiles(self) -> None:
        block = random_block(days=180, assets=60)
        table = factor_table(block)
        inputs, _ = month_ends(table, block, 1)
        found = clean(inputs)
        ours = table.set_index(["date", "asset"])["quantile"].reindex(found.index)
        assert len(found) > 300
        assert (found["factor_quantile"] == ours).all()

    def test_industries_lose_no_row(self) -> None:
        block = random_block(days=120, assets=60)
        (factor, prices, groups), _ = month_ends(factor_table(block), block, 1)
        nowhere = pd.Series("one", index=groups.index)
        assert len(clean((factor, prices, groups))) == len(clean((factor, prices, nowhere)))

    def test_the_same_turnover_where_nothing_drifts_or_sticks(self) -> None:
        table, block = still_world()
        report = evaluate(table, block, config(top_fraction=0.1))
        theirs = new_names(quantiles_on(table, report.trades["rebalance"]), 10)
        assert len(theirs) == len(report.trades) - 1 > 5
        np.testing.assert_allclose(theirs, report.trades["turnover"][1:], rtol=1e-12)


@pytest.mark.filterwarnings("ignore")  # alphalens and pandas 3
class TestLibrary:
    """Alphalens itself, where it is installed, does what is done by hand above."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip("alphalens", reason="`make oracles` installs it")

    @pytest.mark.parametrize("lag", [0, 1])
    @pytest.mark.parametrize("form", ["series", "dict"])
    def test_table_and_ics(self, lag: int, form: str) -> None:
        from alphalens import performance, utils

        block = random_block(days=180, assets=60)
        inputs, _ = month_ends(factor_table(block), block, lag)
        factor, prices, groups = inputs
        given = groups if form == "series" else groups.droplevel("date").to_dict()
        theirs = utils.get_clean_factor_and_forward_returns(
            factor, prices, groupby=given, quantiles=10, periods=(1,), max_loss=1.0
        )
        theirs.columns = ["1D", *theirs.columns[1:]]  # it names the gap between month-ends
        ours = clean(inputs)
        pd.testing.assert_frame_equal(
            theirs, ours, check_dtype=False, check_categorical=False, check_freq=False
        )
        for by in (["date"], ["date", "group"]):
            information = performance.factor_information_coefficient(theirs, by_group=len(by) > 1)
            np.testing.assert_allclose(information.iloc[:, 0], ics(ours, by), rtol=1e-12)

    def test_turnover(self) -> None:
        from alphalens import performance

        table, _ = still_world()
        quantile = quantiles_on(table, table["date"].drop_duplicates()[::20])
        theirs = performance.quantile_turnover(quantile, 10)
        np.testing.assert_allclose(theirs.to_numpy()[1:], new_names(quantile, 10), rtol=1e-12)
