"""Check the dates of the bars: which are possible, and which are trading days.

A date outside the market's span stops the build, because nothing can be appended to a panel that
ends in 2081. Rows of Saturdays and Sundays, and of days on which almost no stock traded, are set
aside. So are days that keep less than half of their rows when the days of each stock are compared.
Decisions about a day depend only on the days before it, those about the first `MARKET_DAYS` on all
of these, so later bars never change them.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.quality import Example, Quality, count_examples
from gangru_dist.bars.values import Origin, convert
from gangru_dist.base.errors import BarsError
from gangru_dist.base.filesystems import open_filesystem
from gangru_dist.config.settings import BarsConfig

FIRST_DAY = {"ashare": dt.date(1990, 12, 1), "none": dt.date(1900, 1, 1)}
"""By the price-limit rule: Shenzhen opened that day, Shanghai on 19 December."""
THIN_SHARE = 0.01
"""A day on which less than this share of the market traded is no trading day."""
MARKET_DAYS = 60
"""The market is the median of traded stocks over so many days before."""
_HALF = 0.5
_FEWER, _LEAST = 0.9, 0.05
"""A day is incomplete below this share of the `_LEAST` quantile of the stocks that traded on each
of `MARKET_DAYS` before, less its square root: of a dozen stocks two or three may be suspended. The
whole market of 2018-2020 stays above 0.96 of their median."""
_LOOKED_BACK = 2
"""Earlier days that a row is compared with: `panel.jumps`."""
_HOLE = 30  # days without a trading day; the longest closure of the real market is 11
_APART = 3  # days from one trading day to the next, median; weekly bars have 7
_FEWEST_DAYS = 5
_SHIFTED = 0.05  # of all rows; a market has none at weekends, dates a day off a fifth
_EARLIEST, _LATEST = np.datetime64("1900-01-01"), np.datetime64("2200-01-01")
EPOCH = np.datetime64("1970-01-01")
"""A holiday everywhere, and what a lost date turns into."""

WEEKEND = "date is a Saturday or Sunday"
UNLISTED = "date is not in bars.calendar"
THIN = "less than a hundredth of the market traded that day"
EMPTIED = "no trading day: most rows of that day are set aside, or those of an earlier one"
INCOMPLETE = "newest day with clearly fewer stocks than usual"
FEW = "day with clearly fewer stocks than usual, not the newest"
NO_ROW = "working day without a row: a holiday, or a day that is lost"
HOLE = "more than 30 days without a trading day"
LACKING = "day of bars.calendar without a row"


@dataclass(frozen=True, kw_only=True, slots=True)
class DayRule:
    """Which dates bars may have."""

    first: np.datetime64 = _EARLIEST
    """An earlier one is a mistake."""
    last: np.datetime64 = _LATEST
    """A later one is a mistake: nobody has tomorrow's bars."""
    weekends: bool = False
    """Whether Saturdays and Sundays may be trading days."""
    calendar: np.ndarray | None = None
    """(days,) datetime64[D], ascending: the trading days, if the user lists them."""

    def find_wrong(self, days: np.ndarray) -> dict[str, np.ndarray]:
        """Reason -> (n,) bool of (n,) datetime64[D]: days in the span that are no trading days."""
        if self.calendar is not None:
            return {UNLISTED: ~np.isnat(days) & ~np.isin(days, self.calendar)}
        return {} if self.weekends else {WEEKEND: is_weekend(days)}

    def may_be_newest(self, days: np.ndarray) -> np.ndarray:
        """(n,) bool of (n,) datetime64[D]: trading days, or later than all that the user lists."""
        works = np.full(len(days), fill_value=True) if self.weekends else ~is_weekend(days)
        if self.calendar is None:
            return works
        return np.asarray(np.isin(days, self.calendar) | (works & (days > self.calendar[-1])))


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketDays:
    """Days of all bars together."""

    calendar: np.ndarray
    """(days,) datetime64[D], ascending: the trading days."""
    closed: np.ndarray
    """(days,) datetime64[D]: days with rows that are no trading days; their rows are dropped."""
    quality: Quality
    """What is odd about them."""
    incomplete: bool
    """Whether clearly fewer stocks than usual traded on the newest one."""


