"""Find one stock under two codes: it would count twice, or as two stocks with half a history each.

Two codes with the same rows are one stock that is exported twice. A code that begins where another
ends, at its price and with its shares, is the same stock under a new code (000022 became 001872).
Both are counted only: no row tells which code is meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pandas as pd
import pyarrow as pa

from gangru_dist.bars.days import to_days
from gangru_dist.bars.quality import Finding, Quality

TWINS = "one history under two codes"
SUCCEEDED = "stock begins where another ends, at its price: one stock under two codes?"

_EVERY = 10
"""Rows are compared on one trading day of so many."""
_FEWEST, _SHARED = 3, 0.5
"""Number and share of a stock's compared rows that another has too."""
_LATEST = 3  # trading days from the last row of one code to the first of the other
_PRICE, _SHARES = np.log(1.12), np.log(1.02)
_ROW = ["open", "high", "low", "close", "volume", "amount"]


def describe_stocks(bars: pa.Table, calendar: np.ndarray) -> pd.DataFrame:
    """What is compared of a bucket's stocks, one row a stock and compared day, ends included.

    Args:
        bars: Trusted rows, sorted by (code, date).
        calendar: (days,) datetime64[D].

    Returns:
        code, position in the calendar, open, close, shares (NaN = unknown), and a hash of the day's
        prices, volume and amount.
    """
    position = np.searchsorted(calendar, to_days(bars["date"]))
    code = bars["code"].cast(pa.string()).to_numpy()
    ends = np.ones(len(bars) + 1, dtype=bool)
    ends[1:-1] = code[1:] != code[:-1]
    there = (position % _EVERY == 0) | ends[1:] | ends[:-1]
    values = pd.DataFrame({name: bars[name].to_numpy()[there] for name in (*_ROW, "market_cap")})
    values = values.assign(code=code[there], position=position[there])
    return pd.DataFrame(
        {
            **{name: values[name] for name in ("code", "position", "open", "close")},
            "shares": values["market_cap"] / values["close"],
            "hash": pd.util.hash_pandas_object(values[["position", *_ROW]], index=False),
        }
    )


def find_twins(parts: Iterable[pd.DataFrame], calendar: np.ndarray) -> Quality:
    """Count the pairs of codes that are one stock; `parts`: of all buckets, `describe_stocks`."""
    stocks = pd.concat(list(parts), ignore_index=True)
    found = {TWINS: _find_equal(stocks), SUCCEEDED: _find_succeeded(stocks, calendar)}
    return Quality(
        notes={
            kind: Finding(count=len(pairs), example=pairs[0], more=tuple(pairs[1:5]))
            for kind, pairs in found.items()
            if pairs
        }
    )


def _find_equal(stocks: pd.DataFrame) -> list[dict[str, str]]:
    """Pairs of codes that share most of their rows."""
    same = stocks[stocks.duplicated("hash", keep=False)]
    shared: Counter[tuple[str, str]] = Counter()
    for _, codes in same.groupby("hash")["code"]:
        shared.update(combinations(sorted(codes), 2))
    rows = stocks["code"].value_counts()
    return [
        {"code": one, "other": two}
        for (one, two), count in sorted(shared.items())
        if count >= max(_FEWEST, _SHARED * min(rows[one], rows[two]))
    ]


def _find_succeeded(stocks: pd.DataFrame, calendar: np.ndarray) -> list[dict[str, str]]:
    """Pairs of codes of which the second goes on where the first ends."""
    by_code = stocks.sort_values(["code", "position"]).groupby("code", as_index=False)
    first, last = by_code.first(), by_code.last()
    last = last[last["position"] < len(calendar) - 1].rename(columns="{}_was".format)
    first = first[first["position"] > 0]
    later = [last.assign(position=last["position_was"] + days) for days in range(_LATEST + 1)]
    pairs = pd.concat(later).merge(first, on="position")
    price = np.abs(np.log(pairs["open"] / pairs["close_was"]))
    shares = np.abs(np.log(pairs["shares"] / pairs["shares_was"]))
    pairs = pairs[(price <= _PRICE) & ~(shares > _SHARES)]
    return [
        {"code": str(was), "other": str(code), "date": str(calendar[position])}
        for was, code, position in zip(
            pairs["code_was"], pairs["code"], pairs["position"], strict=True
        )
    ]
