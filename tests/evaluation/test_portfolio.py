from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gangru_dist.config.settings import EvaluationConfig, RunConfig
from gangru_dist.evaluation import market as market_module
from gangru_dist.evaluation import portfolio, summary
from gangru_dist.evaluation.market import (
    Market,
    Rebalances,
    settle_prices,
    to_market,
    to_rebalances,
)
from gangru_dist.evaluation.portfolio import Costs, choose_top, rebalance
from gangru_dist.evaluation.summary import Evaluation
from gangru_dist.panel.block import PanelBlock
from tests.evaluation import simulator
from tests.evaluation.simulator import Simulator
from tests.evaluation.worlds import cut_block, evaluate, random_block, random_table

TOP_FIFTH = EvaluationConfig(top_fraction=0.2)


def _world(seed: int, entry_lag: int) -> tuple[PanelBlock, pd.DataFrame, Market, Rebalances]:
    block = random_block(seed=seed)
    table = random_table(block, seed=seed + 100)
    market = to_market(block)
    return block, table, market, to_rebalances(table, market, entry_lag=entry_lag)


class TestReference:
    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("entry_lag", [0, 1, 3])
    @pytest.mark.parametrize("cost_bps", [0.0, 25.0])
    def test_long_equals_the_slow_simulator(self, seed, entry_lag, cost_bps):
        block, table, market, rebalances = _world(seed, entry_lag)
        ours = portfolio.simulate_long(market, rebalances, TOP_FIFTH)
        oracle = Simulator(
            block, table, entry_lag=entry_lag, top_fraction=0.2, cost_bps=cost_bps
        ).run()
        assert ours.days[0] == oracle["first"]
        value = Costs(buy_bps=cost_bps, sell_bps=cost_bps).deduct(ours)
        np.testing.assert_allclose(value, oracle["value"], rtol=1e-12)
        np.testing.assert_allclose(ours.trades["turnover"][1:], oracle["turnover"][1:], atol=1e-12)

    @pytest.mark.parametrize("entry_lag", [0, 1])
    def test_universe_equals_the_slow_simulator(self, entry_lag):
        block, table, market, rebalances = _world(7, entry_lag)
        ours = portfolio.simulate_universe(market, rebalances)
        oracle = Simulator(
            block, table, entry_lag=entry_lag, top_fraction=1, cost_bps=0, restricted=False
        ).run()
        np.testing.assert_allclose(ours.value, oracle["value"], rtol=1e-12)

    def test_gap_in_the_factor_equals_the_slow_simulator(self):
        block, table, market, _ = _world(8, 1)
        table = table[table["date"].dt.month != 3]
        ours = portfolio.simulate_long(market, to_rebalances(table, market, entry_lag=1), TOP_FIFTH)
        oracle = Simulator(block, table, entry_lag=1, top_fraction=0.2, cost_bps=0).run()
        np.testing.assert_allclose(ours.value, oracle["value"], rtol=1e-12)

    @pytest.mark.parametrize("months", [(3,), (1, 4)])
    def test_factor_without_a_difference_equals_the_slow_simulator(self, months):
        block, table, market, _ = _world(8, 1)
        table.loc[table["date"].dt.month.isin(months), "factor"] = 0.25
        ours = portfolio.simulate_long(market, to_rebalances(table, market, entry_lag=1), TOP_FIFTH)
        oracle = Simulator(block, table, entry_lag=1, top_fraction=0.2, cost_bps=0).run()
        assert len(ours.trades) == len(oracle["turnover"])
        np.testing.assert_allclose(ours.value, oracle["value"], rtol=1e-12)

    def test_factor_that_ends_early_equals_the_slow_simulator(self):
        block, table, market, _ = _world(9, 1)
        table = table[table["date"] < "2019-05-01"]
        ours = portfolio.simulate_long(market, to_rebalances(table, market, entry_lag=1), TOP_FIFTH)
        oracle = Simulator(block, table, entry_lag=1, top_fraction=0.2, cost_bps=0).run()
        assert len(ours.value) == len(oracle["value"])
        np.testing.assert_allclose(ours.value, oracle["value"], rtol=1e-12)

    @pytest.mark.parametrize("entry_lag", [0, 1, 3])
    @pytest.mark.parametrize("top_fraction", [0.5, 1.0])
    def test_a_loss_at_the_end_equals_the_slow_simulator(
        self, entry_lag, top_fraction, monkeypatch
    ):
        for module in (market_module, simulator):
            monkeypatch.setattr(module, "ENDED_AFTER", 30)
        block, table, market, rebalances = _world(2, entry_lag)
        market = settle_prices(market, 0.6)
        given = {"entry_lag": entry_lag, "cost_bps": 0, "loss": 0.6}
        ours = portfolio.simulate_long(
            market, rebalances, EvaluationConfig(top_fraction=top_fraction)
        )
        oracle = Simulator(block, table, top_fraction=top_fraction, **given).run()
        np.testing.assert_allclose(ours.value, oracle["value"], rtol=1e-12)
        universe = portfolio.simulate_universe(market, rebalances)
        oracle = Simulator(block, table, top_fraction=1, restricted=False, **given).run()
        np.testing.assert_allclose(universe.value, oracle["value"], rtol=1e-12)
        assert ours.trades["settled"].sum() == 1 or top_fraction < 1

    @pytest.mark.parametrize(
        "rules",
        [
            {},
            {"buffer": 2.0, "industry_neutral": True, "weights": "score", "max_turnover": 0.3},
            {"delisting_loss": 0.5},
        ],
    )
    def test_bars_to_come_change_no_day_before(self, rules):
        """Some are silent for 30 to 90 days, one for a year, and come back or do not."""
        block, rng = random_block(days=420, assets=40, seed=5), np.random.default_rng(5)
        traded = block.traded.copy()
        traded[40:320, 6] = False
        for asset in range(2, 6):
            start = rng.integers(60, 160)
            traded[start : start + rng.integers(30, 90), asset] = False
        block = replace(
            block, traded=traded, adj_close=np.where(traded, block.adj_close, np.nan),
            limit_up=block.limit_up & traded, limit_down=block.limit_down & traded,
        )  # fmt: skip
        table = random_table(block)
        table.loc[table["asset"].isin(block.assets[2:7]), "factor"] += 5  # always held
        cfg = RunConfig(evaluation=EvaluationConfig(top_fraction=0.4, **rules))
        whole = evaluate(table, block, cfg)
        assert whole.trades["settled"].sum() > 0
        for days in (150, 180, 330, 400):
            part = evaluate(
                table[table["date"] <= pd.Timestamp(block.dates[days - 1])],
                cut_block(block, block.dates[days - 1]),
                cfg,
            )
            known = whole.daily.iloc[: len(part.daily)].reset_index(drop=True)
            pd.testing.assert_frame_equal(part.daily, known)
            weights = whole.weights.iloc[: len(part.weights)].reindex(columns=part.weights.columns)
            pd.testing.assert_frame_equal(part.weights, weights)

    @pytest.mark.parametrize("entry_lag", [0, 1, 3])
    def test_days_of_delisting_equal_the_slow_simulator(self, entry_lag):
        """One asset leaves on its last bar, two between entry days, one long after, one later."""
        block, table = random_block(seed=3), random_table(random_block(seed=3), seed=4)
        left, days = np.full(30, np.datetime64("NaT", "D")), block.dates
        for asset, (last, day) in enumerate(
            [
                (60, days[60]),
                (64, days[70]),
                (65, days[65] + 1),
                (20, days[120]),
                (50, days[-1] + 1),
            ]
        ):
            block.traded[last + 1 :, asset] = False
            block.adj_close[last + 1 :, asset] = np.nan
            left[asset] = day
        block = replace(block, delist_date=left)
        table = table[np.isin(table["asset"], block.assets[5:]) | (table["date"] < days[20])]
        market = to_market(block)
        rebalances = to_rebalances(table, market, entry_lag=entry_lag)
        market = settle_prices(market, 0.6)
        given = {"entry_lag": entry_lag, "cost_bps": 0, "loss": 0.6}
        ours = portfolio.simulate_long(market, rebalances, EvaluationConfig(top_fraction=1.0))
        oracle = Simulator(block, table, top_fraction=1.0, **given).run()
        np.testing.assert_allclose(ours.value, oracle["value"], rtol=1e-12)
        universe = portfolio.simulate_universe(market, rebalances)
        oracle = Simulator(block, table, top_fraction=1, restricted=False, **given).run()
        np.testing.assert_allclose(universe.value, oracle["value"], rtol=1e-12)


