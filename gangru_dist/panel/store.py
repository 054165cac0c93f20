"""Read the panel store: rows of some days and buckets, or a dense block of them.

Files are those that the manifest lists, `panel/bucket=07/2018-<hash>.parquet`. A block is
scattered file by file into preallocated arrays, so reading holds one copy of the panel.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gangru_dist.calendar import listing_position
from gangru_dist.errors import PanelError
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.manifest import Manifest, PanelFile, bucket_of, read_manifest
from gangru_dist.panel.schema import BASE_COLUMNS, MEMBER, TRADING_COLUMNS, panel_schema
from gangru_dist.registry import nearest
from gangru_dist.storage import Storage

__all__ = [
    "BASE_COLUMNS",
    "TRADING_COLUMNS",
    "Manifest",
    "PanelFile",
    "asset_names",
    "block_columns",
    "bucket_of",
    "files_of",
    "read_block",
    "read_files",
    "read_manifest",
    "read_rows",
    "scatter",
]


def read_rows(
    root: Storage,
    manifest: Manifest,
    *,
    start: dt.date,
    end: dt.date,
    buckets: Sequence[int] | None = None,
    columns: Sequence[str],
) -> pa.Table:
    """Panel rows of the days from `start` to `end`, both included.

    Args:
        root: Storage root; the panel lies below it.
        manifest: Which files count.
        start: First day.
        end: Last day.
        buckets: Only these; None = all.
        columns: Names of panel columns.

    Returns:
        A table sorted by (asset, date) within each year and bucket, else in no order.

    Raises:
        PanelError: A column is unknown, or a listed file is gone.
    """
    wanted = files_of(manifest, start, end, buckets)
    _check_columns(manifest, columns)
    tables = list(read_files(root, wanted, start, end, tuple(columns)))
    if tables:
        return pa.concat_tables(tables).unify_dictionaries()
    schema = panel_schema(manifest.features, members=manifest.has_members)
    return pa.schema([schema.field(name) for name in columns]).empty_table()


def read_block(
    root: Storage,
    manifest: Manifest,
    *,
    start: dt.date,
    end: dt.date,
    buckets: Sequence[int] | None = None,
    features: Sequence[str] | None = None,
    trading: bool = False,
) -> PanelBlock:
    """Dense panel of the trading days from `start` to `end`, both included.

    Its assets are those with a row in that span. Reading takes two passes over the files, the
    first over names only, so that no second copy of the features is ever held.

    Args:
        root: Storage root; the panel lies below it.
        manifest: Which files count.
        start: First day.
        end: Last day.
        buckets: Only these; None = all.
        features: Names, in the order wanted; None = the panel's, () = none of them.
        trading: Also fill market cap, industry and price limits.

    Raises:
        PanelError: No trading day lies in the span, a feature is unknown, a file is gone.
    """
    names = manifest.features if features is None else tuple(features)
    columns = block_columns(names, trading=trading, members=manifest.has_members)
    _check_columns(manifest, columns)
    files = files_of(manifest, start, end, buckets)
    return scatter(
        read_files(root, files, start, end, columns),
        calendar=manifest.calendar,
        dates=manifest.trading_days(start, end),
        assets=asset_names(root, files, start, end),
        features=names,
        trading=trading,
        members=manifest.has_members,
    )


def asset_names(
    root: Storage, files: Sequence[PanelFile], start: dt.date, end: dt.date
) -> np.ndarray:
    """Assets with a row between the days, (N,) str, ascending; reads two columns only."""
    seen: set[str] = set()
    for table in read_files(root, files, start, end, ("date", "asset")):
        seen.update(pc.unique(table["asset"]).to_pylist())
    return np.array(sorted(seen), dtype=np.str_)


def block_columns(
    features: Sequence[str], *, trading: bool, members: bool = False
) -> tuple[str, ...]:
    """Panel columns that `scatter` needs for such a block."""
    marks = (MEMBER,) if members else ()
    return (*BASE_COLUMNS, *features, *(TRADING_COLUMNS if trading else ()), *marks)


def scatter(
    tables: Iterable[pa.Table],
    *,
    calendar: np.ndarray,
    dates: np.ndarray,
    assets: np.ndarray,
    features: tuple[str, ...],
    trading: bool = False,
    members: bool = False,
) -> PanelBlock:
    """Put panel rows, in any order and any number of tables, at their places in a block.

    Args:
        tables: Panel rows with the columns of `block_columns`; each is dropped after use.
        calendar: (days,) datetime64[D], the whole calendar of the panel.
        dates: (D,) datetime64[D], consecutive days of it.
        assets: (N,) str, ascending.
        features: F names.
        trading: Also fill market cap, industry and price limits.
        members: Also fill who is a member; the panel marks them.

    Raises:
        PanelError: A row's date or asset is not among `dates` and `assets`.
    """
    shape = (len(dates), len(assets))
    wide = shape if trading else (len(dates), 0)
    values = np.full((*shape, len(features)), np.nan, dtype=np.float32)
    traded, is_st = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    adj_close = np.full(shape, np.nan)
    market_cap, industry = np.full(wide, np.nan), np.full(wide, -1, dtype=np.int16)
    limit_up, limit_down = np.zeros(wide, dtype=bool), np.zeros(wide, dtype=bool)
    member = np.zeros(shape if members else (len(dates), 0), dtype=bool)
    list_date = np.full(len(assets), np.datetime64("NaT"), dtype="datetime64[D]")
    codes: dict[str, int] = {}
    for table in tables:
        day, asset = _place(table, dates, assets)
        traded[day, asset] = True
        is_st[day, asset] = _column(table, "is_st")
        adj_close[day, asset] = _column(table, "adj_close")
        list_date[asset] = _column(table, "list_date")
        if features:
            values[day, asset] = np.stack([_column(table, name) for name in features], axis=1)
        if members:
            member[day, asset] = _column(table, MEMBER)
        if trading:
            market_cap[day, asset] = _column(table, "market_cap")
            industry[day, asset] = _codes(table["industry"], codes)
            limit_up[day, asset] = _column(table, "limit_up")
            limit_down[day, asset] = _column(table, "limit_down")
    first = int(np.searchsorted(calendar, dates[0])) if len(dates) else 0
    position = np.arange(first, first + len(dates), dtype=np.int32)[:, None]
    industries = tuple(sorted(codes))
    return PanelBlock(
        dates=dates,
        assets=assets,
        feature_names=features,
        features=values,
        traded=traded,
        is_st=is_st,
        listed_days=position - listing_position(calendar, list_date)[None, :],
        adj_close=adj_close,
        market_cap=market_cap,
        industry=_renumber(industry, codes, industries),
        industries=industries,
        limit_up=limit_up,
        limit_down=limit_down,
        member=member,
    )


def _place(table: pa.Table, dates: np.ndarray, assets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each table row in a block of these dates and assets."""
    day_value = table["date"].to_numpy().astype("datetime64[D]")
    day = np.searchsorted(dates, day_value)
    coded = table["asset"].combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    code = coded.indices.to_numpy()
    names = np.array(coded.dictionary.to_pylist(), dtype=np.str_)
    known = np.searchsorted(assets, names)  # of a filtered table, names may have no row left
    used = np.unique(code)
    if len(day) and (day.max() >= len(dates) or (dates[day] != day_value).any()):
        raise PanelError(
            f"rows from {day_value.min()} to {day_value.max()} do not fit a block of the trading "
            f"days from {dates[0]} to {dates[-1]}."
        )
    strange = [
        n for n, at in zip(names[used], known[used], strict=True) if n not in assets[at : at + 1]
    ]
    if strange:
        raise PanelError(f"rows of other assets than the block's {len(assets)}, e.g. {strange[0]}.")
    return day, known[code]


