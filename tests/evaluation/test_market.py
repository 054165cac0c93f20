from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangru_dist.base.errors import EvaluationError
from gangru_dist.evaluation.market import find_month_ends, to_market, to_rebalances
from tests.evaluation.worlds import random_block, random_table


def _days(*days: str) -> np.ndarray:
    return np.array(days, dtype="datetime64[D]")


class TestReference:
    def test_a_day_without_a_price_has_the_last_one(self):
        block = random_block()
        price, missing = to_market(block).price, np.isnan(block.adj_close)
        assert missing[1:].any()
        np.testing.assert_array_equal(price[~missing], block.adj_close[~missing])
        np.testing.assert_array_equal(price[1:][missing[1:]], price[:-1][missing[1:]])

    def test_month_ends_are_pandas_last_of_each_month(self):
        dates = random_block(days=300).dates
        last = pd.Series(dates).groupby(dates.astype("datetime64[M]")).max().to_numpy()
        ours = dates[find_month_ends(dates)]
        np.testing.assert_array_equal(ours, last[: len(ours)].astype("datetime64[D]"))


class TestProperties:
    def test_a_month_with_weekdays_left_is_not_over(self):
        assert list(find_month_ends(_days("2020-11-27", "2020-11-30", "2020-12-30"))) == [1]

    def test_a_month_without_weekdays_left_is_over(self):
        assert list(find_month_ends(_days("2020-11-27", "2020-12-31"))) == [0, 1]
        assert list(find_month_ends(_days("2020-05-28", "2020-05-29"))) == [1]  # then a weekend

    def test_a_month_with_weekend_days_left_is_not_over_where_these_are_traded(self):
        days = np.arange("2020-05-20", "2020-06-01", dtype="datetime64[D]")
        assert list(find_month_ends(days[:-2])) == []  # up to Friday the 29th
        assert list(find_month_ends(days[:-1])) == []
        assert list(find_month_ends(days)) == [len(days) - 1]

    @given(cut=st.integers(1, 149), seed=st.integers(0, 99))
    def test_carried_prices_ignore_the_future(self, cut, seed):
        block = random_block(seed=seed)
        base = to_market(block).price
        block.adj_close[cut:] = random_block(seed=seed + 1).adj_close[cut:]
        np.testing.assert_array_equal(to_market(block).price[:cut], base[:cut])

    def test_entry_and_exit_follow_the_lag(self):
        block = random_block()
        market = to_market(block)
        table = random_table(block)
        for lag in (0, 1, 5):
            found = to_rebalances(table, market, entry_lag=lag)
            np.testing.assert_array_equal(found.entry[:-1], found.day[:-1] + lag)
            np.testing.assert_array_equal(found.exit[:-1], found.entry[1:])
            assert found.exit[-1] == -1

    def test_rows_land_on_their_date_and_asset(self):
        block = random_block()
        table = random_table(block)
        found = to_rebalances(table, to_market(block), entry_lag=1)
        wide = table.pivot_table(index="date", columns="asset", values="factor")
        wide = wide.reindex(columns=block.assets)
        expected = wide.loc[block.dates[found.day].astype("datetime64[s]")].to_numpy()
        np.testing.assert_array_equal(found.factor, expected)

    def test_block_without_trading_columns_is_tradable(self):
        block = random_block()
        empty = np.empty((len(block.dates), 0))
        bare = dataclasses.replace(
            block,
            limit_up=empty.astype(bool),
            limit_down=empty.astype(bool),
            industry=empty.astype(np.int16),
            market_cap=empty,
            industries=(),
        )
        market = to_market(bare)
        assert not market.limit_up.any()
        assert (market.industry == -1).all()

    def test_a_suspended_asset_keeps_its_industry(self):
        """One without a bar stays in its industry; one with a bar and none has none."""
        block = random_block()
        traded, industry = block.traded.copy(), block.industry.copy()
        traded[9:12, 5], industry[9:, 5], industry[9:, 6] = True, 1, -1
        traded[12:15, 5], traded[9:15, 6] = False, True
        market = to_market(dataclasses.replace(block, traded=traded, industry=industry))
        assert market.industry[9:15, 5].tolist() == [1] * 6
        assert market.industry[9:15, 6].tolist() == [-1] * 6
        assert (market.industry[0, ~block.traded[0]] == -1).all()


class TestValidation:
    def setup_method(self):
        self.block = random_block()
        self.market = to_market(self.block)
        self.table = random_table(self.block)

    def test_empty(self):
        with pytest.raises(EvaluationError, match="no rows"):
            to_rebalances(self.table.iloc[:0], self.market, entry_lag=1)

    def test_missing_column(self):
        with pytest.raises(EvaluationError, match=r"lacks the columns \['factor'\]"):
            to_rebalances(self.table.drop(columns="factor"), self.market, entry_lag=1)

    def test_unknown_day(self):
        table = self.table.assign(date=pd.Timestamp("2019-01-05"))
        with pytest.raises(EvaluationError, match="2019-01-05"):
            to_rebalances(table, self.market, entry_lag=1)

    def test_unknown_asset(self):
        table = self.table.assign(asset="999999.SZ")
        with pytest.raises(EvaluationError, match=r"999999\.SZ"):
            to_rebalances(table, self.market, entry_lag=1)

    def test_repeated_pair(self):
        table = pd.concat([self.table, self.table.iloc[:1]])
        with pytest.raises(EvaluationError, match=r"1 repeated \(date, asset\) rows"):
            to_rebalances(table, self.market, entry_lag=1)

    @pytest.mark.parametrize("until", ["2019-01-20", "2019-01-31"])
    def test_too_few_rebalance_days(self, until):
        table = self.table[self.table["date"] <= until]
        days, own = self.block.dates <= np.datetime64("2019-02-20"), ("assets", "delisted")
        fields = {
            name: values[days] if isinstance(values, np.ndarray) and name not in own else values
            for name, values in vars(self.market).items()
        }
        short = type(self.market)(**fields)
        with pytest.raises(EvaluationError, match="needs two rebalance days"):
            to_rebalances(table, short, entry_lag=1)