class TestEnded:
    """Two of four holdings have no bar from 2019-03-15 on; the others double in April.

    Ten days of silence are enough here: they have ended on 28 March.
    """

    @pytest.fixture(autouse=True)
    def ten_days(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(market_module, "ENDED_AFTER", 10)

    def evaluate(
        self, *, loss: float = 0.0, quiet: int = 60, back: str = "2100-01-01", left: str = "NaT"
    ) -> Evaluation:
        """Up to `quiet` days after the last bar of both; one of them is `back` one day."""
        last = np.datetime64("2019-03-14")
        days = np.busday_count("2019-01-02", last) + 1 + quiet
        block = random_block(days=int(days), assets=8)
        shape, price = block.traded.shape, np.full(block.traded.shape, 10.0)
        price[block.dates >= np.datetime64("2019-02-11"), :2] = 12.0  # +20 % before they end
        price[block.dates >= np.datetime64("2019-04-15"), 2:4] = 20.0
        traded = np.ones(shape, dtype=bool)
        traded[block.dates > last, :2] = False
        traded[block.dates >= np.datetime64(back), 0] = True
        none = np.zeros(shape, dtype=bool)
        block = replace(
            block, traded=traded, adj_close=np.where(traded, price, np.nan), limit_up=none,
            limit_down=none, market_cap=np.full(shape, 1e8),
            delist_date=np.array([left] * 2 + ["NaT"] * 6, dtype="datetime64[D]"),
        )  # fmt: skip
        table = random_table(block).drop(columns="quantile")
        table["factor"] = -table["asset"].str[:6].astype(float)
        cfg = EvaluationConfig(top_fraction=0.5, delisting_loss=loss, cost_bps=0.0)
        return summary.evaluate(table, to_market(block), cfg, entry_lag=1, quantiles=2)

    @pytest.mark.parametrize("loss", [0.0, 0.25])
    def test_they_are_settled_at_the_next_rebalance_in_both(self, loss):
        found = self.evaluate(loss=loss)
        value = found.daily.set_index("date")
        # A quarter each in February, of which two gain 20 %; a quarter each again in March.
        march = 1.1 * (0.5 * (1 - loss) + 0.5)
        assert value.loc["2019-03-27", "long"] == pytest.approx(1.1)
        assert value.loc["2019-03-28", "long"] == pytest.approx(march)
        assert value.loc["2019-04-01", "long"] == pytest.approx(march)
        # Of the six that are left the best three are held: a third each, two of them double.
        assert value.loc["2019-04-30", "long"] == pytest.approx(march * 5 / 3)
        fifth = 1.05 * (1 - loss * 2 / 8)
        assert value.loc["2019-04-01", "universe"] == pytest.approx(fifth)
        assert value.loc["2019-04-30", "universe"] == pytest.approx(fifth * 8 / 6)
        april = found.trades.set_index("entry").loc["2019-04-01"]
        assert april["settled"] == 2
        assert april["settled_weight"] == pytest.approx((1 - loss) / (2 - loss))
        assert (april["frozen_weight"], april["cash"], april["held"]) == (0, 0, 3)
        assert found.weights.loc["2019-04-01"].to_list() == pytest.approx([0, 0, *[1 / 3] * 3])
        counted = {"holdings": 2, "largest_weight": april["settled_weight"]}
        assert found.metrics["settled"] == counted
        assert found.metrics["settings"]["delisting_loss"] == loss

    def test_one_that_may_come_back_keeps_its_weight(self, monkeypatch):
        monkeypatch.setattr(market_module, "ENDED_AFTER", 13)  # the second of April
        found = self.evaluate()
        april, may = (
            found.trades.set_index("entry").loc[f"2019-0{day}"] for day in ("4-01", "5-01")
        )
        assert (april["not_sold"], april["settled"], may["settled"]) == (2, 0, 2)
        assert april["frozen_weight"] == pytest.approx(1 / 2)

    def test_one_that_comes_back_was_settled_and_is_bought_again(self):
        found = self.evaluate(back="2019-04-10")
        april, may = (
            found.trades.set_index("entry").loc[f"2019-0{day}"] for day in ("4-01", "5-01")
        )
        assert (april["settled"], may["settled"]) == (2, 0)
        assert found.weights.loc["2019-04-01"].iloc[0] == 0
        assert found.weights.loc["2019-05-01"].iloc[0] > 0

    def test_one_that_left_the_exchange_is_settled_that_day(self):
        """On Wednesday, 20 March, a quarter of 1.2 each of 1.1 loses a quarter, at once."""
        found = self.evaluate(loss=0.25, quiet=40, left="2019-03-20")
        value = found.daily.set_index("date")
        settled = 1.1 - 0.25 * 0.5 * 1.1  # equal weights again since 1 March
        assert value.loc["2019-03-19", "long"] == pytest.approx(1.1)
        assert value.loc["2019-03-20", "long"] == pytest.approx(settled)
        assert value.loc["2019-04-01", "long"] == pytest.approx(settled)
        assert value.loc["2019-04-15", "long"] == pytest.approx(settled * 5 / 3)
        april = found.trades.set_index("entry").loc["2019-04-01"]
        assert (april["settled"], april["frozen_weight"], april["held"]) == (2, 0, 3)

    @pytest.mark.parametrize("left", ["2019-06-28", "2099-12-31"])
    def test_a_day_to_come_changes_nothing(self, left):
        given = {"loss": 0.25, "quiet": 65}
        pd.testing.assert_frame_equal(
            self.evaluate(**given, left=left).daily, self.evaluate(**given).daily
        )

    def test_a_loss_counts_in_ic_and_quantiles(self):
        plain, lost = (self.evaluate(loss=loss).quantile_months for loss in (0.0, 0.25))
        march = plain["month"] == "2019-03"
        np.testing.assert_allclose(plain.loc[march, "q2"], 0)
        np.testing.assert_allclose(lost.loc[march, "q2"], -0.25 * 2 / 4)


class TestProperties:
    """The trading rules, one by one."""

    before = np.array([0.3, 0.3, 0.4, 0.0, 0.0])
    targets = np.array([True, False, False, True, True])

    def trade(
        self,
        before: np.ndarray = before,
        *,
        suspended: tuple[int, ...] = (),
        up: tuple[int, ...] = (),
        down: tuple[int, ...] = (),
    ) -> np.ndarray:
        """Weights after the trades; the assets of these numbers are restricted."""
        no_buy, no_sell = (np.isin(range(5), suspended + limit) for limit in (up, down))
        return rebalance(before, self.targets, no_buy=no_buy, no_sell=no_sell)[0]

    def test_free_market_is_equal_weight(self):
        after = self.trade()
        np.testing.assert_allclose(after, [1 / 3, 0, 0, 1 / 3, 1 / 3])

    @pytest.mark.parametrize("how", ["suspended", "down"])
    def test_what_cannot_be_sold_keeps_its_weight(self, how):
        after = self.trade(**{how: (2,)})
        np.testing.assert_allclose(after, [0.2, 0, 0.4, 0.2, 0.2])

    @pytest.mark.parametrize("how", ["suspended", "up"])
    def test_what_cannot_be_bought_leaves_its_share_to_the_others(self, how):
        after = self.trade(**{how: (3,)})
        np.testing.assert_allclose(after, [0.5, 0, 0, 0, 0.5])

    def test_limit_up_can_be_sold_and_limit_down_bought(self):
        after = self.trade(up=(1,), down=(3,))
        np.testing.assert_allclose(after, [1 / 3, 0, 0, 1 / 3, 1 / 3])

    def test_held_target_at_the_upper_limit_keeps_its_weight(self):
        after = self.trade(up=(0,))
        np.testing.assert_allclose(after, [0.3, 0, 0, 0.35, 0.35])

    def test_nothing_to_buy_is_cash(self):
        after = self.trade(up=(3, 4), suspended=(0,))
        np.testing.assert_allclose(after, [0.3, 0, 0, 0, 0])
        again = self.trade(after)
        np.testing.assert_allclose(again.sum(), 1)

    @pytest.mark.parametrize(("members", "count"), [(9, 1), (10, 1), (19, 1), (100, 29), (1, 1)])
    def test_top_is_floored_and_never_empty(self, members, count):
        factor = np.append(np.arange(float(members)), np.nan)
        chosen = choose_top(factor, 0.29 if members == 100 else 0.1)
        assert chosen.sum() == count
        assert chosen[members - count : members].all()

    def test_ties_go_to_the_first_asset(self):
        chosen = choose_top(np.array([1.0, 2.0, 2.0, 2.0, np.nan]), 0.25)
        np.testing.assert_array_equal(chosen, [False, True, False, False, False])

    @pytest.mark.parametrize("closed", [0, 1, 2])
    def test_turnover_counts_from_the_trade_after_the_first_purchase(self, closed):
        """At the first `closed` entries every asset is at its upper limit."""
        block, _table, _market, rebalances = _world(0, 1)
        block.limit_up[rebalances.entry[:closed]] = True
        trades = portfolio.simulate_long(to_market(block), rebalances, TOP_FIFTH).trades
        assert (trades["held"] > 0).tolist() == [row >= closed for row in range(len(trades))]
        counted = trades["turnover"].notna()
        assert counted.tolist() == [row > closed for row in range(len(trades))]

    def test_first_day_is_one_and_costs_only_lower_the_value(self):
        _, _, market, rebalances = _world(3, 1)
        ours = portfolio.simulate_long(market, rebalances, EvaluationConfig())
        net = Costs(buy_bps=20.0, sell_bps=20.0).deduct(ours)
        assert ours.value[0] == net[0] == 1
        assert net[1] == pytest.approx(ours.value[1] * (1 - 20e-4))
        assert (np.diff(net / ours.value) <= 1e-15).all()

    def test_prices_after_the_end_do_not_matter(self):
        block, table, market, _ = _world(4, 1)
        table = table[table["date"] < "2019-05-01"]
        rebalances = to_rebalances(table, market, entry_lag=1)
        base = portfolio.simulate_long(market, rebalances, EvaluationConfig())
        block.adj_close[base.days[-1] + 1 :] *= 3
        again = portfolio.simulate_long(to_market(block), rebalances, EvaluationConfig())
        np.testing.assert_array_equal(base.value, again.value)
