"""Find duplicates: one stock under two codes, and one day under two dates.

Two codes with the same rows are one stock that is exported twice. A code that begins where another
ends, at its price and with its shares, is the same stock under a new code (000022 became 001872).
Both are only counted: no row tells which code is right.

A day on which most stocks have the prices of one and the same earlier day is that day, delivered
again under another date, perhaps with other volumes. No day of eleven years of the real market
shares the prices of more than 0.3 % of its stocks with an earlier one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import pyarrow as pa

from gangru_dist.bars.quality import PRICES, Example, Quality, count_examples
from gangru_dist.bars.values import encode

TWINS = "one history under two codes"
SUCCEEDED = "stock begins where another ends, at its price: one stock under two codes?"
REPEATED_DAY = "most prices of that day are those of an earlier one: no trading day"

LOOKED_BACK = 20
"""Trading days before a day that it is compared with."""
_MOST, _FEWEST_ROWS = 0.5, 10
"""Share and number of a day's rows that have the prices of an earlier day."""
_EVERY = 10
"""Rows are compared with other stocks' on one trading day of so many."""
_FEWEST, _SHARED = 3, 0.5
"""Number and share of a stock's compared rows that another has too."""
_LATEST = 3  # trading days from the last row of one code to the first of the other
_PRICE, _SHARES = np.log(1.12), np.log(1.02)
_ROW = (*PRICES, "volume", "amount")


@dataclass(frozen=True, kw_only=True, slots=True)
class Histories:
    """What is compared of a bucket's stocks."""

    stocks: pd.DataFrame
    """code, first and last position in the calendar, open and shares of the first row, close and
    shares of the last one (NaN = unknown), and compared rows; one row a stock."""
    owners: np.ndarray
    """(k,) int32, the stock of each compared row."""
    hashes: np.ndarray
    """(k,) uint64 of the row's date, prices, volume and amount."""


def find_repeated_rows(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Find rows with the prices of an earlier row of their stock.

    Args:
        rows: Columns of n rows of whole stocks, as of `jumps.find_jumps`.

    Returns:
        One number for each pair: the row's position in the calendar times `LOOKED_BACK`, plus the
        trading days from the earlier one on, less 1.
    """
    close, position, found = rows["close"], rows["position"], [np.empty(0, dtype=np.int64)]
    for back in range(1, LOOKED_BACK + 1):
        row = np.flatnonzero(close[back:] == close[:-back]) + back
        for name in (*PRICES, "asset"):
            row = row[rows[name][row] == rows[name][row - back]]
        days = position[row] - position[row - back]
        found.append((position[row] * LOOKED_BACK + days - 1)[days <= LOOKED_BACK])
    return np.concatenate(found)


def find_repeated_days(parts: Sequence[np.ndarray], traded: np.ndarray) -> np.ndarray:
    """(days,) trading days from each day back to the one that it repeats; 0 = none.

    Args:
        parts: Of all buckets, `find_repeated_rows`.
        traded: (days,) rows of each trading day.
    """
    pairs = np.concatenate([np.empty(0, dtype=np.int64), *parts])
    count = np.bincount(pairs, minlength=len(traded) * LOOKED_BACK)
    count = count.reshape(len(traded), LOOKED_BACK)
    repeats = count.max(axis=1) >= np.maximum(_FEWEST_ROWS, _MOST * traded)
    return np.where(repeats, count.argmax(axis=1) + 1, 0)


def describe_histories(bars: pa.Table, position: np.ndarray) -> Histories:
    """What is compared of a bucket's stocks.

    Args:
        bars: n trusted rows, sorted by (code, date).
        position: (n,) index of their days in the calendar.
    """
    code, close = encode(bars["code"]), bars["close"].to_numpy()
    own, shares = code.indices.to_numpy(), bars["market_cap"].to_numpy() / close
    first = np.flatnonzero(np.diff(own, prepend=-1))
    last = np.append(first[1:], len(own))[: len(first)] - 1
    there = position % _EVERY == 0
    values = pd.DataFrame({name: bars[name].to_numpy()[there] for name in _ROW})
    stock = np.searchsorted(first, np.flatnonzero(there), side="right") - 1
    return Histories(
        stocks=pd.DataFrame(
            {
                "code": code.dictionary.take(pa.array(own[first])).to_pylist(),
                "first": position[first],
                "last": position[last],
                "open": bars["open"].to_numpy()[first],
                "close": close[last],
                "shares": shares[first],
                "last_shares": shares[last],
                "rows": np.bincount(stock, minlength=len(first)),
            }
        ),
        owners=stock.astype(np.int32),
        hashes=pd.util.hash_pandas_object(
            values.assign(position=position[there]), index=False
        ).to_numpy(),
    )


def find_twins(parts: Sequence[Histories], calendar: np.ndarray) -> Quality:
    """Count the pairs of codes that are one stock; `parts`: of all buckets."""
    stocks = pd.concat([part.stocks for part in parts], ignore_index=True)
    start = np.cumsum([0, *(len(part.stocks) for part in parts)])
    owners = np.concatenate([part.owners + at for part, at in zip(parts, start, strict=False)])
    hashes = np.concatenate([part.hashes for part in parts])
    found = {
        TWINS: _find_equal(stocks, owners, hashes),
        SUCCEEDED: _find_succeeded(stocks, calendar),
    }
    return count_examples(found)


def _find_equal(stocks: pd.DataFrame, owners: np.ndarray, hashes: np.ndarray) -> list[Example]:
    """Pairs of codes that share most of their compared rows."""
    order = np.argsort(hashes, kind="stable")
    again = hashes[order][1:] == hashes[order][:-1]
    same = order[np.append(again, False) | np.append(False, again)] if len(order) else order
    shared: Counter[tuple[int, int]] = Counter()
    for own in pd.Series(owners[same]).groupby(hashes[same]).unique():
        shared.update(combinations(sorted(own), 2))
    rows, code = stocks["rows"], stocks["code"]
    pairs = [
        sorted((code[one], code[two]))
        for (one, two), count in shared.items()
        if count >= max(_FEWEST, _SHARED * min(rows[one], rows[two]))
    ]
    return [{"code": one, "other": two} for one, two in sorted(pairs)]


def _find_succeeded(stocks: pd.DataFrame, calendar: np.ndarray) -> list[Example]:
    """Pairs of codes of which the second goes on where the first ends."""
    ended = stocks[stocks["last"] < len(calendar) - 1].sort_values("code")
    begun = stocks[stocks["first"] > 0].sort_values("code")
    later = [ended.assign(at=ended["last"] + days) for days in range(_LATEST + 1)]
    pairs = pd.concat(later).merge(begun.assign(at=begun["first"]), on="at", suffixes=("_was", ""))
    price = np.abs(np.log(pairs["open"] / pairs["close_was"]))
    shares = np.abs(np.log(pairs["shares"] / pairs["last_shares_was"]))
    other = pairs["code"] != pairs["code_was"]  # of a single row, first and last are one
    pairs = pairs[other & (price <= _PRICE) & ~(shares > _SHARES)]
    return [
        {"code": was, "other": code, "date": str(calendar[at])}
        for was, code, at in zip(pairs["code_was"], pairs["code"], pairs["at"], strict=True)
    ]
