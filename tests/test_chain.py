"""The whole chain cannot see the future, finds a planted signal, and finds none in none."""

import dataclasses
import datetime as dt
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

import gangru_dist.features.price_volume as price_volume
from gangru_dist.base.storage import Storage
from gangru_dist.config.identity import from_dict
from gangru_dist.config.settings import RunConfig, SyntheticConfig, UniverseConfig
from gangru_dist.maths.metrics import drop_nonfinite, rank_ic
from gangru_dist.panel import universe
from gangru_dist.panel.block import PanelBlock
from gangru_dist.samples.labels import compute_forward_return
from gangru_dist.synthetic.market import make_bars
from gangru_dist.training import data
from tests.chain import Outcome, build_panel, run_chain, run_on

REFIT, LATER = dt.date(2018, 12, 31), dt.date(2019, 1, 18)
MARKET = SyntheticConfig(
    assets=60, first=dt.date(2018, 7, 2), last=dt.date(2019, 2, 15), signal_ic=0.1
)


def config(**sections: object) -> RunConfig:
    """Tiny networks, lookback 10, one window that refits on `REFIT`."""
    return from_dict(
        {
            "panel": {"features": ["open", "close", "volume", "daily_return"], "buckets": 2},
            "universe": {"min_listed_days": 20, "min_traded_days": 6},
            "samples": {"lookback": 10},
            "label": {"horizon": 5},
            "windows": {"history_days": 60, "refit_months": [12]},
            "gan": {"hidden": 4, "layers": 1, "channels": [2, 2], "epochs": 1},
            "gru": {"hidden": 5, "layers": 1, "head": [4]},
            "training": {"epochs": 2, "learning_rate": 1e-2},
            **sections,
        }
    )


@pytest.fixture(scope="module")
def market() -> pa.Table:
    return make_bars(MARKET)


@pytest.fixture(scope="module")
def other_market() -> pa.Table:
    """Other prices, listings, suspensions and sizes of the same codes on the same days."""
    return make_bars(dataclasses.replace(MARKET, seed=1))


