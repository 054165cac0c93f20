"""Every figure of metrics.json against plain pandas and scipy, from the table and the block."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gangru_dist.base.errors import EvaluationError
from gangru_dist.config.settings import FactorConfig
from gangru_dist.evaluation.ic import count_overlaps
from gangru_dist.evaluation.performance import list_drawdowns
from gangru_dist.evaluation.summary import Evaluation
from gangru_dist.maths.cross_section import cs_quantile
from gangru_dist.panel.block import PanelBlock
from tests.evaluation.simulator import Simulator
from tests.evaluation.worlds import INDUSTRIES, config, evaluate, random_block, random_table


def _world() -> tuple[PanelBlock, pd.DataFrame]:
    block = random_block(days=420, assets=40, seed=5)
    return block, random_table(block, seed=6)


@pytest.fixture(scope="module")
def world() -> tuple[PanelBlock, pd.DataFrame, Evaluation]:
    block, table = _world()
    return block, table, evaluate(table, block, config(top_fraction=0.2))


def _periods(block: PanelBlock, table: pd.DataFrame, lag: int = 1) -> dict[str, pd.DataFrame]:
    """Month of earning -> the rebalance day's rows with their period return; plain pandas."""
    price = pd.DataFrame(block.adj_close, index=block.dates, columns=block.assets).ffill()
    days = pd.DatetimeIndex(price.index)
    ends = [i for i in range(len(days) - 1) if days[i].month != days[i + 1].month]
    result = {}
    for day, following in itertools.pairwise(ends):
        rows = table[table["date"] == days[day]].set_index("asset")
        earned = price.iloc[following + lag] / price.iloc[day + lag] - 1
        industry = pd.Series(block.industry[day], index=block.assets)
        rows = rows.assign(earned=earned, industry=industry)
        result[f"{days[following]:%Y-%m}"] = rows
    return result


def _annual(value: np.ndarray) -> float:
    return float((value[-1] / value[0]) ** (252 / (len(value) - 1)) - 1)


