"""Days appended to a panel: the same panel as built at once, nothing old rewritten, or refused.

Bars as small as these are built in this process: what the tasks and the driver do is the same.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gangru_dist.bars.files import BarsFile, list_files
from gangru_dist.base.errors import BarsError, PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.panel import jumps
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import Manifest, panel_schema, read_manifest
from gangru_dist.panel.store import read_rows
from tests.made_bars import DAYS, make_bars, write

FEATURES = ("close", "volume", "daily_return", "volume_ratio", "volatility_5d")
CFG = RunConfig(
    bars=BarsConfig(price_limits="ashare", weekends=True),
    panel=PanelConfig(features=FEATURES, buckets=3),
)


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


def build(root: Storage, bars: Path, cfg: RunConfig = CFG, *, overwrite: bool = False) -> Manifest:
    return build_panel(str(bars), root, cfg, overwrite=overwrite, runner=map_here)


def undated(uri: str) -> list[BarsFile]:
    """As a storage lists them that knows no modification times."""
    return [dataclasses.replace(file, modified=None) for file in list_files(uri)]


def facts(manifest: Manifest) -> dict[str, Any]:
    """The manifest but for what its bars' files looked like."""
    return {k: v for k, v in manifest.to_json().items() if k not in ("source", "checksum")}


def contents(root: Storage) -> dict[str, bytes]:
    panel = root.child("panel")
    return {n: panel.read_bytes(n) for n in panel.list_files() if n.endswith(".parquet")}


def names(manifest: Manifest) -> list[str]:
    return [file.name for file in manifest.files]


def all_rows(root: Storage, manifest: Manifest) -> pd.DataFrame:
    columns = panel_schema(manifest.features).names
    days = (DAYS[0].date(), DAYS[-1].date())
    return read_rows(root, manifest, start=days[0], end=days[1], columns=columns).to_pandas()


def mean_return(rows: pd.DataFrame) -> pd.Series:
    """(days,) the universe's equal-weighted daily return."""
    close = rows.pivot_table(index="date", columns="asset", values="adj_close")
    return close.ffill().pct_change(fill_method=None).mean(axis=1)[1:]


def age(root: Storage) -> None:
    """Date all panel files back, so that a second write shows."""
    panel = root.child("panel")
    for name in panel.list_files():
        os.utime(panel.full_path(name), (1e9, 1e9))


def written_since(root: Storage) -> set[str]:
    panel = root.child("panel")
    return {
        n
        for n in panel.list_files()
        if n.startswith("bucket=") and Path(panel.full_path(n)).stat().st_mtime > 1e9
    }


