"""Daily price limits of the A-share market: a stock that closed at its limit could not be traded.

The code tells the board: STAR 688, 689; ChiNext 300, 301, 302; Beijing 43, 83, 87, 88, 92; main:
the rest. `LIMITS` has their rules by date. Not modeled: suspensions during the day, B shares' ticks
of 0.001, the 44 % of a main-board stock's first day.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from gangru_dist.bars.codes import normalize_code
from gangru_dist.bars.formats import STATED_LIMITS
from gangru_dist.bars.values import encode, is_as_before
from gangru_dist.panel import jumps

LIMITS = (
    # The exchanges' notice of December 1996.
    ("main", str(jumps.LIMITS_SINCE), 0.10, 0.10, 1),
    # Listing rules of 1998: special treatment.
    ("main", "1998-04-22", 0.10, 0.05, 1),
    # Trading rules of 2023: registration.
    ("main", "2023-04-10", 0.10, 0.05, 5),
    # The exchanges' "notice on the price limit of risk-warning stocks of the main board", draft of
    # 2025-06-27. Its day is from public reports (akfamily/akquant#249,
    # simonlin1212/TradingAgents-astock#85; rustdx-complete measured it): the text was not found.
    ("main", "2026-07-06", 0.10, 0.10, 5),
    # Shanghai's special rules for trading on the STAR market, 2019: registration.
    ("star", "1990-01-01", 0.20, 0.20, 5),
    ("chinext", "1990-01-01", 0.10, 0.05, 1),
    # Shenzhen's special rules for trading on ChiNext, 2020: registration.
    ("chinext", "2020-08-24", 0.20, 0.20, 5),
    # Beijing's trading rules of 2021.
    ("beijing", "1990-01-01", 0.30, 0.30, 1),
)
"""Board, first day; limit as a fraction of the reference price, and the same under special
treatment; days from the listing on that have none. There are none before the first row."""
FREE_LEAVING = np.datetime64("2020-12-31", "D")
"""From this day on, the first day of a stock's delisting period has no limit; the board's own, not
that of special treatment, holds in it. Listing rules of December 2020."""
_BOARDS = {
    **dict.fromkeys(("688", "689"), "star"),
    **dict.fromkeys(("300", "301", "302"), "chinext"),
    **dict.fromkeys(("43", "83", "87", "88", "92"), "beijing"),
}
_TICK = 0.01  # CNY


def find_boards(codes: pa.DictionaryArray) -> np.ndarray:
    """(n,) str: main, star, chinext or beijing, by the six digits in any vendor's spelling."""
    boards = []
    for code in codes.dictionary.to_pylist():
        digits = normalize_code(code)[:6]
        if not digits.isdigit():
            digits = "".join(c for c in code if c.isdigit()).zfill(6)[:6]
        found = [board for start, board in _BOARDS.items() if digits.startswith(start)]
        boards.append(found[0] if found else "main")
    return np.asarray(np.array(boards, dtype="U8")[codes.indices.to_numpy()])


def limit_share(
    board: np.ndarray, date: np.ndarray, listed_days: np.ndarray, is_st: np.ndarray
) -> Float[np.ndarray, " n"]:
    """Largest move of a day as a fraction of the reference price, by `LIMITS`.

    Infinite where there is none.

    Args:
        board: (n,) of `find_boards`.
        date: (n,) datetime64[D].
        listed_days: (n,) trading days since listing, 0 on the first day.
        is_st: (n,) bool, special treatment that day.
    """
    limits, free_days = np.full(len(date), np.inf), np.zeros(len(date))
    for name, first, share, share_st, days in LIMITS:
        holds = (board == name) & (date >= np.datetime64(first))
        limits[holds] = np.where(is_st[holds], share_st, share)
        free_days[holds] = days
    return np.where((listed_days >= 0) & (listed_days < free_days), np.inf, limits)


def find_limits(bars: pa.Table, date: np.ndarray, since: np.ndarray) -> Float[np.ndarray, " n"]:
    """Largest moves of sorted rows, `since` trading days after their listings."""
    leaving, marked = (bars[name].to_numpy() for name in ("is_delisting", "is_st"))
    limit = limit_share(find_boards(encode(bars["code"])), date, since, marked & ~leaving)
    first = leaving & is_as_before(bars["code"]) & (date >= FREE_LEAVING)
    first[1:] &= ~leaving[:-1]
    limit[first] = np.inf
    return limit


def at_limit(
    close: Float[np.ndarray, " n"], reference: Float[np.ndarray, " n"], share: np.ndarray
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Whether each close stands at its upper, and at its lower, price limit.

    Args:
        close: Currency per share as traded.
        reference: Previous close, adjusted for today's ex-right and dividend; NaN = none.
        share: Of `limit_share`.

    Returns:
        Two arrays; False where there is no reference price, and where the close is beyond the
        limit: the reference is not the exchange's then, as after a row that was set aside.
    """
    base = _round(reference)
    with np.errstate(invalid="ignore"):
        upper, lower = _round(base * (1 + share)), _round(base * (1 - share))
        up = (close >= upper - _TICK / 2) & (close <= upper + 1.5 * _TICK)
        return up, (close <= lower + _TICK / 2) & (close >= lower - 1.5 * _TICK)


def at_stated_limit(
    columns: Mapping[str, np.ndarray], up: np.ndarray, down: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The two of `at_limit`, by the limits that the exchange states where the day's prices fit.

    Args:
        columns: high, low, close and `STATED_LIMITS`, (n,) each, currency per share as traded.
        up: (n,) bool, what stands where none is stated or the prices break it.
        down: The same of the lower limit.
    """
    upper, lower = (columns[name] for name in STATED_LIMITS)
    with np.errstate(invalid="ignore"):
        fits = columns["high"] <= upper + _TICK / 2
        fits &= columns["low"] >= lower - _TICK / 2
        up = np.where(fits, columns["close"] >= upper - _TICK / 2, up)
        return up, np.where(fits, columns["close"] <= lower + _TICK / 2, down)


def _round(price: np.ndarray) -> np.ndarray:
    """To the tick, halves up as the exchange does, whatever a float makes of 1.005."""
    return np.asarray(np.floor(price / _TICK + 0.5 + 1e-6) * _TICK)
