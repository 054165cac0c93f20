"""From one bucket's checked bars to its panel rows: sort, set aside, features, limits.

Works on flat columns sorted by (code, date); features on dense (K, N) arrays, row k being an
asset's k-th traded day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.bars.columns import dictionary_of
from gangru_dist.bars.dated import Members
from gangru_dist.bars.days import THIN
from gangru_dist.bars.formats import BarsFormat, SideTable
from gangru_dist.bars.identities import JUDGED
from gangru_dist.bars.price_limits import at_limit, board_of, limit_share
from gangru_dist.bars.quality import Example, Finding, Quality
from gangru_dist.bars.rows import CHECKED
from gangru_dist.base.errors import BarsError
from gangru_dist.features.price_volume import adjust, compute
from gangru_dist.maths.calendar import listing_position
from gangru_dist.panel import moves
from gangru_dist.panel.manifest import MEMBER, panel_schema

ASSETS_AT_ONCE = 256
"""Assets in one dense array: bounds memory where a bucket is large."""


Tables = tuple[tuple[SideTable, tuple[str, ...]], ...]
"""Side tables, each with its staged files."""


@dataclass(frozen=True, kw_only=True)
class BucketTask:
    """What all buckets have in common."""

    features: tuple[str, ...]
    """Names, in order."""
    calendar: np.ndarray
    """(days,) datetime64[D]."""
    has_turnover_rate: bool
    """Whether the files bring a turnover rate: all of them, or none."""
    form: BarsFormat
    """Units, for what was rounded away, and the market's price limits."""
    files: tuple[str, ...]
    """Names of the bars' files by number, for messages."""
    tables: Tables = ()
    """What lies beside the bars."""
    members: Members | None = None
    """Of an index; None = nobody is marked."""
    closed: np.ndarray = field(default_factory=lambda: np.empty(0, "datetime64[D]"))
    """(days,) datetime64[D], days with rows that are no trading days."""


@dataclass(frozen=True, kw_only=True)
class TradedRows:
    """Rows of one bucket that can be trusted, sorted by (code, date), traded days only."""

    bars: pa.Table
    """Columns of `validate.CHECKED`."""
    listed: np.ndarray
    """(n,) datetime64[D], each row's listing day."""
    limit: np.ndarray
    """(n,) largest move of the day, a fraction; infinite = none, NaN = not known."""


def panel_rows(rows: TradedRows, task: BucketTask) -> pa.Table:
    """Panel rows of one bucket: `panel_schema`, sorted by (asset, date), traded days only."""
    bars, listed = rows.bars, rows.listed
    columns = {name: bars[name].to_numpy() for name in (*JUDGED, *task.form.further)}
    asset, step = _positions(bars)
    values = _features(columns, asset, step, task)
    up, down = _limits(columns, asset, rows.limit)
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
    if task.members is not None:
        days = bars["date"].to_numpy().astype("datetime64[D]")
        table[MEMBER] = pa.array(task.members.member(dictionary_of(bars["code"]), days))
    schema = panel_schema(task.features, members=task.members is not None)
    return pa.table({name: table[name] for name in schema.names}, schema=schema)


def traded_rows(bars: pa.Table, task: BucketTask) -> tuple[TradedRows, Quality, moves.Moves]:
    """Rows of one bucket that can be trusted.

    Args:
        bars: Checked rows (`validate.CHECKED`) of whole assets, in any order.
        task: What the whole build has in common.

    Returns:
        The rows; what was set aside or is odd; and what only the whole market can judge.

    Raises:
        BarsError: Two rows of one date and code differ.
    """
    bars, closed = _without_closed(_sorted(bars), task)
    bars, duplicates = _without_duplicates(bars, task.files)
    listed, late = _list_dates(bars)
    unsold = _moves_without_volume(bars, task.files)
    traded = pc.invert(bars["suspended"])
    listed, bars = listed[traded.to_numpy()], bars.filter(traded).combine_chunks()
    asset, _ = _positions(bars)
    limit = _limit_shares(bars, listed, task)
    date = bars["date"].to_numpy().astype("datetime64[D]")
    history = moves.History(
        columns={name: bars[name].to_numpy() for name in JUDGED},
        asset=asset,
        date=date,
        position=np.searchsorted(task.calendar, date),
        limit=limit,
    )
    judged = moves.judge(history)

    def findings(of: Mapping[str, np.ndarray]) -> dict[str, Finding]:
        return {name: _finding(name, history, bars, rows, task.files) for name, rows in of.items()}

    notes = {**findings(judged.notes), **_renamed(bars, asset), **unsold}
    if task.form.prices == "adjusted":  # dividends move an adjusted price and no market cap
        notes.pop(moves.STALE_CAP, None)
    if late:
        notes[moves.LATE_LISTING] = late
    quality = Quality(quarantined={**closed, **duplicates, **findings(judged.reasons)}, notes=notes)
    if not judged.keep.all():
        bars = bars.filter(pa.array(judged.keep)).combine_chunks()
        listed, limit = listed[judged.keep], limit[judged.keep]
    return TradedRows(bars=bars, listed=listed, limit=limit), quality, judged.moves


def _finding(
    kind: str, history: moves.History, bars: pa.Table, rows: np.ndarray, files: Sequence[str]
) -> Finding:
    def example(pair: list[int]) -> Example:
        place = bars.slice(pair[1], 1).select(["code", "file"]).to_pylist()[0]
        file = files[place["file"]]
        return moves.example(kind, history, *pair, code=place["code"], file=file)

    first, *more = map(example, rows[:5].tolist())
    return Finding(count=len(rows), example=first, more=tuple(more))


