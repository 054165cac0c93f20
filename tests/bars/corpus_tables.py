"""Cases: tables beside the bars, names, codes of one stock, marks of other tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.bars.corpus_case import Case, case, files
from tests.bars.corpus_market import (
    CODES,
    CUT,
    DAY,
    DAYS,
    Files,
    Frame,
    at,
    csv,
    parquet,
    two_files,
)  # fmt: skip

FACTOR = "adj_factor missing, infinite or not above 0"
UNLISTED = "list_date that no stock can have, taken as unknown"
LEFT_EARLY = "delist_date before the stock's last row, not used"


def cases() -> Iterator[Case]:
    yield from _tables()
    yield from _names()
    yield from _codes()
    yield from _lakes()


def _tables() -> Iterator[Case]:
    for words, change, outcome, says in (
        ("a factor a day", lambda f: f, "same panel", ""),
        ("factors in another spelling of codes", _respelt, "same panel", ""),
        ("a factor table that lacks one row", lambda f: f[~at(f)], "set aside", FACTOR),
        ("a factor table that lacks one day", lambda f: f[f["date"] != DAY], "set aside", FACTOR),
        ("a factor table with 0 in one row", _zero, "set aside", FACTOR),
        ("a factor table with two factors of one day", _two_factors, "refused",
         "contradict each other: adj_factor="),
        ("a factor table of other stocks", lambda f: f.assign(code="1.XX"), "refused",
         "the side table adj_factor has no stock of the bars"),
    ):  # fmt: skip
        yield files(f"{words}, beside the bars", _beside("adj_factor", change), outcome, says,
                    max_quarantined=0.02)  # fmt: skip
    yield files("factor_changes beside the bars", _beside("factor_changes", _changes), "same panel")
    yield files("two files of a table, and a column in one of them", _uneven, "refused",
                "has no industry, and")  # fmt: skip
    yield files("blanks behind industries in one of two files", _padded, "same panel")
    yield files("a factor in the bars and in a table beside them", _factor_twice, "refused",
                "has it too. Move that table away")  # fmt: skip
    for column, text, outcome, says in (
        ("list_date", "1970-01-01", "noted", UNLISTED),
        ("list_date", "9999-12-31", "noted", UNLISTED),
        ("list_date", "soon", "refused", "has 'soon' in row"),
        ("delist_date", "0000-00-00", "same panel", ""),
        ("delist_date", "2099-12-31", "same panel", ""),
        ("delist_date", f"{DAY:%Y%m%d}", "noted", LEFT_EARLY),
        ("delist_date", "soon", "refused", "has 'soon' in row"),
    ):
        yield files(f"{column} {text} in stock_basic", _stock(column, text), outcome, says)
        if column == "delist_date":
            yield case(f"{column} is {text} in the bars", _column(column, text), outcome, says)


def _names() -> Iterator[Case]:
    for name in ("＊ＳＴ某", "XD*ST某", "NST某", "S ST某", "某某退"):  # noqa: RUF001  # wide ones
        yield case(f"a stock called {name} for ten days, no is_st", _named(name), "accepted",
                   "special treatment on these days")  # fmt: skip
    yield case("is_st says no where nearly all names say ST", _contradicted, "refused", "is_st")


def _codes() -> Iterator[Case]:
    yield case("one history under two codes", _twin, "noted", "one history under two codes")
    yield case(
        "a code that becomes another on one day",
        _renamed,
        "noted",
        "stock begins where another ends, at its price: one stock under two codes?",
    )
    for spelt in ("SHSE.600000", "600000 CH Equity", "1.600000", "'600000.SH"):
        yield case(f"600000.SH is {spelt} in one of two files", _spelt(spelt), "refused",
                   "spelt two ways", layout=two_files)  # fmt: skip
    yield files("a month in each file's name, bars.code_from_name", _by_month, "refused",
                "looks like a date", code_from_name=True)  # fmt: skip


def _lakes() -> Iterator[Case]:
    for kind, mark in (
        ("Iceberg", "metadata/v1.metadata.json"),
        ("Hudi", ".hoodie/hoodie.properties"),
    ):
        yield files(f"a table of {kind}", _marked(mark), "refused", f"is a {kind} table")
    yield files("a row group a day", _row_groups, "same panel")
    headings = b"Price,Close,Open\nTicker,AAPL,AAPL\nDate,,\n2019-01-07,1,1\n"
    yield files("yfinance's two rows of headings", lambda f: {"bars.csv": headings}, "refused",
                "has two rows of headings")  # fmt: skip
    yield case(
        "the newest day has the rows of the day before",
        _served_again,
        "set aside",
        "prices, volume and amount are those of the day before",
        max_quarantined=0.02,
    )
    yield case("adj_factor is 1 on the newest day", _newest_one, "set aside",
               "adj_factor changes and the price does not", max_quarantined=0.02)  # fmt: skip
    yield files("bars.calendar ends before the bars", _stale_calendar, "refused", "calendar",
                calendar="_days.txt")  # fmt: skip


def _beside(table: str, change: Callable[[Frame], Frame]) -> Callable[[Frame], Files]:
    def write(frame: Frame) -> Files:
        rows = change(frame[["date", "code", "adj_factor"]].copy())
        return {"bars.csv": csv(frame.drop(columns="adj_factor")), f"{table}/all.csv": csv(rows)}

    return write


def _uneven(frame: Frame) -> Files:
    listed = pd.DataFrame({"code": CODES[:2], "list_date": "2010-01-04", "industry": "bank"})
    gone = pd.DataFrame({"code": CODES[2:], "list_date": "2010-01-04"})
    tables = {"stock_basic/L.csv": csv(listed), "stock_basic/D.csv": csv(gone)}
    return {"bars.csv": csv(frame.drop(columns="industry")), **tables}


def _padded(frame: Frame) -> Files:
    early, late = frame[frame["date"] < CUT], frame[frame["date"] >= CUT]
    return {"a.csv": csv(early), "b.csv": csv(late.assign(industry=late["industry"] + " \u3000"))}


def _factor_twice(frame: Frame) -> Files:
    factor = frame[["date", "code", "adj_factor"]]
    return {"bars.csv": csv(frame), "adj_factor.csv": csv(factor)}


def _respelt(rows: Frame) -> Frame:
    return rows.assign(code="SHSE." + rows["code"].str[:6])


def _zero(rows: Frame) -> Frame:
    return rows.assign(adj_factor=rows["adj_factor"].where(~at(rows), 0.0))


def _two_factors(rows: Frame) -> Frame:
    return pd.concat([rows, rows[at(rows)].assign(adj_factor=3.0)])


def _changes(rows: Frame) -> Frame:
    return rows[rows["adj_factor"] != rows.groupby("code")["adj_factor"].shift()]


def _stock(column: str, text: str) -> Callable[[Frame], Files]:
    def write(frame: Frame) -> Files:
        table = pd.DataFrame({"code": CODES, column: [text, *[""] * (len(CODES) - 1)]})
        return {"bars.csv": csv(frame), "stock_basic.csv": csv(table)}

    return write


def _column(column: str, text: str) -> Callable[[Frame], Frame]:
    return lambda frame: frame.assign(**{column: np.where(frame["code"] == CODES[0], text, "")})


def _named(name: str) -> Callable[[Frame], Frame]:
    def change(frame: Frame) -> Frame:
        marked = (frame["code"] == CODES[1]) & (frame["date"] > DAYS[-11])
        return frame.assign(name=np.where(marked, name, "某某")).drop(columns="is_st")

    return change


def _contradicted(frame: Frame) -> Frame:
    return frame.assign(name="ST某")


def _twin(frame: Frame) -> Frame:
    return pd.concat([frame, frame[frame["code"] == CODES[2]].assign(code="600999.SH")])


def _renamed(frame: Frame) -> Frame:
    later = (frame["code"] == CODES[2]) & (frame["date"] >= CUT)
    return frame.assign(code=frame["code"].where(~later, "600999.SH"))


def _spelt(code: str) -> Callable[[Frame], Frame]:
    def change(frame: Frame) -> Frame:
        later = (frame["code"] == CODES[0]) & (frame["date"] >= CUT)
        return frame.assign(code=frame["code"].where(~later, code))

    return change


def _by_month(frame: Frame) -> Files:
    months = frame.groupby(frame["date"].dt.strftime("%Y-%m"))
    return {f"BTCUSDT-1d-{month}.csv": csv(rows.drop(columns="code")) for month, rows in months}


def _marked(mark: str) -> Callable[[Frame], Files]:
    return lambda frame: {"data/bars.parquet": parquet(frame), mark: b"{}"}


def _row_groups(frame: Frame) -> Files:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, sink, row_group_size=len(CODES))
    return {"bars.parquet": sink.getvalue().to_pybytes()}


def _served_again(frame: Frame) -> Frame:
    rest = frame[frame["date"] != DAYS[-1]]
    return pd.concat([rest, rest[rest["date"] == DAYS[-2]].assign(date=DAYS[-1])])


def _newest_one(frame: Frame) -> Frame:
    return frame.assign(adj_factor=frame["adj_factor"].where(frame["date"] < DAYS[-1], 1.0))


def _stale_calendar(frame: Frame) -> Files:
    return {
        "bars.csv": csv(frame),
        "_days.txt": "\n".join(f"{day:%Y-%m-%d}" for day in DAYS[:-2]).encode(),
    }