def read_day_rule(cfg: BarsConfig, form: BarsFormat, *, today: dt.date | None = None) -> DayRule:
    """Make the configured rule; read `bars.calendar`.

    Args:
        cfg: First day, weekends, calendar.
        form: The market's rule.
        today: For tests; None = the clock's. One day later is allowed, for time zones further east.

    Raises:
        BarsError: The calendar file cannot be read.
    """
    last = (today or dt.datetime.now(dt.UTC).date()) + dt.timedelta(days=1)
    return DayRule(
        first=np.datetime64(cfg.first_day or FIRST_DAY[form.price_limits], "D"),
        last=np.datetime64(last, "D"),
        weekends=cfg.weekends,
        calendar=None if cfg.calendar is None else _read_calendar(cfg.calendar),
    )


def _read_calendar(uri: str) -> np.ndarray:
    """(days,) datetime64[D] of a text file with one date a line."""
    filesystem, path = open_filesystem(uri)
    if filesystem.get_file_info(path).type != pafs.FileType.File:
        raise BarsError(f"bars.calendar={uri} is no file. Give a text file with one date a line.")
    with filesystem.open_input_stream(path) as source:
        data = source.read()
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BarsError(f"bars.calendar={uri} is no UTF-8 text ({error}).") from error
    origin = Origin(file=uri, column="one date a line", ours="date", first_row=1)
    column = convert(pa.chunked_array([pa.array(lines, pa.string())]), "date", origin)
    days = np.unique(to_days(pc.drop_null(column)))
    if not len(days):
        raise BarsError(f"bars.calendar={uri} has no date. Write one a line, YYYY-MM-DD.")
    return days


def check_span(days: np.ndarray, rule: DayRule, origin: Origin) -> None:
    """Refuse a date that bars cannot be of; `days`: (n,) datetime64[D], NaT = missing.

    Raises:
        BarsError: Names file, column, row and date, and the setting if the date is early.
    """
    outside = (days < rule.first) | (days > rule.last) | (days == EPOCH)
    if outside.any():
        row = int(np.argmax(outside))
        is_early = _EARLIEST <= days[row] < rule.first and days[row] != EPOCH
        early = f", or --set bars.first_day={days[row]} if meant" if is_early else ""
        raise origin.error(
            f"has {days[row]} in row {origin.first_row + row} ({int(outside.sum())} such rows): no "
            f"day from {rule.first} to {rule.last}, and 1970-01-01 stands for a lost date",
            f"Correct the row{early}",
        )


def check_calendar(newest: np.datetime64, rule: DayRule) -> None:
    """Refuse bars that go on after the days of `bars.calendar`: none of them would be a day.

    Args:
        newest: Latest day of any row.
        rule: It may have no list.

    Raises:
        BarsError: Names both days and the way out.
    """
    if rule.calendar is not None and newest > rule.calendar[-1]:
        raise BarsError(
            f"bars.calendar ends on {rule.calendar[-1]}, and the bars have later days, up to "
            f"{newest}: the panel would never grow again. Add the trading days up to {newest} to "
            "that file, or leave the setting out: --set bars.calendar=none"
        )


def find_market_days(days: np.ndarray, count: np.ndarray, rule: DayRule) -> MarketDays:
    """Find the trading days among the days of the bars.

    Args:
        days: (days,) datetime64[D], distinct, ascending; on one of them at least a stock traded.
        count: (days,) stocks that traded on each of them.
        rule: An explicit calendar overrides the number of stocks.

    Raises:
        BarsError: The days are so far apart that these are no daily bars.
    """
    market, listed = _measure(count), rule.calendar
    thin = (count < THIN_SHARE * market) & (listed is None)
    calendar, traded = days[~thin], count[~thin].astype(int)
    apart = np.median(np.diff(calendar).astype(int)) if len(calendar) >= _FEWEST_DAYS else 1
    if apart > _APART:
        raise BarsError(
            f"the bars have {len(calendar)} days from {calendar[0]} to {calendar[-1]}, one every "
            f"{apart:g} days: these are weekly or monthly bars. Export daily ones."
        )
    usual = _measure(traded, _LEAST)
    few = traded < np.maximum(_HALF * market[~thin], _FEWER * usual - np.sqrt(usual))
    newest = {"date": str(calendar[-1]), "stocks": int(traded[-1])}
    gaps = np.flatnonzero(np.diff(calendar) > np.timedelta64(_HOLE, "D"))
    lacking = calendar[:0]
    if listed is not None:
        lacking = listed[(listed >= calendar[0]) & (listed <= calendar[-1])]
    elif not rule.weekends:
        lacking = np.arange(calendar[0], calendar[-1])
        lacking = lacking[~is_weekend(lacking)]
    found: dict[str, list[Example]] = {
        INCOMPLETE: [newest] if few[-1] else [],
        FEW: [
            {"date": str(calendar[i]), "stocks": str(traded[i])} for i in np.flatnonzero(few[:-1])
        ],
        HOLE: [{"after": str(calendar[i]), "before": str(calendar[i + 1])} for i in gaps],
        NO_ROW if listed is None else LACKING: [
            {"date": str(day)} for day in np.setdiff1d(lacking, calendar)
        ],
    }
    return MarketDays(
        calendar=calendar,
        closed=days[thin],
        quality=count_examples(found),
        incomplete=bool(few[-1]),
    )


