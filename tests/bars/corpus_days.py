"""Cases: dates that cannot be, weekends, thin days, shifted dates, calendars."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from tests.bars.corpus_case import Case, case, files
from tests.bars.corpus_market import (
    CODES,
    CUT,
    DAY,
    DAYS,
    PRICES,
    Change,
    Files,
    Frame,
    at,
    csv,
    one_file,
    parquet_of,
    two_files,
)  # fmt: skip

SATURDAY, SUNDAY = pd.Timestamp("2019-03-09"), pd.Timestamp("2019-03-10")
_SPAN = "1970-01-01 stands for a lost date"
_THIN = "less than a hundredth of the market traded that day"
_FEW = "day with clearly fewer stocks than usual, not the newest"
_WEEKEND = "date is a Saturday or Sunday"
CALENDAR = "\n".join(f"{day:%Y-%m-%d}" for day in DAYS)


def spans() -> Iterator[Case]:
    """Dates outside what can be."""
    for text in ("0001-01-01", "1899-12-30", "1970-01-01", "1989-03-04", "2081-03-04",
                 "2219-03-04", "9999-12-31"):  # fmt: skip
        yield case(f"date is {text} in one row", _date_text(text), "refused", _SPAN)
    yield case("date is in year 2081 in one file", _years(62, "file"), "refused", _SPAN, two_files)
    yield case("dates are 100 years early", _years(-100, "all"), "refused", _SPAN)
    yield files("date is -5877641-06-23 in one row", _first_of_all, "refused", "-5877641-06-23")
    yield files("date is 5881580-07-11 in one row", _last_of_all, "refused", "5881580-07-11")
    yield case("date is next year in one row", _date_text(_next_year()), "refused", _SPAN)
    yield case("date is 1989 in one row, limits not known", _date_text("1989-03-06"),
               "noted", "more than 30 days without a trading day", price_limits="none")  # fmt: skip
    yield case("date before bars.first_day", lambda f: f, "refused", "no day from 2019-02-01",
               first_day="2019-02-01")  # fmt: skip


def weekends() -> Iterator[Case]:
    """Saturdays and Sundays."""
    yield case("one row dated a Saturday", _moved(SATURDAY), "set aside", _WEEKEND)
    yield case("one row dated a Sunday", _moved(SUNDAY), "set aside", _WEEKEND)
    yield case("a Saturday with all stocks", _copied(SATURDAY), "refused", _WEEKEND)
    yield case("a Saturday with all stocks, bars.weekends", _copied(SATURDAY), "accepted",
               "a trading day, as told", weekends=True)  # fmt: skip
    yield case("a Saturday with one stock, bars.weekends", _moved(SATURDAY, copies=1), "noted",
               _FEW, weekends=True)  # fmt: skip
    yield case("all dates a day early (time zone)", _shift(-1), "refused", "a day early")
    yield case("all dates a day late", _shift(1), "refused", "a day late")
    yield case("all dates two days early", _shift(-2), "refused", "Saturday or Sunday")
    yield case("all dates a day early in one file", _shift(-1, "file"), "refused",
               "Saturday or Sunday", two_files)  # fmt: skip
    yield case("days and months exchanged where both are possible", _exchanged, "refused",
               "Saturday or Sunday")  # fmt: skip
    yield case("days and months exchanged in one row", _exchanged_row, "set aside", _WEEKEND)
    yield case("every calendar day filled with the day before", _filled, "refused",
               "Saturday or Sunday")  # fmt: skip


def thin() -> Iterator[Case]:
    """Days that next to nobody traded; a wide market of 250 stocks."""
    yield files("one row typed 2018 in a market of 250", _wide("2018-03-05"), "set aside", _THIN)
    yield files("one row typed 2009 in a market of 250", _wide("2009-03-04"), "set aside", _THIN)
    yield files("one row a day after the last, market of 250", _wide("2019-04-29"), "set aside",
                _THIN)  # fmt: skip
    yield case("a holiday filled with rows of volume 0", _holiday, "refused", _THIN)
    yield case("a newest day with all rows bad", _newest_bad, "refused", "would be set aside")
    yield case("a newest day with all rows bad, 2 % allowed", _newest_bad, "set aside",
               "price missing, infinite or not above 0", max_quarantined=0.02)  # fmt: skip
    yield case("a newest day with two of twelve stocks", _newest_few, "noted",
               "newest day with clearly fewer stocks than usual")  # fmt: skip
    yield case("a day with two of twelve stocks", _few, "noted",
               _FEW)  # fmt: skip
    yield case("no row of one day: its file is missing", lambda f: f[f["date"] != DAY], "noted",
               "working day without a row: a holiday, or a day that is lost")  # fmt: skip
    yield case("a day with the rows of the day before", _again, "refused",
               "are those of the day before")  # fmt: skip
    yield case("weekly bars", lambda f: f[f["date"].dt.day_of_week == 4], "refused",
               "these are weekly or monthly bars")  # fmt: skip
    yield case("zeros for the day to come, all stocks", _preopen, "refused", _THIN)
    yield case("six weeks without a day", _hole, "noted", "more than 30 days without a trading day")
    yield case("a code used again after more than a year", _reused, "noted",
               "stock traded again after more than a year: a code used twice?")  # fmt: skip


def calendars() -> Iterator[Case]:
    """bars.calendar, a file beside the bars."""

    def with_calendar(text: str | bytes, change: Change = lambda f: f):  # type: ignore[no-untyped-def]
        data = text.encode() if isinstance(text, str) else text
        return lambda frame: one_file(change(frame)) | {"_days.txt": data}

    where = {"calendar": "_days.txt"}
    yield files("bars.calendar lists all days", with_calendar(CALENDAR), "same panel", **where)
    yield files("bars.calendar as YYYYMMDD with blank lines and CR LF",
                with_calendar("\r\n\r\n".join(f"{day:%Y%m%d}" for day in DAYS)), "same panel",
                **where)  # fmt: skip
    yield files("bars.calendar lists days that the bars lack",
                with_calendar(CALENDAR, lambda f: f[f["date"] != DAY]), "noted",
                "day of bars.calendar without a row", **where)  # fmt: skip
    yield files("bars.calendar lacks a day that the bars have",
                with_calendar(CALENDAR.replace(f"{DAY:%Y-%m-%d}\n", "")), "refused",
                "date is not in bars.calendar", **where)  # fmt: skip
    yield files("bars.calendar knows a Saturday",
                with_calendar(f"{CALENDAR}\n2019-03-09", _copied(SATURDAY)), "accepted",
                "as listed", **where)  # fmt: skip
    yield files("bars.calendar knows a thin day",
                with_calendar(f"{CALENDAR}\n2018-03-05", _moved(pd.Timestamp("2018-03-05"))),
                "noted", "more than 30 days without a trading day", **where)  # fmt: skip
    yield files("bars.calendar is not there", one_file, "refused", "is no file", **where)
    yield files("bars.calendar is empty", with_calendar(""), "refused", "has no date", **where)
    yield files("bars.calendar has a line that is no date", with_calendar(f"{CALENDAR}\nend"),
                "refused", "has 'end' in row", **where)  # fmt: skip
    yield files("bars.calendar is no text", with_calendar(b"\xff\xfe\x00\x81"), "refused",
                "is no UTF-8 text", **where)  # fmt: skip


def cases() -> Iterator[Case]:
    """All of them."""
    yield from spans()
    yield from weekends()
    yield from thin()
    yield from calendars()


def _next_year() -> str:
    return str(np.datetime64("today") + 365)


def _date_text(text: str) -> Change:
    def change(frame: Frame) -> Frame:
        row = at(frame)
        frame["date"] = frame["date"].dt.strftime("%Y-%m-%d").astype(object)
        frame.loc[row, "date"] = text
        return frame

    return change


def _years(years: int, scope: str) -> Change:
    def change(frame: Frame) -> Frame:
        rows = frame["date"] >= (CUT if scope == "file" else DAYS[0])
        frame["date"] = frame["date"].where(~rows, frame["date"] + pd.DateOffset(years=years))
        return frame

    return change


def _raw_day(number: int):  # type: ignore[no-untyped-def]
    def write(frame: Frame) -> Files:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        days = frame["date"].to_numpy().astype("M8[D]").astype(np.int32)
        days[7] = number
        column = pa.array(days).cast(pa.date32())
        place = table.column_names.index("date")
        return {"bars.parquet": parquet_of(table.set_column(place, "date", column))}

    return write


_first_of_all = _raw_day(-(2**31))
_last_of_all = _raw_day(2**31 - 1)


def _moved(day: pd.Timestamp, copies: int = 0) -> Change:
    def change(frame: Frame) -> Frame:
        if copies:
            return pd.concat([frame, frame[at(frame)].assign(date=day)])
        frame.loc[at(frame), "date"] = day
        return frame

    return change


def _copied(day: pd.Timestamp) -> Change:
    """All stocks once more, a hundredth above the Friday before."""
    before = day - pd.Timedelta(days=day.weekday() - 4)

    def change(frame: Frame) -> Frame:
        rows = frame[frame["date"] == before].assign(date=day)
        for name in ("volume", "amount", "turnover_rate"):
            rows[name] *= 1.5
        for name in (*PRICES, "amount", "market_cap"):
            rows[name] *= 1.01
        return pd.concat([frame, rows]).sort_values(["date", "code"])

    return change


def _shift(days: int, scope: str = "all") -> Change:
    def change(frame: Frame) -> Frame:
        rows = frame["date"] >= (CUT if scope == "file" else DAYS[0])
        frame["date"] = frame["date"].where(~rows, frame["date"] + pd.Timedelta(days=days))
        return frame

    return change


def _swap(day: pd.Timestamp) -> pd.Timestamp:
    return day if day.day > 12 else pd.Timestamp(day.year, day.day, day.month)


def _exchanged(frame: Frame) -> Frame:
    return frame.assign(date=frame["date"].map(_swap))


def _exchanged_row(frame: Frame) -> Frame:
    day = next(d for d in DAYS if d.day <= 12 and _swap(d).weekday() >= 5)
    frame.loc[at(frame, day=day), "date"] = _swap(day)
    return frame


def _filled(frame: Frame) -> Frame:
    full = []
    for _, rows in frame.groupby("code"):
        full.append(rows.set_index("date").resample("D").ffill().reset_index())
    return pd.concat(full)


def _wide(text: str):  # type: ignore[no-untyped-def]
    """250 stocks, one row dated otherwise."""

    def write(frame: Frame) -> Files:
        of = [frame[frame["code"] == code] for code in CODES]
        codes = [f"{600100 + number}.SH" for number in range(250)]
        wide = pd.concat([of[i % len(of)].assign(code=code) for i, code in enumerate(codes)])
        wide["date"] = wide["date"].dt.strftime("%Y-%m-%d")
        wide.loc[(wide["code"] == codes[7]) & (wide["date"] == f"{DAY:%Y-%m-%d}"), "date"] = text
        return {"bars.csv": csv(wide)}

    return write


def _holiday(frame: Frame) -> Frame:
    frame.loc[frame["date"] == DAY, ["volume", "amount"]] = 0.0
    return frame


def _newest_bad(frame: Frame) -> Frame:
    frame.loc[frame["date"] == DAYS[-1], "close"] = np.nan
    return frame


def _newest_few(frame: Frame) -> Frame:
    return frame[(frame["date"] < DAYS[-1]) | frame["code"].isin(CODES[:2])]


def _few(frame: Frame) -> Frame:
    return frame[(frame["date"] != DAY) | frame["code"].isin(CODES[:2])]


def _again(frame: Frame) -> Frame:
    rest = frame[frame["date"] != DAY]
    return pd.concat([rest, rest[rest["date"] == DAYS[39]].assign(date=DAY)])


def _preopen(frame: Frame) -> Frame:
    names = [*PRICES, "volume", "amount", "turnover_rate"]
    return frame.assign(
        **{name: frame[name].where(frame["date"] < DAYS[-1], 0.0) for name in names}
    )


def _hole(frame: Frame) -> Frame:
    gone = (frame["date"] >= DAYS[20]) & (frame["date"] < DAYS[50])
    return frame[~gone]


def _reused(frame: Frame) -> Frame:
    """The market again, 75 weeks later."""
    later = frame.assign(
        date=frame["date"] + pd.Timedelta(days=7 * 75), adj_factor=2 * frame["adj_factor"]
    )
    for name in PRICES:
        later[name] /= 2
    return pd.concat([frame, later.assign(volume=2 * later["volume"])])