class TestReference:
    def test_a_value_of_nan_alone_has_no_drawdown(self):
        dates = pd.Series(pd.date_range("2020-01-01", periods=4))
        assert list_drawdowns(dates, np.full(4, np.nan)).empty
        found = list_drawdowns(dates, np.array([1.0, 0.5, 0.75, 2]))
        assert found[["depth", "days"]].to_numpy().tolist() == [[0.5, 3]]

    def test_ic(self, world):
        block, table, found = world
        periods = _periods(block, table)
        values = np.array(
            [stats.spearmanr(rows["factor"], rows["earned"]).statistic for rows in periods.values()]
        )
        assert list(found.monthly["month"]) == list(periods)
        np.testing.assert_allclose(found.monthly["ic"], values, rtol=1e-12)
        figures = found.metrics["ic"]
        assert figures["mean"] == pytest.approx(values.mean())
        assert figures["icir"] == pytest.approx(values.mean() / values.std(ddof=1))
        assert figures["t"] == pytest.approx(stats.ttest_1samp(values, 0).statistic)
        assert figures["p_value"] == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
        assert figures["latest"] == pytest.approx(values[-1])
        assert figures["mean_12"] == pytest.approx(values[-12:].mean())
        assert figures["share_positive"] == pytest.approx((values > 0).mean())

    @pytest.mark.parametrize(("name", "cost"), [("long", 0.0), ("long_with_costs", 15.0)])
    def test_portfolio(self, world, name, cost):
        block, table, found = world
        value = Simulator(block, table, entry_lag=1, top_fraction=0.2, cost_bps=cost).run()["value"]
        returns = pd.Series(value).pct_change().dropna()
        figures = found.metrics[name]
        assert figures["annualized_return"] == pytest.approx(_annual(value))
        assert figures["annualized_volatility"] == pytest.approx(returns.std() * 252**0.5)
        assert figures["information_ratio"] == pytest.approx(
            _annual(value) / (returns.std() * 252**0.5)
        )
        worst = (pd.Series(value) / pd.Series(value).cummax() - 1).min()
        assert figures["max_drawdown"] == pytest.approx(-worst)

    def test_excess_and_turnover(self, world):
        block, table, found = world
        long = Simulator(block, table, entry_lag=1, top_fraction=0.2, cost_bps=0).run()
        universe = Simulator(
            block, table, entry_lag=1, top_fraction=1, cost_bps=0, restricted=False
        ).run()
        excess = _annual(long["value"] / universe["value"])
        assert found.metrics["excess"]["annualized_return"] == pytest.approx(excess)
        assert found.metrics["turnover"] == pytest.approx(np.mean(long["turnover"][1:]))

    def test_quantiles(self, world):
        block, table, found = world
        periods = pd.concat(_periods(block, table), names=["month"]).dropna(subset=["earned"])
        monthly = periods.pivot_table(index="month", columns="quantile", values="earned")
        ours = found.quantile_months.set_index("month")
        np.testing.assert_allclose(ours[[f"q{q}" for q in range(1, 11)]], monthly, rtol=1e-12)
        universe = periods.groupby("month")["earned"].mean()
        np.testing.assert_allclose(ours["universe"], universe, rtol=1e-12)
        expected = stats.spearmanr(range(10), monthly.mean()).statistic
        assert found.metrics["quantiles"]["monotonicity"] == pytest.approx(expected)
        annual = (1 + monthly).prod() ** (12 / monthly.count()) - 1
        np.testing.assert_allclose(found.quantiles["annualized_return"], annual, rtol=1e-10)

    def test_industries(self, world):
        block, table, found = world
        periods = list(_periods(block, table).values())[-12:]
        for row in found.industries.itertuples():
            inside = [p[p["industry"] == INDUSTRIES.index(row.industry)] for p in periods]
            ics, excesses = [], []
            for rows in inside:
                ics.append(stats.spearmanr(rows["factor"], rows["earned"]).statistic)
                top = rows.nlargest(max(1, int(len(rows) * 0.2)), "factor")
                excesses.append(top["earned"].mean() - rows["earned"].mean())
            assert row.ic_latest == pytest.approx(ics[-1])
            assert row.ic_mean_12 == pytest.approx(np.mean(ics))
            assert row.excess_latest == pytest.approx(excesses[-1])
            assert row.excess_mean_12 == pytest.approx(np.mean(excesses))

    def test_decay(self, world):
        block, table, found = world
        price = pd.DataFrame(block.adj_close, columns=block.assets).ffill()
        days = pd.DatetimeIndex(block.dates)
        ends = [i for i in range(len(days) - 1) if days[i].month != days[i + 1].month]
        for row in found.decay.itertuples():
            values = []
            for day in (i for i in ends if i + 1 + row.horizon < len(days)):
                rows = table[table["date"] == days[day]].set_index("asset")["factor"]
                earned = price.iloc[day + 1 + row.horizon] / price.iloc[day + 1] - 1
                values.append(stats.spearmanr(rows, earned[rows.index]).statistic)
            assert row.months == len(values)
            assert row.ic == pytest.approx(np.mean(values))

    def test_picks(self, world):
        _, table, found = world
        last = table[table["date"] == found.metrics["period"]["newest_rebalance"]]
        best = last.nlargest(50, "factor")["asset"]
        assert list(found.ranked["asset"][:50]) == list(best)
        first = found.ranked[found.ranked["industry_rank"] == 1]
        assert len(first) == first["industry"].nunique()

    def test_yearly_returns_multiply_to_the_whole(self, world):
        found = world[2]
        for name in ("long", "long_net", "universe", "excess"):
            whole = np.prod(1 + found.yearly[f"{name}_return"])
            assert whole == pytest.approx(found.daily[name].iloc[-1])

    def test_monthly_returns_are_ratios_of_daily_values(self, world):
        found = world[2]
        daily = found.daily.set_index("date")["long"]
        row = found.monthly.iloc[3]
        assert row["long_return"] == pytest.approx(daily[row["exit"]] / daily[row["entry"]] - 1)


