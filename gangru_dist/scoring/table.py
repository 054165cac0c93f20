"""The factor table: a Delta table in `runs/<run>/factor`, one parquet file per month.

Rows are sorted by (date, asset). The footer of each file lists the days it covers, including
days without rows, with their models and counts. Coverage thus changes in the same commit as the
rows and cannot disagree with them. `commit.py` writes the table; any Delta reader can read it.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import operator
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from gangru_dist.errors import FactorError, StorageError
from gangru_dist.panel.block import PanelBlock
from gangru_dist.runs.run import FACTOR, run_folder
from gangru_dist.runs.score_summary import DayCoverage
from gangru_dist.storage import Storage

COLUMNS = ("date", "asset", "score", "factor", "quantile", "window", "model")
"""Columns that `read_factor` returns (SPEC 6)."""

FILE_SCHEMA = pa.schema(
    [
        pa.field("date", pa.date32(), nullable=False),
        pa.field("asset", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("factor", pa.float64()),  # null on a day with too few assets
        pa.field("quantile", pa.int16(), nullable=False),  # 0 on such a day
        pa.field("window", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
    ]
)
"""Columns of a data file; the month is in its path, as usual in Delta."""

PARTITION = "month"
"""Partition column, "2019-07"."""

_FOOTER = b"gangru_dist.coverage"
_READERS = 8


def delta_address(factor: Storage) -> tuple[str, dict[str, str]]:
    """URI and options of the table for delta-rs; credentials come from the environment.

    Raises:
        StorageError: delta-rs does not support the filesystem.
    """
    scheme = urlsplit(factor.uri).scheme if "://" in factor.uri else "file"
    if scheme == "file":
        return factor.path, {}
    if scheme not in ("s3", "gs", "gcs", "abfs", "abfss", "az", "hdfs"):
        raise StorageError(
            f"the factor table cannot be stored at {factor.uri!r}: Delta supports local folders, "
            "s3://, gs://, abfs:// and hdfs://."
        )
    if scheme != "s3":
        return factor.uri.split("?")[0], {}
    query = dict(parse_qsl(urlsplit(factor.uri).query))
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if "endpoint_override" in query:
        endpoint = f"{query.get('scheme', 'https')}://{query['endpoint_override']}"
    options = {"AWS_REGION": query["region"]} if "region" in query else {}
    if endpoint:
        options["AWS_ENDPOINT_URL"] = endpoint
        options["AWS_ALLOW_HTTP"] = str(endpoint.startswith("http://")).lower()
        if not os.environ.get("AWS_ACCESS_KEY_ID"):  # else delta-rs tries only the node's role
            options["AWS_FORCE_CREDENTIAL_LOAD"] = "true"
    return f"s3://{factor.path}", options


def open_table(factor: Storage, as_of: int | dt.datetime | None = None) -> DeltaTable:
    """The newest version, or that of a version number or a time (UTC if without zone).

    Raises:
        FactorError: There is no table, or no such version.
    """
    uri, options = delta_address(factor)
    try:
        table = DeltaTable(uri, storage_options=options)
    except TableNotFoundError:
        raise FactorError(
            f"no factor table at {factor.uri}. Score first: gangru score --storage URI --run NAME"
        ) from None
    if as_of is None:
        return table
    newest, created = table.version(), table.metadata().created_time
    try:
        table.load_as_version(as_of)
        if isinstance(as_of, dt.datetime) and created > _epoch_ms(as_of):
            raise DeltaError("the table was made later")  # delta-rs would give the empty version
    except DeltaError as error:
        raise FactorError(
            f"the factor table at {factor.uri} has no version as of {as_of!r} ({error}); the "
            f"newest is {newest}."
        ) from error
    return table


def _epoch_ms(time: dt.datetime) -> float:
    aware = time if time.tzinfo else time.replace(tzinfo=dt.UTC)
    return aware.timestamp() * 1000


def data_files(table: DeltaTable) -> dict[str, list[str]]:
    """Month -> paths of its files below the table; one file, unless another tool wrote too."""
    actions = pa.table(table.get_add_actions(flatten=True))
    months: dict[str, list[str]] = {}
    for row in actions.select(["path", f"partition.{PARTITION}"]).to_pylist():
        months.setdefault(row[f"partition.{PARTITION}"], []).append(row["path"])
    return months


def with_coverage(rows: pa.Table, days: list[DayCoverage]) -> pa.Table:
    """Rows in the file's schema, with the covered days in its metadata."""
    footer = json.dumps([asdict(day) for day in days]).encode()
    return rows.cast(FILE_SCHEMA).replace_schema_metadata({_FOOTER: footer})


