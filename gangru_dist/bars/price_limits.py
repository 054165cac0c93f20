"""Daily price limits of the A-share market: who closed at one and so could not be traded.

| board | code | limit |
|---|---|---|
| main | other | 10 %, ST 5 % |
| STAR | 688, 689 | 20 %; none on the first 5 days |
| ChiNext | 300, 301, 302 | 10 %, ST 5 %; from 2020-08-24 20 %, none on the first 5 days |
| Beijing | 43, 83, 87, 88, 92 | 30 %; none on the first day |

On the main board none applies on the first day (it had 44 %), and from 2023-04-10 on the first
5 days. Source: the exchanges' trading rules. Not modeled: the first day of a stock's delisting
period, suspensions during the day, B shares' ticks of 0.001.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

CHINEXT_REFORM = np.datetime64("2020-08-24", "D")
"""ChiNext: 20 % and registration from this day."""
MAIN_REFORM = np.datetime64("2023-04-10", "D")
"""Main board: registration, first listings from this day."""

_TICK = 0.01  # CNY
_OLD_DAYS = 5


def board_of(codes: np.ndarray) -> np.ndarray:
    """(n,) str: main, star, chinext or beijing, by the six digits in any vendor's spelling."""
    return np.array([_board(str(code)) for code in codes], dtype="U8")


def limit_share(
    board: np.ndarray, date: np.ndarray, listed_days: np.ndarray, is_st: np.ndarray
) -> Float[np.ndarray, " n"]:
    """Largest move of a day as a fraction of the reference price; infinite where there is none.

    Args:
        board: (n,) of `board_of`.
        date: (n,) datetime64[D].
        listed_days: (n,) trading days since listing, 0 on the first day.
        is_st: (n,) bool, special treatment that day.
    """
    free = (board == "star") | ((board == "chinext") & (date >= CHINEXT_REFORM))
    share = np.where(is_st & (board != "beijing") & ~free, 0.05, 0.10)
    share[free] = 0.20
    share[board == "beijing"] = 0.30
    registered = free | ((board == "main") & (date >= MAIN_REFORM))
    unlimited = np.where(registered, _OLD_DAYS, 1)
    early = (listed_days >= 0) & (listed_days < unlimited)
    return np.where(early, np.inf, share)


def at_limit(
    close: Float[np.ndarray, " n"], reference: Float[np.ndarray, " n"], share: np.ndarray
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Whether each close stands at its upper, and at its lower, price limit.

    Args:
        close: Currency per share as traded.
        reference: Previous close, adjusted for today's ex-right and dividend; NaN = none.
        share: Of `limit_share`.

    Returns:
        Two arrays; False where there is no reference price.
    """
    base = _round(reference)
    with np.errstate(invalid="ignore"):
        upper, lower = _round(base * (1 + share)), _round(base * (1 - share))
        return close >= upper - _TICK / 2, close <= lower + _TICK / 2


def _round(price: np.ndarray) -> np.ndarray:
    """To the tick, halves up as the exchange does, whatever a float makes of 1.005."""
    return np.asarray(np.floor(price / _TICK + 0.5 + 1e-6) * _TICK)


def _board(code: str) -> str:
    digits = "".join(char for char in code if char.isdigit()).zfill(6)[:6]
    if digits.startswith(("688", "689")):
        return "star"
    if digits.startswith(("300", "301", "302")):
        return "chinext"
    if digits.startswith(("43", "83", "87", "88", "92")):
        return "beijing"
    return "main"
