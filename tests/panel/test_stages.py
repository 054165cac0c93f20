"""One bucket's panel rows, and both stages of a build in this process, without Ray."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gangru_dist.bars.days import DayRule
from gangru_dist.bars.files import list_files
from gangru_dist.bars.formats import resolve_format
from gangru_dist.bars.headings import read_headings
from gangru_dist.bars.quality import Quality
from gangru_dist.bars.reader import group_units
from gangru_dist.bars.rows import CHECKED
from gangru_dist.base.errors import BarsError
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import BarsConfig
from gangru_dist.features.price_volume import FEATURES, NAMES, AdjustedBars, Feature
from gangru_dist.panel.bucket import BucketTask, make_panel_rows, select_rows
from gangru_dist.panel.jumps import JumpSums
from gangru_dist.panel.manifest import assign_buckets, panel_schema
from gangru_dist.panel.stages import build_bucket
from gangru_dist.panel.staging import read_staged, stage_unit, write_staged
from tests.made_bars import walk

DAYS = pd.bdate_range("2018-11-01", periods=60)
TASK = BucketTask(
    features=NAMES,
    calendar=np.array(DAYS, dtype="datetime64[D]"),
    has_turnover_rate=True,
    form=resolve_format(BarsConfig(price_limits="ashare")),
    files=("a.csv", "b.csv"),
)


def make_checked(assets: int = 5, seed: int = 0) -> pd.DataFrame:
    """Checked rows with missing and suspended days, sorted by code and date."""
    rng = np.random.default_rng(seed)
    codes = [f"{600000 + i}.SH" for i in range(assets)]
    index = pd.MultiIndex.from_product([codes, DAYS], names=["code", "date"])
    frame = index.to_frame(index=False)
    count = len(frame)
    frame["adj_factor"] = np.where(frame["date"] < DAYS[30], 1.0, 1.5)
    frame["is_st"] = rng.random(count) < 0.1
    close = walk(frame, rng, 0.05)
    frame = frame.assign(
        open=close * 1.001,
        high=close * 1.02,
        low=close * 0.98,
        close=close,
        volume=rng.integers(1, 1000, count) * 100.0,
        market_cap=np.where(rng.random(count) < 0.1, np.nan, 1e7),
        industry=np.array(["bank", None], dtype=object)[rng.integers(0, 2, count)],
        name=frame["code"],
        list_date=None,
        delist_date=None,
        is_delisting=False,
        suspended=rng.random(count) < 0.05,
        file=0,
    )
    frame["amount"] = frame["volume"] * close
    frame["turnover_rate"] = frame["volume"] / 5e5
    return frame[rng.random(count) < 0.9].reset_index(drop=True)


def to_table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame[CHECKED.names], schema=CHECKED, preserve_index=False)


def table_rows(frame: pd.DataFrame, task: BucketTask = TASK) -> pd.DataFrame:
    return all_rows(to_table(frame), task)[0].to_pandas()


def all_rows(bars: pa.Table, task: BucketTask = TASK) -> tuple[pa.Table, Quality, JumpSums]:
    rows, quality, sums = select_rows(bars, task)
    return make_panel_rows(rows, task), quality, sums


class TestReference:
    def test_features_by_pandas_groupby(self) -> None:
        frame = make_checked()
        found = table_rows(frame)
        traded = frame[~frame["suspended"]].reset_index(drop=True)
        adj_close = traded["close"] * traded["adj_factor"]
        by_asset = adj_close.groupby(traded["code"])
        np.testing.assert_allclose(found["close"], adj_close, rtol=1e-6)
        np.testing.assert_allclose(
            found["daily_return"], by_asset.pct_change(fill_method=None), rtol=1e-4, atol=1e-7
        )
        np.testing.assert_allclose(
            found["return_5d"], by_asset.pct_change(5, fill_method=None), rtol=1e-4, atol=1e-7
        )
        np.testing.assert_array_equal(found["adj_close"], adj_close)
        assert found["asset"].tolist() == traded["code"].tolist()
        assert (pd.to_datetime(found["date"]) == traded["date"]).all()

    def test_limits_by_a_loop(self) -> None:
        frame = make_checked(assets=300)
        found = table_rows(frame)
        traded = frame[~frame["suspended"]]
        first_seen = frame.groupby("code")["date"].min()
        expected = []
        for code, rows in traded.groupby("code"):
            previous = None
            for row in rows.itertuples():
                limited = previous is not None and row.date > first_seen[code]
                share = 0.05 if row.is_st else 0.10
                if limited:
                    base = round(previous.close * previous.adj_factor / row.adj_factor + 1e-9, 2)
                    limit = round(base * (1 + share) + 1e-9, 2)
                    expected.append(limit - 0.005 < row.close < limit + 0.015)
                else:
                    expected.append(False)
                previous = row
        assert found["limit_up"].tolist() == expected
        assert sum(expected) > 10

    def test_listing_day_is_given_or_the_first_day_seen(self) -> None:
        frame = make_checked(assets=3)
        frame["list_date"] = frame["code"].map(
            {"600000.SH": dt.date(2001, 1, 1), "600001.SH": dt.date(2030, 1, 1)}
        )
        found = table_rows(frame).groupby("asset")["list_date"].unique()
        first = frame.groupby("code")["date"].min().dt.date
        assert found["600000.SH"].tolist() == [dt.date(2001, 1, 1)]
        assert found["600001.SH"].tolist() == [first["600001.SH"]]  # nothing trades before it lists
        assert found["600002.SH"].tolist() == [first["600002.SH"]]


class TestProperties:
    def test_order_of_rows_does_not_matter(self) -> None:
        frame = make_checked()
        shuffled = frame.sample(frac=1, random_state=1)
        pd.testing.assert_frame_equal(table_rows(frame), table_rows(shuffled))

    @pytest.mark.parametrize("cut", [0, 7, 31, 58])
    def test_ignores_the_future(self, cut: int) -> None:
        check_past(make_checked, TASK, cut)

    def test_the_check_has_teeth(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def leak(bars: AdjustedBars) -> np.ndarray:
            return bars.close - np.nanmean(bars.close, axis=0)

        monkeypatch.setitem(FEATURES, "amplitude", Feature(compute=leak, inputs=("close",)))
        with pytest.raises(AssertionError):
            check_past(make_checked, TASK, 31)

    def test_identical_duplicates_go_and_are_counted(self) -> None:
        frame = make_checked()
        twice = pd.concat([frame, frame.iloc[[3, 8, 8]].assign(file=1)])
        rows, quality, _ = all_rows(to_table(twice))
        pd.testing.assert_frame_equal(rows.to_pandas(), table_rows(frame))
        assert quality.quarantined["identical duplicate"].count == 3

    def test_no_rows(self) -> None:
        rows, quality, sums = all_rows(CHECKED.empty_table())
        assert rows.schema.equals(panel_schema(NAMES))
        assert (len(rows), quality, sums) == (0, Quality(), JumpSums())

    def test_staging_keeps_every_row_in_its_bucket(self, tmp_path: Path) -> None:
        panel = Storage(str(tmp_path))
        table = to_table(make_checked(assets=20))
        names = [
            write_staged(panel, f"staging-x/{name}", [rows], 7)
            for name, rows in (("a", table), ("b", table[:5]))
        ]
        sizes = []
        for bucket in range(7):
            rows = read_staged(panel, names, bucket)
            assert (assign_buckets(rows["code"].to_pylist(), 7) == bucket).all()
            sizes.append(len(rows))
        assert sum(sizes) == len(table) + 5

    def test_one_file_or_many_give_the_same_panel(self, tmp_path: Path) -> None:
        frame = make_checked().drop(columns=["suspended", "file", "list_date", "delist_date"])
        whole, split = tmp_path / "whole", tmp_path / "split"
        for folder in (whole, split):
            folder.mkdir()
        frame.to_csv(whole / "all.csv", index=False)
        for code, rows in frame.sample(frac=1, random_state=2).groupby("code"):
            rows.to_csv(split / f"{code}.csv", index=False)
        built = [
            build(folder, Storage(str(folder.with_suffix(".panel")))) for folder in (whole, split)
        ]
        assert built[0] == built[1]
        assert len(built[0]) == 3


def build(folder: Path, panel: Storage) -> dict[str, int]:
    """Both stages over a folder; the hashes of all buckets by month."""
    form = resolve_format(BarsConfig())
    units = group_units(read_headings(str(folder), list_files(str(folder)), form), rows=300)
    where: dict[str, Any] = {"panel": panel, "buckets": 3}
    staged = [
        stage_unit(str(folder), unit, f"staging-x/{i}", form=form, days=DayRule(), **where)
        for i, unit in enumerate(units)
    ]
    names = [name for unit in staged for name in unit.names]
    task = replace(TASK, files=tuple(file.name for file in list_files(str(folder))))
    total: dict[str, int] = {}
    for bucket in range(3):
        done = build_bucket(bucket, names, task, **where)
        for month, value in done.months.items():
            total[month] = (total.get(month, 0) + value) % 2**256
    return total


def check_past(make, task: BucketTask, cut: int) -> None:  # type: ignore[no-untyped-def]
    """Rewrite every bar after day `cut`; no stored value up to it may move."""
    frame, other = make(seed=0), make(seed=1)
    day = DAYS[cut]
    tampered = pd.concat([frame[frame["date"] <= day], other[other["date"] > day]])
    found, again = (table_rows(rows, task) for rows in (frame, tampered))
    limit = day.date()
    pd.testing.assert_frame_equal(
        found[found["date"] <= limit].reset_index(drop=True),
        again[again["date"] <= limit].reset_index(drop=True),
        check_exact=True,
    )


class TestValidation:
    @pytest.mark.parametrize(
        ("column", "value", "match"),
        [
            ("close", 10.01, "close=.* in a.csv, close=10.01 in b.csv"),
            ("suspended", True, "suspended=False in a.csv, suspended=True in b.csv"),
            ("industry", "coal", "industry=.* industry=coal in b.csv"),
        ],
    )
    def test_contradicting_duplicates(self, column: str, value: object, match: str) -> None:
        frame = make_checked()
        frame["suspended"] = False
        other = frame.iloc[[4]].assign(file=1, **{column: value})
        day = f"{frame['date'][4]:%Y-%m-%d}"
        with pytest.raises(BarsError, match=rf"two rows of {day} 600000.SH contradict .*{match}"):
            all_rows(to_table(pd.concat([frame, other])))
