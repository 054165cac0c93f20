"""One small market as each vendor exports it: names, units, encodings, layout of files.

Values are ones that every vendor's units can say without rounding (volume in whole lots, amounts
in whole thousands, capitals in whole ten thousands), so that equal bars give equal panels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

DAYS = pd.bdate_range("2019-01-02", periods=90)
CODES = ("000001.SZ", "000002.SZ", "300750.SZ", "600000.SH", "600519.SH", "688111.SH")


def make_market(seed: int = 0) -> pd.DataFrame:
    """Bars in our names and units, sorted by code and date; suspended days have no row.

    Days move by less than the price limits, factors change where prices gap, amount / volume
    lies within the day's range, turnover x float shares is the volume.
    """
    rng = np.random.default_rng(seed)
    return pd.concat([_stock(rng, i) for i in range(len(CODES))], ignore_index=True)


def _stock(rng: np.random.Generator, number: int) -> pd.DataFrame:
    days = len(DAYS)
    factor = np.ones(days)
    if number:  # the first stock never pays
        factor[30 + number :] = 2.0
        factor[60 + number :] = 2.5
    path = (10 + 30 * number) * np.exp(np.cumsum(rng.normal(0, 0.01, days)))
    close = (path / factor).round(2)
    opened = (path * np.exp(rng.normal(0, 0.004, days)) / factor).round(2)
    high = np.maximum(opened, close) + 0.05
    low = np.minimum(opened, close) - 0.05
    volume = rng.integers(10_000, 90_000, days) * 100.0
    amount = (volume * (high + low) / 2 / 1000).round() * 1000.0
    shares = (number + 2) * 1e8
    frame = pd.DataFrame(
        {
            "date": DAYS,
            "code": CODES[number],
            "open": opened,
            "high": high.round(2),
            "low": low.round(2),
            "close": close,
            "volume": volume,
            "amount": amount,
            "adj_factor": factor,
            "turnover_rate": (volume / shares * 2).round(8),
            "market_cap": (close * shares).round(),
            "industry": "银行" if number % 2 else "煤炭",
            "list_date": pd.Timestamp("2018-01-02") + pd.Timedelta(days=number),
            "is_st": (np.arange(days) > 70) & (number == 3),
        }
    )
    traded = rng.random(days) > 0.05
    traded[[0, -1]] = True
    return frame[traded]


@dataclass(frozen=True)
class Vendor:
    """How one export is written, and what it says."""

    format: str
    """`bars.format`."""
    write: Callable[[Path, pd.DataFrame], None]
    """Market -> files below a folder."""
    lacks: tuple[str, ...] = ()
    """Our columns that it does not have."""
    code: Callable[[str], str] = str
    """Our code -> the vendor's spelling."""


def find_pre_close(market: pd.DataFrame) -> pd.Series:
    """The close before, less what was paid out; the open of a first day."""
    stocks = market.groupby("code")
    step = market["adj_factor"] / stocks["adj_factor"].shift()
    return (stocks["close"].shift() / step).fillna(market["open"])


def _compact(dates: pd.Series) -> pd.Series:
    return dates.dt.strftime("%Y%m%d")


def _save(frame: pd.DataFrame, path: Path, encoding: str = "utf-8", **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=bool(options.pop("index", False)), encoding=encoding, **options)  # type: ignore[call-overload]


def _tushare(folder: Path, market: pd.DataFrame) -> None:
    """pro.daily a year, pro.adj_factor a day, pro.daily_basic in parquet, pro.stock_basic."""
    keys = {"ts_code": market["code"], "trade_date": _compact(market["date"])}
    daily = pd.DataFrame(
        {
            **keys,
            **{name: market[name] for name in ("open", "high", "low", "close")},
            "pre_close": find_pre_close(market),
            "vol": market["volume"] / 100,
            "amount": market["amount"] / 1000,
        }
    )
    _save(daily[::-1], folder / "daily" / "2019.csv")
    factor = pd.DataFrame({**keys, "adj_factor": market["adj_factor"]})
    for day, rows in factor.groupby("trade_date"):
        _save(rows, folder / "adj_factor" / f"{day}.csv")
    basic = pd.DataFrame(
        {
            **keys,
            "close": market["close"],
            "turnover_rate": 99.0,
            "turnover_rate_f": market["turnover_rate"] * 100,
            "total_mv": market["market_cap"] / 1e4,
        }
    )
    (folder / "daily_basic").mkdir()
    basic.to_parquet(folder / "daily_basic" / "2019.parquet", index=False)
    stocks = market.groupby("code", as_index=False).first()
    _save(
        pd.DataFrame(
            {
                "ts_code": stocks["code"],
                "symbol": stocks["code"].str[:6],
                "name": "某某",
                "industry": stocks["industry"],
                "list_date": _compact(stocks["list_date"]),
                "delist_date": None,
            }
        ),
        folder / "stock_basic.csv",
    )
    spells = market[market["is_st"]].groupby("code", as_index=False).first()
    names = pd.DataFrame({"ts_code": stocks["code"], "name": "平安", "start_date": "20100101"})
    marked = pd.DataFrame({"ts_code": spells["code"], "name": "*ST某", "start_date":
                           _compact(spells["date"])})  # fmt: skip
    _save(pd.concat([names, marked, marked]), folder / "namechange" / "all.csv", "gbk")


