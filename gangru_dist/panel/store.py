"""Read the panel store: rows of some days and buckets, or a dense block of them.

Its files are those that the manifest lists, `panel/bucket=07/2018-<rows>-<bytes>.parquet`. The name
has the hash of the file's bytes, so what is read is what was written.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gangru_dist.base.errors import PanelError, shorten
from gangru_dist.base.records import hash_bytes
from gangru_dist.base.storage import Storage
from gangru_dist.panel.block import PanelBlock, block_columns, finish_block, scatter
from gangru_dist.panel.manifest import Manifest, PanelFile, panel_schema
from gangru_dist.panel.writer import hash_row_groups, rows_digest

_AS_DICTIONARIES = ["asset", "industry"]


def read_rows(
    root: Storage,
    manifest: Manifest,
    *,
    start: dt.date,
    end: dt.date,
    columns: Sequence[str],
) -> pa.Table:
    """Panel rows of the days from `start` to `end`, both included.

    Args:
        root: Storage root; the panel lies below it.
        manifest: Which files count.
        start: First day.
        end: Last day.
        columns: Names of panel columns.

    Returns:
        A table sorted by (asset, date) within each year and bucket, else in no order.

    Raises:
        PanelError: A listed file is gone.
    """
    files = select_files(manifest, start, end)
    tables = list(read_files(root, files, start, end, tuple(columns)))
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
    manifest.require_features(names)
    columns = block_columns(names, trading=trading, members=manifest.has_members)
    files = select_files(manifest, start, end, buckets)
    block = scatter(
        read_files(root, files, start, end, columns),
        calendar=manifest.calendar,
        dates=manifest.trading_days(start, end),
        assets=read_asset_names(root, files, start, end),
        features=names,
        trading=trading,
        members=manifest.has_members,
    )
    return finish_block(block, manifest.delisted)


def read_bucket(
    root: Storage,
    manifest: Manifest,
    bucket: int,
    *,
    start: dt.date,
    end: dt.date,
    features: Sequence[str],
    trading: bool,
) -> PanelBlock:
    """Dense panel of one bucket, each file of which is read once, for `cut_blocks`."""
    columns = block_columns(features, trading=trading, members=manifest.has_members)
    tables = list(
        read_files(root, select_files(manifest, start, end, [bucket]), start, end, columns)
    )
    names = {name for table in tables for name in pc.unique(table["asset"]).to_pylist()}
    return scatter(
        tables,
        calendar=manifest.calendar,
        dates=manifest.trading_days(start, end),
        assets=np.array(sorted(names), dtype=np.str_),
        features=tuple(features),
        trading=trading,
        members=manifest.has_members,
    )


def read_asset_names(
    root: Storage, files: Sequence[PanelFile], start: dt.date, end: dt.date
) -> np.ndarray:
    """Assets with a row between the days, (N,) str, ascending; reads two columns only.

    Unchecked: rows that follow from the same files are checked, and must be of these assets.
    """
    seen: set[str] = set()
    for table in read_files(root, files, start, end, ("date", "asset"), checked=False):
        seen.update(pc.unique(table["asset"]).to_pylist())
    return np.array(sorted(seen), dtype=np.str_)


def select_files(
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


def read_files(
    root: Storage,
    files: Sequence[PanelFile],
    start: dt.date,
    end: dt.date,
    columns: tuple[str, ...],
    *,
    checked: bool = True,
) -> Iterator[pa.Table]:
    """Rows of each file that lie between the days; empty ones left out.

    Args:
        root: Storage root.
        files: Of the manifest.
        start: First day.
        end: Last day, included.
        columns: Names.
        checked: Whether each file is made sure to be what was written; without, `columns` have
            `date`, and whoever asks reads the same files once more.

    Raises:
        PanelError: A file is gone or is not what was written.
    """
    panel = root.child("panel")
    read = _checked_rows if checked else _unchecked_rows
    for file in files:
        table = read(panel, file, columns)
        if not start.year < file.year < end.year:  # a whole year within needs no look
            low, high = (pa.scalar(day, pa.date32()) for day in (start, end))
            date = table["date"]
            inside = pc.and_(pc.greater_equal(date, low), pc.less_equal(date, high))
            table = table.filter(inside)
        if len(table):
            yield table.select(list(columns))


def _checked_rows(panel: Storage, file: PanelFile, columns: tuple[str, ...]) -> pa.Table:
    """Read columns of a file, and its dates, after its hash was checked.

    By the hash of its bytes: 4 % of the time that reading takes. Files of versions that did not
    write it down are checked by their rows, which takes four times as long as reading them.
    """
    try:
        data = panel.read_bytes(file.name)
        if file.digest not in (None, hash_bytes(data)):
            raise ValueError("its bytes are not those that were written under this name")
        parquet = pq.ParquetFile(pa.BufferReader(data), read_dictionary=_AS_DICTIONARIES)
        if file.digest is None:
            rows = parquet.read()
            if rows_digest(rows.column_names, hash_row_groups(rows)) != file.rows_digest:
                raise ValueError("its rows are not those that were written under this name")
        if parquet.metadata.num_rows != file.rows:
            raise ValueError(f"it has {parquet.metadata.num_rows} rows, the manifest {file.rows}")
        return parquet.read(columns=list(dict.fromkeys((*columns, "date"))))
    except FileNotFoundError as error:
        raise PanelError(
            f"{panel.uri}/{file.name} is listed in the manifest but cannot be read: it is gone. "
            "If the panel was built again twice while this job ran, run the job again; only if "
            "that does not help, build the panel again with `gangru panel --overwrite`."
        ) from error
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise PanelError(
            f"{panel.uri}/{file.name} is damaged: {shorten(error)}. Restore the file, or "
            "build the panel again with `gangru panel --overwrite`."
        ) from error


def _unchecked_rows(panel: Storage, file: PanelFile, columns: tuple[str, ...]) -> pa.Table:
    """Read the same columns without a check of the file's hash."""
    try:
        with panel.filesystem.open_input_file(panel.full_path(file.name)) as source:
            rows = pq.ParquetFile(source, read_dictionary=_AS_DICTIONARIES).read(
                columns=list(columns)
            )
        if rows["date"].type == pa.date32():
            return rows
    except (pa.ArrowException, OSError, KeyError, ValueError):
        pass
    return _checked_rows(panel, file, columns)  # says what is wrong
