"""Derive the adjustment factor from what vendors give instead, and check prices called adjusted.

The exchange states each day's previous close less what was paid out, `pre_close`; where it differs
from the close of the row before, the factor steps by their ratio. A daily change says the same with
fewer digits; an adjusted close steps with the factor; dividends and new shares give the price
without them. A step depends on its row and the one before, so appended days change no earlier
factor; it is 1 on a stock's first row.

Prices called adjusted are compared with the file's own evidence: amount / volume is a price as
traded, and adjusted prices move away from it.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping

import numpy as np

from gangru_dist.bars.quality import PRICES
from gangru_dist.panel.jumps import LEAST_LIMIT, NEIGHBORS, SLACK, JumpSums, shift

NO_SOURCE = "what gives adj_factor is missing or no day's move, taken as no ex-date"
LOST = "previous close after days without a row is another, taken as lost rows and no ex-date"
ROUNDED = 1e-6
"""Relative: prices that a vendor keeps as float32 are off by 1e-7."""
CHANGE_ROUNDED = 6e-5
"""Of a daily change in per cent with two decimals."""
SHIFT = 0.01
"""Logarithm by which the price per share paid leaves the prices from one week to the next."""
YEAR = np.timedelta64(365, "D")
_COPIED = (*PRICES, "volume")
_WEEK = 5  # rows
_CENT = 0.01
_WHOLE = 1e-3  # of a share
_TWICE_ROUNDED = 0.011  # of two prices with two decimals each, adjusted ones
_LEAST_STATED = 0.003  # a dividend; what is less is rounding


def find_ratios(
    rows: Mapping[str, np.ndarray], source: str, *, slack: float = 0.0
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Find the steps of the factor.

    Args:
        rows: Columns of n traded rows of whole stocks, sorted by (asset, date): asset, position,
            date, limit and close as of `jumps.find_jumps`, the source, and perhaps days, since the
            stock's row before, suspended ones included.
        source: One of `formats.FACTOR_SOURCES`.
        slack: Currency by which two prices may differ and be the same.

    Returns:
        (n,) factor over that of the row before, 1 where nothing was paid out; and note -> (n,)
        bool: `NO_SOURCE`, rows whose source is missing or of a move that no day allows, which says
        nothing, nor does the next row's of its close; `LOST`, rows after a few days without one
        whose previous close is another.
    """
    lost = np.zeros(len(rows["close"]), dtype=bool)
    close, value = rows["close"], rows[source]
    same = np.diff(rows["asset"], prepend=-1) == 0
    before = shift(close)
    with np.errstate(all="ignore"):
        if source == "adj_close":
            share = value / close
            error = ROUNDED + 1e-5 + (_find_rounding(value, rows["asset"]) + slack) / value
            ratio = share / shift(share)
            moved = np.abs(np.log(ratio)) > error + shift(error)
            bad = same & ~((value > 0) & np.isfinite(value))
        elif source == "dividend":
            shares = 1 + np.nan_to_num(rows.get("bonus_shares", np.zeros(len(close))))
            after = (before - np.nan_to_num(value)) / shares
            # an exchange with limits states its reference price in cents
            in_cents = ~np.isnan(rows["limit"]) & _is_round(before)
            ratio = before / np.where(in_cents, np.round(after + 1e-9, 2), after)
            moved = (np.nan_to_num(value) > 0) | (shares > 1)
            bad = same & ((after <= 0) | np.isinf(value) | (value < 0))
        else:
            pre, error = value, ROUNDED * before + slack
            if source == "daily_change":
                pre = close / (1 + value)
                error = CHANGE_ROUNDED * pre / (1 + value) + slack
            moved = np.abs(pre - before) > error
            if source == "daily_change":
                in_cents = _is_round(close) & _is_round(before) & (error < _CENT / 2)
                pre = np.where(in_cents, np.round(pre, 2), pre)
            ratio = before / pre
            limit = np.where(np.isnan(rows["limit"]), np.inf, rows["limit"])
            far = np.abs(close / pre - 1) > np.maximum(limit, LEAST_LIMIT) + SLACK + _CENT / pre
            far &= np.diff(rows["position"], prepend=0) <= NEIGHBORS
            bad = same & (far | ~((pre > 0) & np.isfinite(pre)))
            moved &= ~(shift(bad) == 1)
            # over 700 short suspensions of two years of the market only 5 had an ex-date
            days = rows.get("days", np.diff(rows["position"], prepend=0))
            lost = same & moved & (days > 1) & (days <= _WEEK)
            lost &= np.abs(np.log(ratio)) < days * np.log1p(LEAST_LIMIT)
    # a copy of the row before states that row's previous close
    copied = np.all([np.diff(rows[name], prepend=np.nan) == 0 for name in _COPIED], axis=0)
    moved &= same & ~bad & ~lost & ~copied & (ratio > 0) & np.isfinite(ratio)
    return np.where(moved, ratio, 1.0), {NO_SOURCE: bad, LOST: lost}