def _without_closed(bars: pa.Table, task: BucketTask) -> tuple[pa.Table, dict[str, Finding]]:
    """Drop rows of days that are no trading days."""
    gone = np.isin(bars["date"].to_numpy().astype("datetime64[D]"), task.closed)
    if not gone.any():
        return bars, {}
    row = bars.slice(int(np.argmax(gone)), 1).to_pylist()[0]
    example = {"file": task.files[row["file"]], "date": str(row["date"]), "code": row["code"]}
    kept = bars.filter(pa.array(~gone)).combine_chunks()
    return kept, {THIN: Finding(count=int(gone.sum()), example=example)}


def _moves_without_volume(bars: pa.Table, files: Sequence[str]) -> dict[str, Finding]:
    """Suspended rows of which the price is another than the row's before: was nothing traded?"""
    code, close, factor = _codes(bars["code"]), bars["close"].to_numpy(), bars["adj_factor"]
    same = (code[1:] == code[:-1]) & _same_as_before(factor)
    moved = (close[1:] != close[:-1]) & (close[1:] > 0) & (close[:-1] > 0)
    rows = np.flatnonzero(same & moved & bars["suspended"].to_numpy()[1:]) + 1
    if not len(rows):
        return {}
    row = bars.slice(int(rows[0]), 1).select(["file", "date", "code", "close"]).to_pylist()[0]
    example = {**row, "file": files[row["file"]], "date": str(row["date"])}
    example["previous_close"] = float(close[rows[0] - 1])
    return {moves.UNSOLD: Finding(count=len(rows), example=example)}


def _renamed(bars: pa.Table, asset: np.ndarray) -> dict[str, Finding]:
    """Rows of which the industry is another than the row's before."""
    name = _codes(bars["industry"])
    other = (asset[1:] == asset[:-1]) & (name[1:] != name[:-1]) & (name[1:] >= 0) & (name[:-1] >= 0)
    if not other.any():
        return {}
    pair = bars.slice(int(np.argmax(other)), 2).select(["code", "date", "industry"])
    before, after = pair.to_pylist()
    example = {
        "date": str(after["date"]),
        "code": after["code"],
        "previous_industry": before["industry"],
        "industry": after["industry"],
    }
    return {moves.RENAMED: Finding(count=int(other.sum()), example=example)}


def _sorted(bars: pa.Table) -> pa.Table:
    """By code, then date, then file."""
    code = dictionary_of(bars["code"])
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
    further = [name for name in bars.column_names if name not in CHECKED.names]
    for name in (*JUDGED, *further, "suspended", "is_st", "industry", "list_date"):
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


def _list_dates(bars: pa.Table) -> tuple[np.ndarray, Finding | None]:
    """(n,) datetime64[D], one a asset: what its first row says, else the first row's date.

    Later rows are ignored, so that later bars cannot change an earlier day. A date after the
    first row is not believed, and counted.
    """
    date = bars["date"].to_numpy().astype("datetime64[D]")
    given = bars["list_date"].to_numpy().astype("datetime64[D]")
    start = _starts(_codes(bars["code"]))
    first = np.fmin(given[start], date[start])
    late, found = start[given[start] > date[start]], None
    if len(late):
        row = bars.slice(int(late[0]), 1).select(["code", "date", "list_date"]).to_pylist()[0]
        found = Finding(count=len(late), example={name: str(row[name]) for name in row})
    return np.asarray(np.repeat(first, np.diff(np.append(start, len(bars))))), found


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
        for name in columns:
            dense[name] = np.full(shape, np.nan)
            dense[name][k, n] = columns[name][rows]
        adjusted = adjust(dense, has_turnover_rate=task.has_turnover_rate)
        result[rows] = compute(adjusted, task.features)[k, n]
    return result


def _limit_shares(bars: pa.Table, listed: np.ndarray, task: BucketTask) -> np.ndarray:
    """(n,) largest move of each day, a fraction; NaN where the market's rule is not known."""
    if task.form.price_limits == "none" or not len(bars):
        return np.full(len(bars), np.nan)
    date = bars["date"].to_numpy().astype("datetime64[D]")
    since = np.searchsorted(task.calendar, date) - listing_position(task.calendar, listed)
    names = dictionary_of(bars["code"])
    board = board_of(np.array(names.dictionary.to_pylist()))[names.indices.to_numpy()]
    return limit_share(board, date, since, bars["is_st"].to_numpy())


def _limits(
    columns: dict[str, np.ndarray], asset: np.ndarray, limit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool twice: closed at the upper limit, at the lower; False where it is not known."""
    reference = np.full(len(asset), np.nan)
    same = asset[1:] == asset[:-1]
    adjusted = columns["close"] * columns["adj_factor"]
    reference[1:][same] = (adjusted[:-1] / columns["adj_factor"][1:])[same]
    return at_limit(columns["close"], reference, limit)


def _starts(codes: np.ndarray) -> np.ndarray:
    """Index of the first row of each run of equal codes."""
    if not len(codes):
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) number of each row's text; -1 is null."""
    return np.asarray(pc.fill_null(dictionary_of(column).indices, -1).to_numpy())


def _days(bars: pa.Table) -> np.ndarray:
    return np.asarray(bars["date"].cast(pa.int32()).to_numpy())


def _null_if_nan(values: np.ndarray) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))
