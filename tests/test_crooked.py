"""Markets that nobody promised: one asset, nearly empty buckets, days without trade, years apart.

All stages by the command line, Ray's part of them in this process.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gangru_dist import commands
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import RunConfig, SyntheticConfig
from gangru_dist.panel.manifest import assign_buckets
from gangru_dist.runs.run import Run
from gangru_dist.scoring.reader import read_factor
from gangru_dist.scoring.table import FactorTable
from gangru_dist.synthetic.market import make_bars
from tests.soak import near
from tests.soak.jobs import RUN, SETTINGS
from tests.soak.outcome import outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
MARKET = SyntheticConfig(assets=24, first=dt.date(2018, 1, 2), last=dt.date(2019, 4, 30))
SMALLER = ("training.seeds=[0]", "training.epochs=2", "gan.epochs=1", "windows.refit_months=[12]")
QUIET = [pd.Timestamp(day) for day in ("2018-05-16", "2018-11-14", "2019-02-20")]
"""Days of history, of validation, and of scores."""


@pytest.fixture(autouse=True)
def near_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name, value in near.replacements():
        monkeypatch.setattr(owner, name, value)


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    frame = make_bars(MARKET).to_pandas()
    frame["date"] = pd.to_datetime(frame["date"])
    return frame


def job(folder: Path, name: str, *settings: str) -> int:
    (folder / "settings.toml").write_text(SETTINGS)
    words = ["--storage", str(folder / "storage"), "--run", RUN]
    words += ["--config", str(folder / "settings.toml")]
    words += [word for setting in (*SMALLER, *settings) for word in ("--set", setting)]
    if name in ("panel", "pipeline"):
        words += ["--bars", str(folder / "bars.parquet")]
    return int(commands.main([name, *words]))


def run(folder: Path, bars: pd.DataFrame, *settings: str, report: bool = False) -> dict[str, str]:
    """What the jobs lead to."""
    folder.mkdir(exist_ok=True)
    bars.to_parquet(folder / "bars.parquet", index=False)
    for name in ("panel", "train", "score", *(("report",) if report else ())):
        assert job(folder, name, *settings) == 0, name
    return outcome(folder / "storage")


def factor(folder: Path) -> pd.DataFrame:
    return read_factor(str(folder / "storage"), RUN)


@pytest.mark.parametrize("buckets", ["fewest", pytest.param("4096", marks=[pytest.mark.trials])])
def test_one_asset_a_bucket_and_most_of_them_empty(
    tmp_path: Path, bars: pd.DataFrame, buckets: str
) -> None:
    """Same rows, weights and factor as with four buckets."""
    codes = bars["code"].unique().tolist()
    apart = (n for n in range(30, 4096) if len(set(assign_buckets(codes, n))) == len(codes))
    count = next(apart) if buckets == "fewest" else int(buckets)
    few = run(tmp_path / "few", bars)
    many = run(tmp_path / "many", bars, f"panel.buckets={count}")
    folders = list((tmp_path / "many" / "storage" / "panel").glob("bucket=*"))
    assert len(folders) == len(codes) < count
    del few["panel_files"], many["panel_files"], few["panel_quality"], many["panel_quality"]
    assert many == few


def test_one_asset(tmp_path: Path, bars: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    """There is a panel, and nothing to compare it with: one message says so."""
    alone = bars[bars["code"] == bars["code"].iloc[0]]
    alone.to_parquet(tmp_path / "bars.parquet", index=False)
    assert job(tmp_path, "pipeline") in (1, 2)
    said = capsys.readouterr().err
    assert "panel_done" in said
    assert "Traceback" not in said
    assert "universe.min_assets" in said


class TestADayWithoutTrade:
    def quiet(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Everybody is suspended: rows with the last close and no volume."""
        rows = bars.copy()
        mark = rows["date"].isin(QUIET)
        assert mark.sum() > 50
        rows.loc[mark, ["volume", "amount", "turnover_rate"]] = 0.0
        return rows

    def test_is_no_day_of_the_market(self, tmp_path: Path, bars: pd.DataFrame) -> None:
        found = run(tmp_path / "quiet", self.quiet(bars))
        without = run(tmp_path / "without", bars[~bars["date"].isin(QUIET)])
        del found["panel_quality"], without["panel_quality"]
        assert found == without

    def test_unless_the_calendar_says_so(self, tmp_path: Path, bars: pd.DataFrame) -> None:
        """It has no rows and no factor; the next day goes on from the day before."""
        days = np.sort(bars["date"].unique())
        lines = [f"{day:%Y-%m-%d}" for day in pd.DatetimeIndex(days)]
        (tmp_path / "days.csv").write_text("\n".join(lines) + "\n")
        setting = f'bars.calendar="{tmp_path / "days.csv"}"'
        run(tmp_path, self.quiet(bars), setting)
        covered = FactorTable(
            Run(Storage(str(tmp_path / "storage")), RUN, RunConfig()).factor
        ).read_coverage()
        rows = factor(tmp_path)
        last = QUIET[-1]
        assert last.date() in covered
        assert (covered[last.date()].traded, covered[last.date()].universe) == (0, 0)
        assert rows[rows["date"] == last].empty
        assert not rows[rows["date"] == last + pd.Timedelta(days=1)].empty


@pytest.mark.trials
def test_three_years_without_a_market(tmp_path: Path, bars: pd.DataFrame) -> None:
    """Windows, lookbacks and labels count trading days; both sides of the gap have a factor."""
    gap = pd.Timedelta(weeks=157)
    moved = bars.copy()
    late = moved["date"] > "2018-11-30"
    moved.loc[late, "date"] += gap
    run(tmp_path, moved, "windows.refit_months=[9, 12]", report=True)
    rows = factor(tmp_path)
    dates = rows["date"].unique()
    assert (dates < np.datetime64("2019-01-01")).sum() > 30
    assert (dates > np.datetime64("2021-11-01")).sum() > 60
    assert rows["factor"].notna().mean() > 0.9