def _days_without_footer(file: pq.ParquetFile) -> list[DayCoverage]:
    """Days of a file that another tool wrote, e.g. a compaction; all count as stale."""
    rows = file.read(columns=["date", "window", "model"]).group_by(["date", "window", "model"])
    return [
        DayCoverage(
            date=str(row["date"]), window=str(row["window"]), model=str(row["model"]), basis=""
        )
        for row in rows.aggregate([]).to_pylist()
    ]


def days_of_file(factor: Storage, path: str) -> list[DayCoverage]:
    """Days covered by one data file; reads only its footer."""
    with factor.filesystem.open_input_file(factor.full(path)) as handle:
        file = pq.ParquetFile(handle)
        footer = (file.schema_arrow.metadata or {}).get(_FOOTER)
        if footer is None:
            return _days_without_footer(file)
        return [DayCoverage(**day) for day in json.loads(footer)]


def covered_days(factor: Storage) -> dict[dt.date, DayCoverage]:
    """Days of the newest version, ascending; empty if there is no table yet."""
    uri, options = delta_address(factor)
    if not DeltaTable.is_deltatable(uri, storage_options=options):
        return {}
    paths = [path for paths in data_files(open_table(factor)).values() for path in paths]
    with ThreadPoolExecutor(_READERS) as pool:
        found = [day for days in pool.map(lambda p: days_of_file(factor, p), paths) for day in days]
    return {dt.date.fromisoformat(day.date): day for day in sorted(found, key=lambda d: d.date)}


def _between(start: dt.date | None, end: dt.date | None) -> Any:
    """Filter on dates and on the partition, so that only files of these months are opened."""
    date, month = pc.field("date"), pc.field(PARTITION)
    conditions = []
    if start is not None:
        conditions += [date >= pa.scalar(start, pa.date32()), month >= f"{start:%Y-%m}"]
    if end is not None:
        conditions += [date <= pa.scalar(end, pa.date32()), month <= f"{end:%Y-%m}"]
    return functools.reduce(operator.and_, conditions) if conditions else None


def read_factor(
    storage: str,
    run: str,
    start: dt.date | None = None,
    end: dt.date | None = None,
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
        `COLUMNS`: date (datetime64), asset, score (pRet, any unit; with several seeds the mean of
        their z-scores), factor (mean 0, standard deviation 1 per day; NaN on a day with too few
        assets), quantile (1 = lowest; 0 where there is no factor), window (refit day), model
        (hash of the weights). Days are always complete: a job's rows appear in one commit.

    Raises:
        FactorError: There is no such table or version.
    """
    table = open_table(run_folder(Storage(storage), run).child(FACTOR), as_of)
    dataset: pads.Dataset = table.to_pyarrow_dataset()
    rows = dataset.to_table(columns=list(COLUMNS), filter=_between(start, end))
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
    known = frame.dropna(subset=["factor"])
    index = pd.MultiIndex.from_frame(known[["date", "asset"]])
    factor = pd.Series(known["factor"].to_numpy(), index=index, name="factor")
    dates = pd.DatetimeIndex(block.dates, name="date")
    assets = pd.Index(block.assets, name="asset")
    prices = pd.DataFrame(block.adj_close, index=dates, columns=assets)
    places = [dates.get_indexer(pd.Index(known["date"])), assets.get_indexer(known["asset"])]
    strange = np.flatnonzero((places[0] < 0) | (places[1] < 0))
    if len(strange):
        day, asset = known["date"].iloc[strange[0]], known["asset"].iloc[strange[0]]
        raise FactorError(
            f"{len(strange)} factor values are outside the block of {dates[0]:%Y-%m-%d} to "
            f"{dates[-1]:%Y-%m-%d}, first {day:%Y-%m-%d} {asset}. Read the block from the frame's "
            "first day on."
        )
    if block.industry.shape != block.adj_close.shape:
        return factor, prices, pd.Series(dtype="str", name="group")
    names = np.array([*block.industries, "unknown"], dtype=object)  # code -1 is the last
    codes = block.industry[places[0], places[1]]
    return factor, prices, pd.Series(names[codes], index, name="group")


def to_qlib(frame: pd.DataFrame) -> pd.DataFrame:
    """Qlib's signal: column `score` by (datetime, instrument); 600000.SH becomes SH600000.

    Args:
        frame: From `read_factor`; rows without a factor are dropped.
    """
    known = frame.dropna(subset=["factor"])
    names = known["asset"].astype("str").str.replace(r"^(\d{6})\.(SH|SZ|BJ)$", r"\2\1", regex=True)
    index = pd.MultiIndex.from_arrays([known["date"], names], names=["datetime", "instrument"])
    return pd.DataFrame({"score": known["factor"].to_numpy()}, index=index).sort_index()
