"""Cases: one value that cannot be, texts that are no numbers, types, codes."""

from __future__ import annotations

import decimal
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from tests.bars.corpus_case import Case, case
from tests.bars.corpus_market import (
    CODES,
    CUT,
    DAY,
    DAYS,
    PRICES,
    Change,
    Frame,
    at,
    parquet,
    parquet_of,
    put,
    two_files,
)  # fmt: skip

_NOT_ABOVE_0 = "price missing, infinite or not above 0"
_AVERAGE = "amount / volume outside low to high"
_TOO_LARGE = "number too large or too small to be true"


def values() -> Iterator[Case]:
    """One bad value in one row."""
    for price in PRICES:
        for value in (0.0, np.nan, np.inf):
            yield case(f"{price} is {value:g} in one row", put(price, value), "set aside",
                       _NOT_ABOVE_0)  # fmt: skip
    for column in ("volume", "amount"):
        reason = f"{column} missing, infinite or negative"
        for value in (-1.0, np.nan, np.inf):
            yield case(f"{column} is {value:g} in one row", put(column, value), "set aside", reason)
    for value in (0.0, -1.0, np.nan, np.inf):
        yield case(f"adj_factor is {value:g} in one row", put("adj_factor", value), "set aside",
                   "adj_factor missing, infinite or not above 0")  # fmt: skip
    for value in (-0.01, np.inf):
        yield case(f"turnover_rate is {value:g} in one row", put("turnover_rate", value),
                   "set aside", "turnover_rate infinite or negative")  # fmt: skip
    for value in (0.0, -1.0, np.nan, np.inf, 1e300):
        yield case(f"market_cap is {value:g} in one row", put("market_cap", value), "noted",
                   "market_cap unknown")  # fmt: skip


def contradictions() -> Iterator[Case]:
    """One value that the rest of its row, or the rows around it, contradict."""
    yield case("turnover_rate is missing in one row", put("turnover_rate", np.nan), "noted",
               "turnover_rate missing")  # fmt: skip
    yield case("turnover_rate is 1e9 in one row", put("turnover_rate", 1e9), "set aside",
               "turnover_rate too large to be true")  # fmt: skip
    yield case("turnover_rate is 150 % in one row", put("turnover_rate", 1.5), "set aside",
               "turnover_rate above 90 x volume x close / market_cap")  # fmt: skip
    yield case("volume is 1e300 in one row", put("volume", 1e300), "set aside", _TOO_LARGE)
    yield case("amount is 1e300 in one row", put("amount", 1e300), "set aside", _TOO_LARGE)
    yield case("amount is 0 in one row", put("amount", 0.0), "set aside",
               "amount is 0 although volume is not")  # fmt: skip
    yield case("volume is 0 in one row, amount is not", put("volume", 0.0), "set aside",
               "volume is 0 although amount is not")  # fmt: skip
    yield case("volume and amount are 0 in one row, the price is another", _unsold, "noted",
               "price moves on a day without volume")  # fmt: skip
    yield case("a suspended day: no volume, the price of the day before", _suspended, "accepted",
               "dropped and counted as suspended")  # fmt: skip
    yield case("a suspended day: only zeros", _zeros, "accepted",
               "dropped and counted as suspended")  # fmt: skip
    yield case("a suspended day: empty prices, volume and amount", _emptied, "set aside",
               _NOT_ABOVE_0)  # fmt: skip
    yield case("a suspended day filled with the whole row of the day before", _copied, "set aside",
               "prices, volume and amount are those of the day before")  # fmt: skip
    yield case("high below low in one row", _swap("high", "low"), "set aside", "high below low")
    for price, value in (("open", 1.2), ("open", 0.8), ("close", 1.2), ("close", 0.8)):
        yield case(f"{price} {value:g} x what it was in one row", _times([price], value),
                   "set aside", "open or close outside low to high")  # fmt: skip
    for by in (0.01, 0.1, 10.0, 100.0):
        yield case(f"all prices x {by:g} in one row", _times(PRICES, by), "set aside",
                   f"amount / volume is {1 / by:g} x the price")  # fmt: skip
    for by in (0.5, 2.0):
        yield case(f"all prices x {by:g} in one row", _times(PRICES, by), "set aside", _AVERAGE)
    for by in (1.2, 2.0, 10.0, 0.1, 1000.0):
        yield case(f"prices, amount and market_cap x {by:g} in one row",
                   _times([*PRICES, "amount", "market_cap"], by), "set aside",
                   "price moves further than the market allows")  # fmt: skip