class TestProperties:
    def test_metrics_are_plain_json(self, world):
        text = json.dumps(world[2].metrics, allow_nan=False)
        assert json.loads(text) == world[2].metrics

    def test_a_perfect_factor_is_seen(self):
        block, table = _world()
        periods = pd.concat(_periods(block, table), names=["month"]).reset_index()
        known = periods.set_index(["date", "asset"])["earned"]
        keys = pd.MultiIndex.from_frame(table[["date", "asset"]])
        table = table.assign(factor=known.reindex(keys).fillna(0.0).to_numpy())
        found = evaluate(table, block, config())
        assert found.metrics["ic"]["mean"] == pytest.approx(1)
        assert found.metrics["excess"]["annualized_return"] > 1

    def test_a_mean_of_twelve_months_has_twelve(self, world):
        block, table, found = world
        short = evaluate(table[table["date"] < "2019-12-01"], block, config(top_fraction=0.2))
        assert len(short.monthly) == 11
        assert short.metrics["ic"]["mean_12"] is None
        means = ["ic_mean_12", "excess_mean_12"]
        assert short.industries[means].isna().all(axis=None)
        newest = found.monthly["ic_mean_12"].iloc[-1]
        assert found.metrics["ic"]["mean_12"] == pytest.approx(newest)
        assert found.industries[means].notna().all(axis=None)

    def test_order_of_rows_changes_nothing(self, world):
        block, table, found = world
        again = evaluate(table.sort_values("factor"), block, config(top_fraction=0.2))
        assert again.metrics == found.metrics

    def test_past_figures_ignore_later_bars(self, world):
        block, table, found = world
        cut = found.monthly["exit"].iloc[5]
        later = block.dates > np.datetime64(cut, "D")
        tampered = random_block(days=420, assets=40, seed=5)
        tampered.adj_close[later] *= np.random.default_rng(0).uniform(0.5, 2, 40)
        again = evaluate(table, tampered, config(top_fraction=0.2))
        pd.testing.assert_frame_equal(
            again.monthly.iloc[:6].drop(columns="ic_cumulative"),
            found.monthly.iloc[:6].drop(columns="ic_cumulative"),
            check_exact=True,
        )
        assert not again.monthly["ic"].iloc[6:].equals(found.monthly["ic"].iloc[6:])  # teeth

    def test_gap_is_named(self):
        block, table = _world()
        table = table[~((table["date"].dt.month == 5) & (table["date"].dt.year == 2019))]
        found = evaluate(table, block, config())
        assert any("2019-05-31" in note for note in found.metrics["notes"])
        assert "2019-06" not in set(found.monthly["month"])

    @pytest.mark.parametrize(
        ("days", "until", "missing"),
        [
            (310, "2020-01-15", "2020-01-31, 2020-02-28"),
            (310, "2020-03-02", ""),
            (303, "2020-01-31", ""),
            (303, "2020-01-15", "2020-01-31, 2020-02-28"),
        ],
    )
    def test_month_ends_after_the_newest_factor_are_named(self, days, until, missing):
        """310 days end within a month, 303 with one: that last day may still be scored."""
        block = random_block(days=days, assets=40, seed=5)
        table = random_table(block, seed=6)
        found = evaluate(table[table["date"] <= until], block, config())
        notes = [note for note in found.metrics["notes"] if note.startswith("No factor since")]
        newest = found.metrics["period"]["newest_rebalance"]
        said = f"No factor since {newest}, on the month-ends {missing}: "
        assert [note.startswith(said) for note in notes] == [True] * bool(missing)

    def test_day_with_one_value_for_all_is_no_month(self, world):
        block, table, found = world
        table = table.copy()
        table.loc[table["date"] == "2019-05-31", "factor"] = 0.0
        flat = evaluate(table, block, config(top_fraction=0.2))
        assert any("2019-05-31" in note for note in flat.metrics["notes"])
        assert "2019-06" not in set(flat.monthly["month"])
        assert flat.metrics["ic"]["months"] == found.metrics["ic"]["months"] - 1
        whole = flat.monthly.set_index("month")["ic_mean_12"].dropna()
        assert list(whole.index) == ["2020-06", "2020-07"]  # twelve months after the missing one
        assert "2019-05-31" not in set(flat.trades["rebalance"].dt.strftime("%Y-%m-%d"))

    def test_assets_without_a_price_yet_are_left_out_and_counted(self):
        """000000.SH lists later; 000003.SH is suspended over the first month-end."""
        block = random_block(days=420, assets=40, seed=5)
        block.traded[:40, 3], block.adj_close[:40, 3] = False, np.nan
        table = random_table(block, seed=6)[["date", "asset", "factor"]]
        days = pd.to_datetime(["2019-01-31", "2019-01-31", "2019-03-29"])
        early = {"date": days, "asset": ["000000.SH", "000003.SH", "000000.SH"], "factor": 9.0}
        plain = evaluate(table, block, config()).metrics
        found = evaluate(pd.concat([table, pd.DataFrame(early)]), block, config()).metrics
        said = [note for note in found.pop("notes") if note not in plain["notes"]]
        assert [note[:9] for note in said] == ["3 values "]
        assert found == {name: plain[name] for name in found}
        assert found["universe"]["annualized_return"] is not None

    def test_day_without_factor_is_no_universe(self):
        block, table = _world()
        nothing = table["date"] == "2019-05-31"
        table.loc[nothing, ["factor", "quantile"]] = np.nan
        found = evaluate(table, block, config())
        assert any("2019-05-31" in note for note in found.metrics["notes"])

    @pytest.mark.parametrize(
        ("entry", "horizon", "periods"),
        [
            ([0, 21, 42, 63], 21, 0),  # the next begins when this one ends
            ([0, 21, 42, 63], 42, 1),
            ([0, 19, 38, 59], 42, 2),  # short months: 42 / 21 - 1 would be one
            ([0, 15, 36], 20, 1),
            ([0, 60, 80], 42, 1),  # a month is missing
            ([], 60, 0),
        ],
    )
    def test_overlap_is_counted_from_entry_days(self, entry, horizon, periods):
        assert count_overlaps(np.array(entry, dtype=np.int64), horizon) == periods


