"""Check the dates of the bars: which are possible, and which are trading days.

A date outside the market's span stops the build, for a panel that ends in 2081 can never be
appended to again. Rows of Saturdays and Sundays, and of days on which almost no stock traded, are
set aside. Decisions about a day rest on days before it, so that later bars never change them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from gangru_dist.bars.columns import Origin, convert
from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.quality import Finding, Quality
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
INCOMPLETE = "newest day with less than half of the market"
FEW = "day with less than half of the market, not the newest"
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

    def outside(self, days: np.ndarray) -> np.ndarray:
        """(n,) bool of (n,) datetime64[D]: dates outside the span; NaT is none."""
        return np.asarray((days < self.first) | (days > self.last) | (days == EPOCH))

    def reasons(self, days: np.ndarray) -> dict[str, np.ndarray]:
        """Reason -> (n,) bool of (n,) datetime64[D]: days in the span that are no trading days."""
        if self.calendar is not None:
            return {UNLISTED: ~np.isnat(days) & ~np.isin(days, self.calendar)}
        return {} if self.weekends else {WEEKEND: is_weekend(days)}


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketDays:
    """Days of all bars together."""

    calendar: np.ndarray
    """(days,) datetime64[D], ascending: the trading days."""
    closed: np.ndarray
    """(days,) datetime64[D]: days with rows that are no trading days; their rows are dropped."""
    quality: Quality
    """What is odd about them."""


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
    outside = rule.outside(days)
    if outside.any():
        row = int(np.argmax(outside))
        is_early = _EARLIEST <= days[row] < rule.first and days[row] != EPOCH
        early = f", or --set bars.first_day={days[row]} if meant" if is_early else ""
        raise origin.error(
            f"has {days[row]} in row {origin.first_row + row} ({int(outside.sum())} such rows): no "
            f"day from {rule.first} to {rule.last}, and 1970-01-01 stands for a lost date",
            f"Correct the row{early}",
        )


def find_market_days(
    dates: Sequence[np.ndarray], traded: Sequence[np.ndarray], rule: DayRule
) -> MarketDays:
    """Find the trading days among the days of the bars.

    Args:
        dates: (days,) datetime64[D] of each part, distinct.
        traded: (days,) stocks that traded on each of them.
        rule: An explicit calendar overrides the number of stocks.

    Raises:
        BarsError: The days are so far apart that these are no daily bars.
    """
    days, count = sum_by_day(dates, traded)
    listed = rule.calendar
    market = _market(count)
    thin = (count < THIN_SHARE * market) & (listed is None)
    calendar, notes = days[~thin], {}
    _check_daily(calendar)
    if len(calendar) and count[~thin][-1] < _HALF * market[~thin][-1]:
        newest = {"date": str(calendar[-1]), "stocks": int(count[~thin][-1])}
        notes[INCOMPLETE] = Finding(count=1, example=newest)
    few = np.flatnonzero(count[~thin][:-1] < _HALF * market[~thin][:-1])
    if len(few):
        notes[FEW] = _of_days(calendar[few], count[~thin][few].astype(int))
    gaps = np.flatnonzero(np.diff(calendar) > np.timedelta64(_HOLE, "D"))
    if len(gaps):
        between = {"after": str(calendar[gaps[0]]), "before": str(calendar[gaps[0] + 1])}
        notes[HOLE] = Finding(count=len(gaps), example=between)
    if listed is not None and len(calendar):
        asked = listed[(listed >= calendar[0]) & (listed <= calendar[-1])]
        lacking = np.setdiff1d(asked, calendar)
        if len(lacking):
            notes[LACKING] = _of_days(lacking)
    elif len(calendar) and not rule.weekends:
        span = np.arange(calendar[0], calendar[-1])
        lost = np.setdiff1d(span[~is_weekend(span)], calendar)
        if len(lost):
            notes[NO_ROW] = _of_days(lost)
    return MarketDays(calendar=calendar, closed=days[thin], quality=Quality(notes=notes))


def _check_daily(calendar: np.ndarray) -> None:
    apart = np.median(np.diff(calendar).astype(int)) if len(calendar) >= _FEWEST_DAYS else 1
    if apart > _APART:
        raise BarsError(
            f"the bars have {len(calendar)} days from {calendar[0]} to {calendar[-1]}, one every "
            f"{apart:g} days: these are weekly or monthly bars. Export daily ones."
        )


def _of_days(days: np.ndarray, stocks: Sequence[int] | np.ndarray = ()) -> Finding:
    """Some days; if given, with the stocks that traded on each."""
    shown = [{"date": str(day)} for day in days[:5]]
    for example, number in zip(shown, stocks, strict=False):
        example["stocks"] = str(number)
    return Finding(count=len(days), example=shown[0], more=tuple(shown[1:]))


def sum_by_day(
    dates: Sequence[np.ndarray], counts: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(days,) distinct dates of all parts, ascending, and (days,) the sums of their counts."""
    if not dates:
        return np.empty(0, "datetime64[D]"), np.empty(0)
    days, where = np.unique(np.concatenate(dates), return_inverse=True)
    return days, np.bincount(where, weights=np.concatenate(counts), minlength=len(days))


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


def _market(count: np.ndarray) -> np.ndarray:
    """(days,) median of traded stocks over `MARKET_DAYS` before; at the start over the first."""
    width = min(MARKET_DAYS, len(count))
    if not width:
        return count
    medians = np.median(np.lib.stride_tricks.sliding_window_view(count, width), axis=1)
    return np.concatenate([np.repeat(medians[0], width), medians])[: len(count)]
