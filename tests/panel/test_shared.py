"""One panel for the runs of a storage: it keeps the union of their features.

What a run's models rest on is the fingerprint of its own columns, as a panel of these alone has it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from gangru_dist.base.errors import PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import Manifest, panel_schema, read_manifest
from gangru_dist.panel.store import read_rows
from gangru_dist.runs.run import Run
from tests.bars.corpus_market import DAYS, market
from tests.made_bars import write

BARS = BarsConfig(price_limits="ashare")
MINE = RunConfig(bars=BARS, panel=PanelConfig(features=("close", "daily_return"), buckets=3))
YOURS = replace(MINE, panel=replace(MINE.panel, features=("volume", "close", "volume_ratio")))
ENDS = (DAYS[49], DAYS[54], DAYS[64], DAYS[79])


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


def build(root: Storage, cfg: RunConfig, frame: pd.DataFrame, **options: bool) -> Manifest:
    folder = Path(f"{root.uri}-bars")
    write(folder, frame)
    return build_panel(str(folder), root, cfg, runner=map_here, **options)


def until(day: pd.Timestamp) -> pd.DataFrame:
    return market()[market()["date"] <= day]


def alone(tmp_path: Path, cfg: RunConfig, frame: pd.DataFrame) -> Manifest:
    """The panel of one run that has a storage to itself."""
    where = f"alone-{cfg.panel.features[0]}-{len(frame)}"
    return build(Storage(str(tmp_path / where)), cfg, frame)


def test_two_runs_take_turns_while_the_bars_grow(root: Storage, tmp_path: Path) -> None:
    build(root, MINE, until(ENDS[0]))
    Run(root, "mine", MINE).claim()
    for end in ENDS:
        for name, cfg in (("yours", YOURS), ("mine", MINE)):
            found = build(root, cfg, until(end))
            Run(root, name, cfg).claim()
            assert found.features == ("close", "daily_return", "volume", "volume_ratio")
            assert found.rewritten == {}
        for cfg in (MINE, YOURS):
            seen = read_manifest(root, cfg.panel.features)
            own = alone(tmp_path, cfg, until(end))
            assert (seen.features, seen.fingerprint) == (cfg.panel.features, own.fingerprint)
            day = DAYS[20].date()
            assert seen.fingerprint_to(day) == own.fingerprint_to(day)


def test_the_rows_are_those_of_each_alone(root: Storage, tmp_path: Path) -> None:
    Run(root, "mine", MINE).claim()
    found = build(root, YOURS, market())
    for cfg in (MINE, YOURS):
        own, names = alone(tmp_path, cfg, market()), panel_schema(cfg.panel.features).names
        days = {"start": DAYS[0].date(), "end": DAYS[-1].date(), "columns": names}
        place = Storage(str(tmp_path / f"alone-{cfg.panel.features[0]}-{len(market())}"))
        one, two = (read_rows(*at, **days).to_pandas() for at in ((root, found), (place, own)))
        pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_the_same_bars_are_kept_whoever_asks(root: Storage) -> None:
    for name, cfg in (("mine", MINE), ("yours", YOURS)):
        Run(root, name, cfg).claim()
    first = build(root, MINE, market())
    again = build_panel(f"{root.uri}-bars", root, YOURS, runner=map_here)
    assert again.to_json() == first.to_json()


def test_added_columns_open_no_history(root: Storage) -> None:
    build(root, MINE, market())
    Run(root, "mine", MINE).claim()
    frame = market()
    frame.loc[frame["date"] == DAYS[30], "market_cap"] *= 1.01
    with pytest.raises(PanelError, match=f"rewrite history: .*{DAYS[30]:%F}.*market_cap"):
        build(root, YOURS, frame)


def test_the_features_of_a_run_that_is_gone_go(root: Storage) -> None:
    for name, cfg in (("mine", MINE), ("yours", YOURS)):
        Run(root, name, cfg).claim()
    build(root, MINE, until(ENDS[2]))
    shutil.rmtree(Path(root.path) / "runs" / "yours")
    found = build(root, MINE, market())
    assert (found.features, found.views, found.rewritten) == (MINE.panel.features, (), {})


def test_other_settings_of_the_bars_do_not_take_the_panel_away(root: Storage) -> None:
    build(root, MINE, market())
    Run(root, "mine", MINE).claim()
    before = read_manifest(root).to_json()
    other = replace(YOURS, bars=replace(BARS, scales={"market_cap": 2.0}))
    with pytest.raises(PanelError, match=r"other runs rest .*: mine\. .*--overwrite"):
        build(root, other, market())
    assert read_manifest(root).to_json() == before
    assert build(root, other, market(), overwrite=True).rewritten


def test_a_feature_that_cannot_be_computed_any_more_is_refused(root: Storage) -> None:
    with_rate = replace(MINE, panel=replace(MINE.panel, features=("close", "turnover_rate")))
    build(root, with_rate, market())
    Run(root, "theirs", with_rate).claim()
    with pytest.raises(PanelError, match="turnover_rate"):
        build(root, MINE, market().drop(columns=["turnover_rate", "market_cap"]))


def test_a_feature_whose_code_is_not_given_is_refused(root: Storage) -> None:
    Run(root, "mine", MINE).claim()
    config = root.child("runs", "mine").read_json("config.json")
    config["config"]["panel"]["features"] = ["close", "nowhere.at_all:feature"]
    root.child("runs", "mine").write_json("config.json", config)
    with pytest.raises(PanelError, match=r"other runs \(mine\).*delete the run's folder"):
        build(root, YOURS, market())