def _changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Days on which the factor of one stock becomes another than 1 or than before."""
    return rows[rows["adj_factor"] != rows["adj_factor"].shift(fill_value=1.0)]


def _akshare(folder: Path, market: pd.DataFrame) -> None:
    """One file a stock from Excel-minded pandas: GBK, an index, thousands apart, newest first."""
    for code, rows in market.groupby("code"):
        frame = pd.DataFrame(
            {
                "日期": rows["date"].dt.strftime("%Y-%m-%d"),
                "股票代码": code[:6],
                "开盘": rows["open"],
                "收盘": rows["close"],
                "最高": rows["high"],
                "最低": rows["low"],
                "成交量": (rows["volume"] / 100).map("{:,.0f}".format),
                "成交额": rows["amount"],
                "换手率": rows["turnover_rate"] * 100,
            }
        )
        _save(frame[::-1], folder / f"{code[:6]}.csv", "gbk", index=True)
        changes = _changes(rows)
        first = pd.DataFrame({"date": ["1900-01-01"], "hfq_factor": [1.0]})
        factor = pd.DataFrame({"date": changes["date"].astype("str"),
                               "hfq_factor": changes["adj_factor"]})  # fmt: skip
        name = f"{code[-2:].lower()}{code[:6]}.csv"
        _save(pd.concat([first, factor])[::-1], folder / "hfq_factor" / name)


def write_texts(folder: Path, market: pd.DataFrame, *, says: str = "不复权") -> None:
    """通达信's text export: a title, padded headings, tabs, GBK, a source; factors beside."""
    _akshare(folder, market)
    for code, rows in market.groupby("code"):
        (folder / f"{code[:6]}.csv").unlink()
        frame = pd.DataFrame(
            {
                "      日期": rows["date"].dt.strftime("%Y/%m/%d"),
                "    开盘": rows["open"],
                "    最高": rows["high"],
                "    最低": rows["low"],
                "    收盘": rows["close"],
                "    成交量": rows["volume"].astype(int),
                "    成交额": rows["amount"],
            }
        )
        table = frame.to_csv(index=False, sep="\t", lineterminator="\r\n")
        text = f"{code[:6]} 某某 日线 {says}\r\n{table}数据来源:通达信\r\n"
        (folder / f"{code[-2:]}#{code[:6]}.txt").write_bytes(text.encode("gbk"))


def _tables(folder: Path, market: pd.DataFrame) -> None:
    """同花顺's: weekdays, lots, per cent with their sign, a tab at each line's end."""
    _akshare(folder, market)
    for code, rows in market.groupby("code"):
        (folder / f"{code[:6]}.csv").unlink()
        weekday = rows["date"].dt.day_of_week.map(dict(enumerate("一二三四五六日")))
        frame = pd.DataFrame(
            {
                "时间": rows["date"].dt.strftime("%Y-%m-%d,") + weekday,
                **{name: rows[ours] for name, ours in (("开盘", "open"), ("最高", "high"))},
                **{name: rows[ours] for name, ours in (("最低", "low"), ("收盘", "close"))},
                "涨幅": "1.23%",
                "总手": rows["volume"] / 100,
                "金额": rows["amount"],
                "换手%": rows["turnover_rate"] * 100,
                "": "",
            }
        )
        _save(frame, folder / f"{code[:6]}.txt", "gbk", sep="\t")


def _headings(folder: Path, market: pd.DataFrame) -> None:
    """Chinese headings that state their units, UTF-16, no codes but in the files' names."""
    for code, rows in market.groupby("code"):
        frame = pd.DataFrame(
            {
                "交易日期": rows["date"].dt.strftime("%Y/%m/%d"),
                "开盘价": rows["open"],
                "最高价": rows["high"],
                "最低价": rows["low"],
                "收盘价": rows["close"],
                "成交量(股)": rows["volume"],
                "成交额（千元）": rows["amount"] / 1000,  # noqa: RUF001
                "换手率(%)": rows["turnover_rate"] * 100,
                "总市值(万元)": rows["market_cap"] / 1e4,
                "后复权因子": rows["adj_factor"],
                "行业": rows["industry"],
                "上市日期": rows["list_date"].dt.strftime("%Y-%m-%d"),
                "名称": np.where(rows["is_st"], "ST某", "某某"),
            }
        )
        _save(frame, folder / f"{code[:6]}.csv", "utf-16", sep="\t")


def _baostock_code(code: str) -> str:
    return f"{code[-2:].lower()}.{code[:6]}"


