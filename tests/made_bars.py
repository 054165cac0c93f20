"""Bars of a few stocks as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

DAYS = pd.bdate_range("2018-11-12", "2019-04-18")


def walk(frame: pd.DataFrame, rng: np.random.Generator, spread: float) -> np.ndarray:
    """(rows,) closes that a main board's day could have: within its limit, lower on ex-dates.

    `frame` has code, date, adj_factor and perhaps is_st, sorted by code and date.
    """
    noise = np.exp(rng.normal(0, spread, len(frame)))
    special = frame["is_st"] if "is_st" in frame else pd.Series(data=False, index=frame.index)
    close, last = np.empty(len(frame)), {}
    rows = zip(frame["code"], frame["adj_factor"], special, strict=True)
    for row, (code, factor, is_st) in enumerate(rows):
        if code not in last:
            last[code] = 10.0 * factor
        limit, reference = 0.05 if is_st else 0.10, round(last[code] / factor + 1e-9, 2)
        low, high = (round(reference * (1 + sign * limit) + 1e-9, 2) for sign in (-1, 1))
        close[row] = np.clip(round(reference * noise[row], 2), low, high)
        last[code] = close[row] * factor
    return close


def make_bars(seed: int = 0, assets: int = 9) -> pd.DataFrame:
    """Bars with suspended and missing days, late listings, delistings, splits, holes."""
    rng = np.random.default_rng(seed)
    codes = [f"{600000 + i}.SH" for i in range(assets)]
    frame = pd.MultiIndex.from_product([codes, DAYS], names=["code", "date"]).to_frame(index=False)
    count = len(frame)
    number = frame["code"].str[:6].astype(int) - 600000
    exdate = DAYS.to_numpy()[60 + 2 * number % 20]  # no two stocks the same day, as in a market
    frame["adj_factor"] = np.where(frame["date"] < exdate, 1.0, 1.0 + number / 10)
    close = walk(frame, rng, 0.05)
    volume = np.where(rng.random(count) < 0.05, 0, rng.integers(1, 99, count) * 100.0)
    frame = frame.assign(
        open=close, high=close + 0.3, low=close - 0.3, close=close,
        volume=volume,
        amount=volume * (close + 0.6 * rng.random(count) - 0.3),
        market_cap=np.where(rng.random(count) < 0.1, np.nan, 1e7),
        industry=np.array(["bank", "coal", None], dtype=object)[rng.integers(0, 3, count)],
        is_st=rng.random(count) < 0.05,
    )  # fmt: skip
    keep = rng.random(count) < 0.95
    keep &= (number != 7) | (frame["date"] > DAYS[100])  # lists late
    keep &= (number != 8) | (frame["date"] < DAYS[60])  # delists
    return frame[keep].reset_index(drop=True)


def write(folder: Path, frame: pd.DataFrame, cuts: Sequence[pd.Timestamp] = ()) -> None:
    """The bars as files cut at days; what the folder held is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    part = np.searchsorted(np.array(cuts, dtype="M8[ns]"), frame["date"].to_numpy("M8[ns]"), "left")
    for number, rows in frame.groupby(part):
        rows.to_parquet(folder / f"{number}.parquet", index=False)
