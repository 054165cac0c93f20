"""The trading calendar, a sorted datetime64[D] array, and the rolling windows over it.

No label of a window ends after its refit day R, and no training label reaches past the first
validation day. With every 5th day, a label of 21 days and R the last index:

    index        R-399 ........................ R-21 ........ R | R+1 ........ next R
    train/valid  t   t   t   t   t   t | v   v   v              |
    label ends   .....................................   <= R   |
    scored                                                      | every day
"""

from __future__ import annotations

import calendar as months
import datetime as dt
from dataclasses import dataclass

import numpy as np

from gangru_dist.base.errors import ConfigError, WindowError
from gangru_dist.config.settings import LabelConfig, WindowConfig

Day = dt.date | np.datetime64 | str | int
"""A day as a user gives it; `to_day` reads it."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """One refit. Days are indices into the trading calendar."""

    name: str
    """Refit day, ISO."""
    refit: int
    """Refit day: the last day whose close may be used."""
    train_days: tuple[int, ...]
    """Ascending."""
    valid_days: tuple[int, ...]
    """Ascending, all after the training days."""
    score_first: int
    """First day scored by this window's model; one past the calendar if there is none."""
    score_last: int
    """Last day scored; `score_first` - 1 if there is none."""


def first_day(window: Window, lookback: int) -> int:
    """Index of the earliest calendar day a window's samples read."""
    return (*window.train_days, *window.valid_days)[0] - lookback + 1


@dataclass(frozen=True, kw_only=True)
class SkippedWindow:
    """A refit day that cannot be trained, and why."""

    name: str
    reason: str


def is_month_over(calendar: np.ndarray, end: np.datetime64) -> bool:
    """Whether no trading day up to `end`, a month's last day, can follow those of the calendar.

    A remaining weekday may be a holiday or not. So may a remaining Saturday or Sunday where the
    calendar has had one (`bars.weekends`).
    """
    week = "1111100" if np.is_busday(calendar).all() else "1111111"
    return bool(np.busday_count(calendar[-1] + 1, end + 1, weekmask=week) <= 0)


def find_refit_days(calendar: np.ndarray, cfg: WindowConfig) -> list[int]:
    """Indices of the last trading day of each refit month [R].

    `calendar` is (D,) datetime64[D], ascending. The last month counts once it is known to be
    over (`is_month_over`). A month without a trading day has no refit day.
    """
    first, last = calendar[0].astype(dt.date), calendar[-1].astype(dt.date)
    found = []
    for year in range(first.year, last.year + 1):
        for month in sorted(set(cfg.refit_months)):
            start = np.datetime64(dt.date(year, month, 1))
            end = np.datetime64(dt.date(year, month, months.monthrange(year, month)[1]))
            index = int(np.searchsorted(calendar, end, side="right")) - 1
            if index >= 0 and calendar[index] >= start and is_month_over(calendar, end):
                found.append(index)
    return found


def _days(
    refit: int, cfg: WindowConfig, label: LabelConfig, lookback: int
) -> tuple[list[int], list[int]]:
    """Training and validation days."""
    newest = refit - label.reach
    oldest = max(refit - cfg.history_days + 1, lookback - 1)
    sampled = list(range(newest, oldest - 1, -cfg.sample_every))[::-1]
    count = max(1, round(len(sampled) * cfg.validation_fraction))
    train, valid = sampled[:-count], sampled[-count:]
    if cfg.embargo and valid:
        train = [day for day in train if day + label.reach <= valid[0]]
    return train, valid


def make_windows(
    calendar: np.ndarray,
    cfg: WindowConfig,
    label: LabelConfig,
    *,
    lookback: int,
) -> tuple[list[Window], list[SkippedWindow]]:
    """All windows between `cfg.first` and `cfg.last`, and those without enough history.

    A window needs `history_days`, or `min_history_days`, plus the first sample's lookback up to its
    refit day.
    """
    windows, skipped = [], []
    refits = find_refit_days(calendar, cfg)
    need = cfg.least_history + lookback - 1
    least = "history_days" if cfg.min_history_days is None else "min_history_days"
    for position, refit in enumerate(refits):
        date = calendar[refit].astype(dt.date)
        if (cfg.first and date < cfg.first) or (cfg.last and date > cfg.last):
            continue
        train, valid = _days(refit, cfg, label, lookback)
        if refit + 1 < need or not train:
            reason = (
                f"{refit + 1} trading days of history up to {date}, {need} needed "
                f"(windows.{least}={cfg.least_history} + samples.lookback={lookback} - 1)"
                if refit + 1 < need
                else f"no training day is left before the first validation day "
                f"(windows.history_days={cfg.history_days}, embargo of {label.reach} days)"
            )
            skipped.append(SkippedWindow(name=str(date), reason=reason))
            continue
        after = refits[position + 1] if position + 1 < len(refits) else len(calendar) - 1
        windows.append(
            Window(
                name=str(date),
                refit=refit,
                train_days=tuple(train),
                valid_days=tuple(valid),
                score_first=refit + 1,
                score_last=after,
            )
        )
    return windows, skipped


def to_day(value: Day | None, what: str) -> dt.date | None:
    """The day of a date, a time stamp, `2019-06-28`, `20190628`; None of None.

    Raises:
        ConfigError: It is none of these; `what` is its name.
    """
    found = value.astype("datetime64[s]").item() if isinstance(value, np.datetime64) else value
    if isinstance(found, dt.datetime):
        found = found.date()
    if found is None or isinstance(found, dt.date):
        return found
    text = str(found).strip().replace("/", "-")
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{what}={value!r} is no day. Give a date, or YYYY-MM-DD.") from None


def select_windows(windows: list[Window], names: list[str]) -> list[Window]:
    """The named windows, in calendar order.

    Raises:
        WindowError: A name is not a refit day; the message lists the refit days.
    """
    known = {window.name: window for window in windows}
    for name in names:
        if name not in known:
            raise WindowError(
                f"{name!r} is not a refit day of this panel and configuration; there are "
                f"{', '.join(known) or 'none'}."
            )
    return [window for window in windows if window.name in set(names)]
