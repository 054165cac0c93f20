"""What headings tell: said by `check_headings` without Ray, with a way out that can be pasted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from gangru_dist.bars.headings import open_bars
from gangru_dist.base.errors import GangruError
from gangru_dist.config.sources import load
from gangru_dist.panel.checks import check_headings
from tests.made_bars import make_bars, write


def check(folder: Path, *overrides: str) -> None:
    cfg = load("default", None, overrides)
    check_headings(open_bars(str(folder), cfg), cfg.panel.features)


def ways_out(message: str) -> list[str]:
    """The settings that a message tells to paste, as the shell would hand them over."""
    found = re.findall(r"--set ('[^']*'|\S+)", message)
    return [word for text in found for word in shlex.split(text)]


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    return tmp_path / "bars"


class TestReference:
    @pytest.mark.parametrize(
        ("drop", "rename"),
        [
            (["adj_factor"], {}),
            (["market_cap"], {}),
            ([], {"volume": "Volume (shares)"}),
            ([], {"close": "Close price", "amount": "amount_cny"}),
            ([], {"code": "ts_code", "date": "trade_date", "volume": "vol"}),
            (["code"], {}),
        ],
        ids=["factor", "turnover", "one name", "two names", "tushare", "code"],
    )
    def test_the_way_out_is_one(self, bars: Path, drop: list[str], rename: dict[str, str]) -> None:
        frame = make_bars()
        write(bars, frame)
        frame.drop(columns=drop).rename(columns=rename).to_parquet(bars / "0.parquet")
        settings: list[str] = []
        for _ in range(2):  # another format lacks the market cap: two messages
            with pytest.raises(GangruError) as caught:
                check(bars, *settings)
            found = ways_out(str(caught.value))
            assert found
            settings += found
            if "ts_code" not in rename.values():
                break
        check(bars, *settings)

    def test_bars_that_have_everything(self, bars: Path) -> None:
        write(bars, make_bars(), [pd.Timestamp("2019-01-02")])
        check(bars)


class TestValidation:
    @pytest.mark.parametrize(
        ("setting", "match"),
        [
            ('panel.without=["turnover"]', "no feature 'turnover'; nearest: .*turnover_rate"),
            ("bars.columns.volum=x", "bars.columns.volum: no such column of ours"),
            ("bars.columns.volume=Vol", "bars.columns.volume=Vol .nearest: volume"),
        ],
    )
    def test_settings(self, bars: Path, setting: str, match: str) -> None:
        write(bars, make_bars())
        with pytest.raises(GangruError, match=match):
            check(bars, setting)

    def test_a_tushare_table_that_is_not_there_is_named(self, bars: Path) -> None:
        write(bars, make_bars()[["date", "code", "adj_factor"]])
        (bars / "0.parquet").rename(bars / "x.parquet")
        frame = pd.read_parquet(bars / "x.parquet")
        frame.rename(columns={"code": "ts_code", "date": "trade_date"}).to_parquet(
            bars / "x.parquet"
        )
        with pytest.raises(GangruError, match=r"pro.daily exports what is missing"):
            check(bars, "bars.format=tushare")

    def test_the_tushare_table_that_has_the_turnover_is_named(self, bars: Path) -> None:
        names = {"code": "ts_code", "date": "trade_date", "volume": "vol"}
        frame = make_bars().drop(columns=["market_cap", "turnover_rate"], errors="ignore")
        write(bars, frame)
        frame.rename(columns=names).to_parquet(bars / "0.parquet")
        with pytest.raises(GangruError, match=r"pro\.daily_basic exports them\. Leave it out: "):
            check(bars, "bars.format=tushare")

    def test_tables_alone(self, bars: Path) -> None:
        write(bars / "adj_factor", make_bars()[["date", "code", "adj_factor"]])
        with pytest.raises(
            GangruError,
            match="side tables adj_factor, dividends, factor_changes, stock_basic at most",
        ):
            check(bars)
