"""From one bucket's checked bars to its panel rows: sort, drop duplicates, features, limits.

Works on flat columns sorted by (code, date); features on dense (K, N) arrays, row k being an
asset's k-th traded day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.bars.formats import PriceLimits
from gangru_dist.bars.price_limits import at_limit, board_of, limit_share
from gangru_dist.bars.quality import Finding
from gangru_dist.bars.tables import SideTable
from gangru_dist.calendar import listing_position
from gangru_dist.errors import BarsError
from gangru_dist.features.price_volume import adjust, compute
from gangru_dist.panel.schema import panel_schema

ASSETS_AT_ONCE = 256
"""Assets in one dense array: bounds memory where a bucket is large."""

_BARS = ("open", "high", "low", "close", "volume", "amount", "adj_factor", "turnover_rate")
_COMPARED = (*_BARS, "market_cap")


Tables = tuple[tuple[SideTable, tuple[str, ...]], ...]
"""Side tables, each with its staged files."""


@dataclass(frozen=True, kw_only=True)
class BucketTask:
    """What every bucket's task must know besides its rows."""

    features: tuple[str, ...]
    """Names, in order."""
    calendar: np.ndarray
    """(days,) datetime64[D]."""
    has_turnover_rate: bool
    """Whether the files bring a turnover rate: all of them, or none."""
    price_limits: PriceLimits
    """Rule of the market."""
    files: tuple[str, ...]
    """Names of the bars' files by number, for messages."""
    tables: Tables = ()
    """What lies beside the bars."""


def panel_rows(bars: pa.Table, task: BucketTask) -> tuple[pa.Table, dict[str, Finding]]:
    """Panel rows of one bucket.

    Args:
        bars: Checked rows (`validate.CHECKED`) of whole assets, in any order.
        task: What the whole build has in common.

    Returns:
        Rows in `panel_schema`, sorted by (asset, date), traded days only; and what was set
        aside as duplicates.

    Raises:
        BarsError: Two rows of one date and code differ.
    """
    bars = _sorted(bars)
    bars, duplicates = _without_duplicates(bars, task.files)
    listed = _list_dates(bars)
    traded = pc.invert(bars["suspended"])
    listed, bars = listed[traded.to_numpy()], bars.filter(traded).combine_chunks()
    columns = {name: bars[name].to_numpy() for name in _COMPARED}
    asset, step = _positions(bars)
    values = _features(columns, asset, step, task)
    up, down = _limits(bars, columns, listed, asset, task)
    table = {
        "date": bars["date"],
        "asset": bars["code"].cast(pa.string()),
        **{name: pa.array(values[:, i]) for i, name in enumerate(task.features)},
        "is_st": bars["is_st"],
        "list_date": pa.array(listed),
        "adj_close": pa.array(columns["close"] * columns["adj_factor"]),
        "market_cap": _null_if_nan(columns["market_cap"]),
        "industry": bars["industry"].cast(pa.string()),
        "limit_up": pa.array(up),
        "limit_down": pa.array(down),
    }
    schema = panel_schema(task.features)
    return pa.table({name: table[name] for name in schema.names}, schema=schema), duplicates


def _sorted(bars: pa.Table) -> pa.Table:
    """By code, then date, then file."""
    code = _dictionary(bars["code"])
    names = code.dictionary.to_pylist()
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(np.array(names, dtype=object))] = np.arange(len(names))
    order = np.lexsort((bars["file"].to_numpy(), _days(bars), rank[code.indices.to_numpy()]))
    return bars.take(pa.array(order)).combine_chunks()


def _without_duplicates(
    bars: pa.Table, files: Sequence[str]
) -> tuple[pa.Table, dict[str, Finding]]:
    """Drop rows that repeat the one before in every column; refuse those that contradict it."""
    code, date = _codes(bars["code"]), _days(bars)
    again = (code[1:] == code[:-1]) & (date[1:] == date[:-1])
    if not again.any():
        return bars, {}
    for name in (*_COMPARED, "suspended", "is_st", "industry", "list_date"):
        differs = again & ~_same_as_before(bars[name])
        if differs.any():
            raise _contradiction(bars, name, int(np.flatnonzero(differs)[0]), files)
    first = int(np.flatnonzero(again)[0]) + 1
    row = bars.slice(first, 1).to_pylist()[0]
    example = {"file": files[row["file"]], "date": str(row["date"]), "code": row["code"]}
    finding = Finding(count=int(again.sum()), example=example)
    keep = pa.array(np.concatenate([[True], ~again]))
    return bars.filter(keep).combine_chunks(), {"identical duplicate": finding}


