"""One stock under two codes: by its spelling, by its rows, by the day on which it changes."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from gangru_dist.bars.codes import check_spellings, find_code, normalize_code
from gangru_dist.base.errors import BarsError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.copies import SUCCEEDED, TWINS
from gangru_dist.panel.price_limits import find_boards
from tests.bars.corpus_market import CODES, DAYS, csv, market
from tests.made_bars import write

CFG = RunConfig(
    bars=BarsConfig(price_limits="ashare"), panel=PanelConfig(features=("close",), buckets=5)
)


def notes(folder: Path, frame: pd.DataFrame) -> dict[str, dict]:  # type: ignore[type-arg]
    write(folder / "bars", frame)
    root = Storage(str(folder / "storage"))
    build_panel(str(folder / "bars"), root, CFG, runner=map_here)
    found = root.child("panel").read_json("quality.json")["notes"]
    return {kind: found[kind] for kind in (TWINS, SUCCEEDED) if kind in found}


class TestSpellings:
    @pytest.mark.parametrize(
        ("code", "one"),
        [
            ("600000.SH", "600000sh"), ("SHSE.600000", "600000sh"), ("1.600000", "600000sh"),
            ("'000338", "000338"), ("=\"000338\"", "000338"), ("SH#600000", "600000sh"),
            ("600000 CG Equity", "600000sh"), ("SHA:600000", "600000sh"),
            ("0.000027", "000027sz"), ("SZSE.000027", "000027sz"), ("000027.SHZ", "000027sz"),
            ("0.830799", "830799bj"), ("0.920002", "920002bj"), ("BJSE.830799", "830799bj"),
            ("000027 CH Equity", "000027"), ("27", "000027"), ("000027.0", "000027"),
            ("AAPL", "aapl"), ("0.5", "0.5"),
        ],
    )  # fmt: skip
    def test_one_spelling(self, code: str, one: str) -> None:
        assert normalize_code(code) == one

    @pytest.mark.parametrize(
        ("one", "two"),
        [
            ("600000.SH", "SHSE.600000"),
            ("000027.SZ", "0.000027"),
            ("000027.SZ", "000027 CH Equity"),
            ("sz000027", "000027 CS Equity"),
        ],
    )
    def test_two_spellings_are_refused(self, one: str, two: str) -> None:
        with pytest.raises(BarsError, match="one stock is spelt two ways"):
            check_spellings({one: "a.csv", two: "b.csv"})

    def test_boards_in_any_spelling(self) -> None:
        codes = ["1.688001", "0.300750", "0.830799", "000027 CH Equity", "SHSE.688001"]
        found = find_boards(pa.array(codes).dictionary_encode())
        assert found.tolist() == ["star", "chinext", "beijing", "main", "star"]


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "BTCUSDT-1d-2020-01.csv",
            "BTCUSDT-1d-2020-01-15.csv",
            "bars_202001.csv",
            "AAPL.201912.csv",
        ],
    )
    def test_a_date_is_no_code(self, name: str) -> None:
        with pytest.raises(BarsError, match="looks like a date: each file would be a stock"):
            find_code(name, any_name=True)

    @pytest.mark.parametrize(
        ("name", "code"),
        [("600000.SH.csv", "600000.SH"), ("sz200012.csv", "sz200012"), ("2018.HK.csv", "2018.HK"),
         ("BTCUSDT.csv", "BTCUSDT"), ("20190104.csv", None)],
    )  # fmt: skip
    def test_a_code_is_one(self, name: str, code: str | None) -> None:
        assert find_code(name, any_name=True) == code

    @pytest.mark.parametrize("names", [("A-2019-01", "A-2019-02"), ("A_2018", "A_2019")])
    def test_files_by_month_or_year(self, tmp_path: Path, names: tuple[str, str]) -> None:
        (tmp_path / "bars").mkdir()
        rows = market()[market()["code"] == CODES[0]].drop(columns="code")
        for name, part in zip(names, (rows[:40], rows[40:]), strict=True):
            (tmp_path / "bars" / f"{name}.csv").write_bytes(csv(part))
        cfg = RunConfig(bars=BarsConfig(code_from_name=True), panel=CFG.panel)
        with pytest.raises(BarsError, match="looks like a date"):
            build_panel(str(tmp_path / "bars"), Storage(str(tmp_path / "s")), cfg, runner=map_here)


class TestRows:
    def test_the_market_has_none(self, tmp_path: Path) -> None:
        assert notes(tmp_path, market()) == {}

    @pytest.mark.parametrize("days", [80, 50])
    def test_equal_histories(
        self, tmp_path: Path, days: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        frame = market()
        again = frame[(frame["code"] == CODES[3]) & (frame["date"] < DAYS[days - 1])]
        logging.getLogger("gangru_dist").propagate = True
        found = notes(tmp_path, pd.concat([frame, again.assign(code="000027.SZ")]))
        example = {"code": "000027.SZ", "other": CODES[3]}
        assert found == {TWINS: {"count": 1, "example": example}}
        assert f"what='{TWINS}'" in caplog.text

    @pytest.mark.parametrize("gap", [0, 2])
    def test_a_code_that_changes(self, tmp_path: Path, gap: int) -> None:
        frame = market()
        mine = frame["code"] == CODES[3]
        renamed = frame.assign(
            code=frame["code"].mask(mine & (frame["date"] >= DAYS[50]), "001872.SZ")
        )
        silent = mine & (frame["date"] >= DAYS[50]) & (frame["date"] < DAYS[50 + gap])
        example = {"code": CODES[3], "other": "001872.SZ", "date": f"{DAYS[50 + gap]:%Y-%m-%d}"}
        found = notes(tmp_path, renamed[~silent])
        assert found == {SUCCEEDED: {"count": 1, "example": example}}

    def test_a_stock_of_one_row_does_not_follow_itself(self, tmp_path: Path) -> None:
        frame = market()
        mine = frame["code"] == CODES[3]
        assert notes(tmp_path, frame[~mine | (frame["date"] == DAYS[50])]) == {}

    def test_a_listing_on_the_day_after_another_ends(self, tmp_path: Path) -> None:
        """At the same price, with twice the shares: another company."""
        frame = market()
        mine = (frame["code"] == CODES[3]) & (frame["date"] >= DAYS[50])
        other = frame.assign(
            code=frame["code"].mask(mine, "001872.SZ"),
            market_cap=frame["market_cap"].mask(mine, 2 * frame["market_cap"]),
        )
        assert notes(tmp_path, other) == {}
