"""The small market that every case of the corpus spoils, and ways to write it down."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.made_bars import walk

Frame = pd.DataFrame
Change = Callable[[Frame], Frame]
Files = Mapping[str, bytes]

CODES = tuple(f"{number:06d}.SH" for number in range(600000, 600012))
DAYS = pd.bdate_range("2019-01-07", periods=80)
"""No holidays, as good as any calendar."""
DAY = DAYS[40]
"""Where single rows are spoiled."""
CUT = DAYS[45]
"""First day of the second of two files."""
PRICES = ["open", "high", "low", "close"]


@functools.cache
def _market() -> Frame:
    rng = np.random.default_rng(15)
    index = pd.MultiIndex.from_product([CODES, DAYS], names=["code", "date"])
    frame = index.to_frame(index=False)
    number = frame["code"].str[:6].astype(int) - 600000
    factor = 1.0 + number / 7
    for k in range(3):  # dividends of 1 to 3 %, each stock on days of its own
        later = frame["date"] >= np.array(DAYS)[(5 + 25 * k + 2 * number) % 80]
        factor *= np.where(later, 1.012 + 0.003 * (number % 6), 1.0)
    split = (number % 3 == 0) & (frame["date"] >= np.array(DAYS)[30 + number])
    frame["adj_factor"] = factor * np.where(split, 1.5 + 0.5 * (number % 2), 1.0)
    frame["is_st"] = False
    close = walk(frame, rng, 0.02)
    volume = rng.integers(20, 200, len(frame)) * 1000.0
    return frame.assign(
        open=close,
        high=(close * 1.01).round(2),
        low=(close * 0.99).round(2),
        close=close,
        volume=volume,
        amount=volume * close,
        turnover_rate=volume / 4e6,
        market_cap=close * 1e7,
        industry=np.array(["bank", "coal", "steel"])[number % 3],
    ).sort_values(["date", "code"], ignore_index=True)


def market() -> Frame:
    """12 stocks, 80 days, every identity kept; splits, dividends; sorted by date and code."""
    return _market().copy()


def at(frame: Frame, code: str = CODES[3], day: pd.Timestamp = DAY) -> pd.Series:
    """The one row of a stock and day, as a mask."""
    return (frame["code"] == code) & (frame["date"] == day)


def put(column: str, value: Any) -> Change:
    """Another value in one row."""

    def change(frame: Frame) -> Frame:
        if isinstance(value, str):
            frame[column] = frame[column].astype(object)
        frame.loc[at(frame), column] = value
        return frame

    return change


def scaled(where: Callable[[Frame], Any], columns: list[str], by: float) -> Change:
    """Columns in another unit where `where` says."""

    def change(frame: Frame) -> Frame:
        rows = where(frame)
        for column in columns:
            frame[column] = frame[column].where(~rows, frame[column] * by)
        return frame

    return change


SCOPES: dict[str, tuple[str, Callable[[Frame], Any]]] = {
    "all": ("everywhere", lambda f: f["date"] >= DAYS[0]),
    "file": ("in one file", lambda f: f["date"] >= CUT),
    "half": ("of half the stocks", lambda f: f["code"].isin(CODES[::2])),
    "stock": ("of one stock", lambda f: f["code"] == CODES[4]),
    "row": ("in one row", at),
}
"""Where something is wrong -> words, rows."""


def csv(frame: Frame, **options: Any) -> bytes:
    """As text; dates as YYYY-MM-DD."""
    text: str = frame.to_csv(index=False, date_format="%Y-%m-%d", **options)
    return text.encode()


def parquet(frame: Frame, types: Mapping[str, pa.DataType] | None = None) -> bytes:
    """As parquet; `types`: columns that are to be cast."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.set_column(
        table.column_names.index("date"), "date", table["date"].cast(pa.date32())
    ) if pa.types.is_timestamp(table["date"].type) and not types else table  # fmt: skip
    for name, kind in (types or {}).items():
        table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
    return parquet_of(table)


def parquet_of(table: pa.Table) -> bytes:
    """A table's bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def one_file(frame: Frame) -> Files:
    """The usual layout: one CSV file."""
    return {"bars.csv": csv(frame)}


def two_files(frame: Frame) -> Files:
    """Cut at `CUT`, in parquet."""
    early = frame["date"] < CUT
    return {"a.parquet": parquet(frame[early]), "b.parquet": parquet(frame[~early])}


def by_stock(frame: Frame) -> Files:
    """One CSV file a stock."""
    return {f"{code}.csv": csv(rows) for code, rows in frame.groupby("code")}