def _contradiction(bars: pa.Table, name: str, index: int, files: Sequence[str]) -> BarsError:
    one, two = bars.slice(index, 2).to_pylist()
    return BarsError(
        f"two rows of {one['date']} {one['code']} contradict each other: {name}={one[name]} in "
        f"{files[one['file']]}, {name}={two[name]} in {files[two['file']]}. Every (date, code) "
        "must be unique; remove the wrong one."
    )


def _same_as_before(column: pa.ChunkedArray) -> np.ndarray:
    """(n - 1,) bool: each value equals the one before; missing equals missing."""
    if pa.types.is_dictionary(column.type):
        values = _codes(column)
    elif pa.types.is_date(column.type):
        values = pc.fill_null(column.cast(pa.int32()), -(2**31)).to_numpy()
    else:
        values = column.to_numpy()
    same = values[1:] == values[:-1]
    if values.dtype.kind == "f":
        same |= np.isnan(values[1:]) & np.isnan(values[:-1])
    return np.asarray(same)


def _list_dates(bars: pa.Table) -> np.ndarray:
    """(n,) datetime64[D], one a asset: what its first row says, else the first row's date.

    Later rows have no say, so that later bars cannot change an earlier day.
    """
    date = bars["date"].to_numpy().astype("datetime64[D]")
    given = bars["list_date"].to_numpy().astype("datetime64[D]")
    start = _starts(_codes(bars["code"]))
    first = np.fmin(given[start], date[start])
    return np.asarray(np.repeat(first, np.diff(np.append(start, len(bars)))))


def _positions(bars: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(n,) number of each row's asset, and (n,) of the row within its asset."""
    start = _starts(_codes(bars["code"]))
    lengths = np.diff(np.append(start, len(bars)))
    asset = np.repeat(np.arange(len(start)), lengths)
    return asset, np.arange(len(bars)) - np.repeat(start, lengths)


def _features(
    columns: dict[str, np.ndarray], asset: np.ndarray, step: np.ndarray, task: BucketTask
) -> np.ndarray:
    """(n, F) float32 of the flat rows, through dense arrays of some assets at a time."""
    result = np.empty((len(asset), len(task.features)), dtype=np.float32)
    assets = int(asset[-1]) + 1 if len(asset) else 0
    for low in range(0, assets, ASSETS_AT_ONCE):
        rows = slice(*np.searchsorted(asset, [low, low + ASSETS_AT_ONCE]))
        k, n = step[rows], asset[rows] - low
        shape = (int(k.max()) + 1, int(n.max()) + 1)
        dense = {}
        for name in _COMPARED:
            dense[name] = np.full(shape, np.nan)
            dense[name][k, n] = columns[name][rows]
        adjusted = adjust(dense, has_turnover_rate=task.has_turnover_rate)
        result[rows] = compute(adjusted, task.features)[k, n]
    return result


def _limits(
    bars: pa.Table,
    columns: dict[str, np.ndarray],
    listed: np.ndarray,
    asset: np.ndarray,
    task: BucketTask,
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool twice: closed at the upper limit, at the lower."""
    if task.price_limits == "none" or not len(bars):
        return np.zeros(len(bars), dtype=bool), np.zeros(len(bars), dtype=bool)
    date = bars["date"].to_numpy().astype("datetime64[D]")
    reference = np.full(len(bars), np.nan)
    same = asset[1:] == asset[:-1]
    adjusted = columns["close"] * columns["adj_factor"]
    reference[1:][same] = (adjusted[:-1] / columns["adj_factor"][1:])[same]
    since = np.searchsorted(task.calendar, date) - listing_position(task.calendar, listed)
    names = _dictionary(bars["code"])
    board = board_of(np.array(names.dictionary.to_pylist()))[names.indices.to_numpy()]
    share = limit_share(board, date, since, bars["is_st"].to_numpy())
    return at_limit(columns["close"], reference, share)


def _starts(codes: np.ndarray) -> np.ndarray:
    """Index of the first row of each run of equal codes."""
    if not len(codes):
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))


def _dictionary(column: pa.ChunkedArray) -> pa.DictionaryArray:
    array = column.combine_chunks()
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) number of each row's text; -1 is null."""
    return np.asarray(pc.fill_null(_dictionary(column).indices, -1).to_numpy())


def _days(bars: pa.Table) -> np.ndarray:
    return np.asarray(bars["date"].cast(pa.int32()).to_numpy())


def _null_if_nan(values: np.ndarray) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))