def _baostock(folder: Path, market: pd.DataFrame) -> None:
    """All text, GBK; suspended days have a row that says so."""
    for code, traded in market.groupby("code"):
        rows = traded.set_index("date").reindex(DAYS)
        is_traded = rows["code"].notna()
        frame = pd.DataFrame(
            {
                "date": DAYS.strftime("%Y-%m-%d"),
                "code": _baostock_code(code),
                **{
                    name: rows[name].to_numpy()
                    for name in ("open", "high", "low", "close", "volume", "amount")
                },
                "adjustflag": 3,
                "turn": (rows["turnover_rate"] * 100).to_numpy(),
                "tradestatus": is_traded.astype(int).to_numpy(),
                "isST": rows["is_st"].eq(True).astype(int).to_numpy(),
            }
        )
        _save(frame, folder / "k" / f"{code[:6]}.csv", "gbk")
        changes = _changes(traded)
        if len(changes):
            factors = pd.DataFrame(
                {
                    "code": _baostock_code(code),
                    "dividOperateDate": changes["date"].dt.strftime("%Y-%m-%d"),
                    "foreAdjustFactor": 1 / changes["adj_factor"],
                    "backAdjustFactor": changes["adj_factor"],
                    "adjustFactor": changes["adj_factor"],
                }
            )
            _save(factors, folder / "adjust_factor" / f"{code[:6]}.csv", "gbk")
    stocks = market.groupby("code", as_index=False).first()
    names = stocks["code"].map(_baostock_code)
    listed = stocks["list_date"].dt.strftime("%Y-%m-%d")
    basic = pd.DataFrame({"code": names, "code_name": "某某", "ipoDate": listed, "outDate": ""})
    _save(basic, folder / "stock_basic" / "all.csv", "gbk")
    industry = pd.DataFrame({"updateDate": "2026-01-05", "code": names, "code_name": "某某",
                             "industry": stocks["industry"]})  # fmt: skip
    _save(industry, folder / "stock_industry" / "all.csv", "gbk")


def qlib_code(code: str) -> str:
    return f"{code[-2:]}{code[:6]}"


def qlib_fields(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Adjusted prices and volume, as Qlib's normalizers leave them."""
    factor = rows["adj_factor"]
    return {
        **{name: rows[name] * factor for name in ("open", "high", "low", "close")},
        "volume": rows["volume"] / factor,
        "amount": rows["amount"],
        "factor": factor,
    }


def _qlib_csv(folder: Path, market: pd.DataFrame) -> None:
    """One file a stock, as for dump_bin.py; the code is in its name."""
    for code, rows in market.groupby("code"):
        frame = pd.DataFrame({"date": rows["date"], **qlib_fields(rows)})
        _save(frame, folder / f"{qlib_code(code)}.csv")


def write_qlib_folder(folder: Path, market: pd.DataFrame, dtype: str = "<f4") -> None:
    """As qlib's dump_bin.py does: one file a field, its first value the place in the calendar."""
    (folder / "calendars").mkdir(parents=True)
    (folder / "instruments").mkdir()
    text = "\n".join(DAYS.strftime("%Y-%m-%d"))
    (folder / "calendars" / "day.txt").write_text(text + "\n")
    lines = []
    for code, rows in market.groupby("code"):
        name = qlib_code(code)
        start, end = (DAYS.get_loc(rows["date"].iloc[i]) for i in (0, -1))
        lines.append(f"{name}\t{DAYS[start]:%Y-%m-%d}\t{DAYS[end]:%Y-%m-%d}")
        below = folder / "features" / name.lower()
        below.mkdir(parents=True)
        for field, values in qlib_fields(rows.set_index("date").reindex(DAYS)).items():
            data = np.concatenate([[start], values.to_numpy()[start : end + 1]]).astype(dtype)
            data.tofile(below / f"{field}.day.bin")
    (folder / "instruments" / "all.txt").write_text("\n".join(lines) + "\n")


def _generic(folder: Path, market: pd.DataFrame) -> None:
    """Our own names and units, compressed, one file a day, factors beside them."""
    bars = market.drop(columns="adj_factor")
    for day, rows in bars.groupby("date"):
        folder.mkdir(exist_ok=True)
        data = pa.Codec("zstd").compress(rows.to_csv(index=False).encode(), asbytes=True)
        (folder / f"{day:%Y%m%d}.csv.zst").write_bytes(data)
    _save(market[["date", "code", "adj_factor"]], folder / "adj_factor.csv")


def _ashare(folder: Path, market: pd.DataFrame) -> None:
    folder.mkdir()
    frame = market.assign(turnover_rate=market["turnover_rate"] * 100)
    frame.astype({"code": "category"}).to_parquet(folder / "2019.parquet", index=False)


_NOT_QLIB = ("turnover_rate", "market_cap", "industry", "list_date", "is_st")
VENDORS = {
    "tushare": Vendor("tushare", _tushare),
    "akshare": Vendor(
        "akshare", _akshare, ("market_cap", "industry", "list_date", "is_st"), lambda code: code[:6]
    ),
    "同花顺": Vendor(
        "akshare", _tables, ("market_cap", "industry", "list_date", "is_st"), lambda code: code[:6]
    ),
    "chinese headings": Vendor("akshare", _headings, (), lambda code: code[:6]),
    "baostock": Vendor("baostock", _baostock, ("market_cap",), _baostock_code),
    "qlib csv": Vendor("qlib", _qlib_csv, _NOT_QLIB, qlib_code),
    "ashare": Vendor("ashare", _ashare),
    "generic": Vendor("generic", _generic),
}