class TestReference:
    @pytest.mark.parametrize("seed", range(3))
    def test_appended_equals_built_at_once(self, root: Storage, tmp_path: Path, seed: int) -> None:
        rng = np.random.default_rng(seed)
        frame = make_bars(seed)
        cuts = sorted(DAYS[rng.choice(np.arange(8, len(DAYS) - 1), 4, replace=False)])
        for last in [*cuts, DAYS[-1]]:
            grown = frame[frame["date"] <= last].sample(frac=1, random_state=seed)
            write(tmp_path / "bars", grown, [cut for cut in cuts if rng.random() < 0.5])
            appended = build(root, tmp_path / "bars")
        once = Storage(str(tmp_path / "once"))
        write(tmp_path / "all", frame)
        at_once = build(once, tmp_path / "all")
        assert appended.fingerprint == at_once.fingerprint
        assert facts(appended) == facts(at_once)
        found, listed = contents(root), names(appended)
        assert {name: found[name] for name in listed} == contents(once)

    @pytest.mark.parametrize("last", ["2018-12-31", "2019-01-31", "2019-04-17"])
    def test_one_day_more(self, root: Storage, tmp_path: Path, last: str) -> None:
        frame = make_bars()
        following = DAYS[DAYS.get_loc(last) + 1]
        write(tmp_path / "bars", frame[frame["date"] <= last])
        first = build(root, tmp_path / "bars")
        frame[frame["date"] == following].to_parquet(tmp_path / "bars" / "today.parquet")
        second = build(root, tmp_path / "bars")
        assert list(second.calendar) == [*first.calendar, following.to_datetime64()]
        assert second.rewritten == {}
        before = pd.Timestamp(last) - pd.offsets.MonthEnd(1)
        assert second.fingerprint_to(before.date()) == first.fingerprint_to(before.date())

    def test_a_factor_lost_for_months_reaches_no_return(
        self, root: Storage, tmp_path: Path
    ) -> None:
        """One stock of many with adj_factor = 1: the universe earns what it does without it."""
        made = {f"6{seed:02}": make_bars(seed) for seed in range(27)}
        parts = [f.assign(code=f["code"].str.replace("600", by, n=1)) for by, f in made.items()]
        frame = pd.concat(parts, ignore_index=True).drop(columns="market_cap")
        is_lost = (frame["code"] == "612005.SH") & frame["date"].between("2018-12-20", "2019-03-20")
        factor = frame["adj_factor"] * 30.7
        frame["adj_factor"] = factor.where(~is_lost, 1.0)
        right = frame.assign(adj_close=frame["close"] * factor)[~is_lost & (frame["volume"] > 0)]
        expected = mean_return(right.rename(columns={"code": "asset"}))
        for last in ("2019-01-31", "2019-03-21", DAYS[-1]):
            write(tmp_path / "bars", frame[frame["date"] <= last])
            built = build(root, tmp_path / "bars")
            found = mean_return(all_rows(root, built))
            np.testing.assert_allclose(found, expected[: len(found)], rtol=1e-9)
        quality = root.child("panel").read_json("quality.json")
        assert quality["quarantined"][jumps.AFTER]["example"]["code"] == "612005.SH"
        assert quality["rows_quarantined"] == (is_lost & (frame["volume"] > 0)).sum()