class TestAnyTable:
    """What a table needs is date, asset and factor; the rest is told or left open."""

    def bare(self, table: pd.DataFrame) -> pd.DataFrame:
        return table[["date", "asset", "factor"]]

    def test_quantiles_are_those_of_scoring(self, world):
        block, table, _ = world
        table = table.assign(
            quantile=table.groupby("date")["factor"].transform(
                lambda factor: cs_quantile(factor.to_numpy()[None], 10)[0]
            )
        )
        given, told = (evaluate(one, block, config()) for one in (self.bare(table), table))
        pd.testing.assert_frame_equal(given.quantile_months, told.quantile_months)
        known = {k: v for k, v in told.metrics.items() if k != "ic_raw_score"}
        assert {k: v for k, v in given.metrics.items() if k != "ic_raw_score"} == known
        fifths = dataclasses.replace(config(), factor=FactorConfig(quantiles=5))
        assert len(evaluate(self.bare(table), block, fifths).quantiles) == 5

    def test_without_a_score_its_ic_is_open(self, world):
        block, table, _ = world
        found = evaluate(self.bare(table), block, config())
        figures = found.metrics["ic_raw_score"]
        assert (figures["mean"], figures["t"], figures["months"]) == (None, None, 0)
        assert found.monthly["ic_score"].isna().all()
        assert found.ranked["score"].isna().all()
        json.dumps(found.metrics, allow_nan=False)

    @pytest.mark.parametrize(
        "made",
        [
            lambda t: t.assign(date=t["date"].dt.strftime("%Y-%m-%d")),
            lambda t: t.assign(date=t["date"].dt.date),
            lambda t: t.assign(date=t["date"].astype("datetime64[ns]")),
            lambda t: t.assign(asset=t["asset"].astype("category")),
            lambda t: t.assign(factor=t["factor"].astype("float32")),
            lambda t: t.set_index("asset").reset_index(),
            lambda t: t.assign(window=1, model="x", mine=None),
        ],
        ids=["text", "date", "ns", "category", "float32", "order", "more columns"],
    )
    def test_whoever_made_it(self, world, made):
        block, table, _ = world
        table = self.bare(table)
        table = table.assign(factor=table["factor"].astype("float32").astype("float64"))
        expected = evaluate(table, block, config()).metrics
        assert evaluate(made(table), block, config()).metrics == expected


class TestValidation:
    @pytest.mark.parametrize(("there", "asked"), [(10, 5), (5, 10)])
    def test_the_fifth_of_ten_quantiles_is_not_the_best_of_five(self, there, asked):
        block = random_block(days=420, assets=40, seed=5)
        table = random_table(block, seed=6, quantiles=there)
        cfg = dataclasses.replace(config(), factor=FactorConfig(quantiles=asked))
        said = rf"quantiles up to {there}, but factor\.quantiles is {asked}"
        with pytest.raises(EvaluationError, match=said):
            evaluate(table, block, cfg)

    def test_ties_at_the_top_of_every_day_are_no_error(self):
        """Half of a day's assets share the highest factor: nobody is in the best tenth."""
        block, table = _world()
        rank = table.groupby("date")["factor"].rank(pct=True)
        table = table.assign(factor=(rank > 0.5).astype(float))
        table["quantile"] = table.groupby("date")["factor"].transform(
            lambda factor: cs_quantile(factor.to_numpy()[None], 10)[0]
        )
        assert table["quantile"].max() < 10
        assert evaluate(table, block, config()).metrics["period"]["months"] > 0

    def test_fewer_assets_than_quantiles_are_no_error(self):
        block, table = _world()
        few = table[table["asset"].isin(block.assets[2:7])].copy()
        few["quantile"] = few.groupby("date")["factor"].transform(
            lambda factor: cs_quantile(factor.to_numpy()[None], 10)[0]
        )
        assert evaluate(few, block, config()).metrics["period"]["newest_universe"] <= 5