def _column(table: pa.Table, name: str) -> np.ndarray:
    """Values of a column; null is NaN or NaT."""
    return np.asarray(table[name].to_numpy())


def _codes(column: pa.ChunkedArray, codes: dict[str, int]) -> np.ndarray:
    """(n,) code of each industry's name, -1 for null; new names are added to `codes`."""
    coded = column.combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    own = [codes.setdefault(name, len(codes)) for name in coded.dictionary.to_pylist()]
    indices = pc.fill_null(coded.indices, len(own)).to_numpy()
    return np.asarray(np.array([*own, -1], dtype=np.int16)[indices])


def _renumber(
    industry: np.ndarray, codes: dict[str, int], industries: tuple[str, ...]
) -> np.ndarray:
    """Codes by order of appearance -> index into the sorted names; -1 stays."""
    target: np.ndarray = np.full(len(codes) + 1, -1, dtype=np.int16)
    for index, name in enumerate(industries):
        target[codes[name]] = index
    return np.asarray(target[industry])


def files_of(
    manifest: Manifest, start: dt.date, end: dt.date, buckets: Sequence[int] | None = None
) -> list[PanelFile]:
    """Files that may hold rows of these days and buckets (None = all)."""
    chosen = set(range(manifest.buckets) if buckets is None else buckets)
    wrong = sorted(chosen - set(range(manifest.buckets)))
    if wrong:
        raise PanelError(f"buckets {wrong} do not exist; the panel has {manifest.buckets}.")
    return [
        file
        for file in manifest.files
        if file.bucket in chosen and start.year <= file.year <= end.year
    ]


def _check_columns(manifest: Manifest, columns: Sequence[str]) -> None:
    known = panel_schema(manifest.features, members=manifest.has_members).names
    for name in columns:
        if name not in known:
            raise PanelError(
                f"the panel has no column {name!r}; nearest: {nearest(name, known)}. Add a feature "
                "to panel.features and build the panel again with `gangru panel --overwrite`."
            )


def read_files(
    root: Storage,
    files: Sequence[PanelFile],
    start: dt.date,
    end: dt.date,
    columns: tuple[str, ...],
) -> Iterator[pa.Table]:
    """Rows of each file that lie between the days; empty ones left out."""
    panel = root.child("panel")
    for file in files:
        table = _read_file(panel, file, columns)
        date = table["date"] if "date" in columns else _read_file(panel, file, ("date",))["date"]
        if not start.year < file.year < end.year:  # a whole year within needs no look
            low, high = (pa.scalar(day, pa.date32()) for day in (start, end))
            inside = pc.and_(pc.greater_equal(date, low), pc.less_equal(date, high))
            table = table.filter(inside)
        if len(table):
            yield table


def _read_file(panel: Storage, file: PanelFile, columns: tuple[str, ...]) -> pa.Table:
    names = [name for name in ("asset", "industry") if name in columns]
    try:
        with panel.filesystem.open_input_file(panel.full(file.name)) as source:
            parquet = pq.ParquetFile(source, read_dictionary=names)
            return parquet.read(columns=list(columns)).select(list(columns))
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise PanelError(
            f"{panel.uri}/{file.name} is listed in the manifest but cannot be read ({error}). If "
            "the panel was built again twice while this job ran, run the job again; only if that "
            "does not help, build the panel again with `gangru panel --overwrite`."
        ) from error
