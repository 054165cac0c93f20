"""What side tables by stock say has no date: it holds from the day on which it was first seen.

And what side tables do not say is counted: rows, stocks, days.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gangru_dist.base.errors import PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.evaluation.market import to_market
from gangru_dist.panel.bucket import EARLY_DELISTING
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import Manifest, panel_schema
from gangru_dist.panel.store import read_block, read_rows
from tests.bars.vendors import CODES, DAYS, VENDORS, make_market

CFG = RunConfig(
    bars=BarsConfig(format="tushare"),
    panel=PanelConfig(features=("close", "turnover_rate"), buckets=2),
)
EARLY, LATE = DAYS[69], DAYS[79]


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


def build(
    root: Storage, end: pd.Timestamp, cfg: RunConfig = CFG, *, overwrite: bool = False, **facts: str
) -> Manifest:
    """Build of the days up to `end`; `facts`: column -> value for one stock, as known today."""
    frame, folder = make_market(), Path(f"{root.uri}-bars-{end:%m%d}")
    VENDORS["tushare"].write(folder, frame[frame["date"] <= end])
    stocks = pd.read_csv(folder / "stock_basic.csv", dtype=str)
    for column, value in facts.items():
        stocks.loc[stocks["ts_code"] == CODES[1], column] = value
    stocks.to_csv(folder / "stock_basic.csv", index=False)
    return build_panel(str(folder), root, cfg, overwrite=overwrite, runner=map_here)


def rows(root: Storage, manifest: Manifest) -> pd.DataFrame:
    names = panel_schema(manifest.features).names
    found = read_rows(
        root, manifest, start=DAYS[0].date(), end=DAYS[-1].date(), columns=names
    ).to_pandas()
    found = found.astype({"asset": object, "industry": object, "date": "datetime64[ns]"})
    return found.sort_values(["date", "asset"], ignore_index=True)


class TestKept:
    @pytest.mark.parametrize("buckets", [2, 3])
    def test_an_industry_holds_from_the_day_it_was_first_seen(
        self, root: Storage, buckets: int
    ) -> None:
        before = rows(root, build(root, EARLY))
        other = replace(CFG, panel=replace(CFG.panel, buckets=buckets))
        grown = build(root, LATE, other, industry="钢铁")
        assert grown.rewritten == {}
        after = rows(root, build(root, DAYS[-1], other, industry="有色"))
        pd.testing.assert_frame_equal(after[after["date"] <= EARLY], before, check_exact=True)
        stock = after[after["asset"] == CODES[1]]
        expected = np.select(
            [stock["date"] <= EARLY, stock["date"] <= LATE], ["银行", "钢铁"], "有色"
        )
        assert stock["industry"].tolist() == expected.tolist()
        others = after[after["asset"] != CODES[1]]
        assert set(others["industry"]) == {"银行", "煤炭"}

    @pytest.mark.parametrize(
        "bars",
        [{"columns": {"volume": "vol"}}, {"scales": {"volume": 100.0}}, {"weekends": True}],
    )
    def test_settings_of_other_columns_leave_it(self, root: Storage, bars: dict[str, Any]) -> None:
        """What they change of prices and volumes is their own; an industry has no part in it."""
        before = rows(root, build(root, EARLY))
        other = replace(CFG, bars=replace(CFG.bars, **bars))
        after = rows(root, build(root, DAYS[-1], other, industry="钢铁"))
        early = after[after["date"] <= EARLY]
        assert early["industry"].tolist() == before["industry"].tolist()
        assert "钢铁" in set(after["industry"])

    def test_another_column_of_industries_replaces_it(self, root: Storage) -> None:
        build(root, EARLY)
        other = replace(CFG, bars=replace(CFG.bars, columns={"industry": "area"}))
        found = rows(root, build(root, DAYS[-1], other, area="深圳"))
        assert set(found[found["asset"] == CODES[1]]["industry"]) == {"深圳"}

    def test_a_listing_day_stays(self, root: Storage) -> None:
        before = rows(root, build(root, EARLY))
        grown = build(root, DAYS[-1], list_date="20180601")
        assert grown.rewritten == {}
        after = rows(root, grown)
        pd.testing.assert_frame_equal(after[after["date"] <= EARLY], before, check_exact=True)
        assert after.groupby("asset")["list_date"].nunique().eq(1).all()

    def test_overwrite_takes_what_is_known_today(self, root: Storage, tmp_path: Path) -> None:
        build(root, EARLY)
        changed = build(root, DAYS[-1], industry="钢铁", overwrite=True)
        assert changed.rewritten
        other = Storage(str(tmp_path / "other"))
        assert changed.fingerprint == build(other, DAYS[-1], industry="钢铁").fingerprint

    def test_a_table_that_is_new_is_no_fact_that_changed(self, root: Storage) -> None:
        """Without an industry in the panel, today's for all days is another history."""
        frame, folder = make_market(), Path(f"{root.uri}-bars")
        VENDORS["tushare"].write(folder, frame)
        (folder / "stock_basic.csv").rename(root.path + "-aside.csv")
        build_panel(str(folder), root, CFG, runner=map_here)
        Path(root.path + "-aside.csv").rename(folder / "stock_basic.csv")
        with pytest.raises(PanelError, match="rewrite history"):
            build_panel(str(folder), root, CFG, runner=map_here)