class TestProperties:
    def test_nothing_old_is_written_again(self, root: Storage, tmp_path: Path) -> None:
        frame = make_bars()
        write(tmp_path / "bars", frame[frame["date"] <= "2019-03-14"])
        build(root, tmp_path / "bars")
        age(root)
        frame[frame["date"] > "2019-03-14"].to_parquet(tmp_path / "bars" / "new.parquet")
        grown = build(root, tmp_path / "bars")
        assert {file.year for file in grown.files if file.name in written_since(root)} == {2019}
        age(root)
        (tmp_path / "bars" / "new.parquet").touch()  # new bars by the look of it, and the same rows
        build(root, tmp_path / "bars")
        assert written_since(root) == set()

    def test_a_running_job_reads_its_panel_until_the_build_after_next(
        self, root: Storage, tmp_path: Path
    ) -> None:
        frame = make_bars()
        builds, rows = [], []
        for last in DAYS[-3:]:
            write(tmp_path / "bars", frame[frame["date"] <= last])
            age(root)
            builds.append(build(root, tmp_path / "bars"))
            rows.append(all_rows(root, builds[-1]))
            for manifest, before in zip(builds[-2:], rows[-2:], strict=True):
                pd.testing.assert_frame_equal(all_rows(root, manifest), before)
        with pytest.raises(PanelError, match=r"cannot be read: it is gone.* run the job again"):
            all_rows(root, builds[0])

        assert set(contents(root)) == {name for one in builds[1:] for name in names(one)}

    def test_what_refused_builds_left_goes_a_day_later(self, root: Storage, tmp_path: Path) -> None:
        frame = make_bars()
        write(tmp_path / "bars", frame)
        build(root, tmp_path / "bars")
        age(root)  # and with it the files of the panel before, for jobs that still read them
        panel, now = root.child("panel"), time.time()
        ages = {"before": now - 1e9, "refused": now - 2 * 86400, "running": now - 3600}
        for name, at in ages.items():
            panel.write_bytes(f"bucket=00/2017-{name}.parquet", b"x")
            os.utime(panel.full_path(f"bucket=00/2017-{name}.parquet"), (at, at))
        write(tmp_path / "bars", corrected(frame))
        with pytest.raises(PanelError, match="rewrite history"):
            build(root, tmp_path / "bars")
        left = {name[15:-8] for name in contents(root) if name.startswith("bucket=00/2017-")}
        assert left == {"before", "running"}

    def test_a_running_builds_files_stay_if_the_storages_clock_is_behind(
        self, root: Storage, tmp_path: Path
    ) -> None:
        write(tmp_path / "bars", make_bars())
        build(root, tmp_path / "bars")
        age(root)
        panel, name = root.child("panel"), "bucket=00/2017-running.parquet"
        panel.write_bytes(name, b"x")
        os.utime(panel.full_path(name), (1e9 + 60, 1e9 + 60))
        write(tmp_path / "bars", make_bars().assign(close=-1.0))
        with pytest.raises(BarsError, match="would be set aside"):
            build(root, tmp_path / "bars")
        assert panel.exists(name)

    def test_a_correction_of_the_same_size_where_files_have_no_time(
        self,
        root: Storage,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("gangru_dist.bars.headings.list_files", undated)
        bars = Storage(str(tmp_path / "undated"))
        frame = make_bars()
        bars.write_bytes("a.csv", frame.to_csv(index=False).encode())
        first = build_panel(bars.uri, root, CFG, runner=map_here)
        logging.getLogger("gangru_dist").propagate = True
        with caplog.at_level(logging.INFO, logger="gangru_dist"):
            again = build_panel(bars.uri, root, CFG, runner=map_here)
        assert again.to_json() == first.to_json()
        assert "no_modification_time files=1 example=a.csv" in caplog.text
        same_size = corrected(frame).to_csv(index=False).encode()
        assert len(same_size) == len(bars.read_bytes("a.csv"))
        bars.write_bytes("a.csv", same_size)
        with pytest.raises(PanelError, match=r"rewrite history: .*600003.SH market_cap"):
            build_panel(bars.uri, root, CFG, runner=map_here)

    def test_a_lost_file_is_written_again(self, root: Storage, tmp_path: Path) -> None:
        frame = make_bars()
        write(tmp_path / "bars", frame[frame["date"] <= "2019-03-14"])
        lost = build(root, tmp_path / "bars").files[0].name
        root.child("panel").delete(lost)
        write(tmp_path / "bars", frame)
        build(root, tmp_path / "bars")
        assert root.child("panel").exists(lost)

    def test_other_buckets_are_no_other_history(self, root: Storage, tmp_path: Path) -> None:
        frame = make_bars()
        write(tmp_path / "bars", frame[frame["date"] <= "2019-03-14"])
        build(root, tmp_path / "bars")
        write(tmp_path / "bars", frame)
        five = RunConfig(bars=CFG.bars, panel=PanelConfig(features=FEATURES, buckets=5))
        assert build(root, tmp_path / "bars", five).rewritten == {}

    def test_overwrite_takes_the_correction_and_marks_its_months(
        self, root: Storage, tmp_path: Path
    ) -> None:
        frame = make_bars()
        write(tmp_path / "bars", frame)
        build(root, tmp_path / "bars")
        write(tmp_path / "bars", corrected(frame))
        once = build(root, tmp_path / "bars", overwrite=True)
        assert list(once.rewritten) == ["2019-02"]
        other = Storage(str(tmp_path / "other"))
        assert once.fingerprint == build(other, tmp_path / "bars").fingerprint
        assert read_manifest(root).rewritten == once.rewritten
        write(tmp_path / "bars", frame)
        back = build(root, tmp_path / "bars", overwrite=True)
        assert back.rewritten["2019-02"] != once.rewritten["2019-02"]

    def test_other_features_are_the_users_wish(self, root: Storage, tmp_path: Path) -> None:
        write(tmp_path / "bars", make_bars())
        build(root, tmp_path / "bars")
        fewer = RunConfig(bars=CFG.bars, panel=PanelConfig(features=FEATURES[:2], buckets=3))
        assert build(root, tmp_path / "bars", fewer).features == FEATURES[:2]


def corrected(frame: pd.DataFrame) -> pd.DataFrame:
    """One market cap corrected: no feature follows from it, so one row differs."""
    row = frame.index[(frame["date"] == "2019-02-14") & (frame["code"] == "600003.SH")]
    return frame.assign(market_cap=frame["market_cap"].mask(frame.index.isin(row), 2e7))


def friday(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["date"] == "2019-02-15"]


def saturday(frame: pd.DataFrame) -> pd.DataFrame:
    """Friday's prices with a volume of their own: no copy."""
    rows = friday(frame).assign(date=pd.Timestamp("2019-02-16"))
    return rows.assign(volume=rows["volume"] + 100, amount=rows["amount"] + 100 * rows["close"])


def trade(frame: pd.DataFrame, code: str, day: str) -> None:
    """A lot, so that the row is no suspended day."""
    row = (frame["date"] == day) & (frame["code"] == code)
    frame.loc[row, "volume"], frame.loc[row, "amount"] = 100, 100 * frame.loc[row, "close"]


def drop(code: str, day: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame[(frame["code"] != code) | (frame["date"] != day)]


def prices_from(day: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """A vendor that adjusts forward: a dividend changes all earlier prices."""
    return lambda frame: frame.assign(
        adj_factor=frame["adj_factor"].mask(frame["date"] < day, frame["adj_factor"] * 0.97)
    )


REWRITES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "a value": (
        corrected,
        r"rows of 1 month\(s\) differ, 2019-02; in 2019-02 1 row\(s\), e.g. 2019-02-14 600003.SH "
        r"market_cap: 10000000.0 in the panel, 20000000.0 in the bars",
    ),
    "the growing month": (
        lambda frame: frame.assign(
            market_cap=frame["market_cap"].mask(frame["date"] == "2019-03-11", 3e7)
        ),
        r"rows of 1 month\(s\) differ, 2019-03; in 2019-03 \d row\(s\), e.g. 2019-03-11",
    ),
    "a row gone": (
        drop("600001.SH", "2019-01-16"),
        r"2019-01.* e.g. 2019-01-16 600001.SH is not in the bars any more",
    ),
    "a stock gone": (
        lambda frame: frame[frame["code"] != "600008.SH"],
        r"e.g. 2018-11-1\d 600008.SH is not in the bars any more",
    ),
    "forward adjusted": (
        prices_from("2019-02-01"),
        r"rows of \d month\(s\) differ, 2018-11, 2018-12, 2019-01.*backward adj_factor",
    ),
    "only new days": (
        lambda frame: frame[frame["date"] > "2019-02-01"],
        r"they lack \d+ of the panel's \d+ trading days, 2018-11-12 to 2019-02-01",
    ),
    "older than the panel": (
        lambda frame: frame[frame["date"] < "2019-02-01"],
        r"they lack \d+ of the panel's \d+ trading days, 2019-02-01 to 2019-03-14",
    ),
    "a Saturday": (
        lambda frame: pd.concat([frame, saturday(frame)]),
        r"have 1 trading day\(s\), first 2019-02-16, that the panel lacks",
    ),
}


class TestValidation:
    @pytest.mark.parametrize("kind", REWRITES)
    def test_rewritten_history_is_refused(self, root: Storage, tmp_path: Path, kind: str) -> None:
        rewrite, match = REWRITES[kind]
        frame = make_bars()
        trade(frame, "600003.SH", "2019-02-14")
        trade(frame, "600001.SH", "2019-01-16")
        write(tmp_path / "bars", frame[frame["date"] <= "2019-03-14"])
        before = build(root, tmp_path / "bars").to_json()
        files = contents(root)
        write(tmp_path / "bars", rewrite(frame))
        with pytest.raises(PanelError, match=rf"rewrite history: .*{match}.*--overwrite"):
            build(root, tmp_path / "bars")
        assert read_manifest(root).to_json() == before
        assert contents(root).items() >= files.items()
        accepted = build(root, tmp_path / "bars", overwrite=True)
        assert accepted.rewritten
        assert min(accepted.rewritten) <= "2019-03"
        assert build(root, tmp_path / "bars").to_json() == accepted.to_json()

    def test_a_mistyped_year_leaves_the_panel_to_be_appended_to(
        self, root: Storage, tmp_path: Path
    ) -> None:
        frame, path = make_bars(), tmp_path / "bars" / "new.parquet"
        write(tmp_path / "bars", frame[frame["date"] <= "2019-03-14"])
        before = build(root, tmp_path / "bars")
        new = frame[frame["date"] > "2019-03-14"].reset_index(drop=True)
        new.assign(date=new["date"].where(new.index > 0, pd.Timestamp("2081-03-15"))).to_parquet(
            path
        )
        with pytest.raises(BarsError, match=r"^new.parquet: column 'date' has 2081-03-15 in row 0"):
            build(root, tmp_path / "bars")
        assert read_manifest(root).to_json() == before.to_json()
        new.to_parquet(path)
        after = build(root, tmp_path / "bars")
        assert (after.calendar[-1], after.rewritten) == (frame["date"].max().to_datetime64(), {})

    def test_a_day_that_nobody_traded_is_no_day(self, root: Storage, tmp_path: Path) -> None:
        frame = make_bars()
        write(tmp_path / "bars", frame)
        before = facts(build(root, tmp_path / "bars"))
        closed = friday(frame).assign(date=pd.Timestamp("2019-02-16"), volume=0.0, amount=0.0)
        write(tmp_path / "bars", pd.concat([frame, closed.head(1)]))
        assert facts(build(root, tmp_path / "bars")) == before
        quality = root.child("panel").read_json("quality.json")
        assert quality["quarantined"]["less than a hundredth of the market traded that day"]

    @pytest.mark.parametrize("kind", ["bad", "few"])
    def test_a_newest_day_that_was_set_aside_is_said(
        self, root: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
    ) -> None:
        frame = make_bars(assets=1 if kind == "few" else 9)
        if kind == "few":
            calm = frame.assign(volume=1e5, amount=1e5 * frame["close"])
            frame = pd.concat([calm.assign(code=f"{600000 + i}.SH") for i in range(250)])
            frame = frame.reset_index(drop=True)
        before, newest = frame["date"].drop_duplicates().nlargest(2)[::-1]
        last = frame["date"] == newest
        if kind == "bad":
            frame.loc[last, "close"] = -1.0
        else:
            frame = frame[~last | (frame["code"] == frame.loc[last, "code"].iloc[0])]
        write(tmp_path / "bars", frame)
        cfg = dataclasses.replace(CFG, bars=BarsConfig(max_quarantined=0.05))
        logging.getLogger("gangru_dist").propagate = True
        for _ in range(2):  # a panel that is kept says so again
            caplog.clear()
            with caplog.at_level(logging.WARNING, logger="gangru_dist"):
                manifest = build(root, tmp_path / "bars", cfg)
            assert f"newest_day_set_aside date={newest:%Y-%m-%d}" in caplog.text
        assert manifest.calendar[-1] == np.datetime64(before.date())
        assert read_manifest(root).set_aside == f"{newest:%Y-%m-%d}"
        quality = root.child("panel").read_json("quality.json")
        assert quality["newest_day_set_aside"] == f"{newest:%Y-%m-%d}"
        assert quality["quarantined"]

    def test_a_turnover_rate_that_is_no_feature_may_be_anywhere(
        self, root: Storage, tmp_path: Path
    ) -> None:
        write(
            tmp_path / "bars",
            make_bars().assign(turnover_rate=lambda bars: bars["volume"] / 5e5),
            [DAYS[50]],
        )
        path = tmp_path / "bars" / "0.parquet"
        pd.read_parquet(path).drop(columns="turnover_rate").to_parquet(path)
        assert build(root, tmp_path / "bars").rows > 0
