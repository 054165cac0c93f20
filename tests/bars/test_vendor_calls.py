"""docs/data.md's calls, run as they stand against stand-ins, give what the stated command reads."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.sources import load
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import Manifest
from tests.bars import vendors

DOC = (Path(__file__).parents[2] / "docs/data.md").read_text()
DELISTED = "600519"
FEATURES = '["close", "turnover_rate", "daily_return"]'

Stand = Callable[[Path], SimpleNamespace]


def calls_of(vendor: str) -> tuple[str, list[str]]:
    """A vendor's block of code, and the words of the command that reads what it writes."""
    part = DOC.split("### The calls that export everything")[1].split(f"**{vendor}**: ")[1]
    command = part.split("`")[1]
    return re.findall(r"```python\n(.*?)```", part, re.DOTALL)[0], shlex.split(command)


def build(root: Path, bars: str, *settings: str) -> Manifest:
    small = ("panel.buckets=2", f"panel.features={FEATURES}")
    cfg = load("default", None, (*small, *settings))
    return build_panel(bars, Storage(str(root)), cfg, runner=map_here)


def text(path: Path, encoding: str = "utf-8") -> pd.DataFrame:
    """A table of texts, as the vendors' calls give it."""
    return pd.read_csv(path, dtype="str", encoding=encoding, keep_default_na=False)


def tushare(export: Path) -> SimpleNamespace:
    """Of `vendors`' export: a table by day; names by stock."""
    tables = {
        "daily": text(export / "daily/2019.csv"),
        "adj_factor": pd.concat(text(path) for path in sorted((export / "adj_factor").iterdir())),
        "daily_basic": pd.read_parquet(export / "daily_basic/2019.parquet"),
    }
    stocks, names = text(export / "stock_basic.csv"), text(export / "namechange/all.csv", "gbk")
    days = sorted({"20190101", *tables["daily"]["trade_date"]}, reverse=True)
    no_stock = stocks["ts_code"] == ""

    def query(table: str, trade_date: str) -> pd.DataFrame:
        rows = tables[table]
        return rows[rows["trade_date"] == trade_date]

    def stock_basic(list_status: str, fields: str) -> pd.DataFrame:
        gone = stocks["symbol"] == DELISTED
        kinds = {"L": ~gone, "D": gone, "P": no_stock}
        return stocks.loc[kinds[list_status], fields.split(",")]

    def namechange(ts_code: str, fields: str) -> pd.DataFrame:
        return names.loc[names["ts_code"] == ts_code, fields.split(",")]

    pro = SimpleNamespace(
        query=query,
        stock_basic=stock_basic,
        namechange=namechange,
        trade_cal=lambda **_: pd.DataFrame({"cal_date": days}),
    )
    return SimpleNamespace(pro_api=lambda token: pro)


def akshare(export: Path) -> SimpleNamespace:
    """Of `vendors`' export, with numbers as numbers; a B share and a stock that is long gone."""
    there = [path.stem for path in export.glob("*.csv") if path.stem != DELISTED]

    def hist(symbol: str, start_date: str, adjust: str) -> pd.DataFrame:
        assert (start_date, adjust) == ("20160101", "")
        if symbol == "000003":
            return pd.DataFrame()
        path = export / f"{'600000' if symbol == '900901' else symbol}.csv"
        return pd.read_csv(
            path, encoding="gbk", thousands=",", index_col=0, dtype={"股票代码": "str"}
        )

    def daily(symbol: str, adjust: str) -> pd.DataFrame:
        assert adjust == "hfq-factor"
        return text(export / "hfq_factor" / f"{symbol}.csv")

    return SimpleNamespace(
        stock_info_a_code_name=lambda: pd.DataFrame({"code": there, "name": "某某"}),
        stock_info_sh_delist=lambda symbol: pd.DataFrame({"公司代码": [DELISTED, "900901"]}),
        stock_info_sz_delist=lambda symbol: pd.DataFrame({"证券代码": ["000003"]}),
        stock_zh_a_hist=hist,
        stock_zh_a_daily=daily,
    )


def baostock(export: Path) -> SimpleNamespace:
    """Of `vendors`' export; an index, and a stock that is long gone."""
    stocks = text(export / "stock_basic/all.csv", "gbk")
    more = pd.DataFrame({"code": ["sh.000300", "sh.600001"], "type": ["2", "1"]})
    stocks = pd.concat([stocks.assign(type="1"), more]).fillna("")
    logins: list[bool] = []

    def result(table: pd.DataFrame) -> SimpleNamespace:
        assert logins, "no login"
        return SimpleNamespace(get_data=lambda: table)

    def history(code: str, fields: str, **given: str) -> SimpleNamespace:
        assert given == {"start_date": "2016-01-01", "frequency": "d", "adjustflag": "3"}
        path = export / "k" / f"{code[3:]}.csv"
        there = text(path, "gbk") if path.exists() else pd.DataFrame(columns=fields.split(","))
        return result(there[fields.split(",")])

    def factor(code: str, start_date: str) -> SimpleNamespace:
        assert start_date == "1990-01-01"
        path = export / "adjust_factor" / f"{code[3:]}.csv"
        return result(text(path, "gbk") if path.exists() else pd.DataFrame())

    return SimpleNamespace(
        login=lambda: logins.append(True),
        query_stock_basic=lambda: result(stocks),
        query_stock_industry=lambda: result(text(export / "stock_industry/all.csv", "gbk")),
        query_history_k_data_plus=history,
        query_adjust_factor=factor,
    )


@pytest.mark.parametrize(
    ("name", "stand"), [("Tushare", tushare), ("AKShare", akshare), ("BaoStock", baostock)]
)
def test_the_calls_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stand: Stand
) -> None:
    module, market = name.lower(), vendors.make_market()
    vendor = vendors.VENDORS[module]
    vendor.write(tmp_path / "export", market)
    code, command = calls_of(name)
    monkeypatch.setitem(sys.modules, module, stand(tmp_path / "export"))
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    flag, bars, *settings = command
    assert flag == "--bars"
    found = build(tmp_path / "a", bars, *settings[1::2])
    (tmp_path / "own").mkdir()
    named = market.assign(code=market["code"].map(vendor.code))
    named.drop(columns=list(vendor.lacks)).to_parquet(tmp_path / "own/all.parquet", index=False)
    expected = build(tmp_path / "b", str(tmp_path / "own"), "bars.price_limits=ashare")
    assert (found.rows, found.fingerprint) == (len(market), expected.fingerprint)


def test_the_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = DOC.split("## A universe and a benchmark of your own")[1]
    lists = pd.DataFrame({"updateDate": "2016-01-04", "code": ["sh.600000"], "code_name": "某某"})
    stand = SimpleNamespace(
        login=lambda: None,
        query_hs300_stocks=lambda date: SimpleNamespace(get_data=lambda: lists),
    )
    monkeypatch.setitem(sys.modules, "baostock", stand)
    monkeypatch.chdir(tmp_path)
    exec(re.findall(r"```python\n(.*?)```", part, re.DOTALL)[0], {})
    vendors.VENDORS["generic"].write(tmp_path / "bars", vendors.make_market())
    manifest = build(tmp_path / "a", "bars", "panel.members=members")
    assert manifest.rows == len(vendors.make_market())