@pytest.fixture(scope="module")
def outcome(market: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_chain(market, config(), tmp_path_factory.mktemp("chain"))


Pair = Callable[[dt.date], tuple[Outcome, Outcome]]


@pytest.fixture
def pair(market: pa.Table, other_market: pa.Table, tmp_path: Path) -> Pair:
    """The chain on the market, and on one that differs after a day."""

    def run(day: dt.date) -> tuple[Outcome, Outcome]:
        cfg = config(variant="gru")
        changed = rewritten(market, other_market, day)
        return run_chain(market, cfg, tmp_path / "a"), run_chain(changed, cfg, tmp_path / "b")

    return run


def until(bars: pa.Table, day: dt.date) -> pa.Table:
    return bars.filter(pc.less_equal(bars["date"].cast(pa.date32()), pa.scalar(day)))


def rewritten(bars: pa.Table, other: pa.Table, day: dt.date) -> pa.Table:
    """The first market up to a day, the other one after it."""
    after = pc.greater(other["date"].cast(pa.date32()), pa.scalar(day))
    return pa.concat_tables([until(bars, day), other.filter(after)])


def check_same_model(before: Outcome, after: Outcome) -> None:
    """No figure of the training and no weight moved, not by one bit."""
    assert before.history == after.history
    assert before.weights.keys() == after.weights.keys()
    for name, tensor in before.weights.items():
        assert torch.equal(tensor, after.weights[name]), name


def check_same_factor(before: Outcome, after: Outcome, day: dt.date) -> None:
    """No score and no factor up to `day` moved; what comes later did."""
    past = before.known(day)
    assert (len(past) > 0) == (day > REFIT)
    pd.testing.assert_frame_equal(past, after.known(day), check_exact=True)
    assert not before.factor.equals(after.factor)


def test_two_runs_of_other_features_share_a_panel(market: pa.Table, tmp_path: Path) -> None:
    """Each is, bit for bit, the run on a panel of its own features alone."""
    root, chosen = Storage(str(tmp_path / "storage")), (["daily_return", "close"], ["volume"])
    manifest = build_panel(market, config(variant="gru"), tmp_path / "bars", root)
    for features in chosen:
        mine = config(variant="gru", samples={"lookback": 10, "features": features})
        alone = config(variant="gru", panel={"features": features, "buckets": 2})
        shared = run_on(root, manifest, mine)
        check_same_model(run_chain(market, alone, tmp_path / features[0]), shared)
        assert len(shared.block.feature_names) == len(features)


class TestNoLookAhead:
    def test_the_chain_ends_with_a_factor_of_every_day(self, outcome: Outcome) -> None:
        assert [epoch.stage for epoch in outcome.history] == ["gan", "predictor", "predictor"]
        found = outcome.factor.groupby("date")["factor"]
        assert len(found) == len(outcome.days) > 20
        assert found.count().min() > 40
        np.testing.assert_allclose(found.std(ddof=0), 1.0)

    @pytest.mark.parametrize("day", [REFIT, LATER], ids=["refit day", "later day"])
    def test_rewriting_the_future_changes_nothing_up_to_a_day(
        self,
        market: pa.Table,
        other_market: pa.Table,
        outcome: Outcome,
        day: dt.date,
        tmp_path: Path,
    ) -> None:
        again = run_chain(rewritten(market, other_market, day), config(), tmp_path)
        check_same_model(outcome, again)
        check_same_factor(outcome, again, day)

    def test_cutting_the_future_off_changes_nothing(
        self, market: pa.Table, outcome: Outcome, tmp_path: Path
    ) -> None:
        again = run_chain(until(market, LATER), config(), tmp_path)
        check_same_model(outcome, again)
        check_same_factor(outcome, again, LATER)

    @pytest.mark.parametrize("leak", ["feature", "universe"])
    def test_a_leak_of_one_day_shows_in_the_scores(
        self, pair: Pair, leak: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        LEAKS[leak](monkeypatch)
        before, after = pair(LATER)
        check_same_model(before, after)
        with pytest.raises(AssertionError, match="DataFrame"):
            check_same_factor(before, after, LATER)

    def test_a_leak_beyond_the_labels_shows_in_the_model(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leak_feature(monkeypatch, 9)  # the newest label begins 6 days before the refit day
        with pytest.raises(AssertionError, match="valid_ic"):
            check_same_model(*pair(REFIT))


def leak_feature(patch: pytest.MonkeyPatch, days: int) -> None:
    """`daily_return` becomes that of some traded days later."""
    honest = price_volume.FEATURES["daily_return"].compute

    def daily_return(bars: price_volume.AdjustedBars) -> np.ndarray:
        values = honest(bars)
        return np.concatenate([values[days:], values[:days]])

    leaky = price_volume.Feature(compute=daily_return, inputs=("close",))
    patch.setitem(price_volume.FEATURES, "daily_return", leaky)


def leak_universe(patch: pytest.MonkeyPatch) -> None:
    """Members must trade tomorrow, too."""
    honest = universe.select_universe

    def select_universe(block: PanelBlock, cfg: UniverseConfig, lookback: int) -> np.ndarray:
        tomorrow = np.concatenate([block.traded[1:], block.traded[-1:]])
        return honest(block, cfg, lookback) & tomorrow

    for module in (universe, data):
        patch.setattr(module, "select_universe", select_universe)


LEAKS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "feature": lambda patch: leak_feature(patch, 1),
    "universe": leak_universe,
}


def out_of_sample_ics(signal_ic: float, folder: Path) -> np.ndarray:
    """Rank IC of each scored day with the return that its scores predict."""
    market = SyntheticConfig(
        assets=60, first=dt.date(2017, 6, 1), last=dt.date(2020, 2, 28), signal_ic=signal_ic
    )
    cfg = config(
        variant="gru",
        universe={"min_listed_days": 60, "min_traded_days": 30},
        samples={"lookback": 40},
        label={"horizon": 20},
        windows={
            "history_days": 300,
            "sample_every": 3,
            "refit_months": [12],
            "last": "2018-12-31",
        },
        gru={"hidden": 16, "layers": 1, "head": [16]},
        training={"epochs": 5, "learning_rate": 1e-2},
    )
    found = run_chain(make_bars(market), cfg, folder)
    block, label = found.block, cfg.label
    returns = compute_forward_return(
        block.adj_close, block.traded, horizon=label.horizon, entry_lag=label.entry_lag
    )
    return rank_ic(found.scores, returns[found.days])


@pytest.mark.slow
class TestSignal:
    """60 assets, a year out of sample, five epochs of a small network."""

    def test_a_planted_signal_is_found(self, tmp_path: Path) -> None:
        ics = drop_nonfinite(out_of_sample_ics(0.3, tmp_path))
        assert len(ics) > 200
        assert ics.mean() > 0.15

    def test_where_nothing_is_planted_nothing_is_found(self, tmp_path: Path) -> None:
        ics = drop_nonfinite(out_of_sample_ics(0.0, tmp_path)[::20])  # returns that do not overlap
        assert len(ics) > 10
        assert abs(ics.mean()) < 3 * ics.std(ddof=1) / np.sqrt(len(ics))