def _measure(count: np.ndarray, share: float = 0.5) -> np.ndarray:
    """(days,) this quantile of the stocks of the days before; at the start, of the first."""
    width = min(MARKET_DAYS, len(count))
    windows = np.lib.stride_tricks.sliding_window_view(count, width)
    found = np.quantile(windows, share, axis=1)
    return np.asarray(np.concatenate([np.repeat(found[0], width), found])[: len(count)])


def find_emptied_days(traded: np.ndarray, kept: np.ndarray, rule: DayRule) -> np.ndarray:
    """Find days that are no trading days by the rows that were kept.

    Yesterday's rows served again, or a factor that is not published yet, empty a whole day. Rows
    of the days behind it were compared with it, so of neighbours only the first is named: without
    it, the others are to be judged again.

    Args:
        traded: (days,) stocks that traded on each trading day, before their days were compared.
        kept: (days,) those that stayed.
        rule: An explicit calendar overrides the number of stocks.

    Returns:
        (days,) bool. None if no day would be left: that is no matter of days. A day of the user's
        calendar on which everybody is suspended is none of them.
    """
    empty = (kept == 0) & (traded > 0) | (kept < _HALF * traded)
    if rule.calendar is None:
        empty |= kept < THIN_SHARE * _measure(traded)
    if empty.all():
        return np.zeros_like(empty)
    first = np.array(empty)
    for back in range(1, _LOOKED_BACK + 1):
        first[back:] &= ~empty[:-back]
    return np.asarray(first)


def check_shifted(quality: Quality, dates: np.ndarray) -> None:
    """Refuse bars of which so many rows fall on weekends that the dates must be off.

    Args:
        quality: Of all rows.
        dates: (days,) datetime64[D], distinct days of the usable rows.

    Raises:
        BarsError: Says which working day is missing, that is, in which direction they are off.
    """
    found = quality.quarantined.get(WEEKEND)
    if found is None or found.count <= _SHIFTED * quality.rows:
        return
    there = {day.weekday() for day in dates.astype("datetime64[D]").tolist()}
    names = {0: "Monday: the dates look a day late", 4: "Friday: the dates look a day early"}
    missing = [words for day, words in names.items() if day not in there]
    off = f", and none on a {missing[0]} (a time zone?)" if len(missing) == 1 else ""
    raise BarsError(
        f"{found.count} of {quality.rows} rows fall on a Saturday or Sunday{off}, e.g. "
        f"{found.example.get('date')} in {found.example.get('file')}. Days and months may be "
        "exchanged, or dates shifted: export them as the exchange's local YYYY-MM-DD. Only where "
        "weekends are trading days: --set bars.weekends=true"
    )


def to_days(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """(n,) datetime64[D] of date32, NaT = missing; any year, also after 9999."""
    days = pc.fill_null(column.cast(pa.int32()).cast(pa.int64()), np.iinfo(np.int64).min)
    return np.asarray(days.to_numpy(zero_copy_only=False)).astype("datetime64[D]")


def is_weekend(days: np.ndarray) -> np.ndarray:
    """(n,) bool of (n,) datetime64[D]; False for NaT."""
    return np.asarray(~np.is_busday(days) & ~np.isnat(days))
