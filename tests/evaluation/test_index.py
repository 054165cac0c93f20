"""The portfolio beside an index, and a table judged on its members alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gangru_dist.bars.indices import read_closes
from gangru_dist.base.errors import BarsError, EvaluationError
from gangru_dist.evaluation import summary
from gangru_dist.evaluation.comparison import compare_evaluations
from gangru_dist.evaluation.market import to_market
from gangru_dist.evaluation.performance import measure_against_index
from gangru_dist.evaluation.summary import Evaluation
from gangru_dist.report.sources import read_index
from tests.evaluation.worlds import config, random_block, random_table

BLOCK = random_block()
TABLE = random_table(BLOCK)


def closes(seed: int = 3) -> pd.Series:
    moves = np.random.default_rng(seed).normal(0, 0.01, len(BLOCK.dates))
    days = pd.DatetimeIndex(BLOCK.dates)
    return pd.Series(3000 * np.exp(np.cumsum(moves)), index=days, name="300")


def judged(index: pd.Series | None = None, member: np.ndarray | None = None) -> Evaluation:
    cfg = config(top_fraction=0.2)
    market = dataclasses.replace(to_market(BLOCK), member=member)
    rules = {"entry_lag": cfg.label.entry_lag, "quantiles": cfg.factor.quantiles}
    return summary.evaluate(TABLE, market, cfg.evaluation, **rules, index=index)


class TestReference:
    def test_figures_by_pandas(self) -> None:
        found = judged(closes())
        daily = found.daily.set_index("date")
        moves = daily[["long", "long_net", "index"]].pct_change().dropna()
        active = moves["long"] - moves["index"]
        figures = found.metrics["index"]
        error = active.std() * np.sqrt(252)
        assert figures["tracking_error"] == pytest.approx(error)
        assert figures["information_ratio"] == pytest.approx(active.mean() * 252 / error)
        slope, _ = np.polyfit(moves["index"], moves["long"], 1)
        assert figures["beta"] == pytest.approx(slope)
        excess = daily["long_net"].iloc[-1] / daily["index"].iloc[-1] - 1
        assert figures["excess_with_costs"]["total_return"] == pytest.approx(excess)
        own = closes()
        expected = own.reindex(daily.index) / own[daily.index[0]]
        np.testing.assert_allclose(daily["index"], expected)

    def test_an_index_like_the_portfolio(self) -> None:
        value = np.array([1.0, 1.02, 0.99, 1.05])
        figures = measure_against_index(value, value, value, 252)
        assert figures["beta"] == pytest.approx(1)
        assert figures["tracking_error"] == 0
        assert np.isnan(figures["information_ratio"])


class TestProperties:
    def test_without_an_index_nothing_is_said_of_it(self) -> None:
        found = judged()
        assert "index" not in found.metrics
        assert "index" not in found.daily

    def test_a_day_without_a_close_keeps_the_one_before_and_is_noted(self) -> None:
        index = closes()
        there = np.arange(len(BLOCK.dates)) != len(BLOCK.dates) // 2
        found = judged(index[there])
        assert any("no close on 1 trading day(s)" in str(note) for note in found.notes)

    def test_members_alone_are_judged(self) -> None:
        member = np.zeros(BLOCK.traded.shape, dtype=bool)
        member[:, ::2] = True
        found = judged(member=member)
        names = set(BLOCK.assets[::2])
        assert set(found.ranked["asset"]) <= names
        own = TABLE[TABLE["asset"].isin(names)].drop(columns="quantile")
        market = to_market(BLOCK)
        alone = summary.evaluate(
            own, market, config(top_fraction=0.2).evaluation, entry_lag=1, quantiles=10
        )
        assert found.metrics == alone.metrics

    def test_factors_are_compared_over_the_members(self) -> None:
        """Theirs is ours for members, and its opposite for all others."""
        member = np.zeros(BLOCK.traded.shape, dtype=bool)
        member[:, ::2] = True
        inside = TABLE["asset"].isin(BLOCK.assets[::2])
        theirs = TABLE.assign(factor=TABLE["factor"].where(inside, -TABLE["factor"]))
        market = dataclasses.replace(to_market(BLOCK), member=member)
        rules, found = config(top_fraction=0.2).evaluation, judged(member=member)
        compared = compare_evaluations(found, found, (TABLE, theirs), market, rules)
        assert compared.figures["correlation"]["mean"] == pytest.approx(1)
        assets = found.monthly["assets"].tolist()
        assert compared.correlation["assets"].tolist() == assets


class TestValidation:
    def test_closes_that_end_too_early(self) -> None:
        index = closes()
        short = index.iloc[: len(index) // 2]
        with pytest.raises(EvaluationError, match=r"evaluation.index=300 has closes from .* Give"):
            judged(short)

    def test_no_members_at_all(self) -> None:
        with pytest.raises(EvaluationError, match="none of the factor table's"):
            judged(member=np.zeros(BLOCK.traded.shape, dtype=bool))


class TestClosesOfAFile:
    """What is no index is told from its own past."""

    @pytest.mark.parametrize(
        ("what", "match"),
        [
            ("right", ""),
            (
                "x 1000 from a day on",
                r"close=3.0.*e\+06 on 2019-03-13 and 30.* on 2019-03-12: another unit",
            ),
            ("halved from a day on", "another unit or another index from there on"),
            ("returns", "as returns do and closes do not. Give closes"),
        ],
    )
    def test_units_and_returns(self, tmp_path: Path, what: str, match: str) -> None:
        days = pd.bdate_range("2019-01-01", periods=120)
        moves = np.random.default_rng(3).normal(0, 0.01, 120)
        right = 3000 * np.exp(np.cumsum(moves))
        close = {
            "right": right,
            "x 1000 from a day on": np.where(np.arange(120) > 50, 1000.0, 1.0) * right,
            "halved from a day on": np.where(np.arange(120) > 50, 0.5, 1.0) * right,
            "returns": 1 + moves,
        }[what]
        path = tmp_path / "index.csv"
        pd.DataFrame({"date": days.strftime("%Y-%m-%d"), "close": close}).to_csv(path, index=False)
        if not match:
            np.testing.assert_allclose(read_closes(str(path))[1], right)
            return
        with pytest.raises(BarsError, match=match):
            read_closes(str(path))

    def test_a_file_of_several_indices(self, tmp_path: Path) -> None:
        path = tmp_path / "index.csv"
        path.write_text("date,csi300,csi500\n2020-01-02,4000,5000\n2020-01-03,4040,4900\n")
        assert read_closes(str(path), "csi500")[1].tolist() == [5000, 4900]
        found = read_index(str(path), "csi300")
        assert found is not None
        assert (found.name, found.to_list()) == ("csi300", [4000, 4040])
        with pytest.raises(BarsError, match="lacks the column csi1000; it has date, csi300"):
            read_closes(str(path), "csi1000")
