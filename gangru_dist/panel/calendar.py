"""Trading days: sorted datetime64[D] arrays and what is counted on them."""

from __future__ import annotations

import numpy as np

from gangru_dist.errors import PanelError


def trading_days(dates: np.ndarray) -> np.ndarray:
    """(days,) datetime64[D], the distinct dates of (n,) datetime64[D], ascending."""
    return np.unique(dates.astype("datetime64[D]"))


def position(calendar: np.ndarray, day: np.datetime64) -> int:
    """Index of a trading day.

    Raises:
        PanelError: It is none; the message names the nearest.
    """
    index = int(np.searchsorted(calendar, day))
    if index < len(calendar) and calendar[index] == day:
        return index
    near = [str(calendar[i]) for i in (index - 1, index) if 0 <= i < len(calendar)]
    raise PanelError(f"{day} is no trading day; the nearest are {' and '.join(near)}.")


def last_on_or_before(calendar: np.ndarray, day: np.datetime64) -> np.datetime64 | None:
    """The last trading day up to `day`; None if all are later."""
    index = int(np.searchsorted(calendar, day, side="right"))
    return np.datetime64(calendar[index - 1], "D") if index else None


def listing_position(calendar: np.ndarray, list_date: np.ndarray) -> np.ndarray:
    """Index of each listing day in the calendar, for counting trading days since.

    Args:
        calendar: (days,) datetime64[D], ascending.
        list_date: (N,) datetime64[D]; NaT = unknown.

    Returns:
        (N,) int32: a day between two trading days counts as the later one; a day before the
        calendar is minus the working days (Monday to Friday) from it to the first; a day after
        it, and an unknown one, is the calendar's length.
    """
    known = ~np.isnat(list_date)
    result = np.full(len(list_date), len(calendar), dtype=np.int32)
    result[known] = np.searchsorted(calendar, list_date[known])
    early = known & (list_date < calendar[0])
    result[early] = -np.busday_count(list_date[early], calendar[0])
    return result
