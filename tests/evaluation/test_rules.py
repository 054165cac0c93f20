"""Each rule of the portfolio, computed by hand; together; and blind to the future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gangru_dist.base.errors import EvaluationError
from gangru_dist.config.settings import EvaluationConfig
from gangru_dist.evaluation import portfolio, summary
from gangru_dist.evaluation.decomposition import estimate_capacity
from gangru_dist.evaluation.market import Market, Rebalances, to_market, to_rebalances
from gangru_dist.evaluation.portfolio import (
    Costs,
    Portfolio,
    cap_turnover,
    choose_best,
    count_targets,
    weigh_targets,
)
from tests.evaluation.worlds import random_block, random_table

NOBODY = np.zeros(5, dtype=bool)
ONE_INDUSTRY = np.zeros(5, dtype=np.int64)
ALL = EvaluationConfig(
    top_count=8, industry_neutral=True, weights="score", buffer=2.0, max_turnover=0.3,
    cost_bps=10.0, sell_cost_bps=60.0,
)  # fmt: skip

GOLDEN = ["0x1.2807cfba29565p+0", "0x1.25ea9dd9d6772p+0"]
"""Computed by the code that had no rules: before and after costs of 15 basis points, on day 80."""


def world(seed: int = 3) -> tuple[Market, Rebalances]:
    block = random_block(seed=seed)
    market = to_market(block)
    return market, to_rebalances(random_table(block, seed=seed + 100), market, entry_lag=1)


class TestByHand:
    def test_a_number_of_assets_in_place_of_a_share(self):
        assert count_targets(250, EvaluationConfig()) == 25
        assert count_targets(250, EvaluationConfig(top_count=30)) == 30
        assert count_targets(20, EvaluationConfig(top_count=30)) == 20
        assert count_targets(250, EvaluationConfig(top_count=30), times=0.5) == 15

    @pytest.mark.parametrize(
        ("buffer", "chosen"),
        [(1.0, [0, 1]), (1.5, [0, 2]), (2.0, [2, 3])],
        ids=["none", "third_stays", "both_stay"],
    )
    def test_a_holding_is_sold_below_the_buffer_only(self, buffer, chosen):
        """Of five, best first, the third and the fourth are held; two are targets."""
        factor, held = np.array([5.0, 4, 3, 2, 1]), np.array([0, 0, 1, 1, 0], dtype=bool)
        found = choose_best(factor, 2, held=held, buffer=buffer)
        assert np.flatnonzero(found).tolist() == chosen

    def test_scores_above_the_mean_are_weights(self):
        rules = EvaluationConfig(top_fraction=0.6, weights="score")
        factor = np.array([3.0, 2, 1, 0, -6])  # mean 0
        assert weigh_targets(factor, NOBODY, ONE_INDUSTRY, rules).tolist() == [3, 2, 1, 0, 0]
        below = np.array([9.0, -1, -2, -3, -3])  # the second of three is below the mean
        assert weigh_targets(below, NOBODY, ONE_INDUSTRY, rules).tolist() == [9, 0, 0, 0, 0]

    def test_industries_have_the_universes_shares(self):
        """Three of one industry, two of another; each gives its best, with three and two fifths."""
        rules = EvaluationConfig(top_count=2, industry_neutral=True)
        factor, industry = np.array([1.0, 2, 3, 9, 8]), np.array([0, 0, 0, 1, 1])
        weights = weigh_targets(factor, NOBODY, industry, rules)
        np.testing.assert_allclose(weights, [0, 0, 0.6, 0.4, 0])
        rules = EvaluationConfig(top_count=3, industry_neutral=True)
        unknown = weigh_targets(factor, NOBODY, np.array([0, 0, 0, 1, -1]), rules)
        np.testing.assert_allclose(unknown, [0, 0, 0.6, 0.2, 0.2])

    @pytest.mark.parametrize(
        ("count", "numbers"),
        [(1, [0, 1, 0, 0]), (3, [1, 1, 0, 1]), (10, [3, 5, 1, 1]), (20, [6, 11, 1, 2])],
    )
    def test_all_industries_together_have_the_number_asked_for(self, count, numbers):
        """Of 6, 11, 1 and 2 members: shares of 3, 5.5, 0.5 and 1 of ten."""
        industry = np.repeat([0, 1, 2, 3], [6, 11, 1, 2])
        rules = EvaluationConfig(top_count=count, industry_neutral=True)
        factor, nobody = np.random.default_rng(0).normal(size=20), np.zeros(20, dtype=bool)
        chosen = weigh_targets(factor, nobody, industry, rules) > 0
        assert np.bincount(industry[chosen], minlength=4).tolist() == numbers
        assert sum(numbers) == count

    def test_trades_are_cut_to_the_cap(self):
        before, after = np.array([0.5, 0.5, 0, 0, 0]), np.array([0, 0, 0.5, 0.5, 0])
        capped = cap_turnover(before, after, NOBODY, 0.25)
        np.testing.assert_allclose(capped, [0.375, 0.375, 0.125, 0.125, 0])
        assert cap_turnover(before, after, NOBODY, 1.0) is after
        assert cap_turnover(np.zeros(5), after, NOBODY, 0.25) is after  # the first purchase
        ended = np.array([1, 0, 0, 0, 0], dtype=bool)  # its half is cash, whatever the cap
        capped = cap_turnover(before, after, ended, 0.25)
        np.testing.assert_allclose(capped, [0, 0.375, 0.125, 0.125, 0])

    def test_costs_by_side(self):
        """A first purchase, then a fifth sold and bought; the last day is not yet paid."""
        value = np.array([1.0, 1.1, 1.21])
        traded, sold = np.array([1.0, 0.4, 0]), np.array([0, 0.2, 0])
        one = Portfolio(
            days=np.arange(3), value=value, traded=traded, sold=sold, trades=pd.DataFrame(),
            weights=np.ones((1, 5)), wanted=np.ones((1, 5), dtype=bool),
        )  # fmt: skip
        net = Costs(buy_bps=10, sell_bps=60).deduct(one)
        expected = [1, 1.1 * 0.999, 1.21 * 0.999 * (1 - 0.2 * 0.001 - 0.2 * 0.006)]
        np.testing.assert_allclose(net, expected, rtol=1e-14)


class TestProperties:
    def test_without_rules_nothing_has_changed(self):
        """To the last bit, what the portfolio was worth before there were rules."""
        market, rebalances = world()
        long = portfolio.simulate_long(market, rebalances, EvaluationConfig(top_fraction=0.2))
        net = Costs(buy_bps=15.0, sell_bps=15.0).deduct(long)
        assert [float(one[80]).hex() for one in (long.value, net)] == GOLDEN

    def test_the_cap_and_the_buffer_lower_the_turnover(self):
        market, rebalances = world()
        rules = EvaluationConfig(top_fraction=0.2)
        turnover = {
            name: portfolio.simulate_long(market, rebalances, replace(rules, **given))
            .trades["turnover"]
            .iloc[1:]
            for name, given in {
                "plain": {}, "buffer": {"buffer": 2.5}, "cap": {"max_turnover": 0.2}
            }.items()
        }  # fmt: skip
        assert turnover["buffer"].mean() < turnover["plain"].mean() - 0.02
        assert turnover["cap"].max() <= 0.2 + 1e-12

    def test_what_a_cut_sale_leaves_is_no_holding_to_the_buffer(self):
        market, rebalances = world()
        rules = EvaluationConfig(top_count=6, buffer=3.0, max_turnover=0.1)
        long = portfolio.simulate_long(market, rebalances, rules)
        assert long.trades["held"].iloc[-1] > 6
        for trade in range(1, len(long.trades)):
            row, before = int(long.trades["row"].iloc[trade]), trade - 1
            held = (long.weights[before] > 0) & long.wanted[before]
            assert held.sum() <= 6
            chosen = choose_best(rebalances.factor[row], 6, held=held, buffer=3.0)
            np.testing.assert_array_equal(long.wanted[trade], chosen)
            found = portfolio.find_targets(market, rebalances, long, rules, row)
            np.testing.assert_array_equal(found > 0, chosen)

    @pytest.mark.parametrize(
        ("weights", "capital"),
        [([1 / 3] * 3, 0.1 * 12e6 * 3), ([0.5, 0.3, 0.2], 2e6 + 0.2 * (20e6 / 3 - 2e6))],
        ids=["equal", "score"],
    )
    def test_capacity_is_that_of_the_targets_weights(self, weights, capital):
        """Of 10, 20 and 30 million a day: a tenth over the weight, nine tenths of them within."""
        market, rebalances = world()
        values = np.full(market.price.shape[1], np.nan)
        values[:3] = [10e6, 20e6, 30e6]
        market = replace(market, traded_value=np.broadcast_to(values, market.price.shape))
        given = np.zeros(len(values))
        given[:3] = weights
        found = estimate_capacity(market, rebalances, given)
        assert found["capital"] == pytest.approx(capital)
        assert found["lowest_tenth_traded_value"] == pytest.approx(12e6)

    def test_an_industry_is_cut_by_the_number_too(self):
        """More than there are: all of an industry, which earns what it earns."""
        block = random_block(seed=4)
        found = summary.evaluate(
            random_table(block, seed=5), to_market(block), EvaluationConfig(top_count=100),
            entry_lag=1, quantiles=10,
        )  # fmt: skip
        np.testing.assert_allclose(found.industries["excess_latest"], 0, atol=1e-15)
        assert portfolio.find_share(50, EvaluationConfig(top_count=12)) == 0.24
        assert portfolio.find_share(50, EvaluationConfig(top_fraction=0.29)) == 0.29

    @pytest.mark.parametrize("rules", [ALL, EvaluationConfig(buffer=3.0), EvaluationConfig()])
    def test_what_each_rule_earns_adds_up(self, rules):
        block = random_block(seed=4)
        found = summary.evaluate(
            random_table(block, seed=5), to_market(block), rules, entry_lag=1, quantiles=10
        )
        parts = found.metrics["decomposition"]
        path = parts["path"]
        steps = [path[name] for name in ("signal", "delay", "limits", "rules", "costs")]
        assert sum(steps) == pytest.approx(path["net"], abs=1e-12)
        used = parts.get("rules", {})
        default = EvaluationConfig()
        assert list(used) == [
            name
            for name in ("industry_neutral", "weights", "buffer", "max_turnover")
            if getattr(rules, name) != getattr(default, name)
        ]
        gross = parts.get("rules_gross", {})
        assert sum(gross.values()) == pytest.approx(path["rules"], abs=1e-12)
        plain = {"industry_neutral": False, "weights": "equal", "buffer": 1.0, "max_turnover": None}
        without = summary.evaluate(
            random_table(block, seed=5), to_market(block), replace(rules, **plain), entry_lag=1,
            quantiles=10,
        ).metrics  # fmt: skip
        gained = path["net"] - without["decomposition"]["path"]["net"]
        assert sum(used.values()) == pytest.approx(gained, abs=1e-12)
        traded = found.metrics["turnover"] - without["turnover"]
        assert sum(parts.get("rules_turnover", {}).values()) == pytest.approx(traded, abs=1e-12)

    def test_picks_weigh_what_the_portfolio_wants(self):
        block = random_block(seed=4)
        given = {"entry_lag": 1, "quantiles": 10}
        found = summary.evaluate(random_table(block, seed=5), to_market(block), ALL, **given)
        weight = found.ranked["weight"]
        assert weight.sum() == pytest.approx(1)
        shares = found.ranked.assign(member=1 / len(weight)).groupby("industry")
        np.testing.assert_allclose(shares["weight"].sum(), shares["member"].sum())
        assert found.metrics["capacity"]["targets"] == (weight > 0).sum()

    def test_trades_ignore_the_future(self):
        block = random_block(seed=6)
        table, cut = random_table(block, seed=7), 90
        day = block.dates[cut]
        price, factor = block.adj_close.copy(), table["factor"].copy()
        rng = np.random.default_rng(1)
        price[cut + 1 :] *= rng.uniform(0.5, 2, price[cut + 1 :].shape)
        later = (table["date"] > day).to_numpy()
        factor[later] = rng.normal(size=later.sum())
        found = []
        for one, rows in (
            (block, table),
            (replace(block, adj_close=price), table.assign(factor=factor)),
        ):
            market = to_market(one)
            rebalances = to_rebalances(rows, market, entry_lag=1)
            long = portfolio.simulate_long(market, rebalances, ALL)
            days = market.dates[rebalances.entry[long.trades["row"].to_numpy()]]
            found.append(long.weights[days <= day])
        assert len(found[0]) > 2
        np.testing.assert_array_equal(*found)

    def test_a_panel_without_industries_is_refused(self):
        market, rebalances = world()
        market = replace(market, industries=(), industry=np.full_like(market.industry, -1))
        with pytest.raises(EvaluationError, match=r"evaluation\.industry_neutral=false"):
            portfolio.simulate_long(market, rebalances, EvaluationConfig(industry_neutral=True))