class TestDelisted:
    """The last row of `CODES[1]` is of `LATE`, whatever its table says."""

    def build(
        self, root: Storage, end: pd.Timestamp, *, overwrite: bool = False, left: str = ""
    ) -> Manifest:
        frame, folder = make_market(), Path(f"{root.uri}-bars-{end:%m%d}")
        ended = (frame["code"] == CODES[1]) & (frame["date"] > LATE)
        VENDORS["tushare"].write(folder, frame[(frame["date"] <= end) & ~ended])
        stocks = pd.read_csv(folder / "stock_basic.csv", dtype=str)
        stocks["delist_date"] = np.where(stocks["ts_code"] == CODES[1], left, "")
        stocks.to_csv(folder / "stock_basic.csv", index=False)
        return build_panel(str(folder), root, CFG, overwrite=overwrite, runner=map_here)

    def test_it_travels_to_the_market_and_changes_no_row(self, root: Storage) -> None:
        plain, other = self.build(root, DAYS[-1]), Storage(f"{root.uri}-other")
        manifest = self.build(other, DAYS[-1], left="20190427")  # a Saturday
        assert manifest.delisted == {CODES[1]: "2019-04-27"}
        assert (plain.delisted, plain.fingerprint) == ({}, manifest.fingerprint)
        block = read_block(
            other, manifest, start=DAYS[50].date(), end=DAYS[-1].date(), features=(), trading=True
        )
        expected = [33 if code == CODES[1] else 40 for code in CODES]
        assert to_market(block).delisted.tolist() == expected

    def test_it_counts_once_it_has_passed_and_is_kept(self, root: Storage) -> None:
        assert self.build(root, LATE, left="20190426").delisted == {}
        grown = self.build(root, DAYS[83], left="20190426")
        assert grown.delisted == {CODES[1]: "2019-04-26"}
        assert self.build(root, DAYS[85], left="20190429").delisted == grown.delisted
        assert self.build(root, DAYS[86]).delisted == grown.delisted
        known = self.build(root, DAYS[-1], overwrite=True, left="20190429")
        assert known.delisted == {CODES[1]: "2019-04-29"}

    def test_a_day_before_the_last_row_is_counted(self, root: Storage) -> None:
        assert self.build(root, DAYS[-1], left=f"{EARLY:%Y%m%d}").delisted == {}
        notes = root.child("panel").read_json("quality.json")["notes"]
        assert notes[EARLY_DELISTING]["count"] == 1

    @pytest.mark.parametrize("text", ["2019-04-29", "0000-00-00", "2099-12-31"])
    def test_a_column_of_the_bars(self, root: Storage, tmp_path: Path, text: str) -> None:
        frame = make_market()
        frame = frame[(frame["code"] != CODES[1]) | (frame["date"] <= LATE)]
        frame["delist_date"] = np.where(frame["code"] == CODES[1], text, None)
        (tmp_path / "bars").mkdir()
        frame.to_csv(tmp_path / "bars" / "all.csv", index=False)
        cfg = replace(CFG, bars=BarsConfig(format="generic", price_limits="ashare"))
        manifest = build_panel(str(tmp_path / "bars"), root, cfg, runner=map_here)
        assert manifest.delisted == ({CODES[1]: text} if text.startswith("2019") else {})


class TestGaps:
    def test_days_stocks_and_rows_without_a_value_are_counted(
        self, root: Storage, caplog: pytest.LogCaptureFixture
    ) -> None:
        frame, folder = make_market(), Path(f"{root.uri}-bars")
        VENDORS["tushare"].write(folder, frame)
        path = folder / "daily_basic"
        table = pd.concat(map(pd.read_parquet, sorted(path.iterdir())))
        gone = table["trade_date"].isin([f"{day:%Y%m%d}" for day in DAYS[20:23]])
        gone |= table["ts_code"] == CODES[2]
        for file in path.iterdir():
            file.unlink()
        table[~gone].to_parquet(path / "all.parquet")
        logging.getLogger("gangru_dist").propagate = True
        build_panel(str(folder), root, CFG, runner=map_here)
        notes = root.child("panel").read_json("quality.json")["notes"]
        lost = frame["date"].isin(DAYS[20:23]) | (frame["code"] == CODES[2])
        for name, words in (("turnover_rate", "missing"), ("market_cap", "unknown")):
            assert notes[f"{name} {words}"]["count"] == lost.sum()
            assert notes[f"stock without any {name}"]["count"] == 1
            assert notes[f"stock without any {name}"]["example"]["code"] == CODES[2]
            assert notes[f"day on which most stocks lack {name}"]["count"] == 3
        assert "what='day on which most stocks lack turnover_rate'" in caplog.text

    def test_a_listing_day_that_cannot_be_is_not_believed(self, root: Storage) -> None:
        found = rows(root, build(root, DAYS[-1], list_date="19700101"))
        stock = found[found["asset"] == CODES[1]]
        assert set(stock["list_date"]) == {stock["date"].min().date()}
        notes = root.child("panel").read_json("quality.json")["notes"]
        kind = "list_date that no stock can have, taken as unknown"
        assert notes[kind]["count"] == len(stock)

    def test_a_cap_larger_than_any_stocks_is_unknown(self, root: Storage) -> None:
        folder = Path(f"{root.uri}-bars")
        VENDORS["tushare"].write(folder, make_market())
        for file in (folder / "daily_basic").iterdir():
            table = pd.read_parquet(file)
            mine = table["ts_code"] == CODES[2]
            table.loc[mine, "total_mv"] *= 1e4
            table.loc[mine, ["turnover_rate", "turnover_rate_f"]] = np.nan  # no second opinion
            table.to_parquet(file)
        found = rows(root, build_panel(str(folder), root, CFG, runner=map_here))
        assert found.loc[found["asset"] == CODES[2], "market_cap"].isna().all()
        assert found.loc[found["asset"] != CODES[2], "market_cap"].notna().all()
        notes = root.child("panel").read_json("quality.json")["notes"]
        kind = "market_cap larger than any stock's, taken as unknown"
        assert notes[kind]["count"] == (found["asset"] == CODES[2]).sum()