def texts() -> Iterator[Case]:
    """Text in a CSV file that is no number, no date, no yes or no."""
    for text in ("abc", "1.2.3", "--", "#DIV/0!", "12%", "1e", "True", "10 000", "$10", "1_000",
                 "1.234,5", "\uff11.5", "0x1f"):  # fmt: skip
        yield case(f"close is {text!r} in one row of a CSV file", put("close", text), "refused",
                   f"has '{text}' in row")  # fmt: skip
    for column in ("open", "high", "low", "volume", "amount", "adj_factor", "turnover_rate"):
        yield case(f"{column} is 'n.a.' in one row of a CSV file", put(column, "n.a."), "refused",
                   f"column '{column}' has 'n.a.' in row")  # fmt: skip
    for text in ("NA", "NaN", "null", "None", "N/A", ""):
        yield case(f"close is {text!r} in one row of a CSV file: missing", put("close", text),
                   "set aside", _NOT_ABOVE_0)  # fmt: skip
    for text in ("2019-13-01", "2019-02-30", "20190230", "04/03/2019", "2019.03.04", "Mar 4 2019",
                 "2019-03-04 15:00:00", "2019-03-04T00:00:00Z", "43528", "1551657600", "19-03-04",
                 "2019-W10-1", "yesterday", "-1", "2019-03", "2019-03-04-05"):  # fmt: skip
        yield case(f"date is {text!r} in one row of a CSV file", _date(text), "refused",
                   f"has '{text}' in row")  # fmt: skip
    for text in ("", "NaT", "null"):
        yield case(f"date is {text!r} in one row of a CSV file", _date(text), "set aside",
                   "date missing")  # fmt: skip
    iso = f"{DAY:%Y-%m-%d}"
    for text in (f"{DAY:%Y%m%d}", f"{DAY:%Y/%m/%d}", f"{iso} 00:00:00", f"{iso}T00:00:00",
                 f" {iso} ", f"{DAY.year}-{DAY.month}-{DAY.day}", f"{DAY:%Y%m%d}.0"):  # fmt: skip
        yield case(f"date is {text!r} in one row of a CSV file", _date(text), "same panel")
    yield case("dates with one time of day", lambda f: _dated(f, "%Y-%m-%d 15:00"), "same panel")
    yield case("dates with their weekdays", _weekdays, "same panel")
    yield case("dates at midnight of China in UTC", lambda f: _dated(f, "%Y-%m-%d 16:00:00"),
               "refused", "which is no day")  # fmt: skip
    for text in ("maybe", "2", "ST"):
        yield case(f"is_st is {text!r} in one row", put("is_st", text), "refused",
                   f"has '{text}' in row")  # fmt: skip
    for text in ("no", "F", "0", "FALSE", "0.0"):
        yield case(f"is_st is {text!r} in one row", put("is_st", text), "same panel")
    yield case("is_st is '' in one row", put("is_st", ""), "noted", "is_st missing, taken as no")


def lives() -> Iterator[Case]:
    """Codes, listing dates, industries."""
    for text in ("", "   "):
        yield case(f"code is {text!r} in one row", put("code", text), "set aside", "code missing")
    yield case("codes NA, NULL and nan in a CSV file", _named_for_nothing, "accepted",
               "three stocks, as in parquet")  # fmt: skip
    yield case("list_date is 'soon' in one row", _listed("soon"), "refused", "has 'soon' in row")
    yield case("list_date lies after the stock's first row", _listed("2019-03-01"), "noted",
               "list_date after the stock's first row")  # fmt: skip
    for text in ("1970-01-01", "1900-01-01", "0001-01-01"):
        yield case(f"list_date is {text}", _listed(text), "noted",
                   "list_date that no stock can have, taken as unknown")  # fmt: skip
    yield case("list_date before the first row", _listed("2001-03-01"), "accepted",
               "listed then")  # fmt: skip
    yield case("an industry is renamed", _renamed, "noted", "industry of a stock changes")
    yield case("industry is missing in one row", put("industry", ""), "noted",
               "industry missing")  # fmt: skip