def derive_factor(
    rows: Mapping[str, np.ndarray], source: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(n,) cumulative backward factor, 1 on a stock's first row; and notes of `find_ratios`."""
    ratio, notes = find_ratios(rows, source)
    start = np.flatnonzero(np.diff(rows["asset"], prepend=-1))
    factor = np.ones(len(ratio))
    for stock in np.split(np.arange(len(ratio)), start[1:]):
        # stock by stock, so that no other stock changes the last digit
        factor[stock[1:]] = np.cumprod(ratio[stock[1:]])
    return factor, notes


def find_evidence(
    rows: Mapping[str, np.ndarray],
    *,
    source: str | None,
    is_listed: np.ndarray,
    lot: float,
    unit: float,
    paid: bool,
) -> JumpSums:
    """What whole histories say of prices that are called adjusted, for `jump_checks` to judge.

    Args:
        rows: As of `find_ratios`, with `quality.NUMBERS`.
        source: One of `formats.FACTOR_SOURCES` that the rows have, if any.
        is_listed: (n,) bool, rows of stocks of an exchange whose companies pay dividends.
        lot: Shares that the volume is rounded to.
        unit: Currency that the amount is rounded to.
        paid: Whether amount and volume are those of the day as traded.
    """
    asset, date = rows["asset"], rows["date"]
    yearly = find_yearly(rows)
    sums = {"yearly": int((yearly & is_listed).sum())}
    days: dict[str, Counter[dt.date]] = {}
    if source is not None:
        next_day = np.diff(asset, prepend=-1) == 0
        next_day &= (np.diff(rows["position"], prepend=0) == 1) & np.isfinite(rows[source])
        ratio, _ = find_ratios(rows, source, slack=_TWICE_ROUNDED)
        sums["stated"] = int((next_day & (np.abs(np.log(ratio)) > _LEAST_STATED)).sum())
        sums["compared"] = int(next_day.sum())
    low, high, volume, amount = (rows[name] for name in ("low", "high", "volume", "amount"))
    known = (amount > 0) & (volume > 0)
    if paid and known.any():
        with np.errstate(all="ignore"):
            off = amount + unit < low * (1 - 1e-4) * np.maximum(volume - lot, 0)
            off |= amount - unit > high * (1 + 1e-4) * (volume + lot)
            level = np.log(amount / volume) - np.log((low + high + rows["close"]) / 3)
        judged = known & yearly
        sums |= {"paid": int(judged.sum()), "outside": int((off & judged).sum())}
        sums["whole"] = int((judged & (np.abs(volume - np.rint(volume)) < _WHOLE)).sum())
        shift = _find_shifts(np.where(known, level, np.nan), asset)
        days["weeks_on_day"] = Counter(date[np.isfinite(shift)].tolist())
        days["shifts_on_day"] = Counter(date[np.abs(shift) > SHIFT].tolist())
    return JumpSums(**sums, **days)  # type: ignore[arg-type]


def find_yearly(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n,) bool, rows of stocks with a year of rows or more: few pay nothing in so long a time."""
    start = np.flatnonzero(np.diff(rows["asset"], prepend=-1))
    size = np.diff(np.append(start, len(rows["asset"])))
    last = rows["date"][start + size - 1]
    return np.repeat(last - rows["date"][start] >= YEAR, size)


def _find_shifts(level: np.ndarray, asset: np.ndarray) -> np.ndarray:
    """(n,) median of a row and the four after it less that of the five before; NaN at the ends."""
    result = np.full(len(level), np.nan)
    if len(level) < 2 * _WEEK:
        return result
    weeks = np.lib.stride_tricks.sliding_window_view(level, _WEEK)
    middle = np.median(weeks, axis=1)
    at = np.arange(_WEEK, len(level) - _WEEK + 1)
    one_stock = asset[at - _WEEK] == asset[at + _WEEK - 1]
    result[at] = np.where(one_stock, middle[at] - middle[at - _WEEK], np.nan)
    return result


def _find_rounding(values: np.ndarray, asset: np.ndarray) -> np.ndarray:
    """(n,) half a unit of the last decimal that a stock's values have shown so far; 0 from 5 on."""
    decimals = np.full(len(values), 9)
    for places in (4, 3, 2):
        scaled = values * 10.0**places
        decimals[np.abs(scaled - np.rint(scaled)) < 2e-7 * np.abs(scaled)] = places
    # the most so far within a stock
    most = np.maximum.accumulate(asset * 10.0 + decimals) - asset * 10.0
    return np.where(most < 9, 0.5 * 10.0**-most, 0.0)


def _is_round(price: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(price - np.round(price, 2)) < ROUNDED * price)
