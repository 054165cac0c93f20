"""Trading days: sorted datetime64[D] arrays, and counting on them."""

from __future__ import annotations

import numpy as np


def distinct_days(dates: np.ndarray) -> np.ndarray:
    """(days,) datetime64[D], the distinct dates of (n,) datetime64[D], ascending."""
    return np.unique(dates.astype("datetime64[D]"))


def listing_position(calendar: np.ndarray, list_date: np.ndarray) -> np.ndarray:
    """Index of each listing day in the calendar, to count the trading days since.

    Args:
        calendar: (days,) datetime64[D], ascending.
        list_date: (N,) datetime64[D]; NaT = unknown.

    Returns:
        (N,) int32. A day between two trading days counts as the later one. A day before the
        calendar gives minus the number of weekdays (Monday to Friday) up to its first day. A day
        after the calendar, or an unknown one, gives the calendar's length.
    """
    known = ~np.isnat(list_date)
    result = np.full(len(list_date), len(calendar), dtype=np.int32)
    result[known] = np.searchsorted(calendar, list_date[known])
    early = known & (list_date < calendar[0])
    result[early] = -np.busday_count(list_date[early], calendar[0])
    return result