def types() -> Iterator[Case]:
    """Parquet types."""

    def cast(wrong: str, column: str, kind: pa.DataType, outcome, words="") -> Case:  # type: ignore[no-untyped-def]
        return case(wrong, lambda f: f, outcome, words,
                    lambda f: {"bars.parquet": parquet(f, {column: kind})})  # fmt: skip

    yield cast("date is a timestamp in nanoseconds", "date", pa.timestamp("ns"), "same panel")
    yield cast("date is a timestamp in seconds", "date", pa.timestamp("s"), "same panel")
    yield cast("date has a time zone", "date", pa.timestamp("ns", "Asia/Shanghai"), "refused",
               "has time zone Asia/Shanghai")  # fmt: skip
    yield cast("date is in UTC", "date", pa.timestamp("us", "UTC"), "refused", "has time zone UTC")
    yield cast("date is a timestamp in microseconds", "date", pa.timestamp("us"), "same panel")
    yield cast("date is a timestamp in milliseconds", "date", pa.timestamp("ms"), "same panel")
    yield cast("date is date64", "date", pa.date64(), "same panel")
    yield cast("date is text", "date", pa.string(), "refused", "which is no day")
    yield cast("volume is int64", "volume", pa.int64(), "same panel")
    yield cast("volume is text", "volume", pa.string(), "same panel")
    yield cast("close is text", "close", pa.string(), "same panel")
    yield cast("is_st is int8", "is_st", pa.int8(), "same panel")
    yield cast("is_st is text", "is_st", pa.string(), "same panel")
    yield cast("code is a large string", "code", pa.large_string(), "same panel")
    yield cast("code is a dictionary", "code", pa.dictionary(pa.int8(), pa.string()), "same panel")
    yield cast("industry is a dictionary of large strings", "industry",
               pa.dictionary(pa.int32(), pa.large_string()), "same panel")  # fmt: skip
    yield cast("code is bytes", "code", pa.binary(), "refused", "binary, indices=int32")
    yield cast("volume is decimal128", "volume", pa.decimal128(18, 2), "same panel")
    yield cast("industry is of one type, null", "industry", pa.string(), "same panel")

    def other(wrong: str, column: str, make, outcome, words="") -> Case:  # type: ignore[no-untyped-def]
        def write(frame: Frame) -> dict[str, bytes]:
            table = pa.Table.from_pandas(frame, preserve_index=False)
            place = table.column_names.index(column)
            values = make(frame[column])
            return {"bars.parquet": parquet_of(table.set_column(place, column, values))}

        return case(wrong, lambda f: f, outcome, words, write)

    yield other("code is a number: leading zeros are lost", "code",
                lambda c: pa.array(c.str[:6].astype(int)), "refused",
                "is of type int64, text is needed")  # fmt: skip
    yield other("code is a float such as 600000.0", "code",
                lambda c: pa.array(c.str[:6].astype(float)), "refused",
                "is of type double, text is needed")  # fmt: skip
    yield other(
        "date is a dictionary of texts",
        "date",
        lambda c: pa.array(c.dt.strftime("%Y-%m-%d")).dictionary_encode(),
        "same panel",
    )
    yield other("date counts days since 1899, as Excel does", "date",
                lambda c: pa.array(c.to_numpy().astype("M8[D]").astype(int) + 25569), "refused",
                "which is no day")  # fmt: skip
    yield other("date is midnight in China, written in UTC without saying so", "date",
                lambda c: pa.array(c.to_numpy().astype("M8[ns]") - np.timedelta64(8, "h")),
                "refused", "these are intraday bars")  # fmt: skip
    yield other("close is a dictionary of floats", "close",
                lambda c: pa.array(c).dictionary_encode(), "same panel")  # fmt: skip
    yield other("close is yes or no", "close", lambda c: pa.array(c > 0), "refused",
                "is of type bool, a number is needed")  # fmt: skip
    yield other("close is a day", "close", lambda c: pa.array([0] * len(c), pa.date32()),
                "refused", "is of type date32[day], a number is needed")  # fmt: skip
    yield other("close is decimal", "close",
                lambda c: pa.array([decimal.Decimal(f"{x:.2f}") for x in c]),
                "accepted", "to the last digit of a float")  # fmt: skip
    yield other("close is all null", "close", lambda c: pa.nulls(len(c)), "refused", _NOT_ABOVE_0)
    yield other("date is all null", "date", lambda c: pa.nulls(len(c)), "refused", "date missing")
    yield other("code is all null", "code", lambda c: pa.nulls(len(c)), "refused", "code missing")
    yield other("volume is all null", "volume", lambda c: pa.nulls(len(c)), "refused",
                "volume missing")  # fmt: skip
    yield other("date is a number such as 20190304", "date",
                lambda c: pa.array(c.dt.strftime("%Y%m%d").astype(int)), "same panel")  # fmt: skip
    yield other("date is a float such as 20190304.0", "date",
                lambda c: pa.array(c.dt.strftime("%Y%m%d").astype(float)), "refused",
                "is of type double, a date is needed")  # fmt: skip
    yield other("date counts days since 1970", "date",
                lambda c: pa.array(c.to_numpy().astype("M8[D]").astype(int)), "refused",
                "which is no day")  # fmt: skip
    yield other("date counts seconds since 1970", "date",
                lambda c: pa.array(c.to_numpy().astype("M8[s]").astype(int)), "refused",
                "which is no day")  # fmt: skip
    yield other("date has the time of the close", "date",
                lambda c: pa.array(c.to_numpy().astype("M8[ns]") + np.timedelta64(15, "h")),
                "same panel")  # fmt: skip
    yield other("date has two times of day", "date",
                lambda c: pa.array(c.to_numpy().astype("M8[ns]")
                                   + np.timedelta64(1, "h") * (10 + np.arange(len(c)) % 2)),
                "refused", "these are intraday bars")  # fmt: skip


