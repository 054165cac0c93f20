"""Read the factor as a pandas table, and in the layouts of alphalens and Qlib."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.base.errors import FactorError
from gangru_dist.base.filesystems import Place
from gangru_dist.base.storage import READERS, Storage
from gangru_dist.maths.calendar import Day, to_day
from gangru_dist.panel.block import PanelBlock
from gangru_dist.runs.run import FACTOR, run_folder
from gangru_dist.scoring.files import FILE_SCHEMA, read_rows
from gangru_dist.scoring.table import FactorTable


def read_factor(
    storage: Place,
    run: str,
    start: Day | None = None,
    end: Day | None = None,
    *,
    as_of: int | dt.datetime | None = None,
) -> pd.DataFrame:
    """The factor of a run, one row per (date, asset), sorted by both.

    Args:
        storage: Root URI of the runs, as `--storage`.
        run: Name of the run, as `--run`.
        start: First day; None = from the beginning.
        end: Last day, inclusive; None = to the end.
        as_of: Read an earlier version, by number or time (UTC if without zone). Versions older
            than a week may have been removed by `gangru score --vacuum`.

    Returns:
        Columns: date (datetime64), asset, score (pRet, any unit; with several seeds the mean of
        their z-scores), factor (mean 0, standard deviation 1 per day; NaN on a day with too few
        assets), quantile (1 = lowest; 0 where there is no factor), window (refit day), model
        (hash of the weights). Days are always complete: a job's rows appear in one commit.

    Raises:
        FactorError: There is no such table or version, or a file of it is gone or damaged.
    """
    factor = run_folder(Storage(storage), run).child(FACTOR)
    table = FactorTable(factor)
    table.require(as_of)
    low = to_day(start, "start") or dt.date.min
    high = to_day(end, "end") or dt.date.max
    paths = [
        path
        for month, paths in table.list_files().items()
        if f"{low:%Y-%m}" <= month <= f"{high:%Y-%m}"
        for path in paths
    ]
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(partial(read_rows, factor), paths))
    rows = pa.concat_tables([FILE_SCHEMA.empty_table(), *tables])
    date = pc.field("date")
    rows = rows.filter((date >= low) & (date <= high))
    frame: pd.DataFrame = rows.sort_by([("date", "ascending"), ("asset", "ascending")]).to_pandas()
    frame["date"] = pd.to_datetime(frame["date"])
    return frame


def to_alphalens(
    frame: pd.DataFrame, block: PanelBlock
) -> tuple[pd.Series, pd.DataFrame, pd.Series]:
    """Input for `alphalens.utils.get_clean_factor_and_forward_returns`.

    Args:
        frame: From `read_factor`; rows without a factor are left out.
        block: Dense panel over the same days and later ones (for forward returns), read with
            `trading=True` to include industries.

    Returns:
        `factor`: values by (date, asset). `prices`: adjusted closes, dates x assets, NaN on
        suspended days. alphalens enters at the price of the signal day, so shift the prices by
        `-label.entry_lag` rows to match ours. `groupby`: industry of each factor value, empty
        without industries.

    Raises:
        FactorError: The block lacks a day or an asset that has a factor.
    """
    known = _require_factor(frame).dropna(subset=["factor"])
    if not isinstance(block, PanelBlock):
        raise FactorError("the block is no PanelBlock. Give what read_panel returns.")
    index = pd.MultiIndex.from_frame(known[["date", "asset"]])
    factor = pd.Series(known["factor"].to_numpy(), index=index, name="factor")
    dates = pd.DatetimeIndex(block.dates, name="date")
    assets = pd.Index(block.assets, name="asset")
    prices = pd.DataFrame(block.adj_close, index=dates, columns=assets)
    places = dates.get_indexer(pd.Index(known["date"])), assets.get_indexer(known["asset"])
    strange = index[np.minimum(*places) < 0]
    if len(strange):
        day, asset = strange[0]
        raise FactorError(
            f"{len(strange)} factor values are outside the block of {dates[0]:%Y-%m-%d} to "
            f"{dates[-1]:%Y-%m-%d}, first {day:%Y-%m-%d} {asset}. Read the block from the frame's "
            "first day on."
        )
    if block.industry.shape != block.adj_close.shape:
        return factor, prices, pd.Series(dtype="str", name="group")
    names = np.array([*block.industries, "unknown"], dtype=object)  # code -1 is the last
    return factor, prices, pd.Series(names[block.industry[places]], index, name="group")


def _require_factor(frame: pd.DataFrame) -> pd.DataFrame:
    """Check that this is a factor table; FactorError if it is not."""
    if not isinstance(frame, pd.DataFrame) or not {"date", "asset", "factor"} <= set(frame.columns):
        raise FactorError("the frame is no factor table. Give what read_factor returns.")
    return frame


def to_qlib(frame: pd.DataFrame) -> pd.DataFrame:
    """Qlib's signal: column `score` by (datetime, instrument); 600000.SH becomes SH600000.

    Args:
        frame: From `read_factor`; rows without a factor are dropped.
    """
    known = _require_factor(frame).dropna(subset=["factor"])
    names = known["asset"].astype("str").str.replace(r"^(\d{6})\.(SH|SZ|BJ)$", r"\2\1", regex=True)
    index = pd.MultiIndex.from_arrays([known["date"], names], names=["datetime", "instrument"])
    return pd.DataFrame({"score": known["factor"].to_numpy()}, index=index).sort_index()
