"""The signal that the made-up market planted, told from its bars alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from gangru_dist.synthetic import market


def planted_signal(bars: pa.Table) -> pd.DataFrame:
    """The signal that `make_bars` planted, recomputed from bars: a row's from bars up to its day.

    Args:
        bars: As `make_bars` returns them, all dates of the calendar or a first part of them.

    Returns:
        `date` (datetime64), `asset`, `signal` (mean 0 and standard deviation 1 a day), sorted by
        (date, asset); only rows that have a signal: traded that day and on enough of the 40
        days before. High = a high return expected.
    """
    dates, assets, (close, volume, factor) = _grids(bars, ("close", "volume", "adj_factor"))
    activity = np.log1p(volume / factor)
    adjusted = close * factor
    signal = np.full(close.shape, np.nan)
    for end in range(market.LOOKBACK, len(dates) + 1):
        window = slice(end - market.LOOKBACK, end)
        signal[end - 1] = market.signal_of_window(adjusted[window], activity[window])
    row, column = np.nonzero(np.isfinite(signal))
    return pd.DataFrame(
        {"date": dates[row], "asset": assets[column], "signal": signal[row, column]}
    )


def _grids(
    bars: pa.Table, names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Dates, assets and one (D, N) float64 grid a column; NaN where there is no row."""
    dates, row = np.unique(bars["date"].to_numpy(), return_inverse=True)
    code = bars["code"].combine_chunks().dictionary_encode()
    names_of_codes = np.array(code.dictionary.to_pylist())
    order = np.argsort(names_of_codes)
    column = np.argsort(order)[code.indices.to_numpy()]
    grids = [np.full((len(dates), len(order)), np.nan) for _ in names]
    for grid, name in zip(grids, names, strict=True):
        grid[row, column] = bars[name].to_numpy()
    return dates, names_of_codes[order], grids