def spellings() -> Iterator[Case]:
    """Codes that lost something."""
    yield case("codes such as 600000.0 in a CSV file", _codes(lambda c: c.str[:6] + ".0"),
               "accepted", "kept as spelt")  # fmt: skip
    yield case("codes such as 600000.0 in one of two files",
               _codes_later(lambda c: c.str[:6] + ".0"), "refused", "spelt two ways",
               two_files)  # fmt: skip
    yield case("codes without an exchange in one of two files", _codes_later(lambda c: c.str[:6]),
               "refused", "spelt two ways", two_files)  # fmt: skip
    zeros = _codes(lambda c: c.str.replace("6000", "0001").str[:6])
    yield case("codes without their leading zeros",
               _then(zeros, _codes(lambda c: c.str.lstrip("0"))), "accepted",
               "kept as spelt")  # fmt: skip
    yield case("codes without their leading zeros in one of two files",
               _then(zeros, _codes_later(lambda c: c.str.lstrip("0"))), "refused",
               "spelt two ways", two_files)  # fmt: skip
    yield case("codes in capitals in one of two files", _codes_later(lambda c: c.str.lower()),
               "refused", "spelt two ways", two_files)  # fmt: skip


def cases() -> Iterator[Case]:
    """All of them."""
    yield from values()
    yield from contradictions()
    yield from texts()
    yield from lives()
    yield from types()
    yield from spellings()


def _codes(change):  # type: ignore[no-untyped-def]
    return lambda frame: frame.assign(code=change(frame["code"]))


def _codes_later(change):  # type: ignore[no-untyped-def]
    return lambda frame: frame.assign(
        code=frame["code"].where(frame["date"] < CUT, change(frame["code"]))
    )


def _then(*changes: Change) -> Change:
    def change(frame: Frame) -> Frame:
        for each in changes:
            frame = each(frame)
        return frame

    return change


def _unsold(frame: Frame) -> Frame:
    frame.loc[at(frame), ["volume", "amount"]] = 0.0
    return frame


def _suspended(frame: Frame) -> Frame:
    before = frame.loc[at(frame, day=DAYS[39]), "close"].item()
    factor = frame.loc[at(frame, day=DAYS[39]), "adj_factor"].item()
    frame.loc[at(frame), [*PRICES, "adj_factor"]] = [*[before] * 4, factor]
    return _unsold(frame)


def _zeros(frame: Frame) -> Frame:
    frame.loc[at(frame), [*PRICES, "volume", "amount", "turnover_rate"]] = 0.0
    return frame


def _emptied(frame: Frame) -> Frame:
    frame.loc[at(frame), [*PRICES, "volume", "amount"]] = np.nan
    return frame


def _copied(frame: Frame) -> Frame:
    names = [name for name in frame if name != "date"]
    frame.loc[at(frame), names] = frame.loc[at(frame, day=DAYS[39]), names].to_numpy()
    return frame


def _times(columns: list[str], by: float):  # type: ignore[no-untyped-def]
    def change(frame: Frame) -> Frame:
        frame.loc[at(frame), columns] *= by
        return frame

    return change


def _swap(one: str, two: str):  # type: ignore[no-untyped-def]
    def change(frame: Frame) -> Frame:
        frame.loc[at(frame), [one, two]] = frame.loc[at(frame), [two, one]].to_numpy()
        return frame

    return change


def _date(text: str):  # type: ignore[no-untyped-def]
    def change(frame: Frame) -> Frame:
        row = at(frame)
        frame["date"] = frame["date"].dt.strftime("%Y-%m-%d").astype(object)
        frame.loc[row, "date"] = text
        return frame

    return change


def _dated(frame: Frame, form: str) -> Frame:
    return frame.assign(date=frame["date"].dt.strftime(form))


def _weekdays(frame: Frame) -> Frame:
    names = frame["date"].dt.day_of_week.map(dict(enumerate("一二三四五六日")))
    return frame.assign(date=frame["date"].dt.strftime("%Y-%m-%d,") + names)


def _named_for_nothing(frame: Frame) -> Frame:
    names = dict(zip(CODES[:3], ("NA", "NULL", "nan"), strict=True))
    return frame.assign(code=frame["code"].replace(names))


def _listed(text: str):  # type: ignore[no-untyped-def]
    def change(frame: Frame) -> Frame:
        frame["list_date"] = np.where(frame["code"] == "600004.SH", text, "2000-01-04")
        return frame

    return change


def _renamed(frame: Frame) -> Frame:
    later = (frame["date"] >= DAY) & (frame["industry"] == "bank")
    frame.loc[later, "industry"] = "banks"
    return frame
