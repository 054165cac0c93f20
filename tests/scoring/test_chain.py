"""From bars to scores, without Ray: the future has no say, and appended bars undo nothing."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.features import price_volume
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.scoring.reader import read_factor
from gangru_dist.scoring.table import FactorTable
from tests.made_bars import DAYS, make_bars, write
from tests.scoring.market import CFG as MARKET
from tests.scoring.market import RUN, run_of, score_here, write_models

FEATURES = ("close", "daily_return", "volume_ratio", "volatility_5d")
CFG = dataclasses.replace(
    MARKET,
    bars=BarsConfig(max_jumps=1, max_quarantined=0.5),  # two markets meet at the cut
    panel=PanelConfig(features=FEATURES, buckets=3),
)
ASSETS = 16


def build(root: Storage, frame: pd.DataFrame, cfg: RunConfig = CFG, **flags: bool) -> None:
    folder = Path(root.path) / "bars"
    write(folder, frame)
    build_panel(str(folder), root, cfg, runner=map_here, **flags)


def world(path: Path, frame: pd.DataFrame) -> Storage:
    """Panel of these bars, untrained models (the same for the same window), all days scored."""
    root = Storage(str(path))
    build(root, frame)
    write_models(root, read_manifest(root), CFG)
    score_here(run_of(root, CFG))
    return root


def table(root: Storage, last: pd.Timestamp | str = DAYS[-1]) -> pd.DataFrame:
    frame = read_factor(root.uri, RUN)
    return frame[frame["date"] <= last].drop(columns="model")


def until(last: pd.Timestamp | str) -> pd.DataFrame:
    frame = make_bars(assets=ASSETS)
    return frame[frame["date"] <= last]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return world(tmp_path_factory.mktemp("whole"), make_bars(assets=ASSETS))


FIRST_SCORED = DAYS.get_loc(pd.Timestamp("2019-02-01"))


def check_past(whole: Storage, folder: Path, cut: int, seed: int) -> None:
    """Rewrite every bar after day `cut`: no row of the table up to it may move."""
    past, future = make_bars(assets=ASSETS), make_bars(seed, assets=ASSETS)
    day = DAYS[cut]
    tampered = pd.concat([past[past["date"] <= day], future[future["date"] > day]])
    other = world(folder, tampered)
    expected = table(whole, day)
    assert len(expected) > 0
    pd.testing.assert_frame_equal(table(other, day), expected, check_exact=True)
    if cut < len(DAYS) - 1:
        assert not table(other).reset_index(drop=True).equals(table(whole).reset_index(drop=True))


class TestProperties:
    @settings(max_examples=8, deadline=None)
    @given(cut=st.integers(FIRST_SCORED, len(DAYS) - 2), seed=st.integers(1, 2**16))
    def test_scores_ignore_the_future(
        self, whole: Storage, tmp_path_factory: pytest.TempPathFactory, cut: int, seed: int
    ) -> None:
        check_past(whole, tmp_path_factory.mktemp("tampered"), cut, seed)

    def test_the_check_has_teeth(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def leak(bars: price_volume.AdjustedBars) -> price_volume.Values:
            return bars.volume / bars.volume[-1:]  # the last day's volume is the future's

        leaky = price_volume.Feature(compute=leak, inputs=("volume",))
        monkeypatch.setitem(price_volume.FEATURES, "volume_ratio", leaky)
        base = world(tmp_path_factory.mktemp("leaky"), make_bars(assets=ASSETS))
        with pytest.raises(AssertionError):
            check_past(base, tmp_path_factory.mktemp("tampered"), len(DAYS) - 10, seed=1)

    def test_day_by_day_equals_all_at_once(self, whole: Storage, tmp_path: Path) -> None:
        """An evening run each day, over the end of a month and of a window."""
        first = DAYS.get_loc(pd.Timestamp("2019-03-25"))
        root = world(tmp_path, until(DAYS[first]))
        for day in DAYS[first + 1 : first + 12]:
            models = run_of(root, CFG).read_models()
            build(root, until(day))
            write_models(root, read_manifest(root), CFG)
            after = run_of(root, CFG).read_models()
            assert {name: after[name] for name in models} == models  # no window has other inputs
            summary = score_here(run_of(root, CFG), daily=True)
            assert (summary.scored, summary.ok) == (1, True)
            assert score_here(run_of(root, CFG)).scored == 0
        pd.testing.assert_frame_equal(table(root), table(whole, DAYS[first + 11]))

    def test_an_appended_day_leaves_the_old_rows_alone(self, tmp_path: Path) -> None:
        root = world(tmp_path, until("2019-04-10"))
        before = FactorTable(run_of(root, CFG).factor).read_coverage()
        build(root, until("2019-04-12"))
        assert score_here(run_of(root, CFG)).scored == 2
        after = FactorTable(run_of(root, CFG).factor).read_coverage()
        assert {day: after[day] for day in before} == before
        assert set(after) - set(before) == {dt.date(2019, 4, 11), dt.date(2019, 4, 12)}

    @pytest.mark.parametrize("also_appended", [False, True])
    def test_an_accepted_correction_is_scored_again(
        self, tmp_path: Path, also_appended: bool
    ) -> None:
        """Even of days that were scored while their month was growing."""
        root = world(tmp_path, until("2019-04-08"))
        for day in ("2019-04-09", "2019-04-10"):
            build(root, until(day))
            score_here(run_of(root, CFG), daily=True)
        frame = until("2019-04-11" if also_appended else "2019-04-10")
        wrong = frame["date"] == "2019-04-02"
        corrected = frame.assign(volume=frame["volume"].mask(wrong & (frame["volume"] > 0), 5e3))
        build(root, corrected, overwrite=True)
        write_models(root, read_manifest(root), CFG)  # as jobs/train.py: windows before it stand
        summary = score_here(run_of(root, CFG))
        assert summary.scored == len(pd.bdate_range("2019-04-01", frame["date"].max()))
        fresh = world(tmp_path / "fresh", corrected)
        pd.testing.assert_frame_equal(table(root), table(fresh))
