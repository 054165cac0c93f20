"""The factor table: a Delta table in `runs/<run>/factor`, one parquet file per month.

Rows are sorted by (date, asset). The footer of each file lists the days it covers, including
days without rows, with their models and counts. Coverage thus changes in the same commit as the
rows and cannot disagree with them. Any Delta reader can read the table.

Scorers write files, and the driver commits them all at once, by `create_write_transaction`:
delta-rs's own replace writes files without our footer (docs/decisions/0016-factor-table.md).
A commit is a compare-and-swap on the table's version. If another job commits first, the files are
merged with its version and committed again, so that no day is lost or duplicated. Each commit has
its own application transaction, by which a commit whose response was lost is recognized and not
repeated. A killed job leaves files that no version lists; `vacuum` removes them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import os
import random
import re
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction
from pydantic import TypeAdapter, ValidationError

from gangru_dist.base.errors import FactorError, StorageError, shorten
from gangru_dist.base.filesystems import retry
from gangru_dist.base.records import describe_error
from gangru_dist.base.storage import Storage
from gangru_dist.panel.store import PanelBlock
from gangru_dist.runs.run import FACTOR, run_folder
from gangru_dist.runs.summaries import DayCoverage

COLUMNS = ("date", "asset", "score", "factor", "quantile", "window", "model")
"""Columns that `read_factor` returns."""

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
_DAYS = TypeAdapter(list[DayCoverage])
_LOG = "_delta_log"
_NAMED = re.compile(r"/[0-9a-f]{32}-(?P<digest>[0-9a-f]{32})\.parquet$")
_DAMAGE = (pa.ArrowException, KeyError, ValueError)
_READERS = 8
_logger = logging.getLogger(__name__)


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


def find_table(factor: Storage) -> DeltaTable | None:
    """The newest version; None if there is no table.

    Raises:
        FactorError: Its log is damaged.
    """
    uri, options = delta_address(factor)
    try:
        table = retry(partial(DeltaTable, uri, storage_options=options))
    except TableNotFoundError:
        return None
    except DeltaError as error:
        raise _damaged_log(factor, str(error)) from error
    if _empty_logs(factor):  # delta-rs takes one for a commit of nothing
        raise _damaged_log(factor, "empty")
    return table


def _empty_logs(factor: Storage) -> list[str]:
    found = factor.filesystem.get_file_info(pafs.FileSelector(factor.full_path(_LOG)))
    return [info.base_name for info in found if info.path.endswith(".json") and not info.size]


def _damaged_log(factor: Storage, reason: str) -> FactorError:
    """Names the file of the log that is none, if one can be found."""
    wrong = (name for name in factor.list_files(_LOG) if name.endswith(".json"))
    file = next((name for name in wrong if not _is_log(factor.read_bytes(name))), _LOG)
    return FactorError(
        f"{factor.uri}/{file} is damaged: {shorten(reason)}. If the store is healthy, restore it "
        f"from a copy; or delete {factor.uri}, then run `gangru score`: it scores all days again."
    )


def _is_log(data: bytes) -> bool:
    try:
        lines = [json.loads(line) for line in data.splitlines()]
    except ValueError:
        return False
    return bool(lines)


def open_table(factor: Storage, as_of: int | dt.datetime | None = None) -> DeltaTable:
    """The newest version, or that of a version number or a time (UTC if without zone).

    Raises:
        FactorError: There is no table or no such version, or its log is damaged.
    """
    table = find_table(factor)
    if table is None:
        raise FactorError(
            f"no factor table at {factor.uri}. Score first: gangru score --storage URI --run NAME"
        )
    if as_of is None:
        return table
    newest, created = table.version(), table.metadata().created_time
    try:
        retry(partial(table.load_as_version, as_of))
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


def data_name(month: str, data: bytes) -> str:
    """A new path for a data file: its month, and the hash of its bytes."""
    return f"{PARTITION}={month}/{uuid.uuid4().hex}-{_digest(data)}.parquet"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def read_rows(factor: Storage, path: str) -> pa.Table:
    """Rows of one data file, once it is what was written; `FILE_SCHEMA`.

    Files of earlier versions and of other tools have no hash in their name and are believed.

    Raises:
        FactorError: It is gone, or damaged.
    """
    with _damage_said(factor, path):
        data = factor.read_bytes(path)
        named = _NAMED.search(path)
        if named and named["digest"] != _digest(data):
            raise ValueError("its bytes are not those that were written under this name")
        with _any_error():
            rows = pq.ParquetFile(pa.BufferReader(data)).read()
            return rows.select(FILE_SCHEMA.names).replace_schema_metadata(None).cast(FILE_SCHEMA)


def days_of_file(factor: Storage, path: str) -> list[DayCoverage]:
    """Days covered by one data file; reads its footer alone.

    Raises:
        FactorError: It is gone, or damaged.
    """
    with (
        suppress(*_DAMAGE, OSError),
        factor.filesystem.open_input_file(factor.full_path(path)) as file,
    ):
        return _days(pq.ParquetFile(file))
    with _damage_said(factor, path):  # or the store is ill: said by the reading of all of it
        data = factor.read_bytes(path)
        with _any_error():
            return _days(pq.ParquetFile(pa.BufferReader(data)))


def _days(file: pq.ParquetFile) -> list[DayCoverage]:
    footer = (file.schema_arrow.metadata or {}).get(_FOOTER)
    return _days_without_footer(file) if footer is None else _DAYS.validate_json(footer)


@contextmanager
def _any_error() -> Iterator[None]:
    """Of bytes that are read already, OSError says that they are damaged too."""
    try:
        yield
    except OSError as error:
        raise ValueError(str(error)) from error


@contextmanager
def _damage_said(factor: Storage, path: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, *_DAMAGE) as error:
        reason: object = "it is gone" if isinstance(error, FileNotFoundError) else error
        reason = describe_error(error) if isinstance(error, ValidationError) else reason
        raise FactorError(
            f"{factor.uri}/{path} is damaged: {shorten(reason)}. Run `gangru score` with "
            f"{_span(path)}: it scores those days again."
        ) from error


def _span(path: str) -> str:
    """Flags that name the days of a file's month."""
    month = re.search(r"\d{4}-\d{2}", path)
    if month is None:
        return "--from DAY --to DAY"
    end = (np.datetime64(month[0], "M") + 1).astype("datetime64[D]") - 1
    return f"--from {month[0]}-01 --to {end}"


def covered_days(factor: Storage) -> dict[dt.date, DayCoverage]:
    """Days in the newest version, ascending; empty if there is no table yet.

    A file that is gone or damaged covers none: a warning says so, and its days are scored again.

    Raises:
        FactorError: The table's log is damaged.
    """
    table = find_table(factor)
    if table is None:
        return {}
    paths = [path for paths in data_files(table).values() for path in paths]
    with ThreadPoolExecutor(_READERS) as pool:
        found = [day for days in pool.map(partial(days_if_whole, factor), paths) for day in days]
    return {dt.date.fromisoformat(day.date): day for day in sorted(found, key=lambda d: d.date)}


def days_if_whole(factor: Storage, path: str) -> list[DayCoverage]:
    """`days_of_file`; of a damaged one none, and a warning."""
    try:
        return days_of_file(factor, path)
    except FactorError as error:
        _logger.warning("factor_file_damaged %s", error)
        return []


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
        FactorError: There is no such table or version, or a file of it is gone or damaged.
    """
    factor = run_folder(Storage(storage), run).child(FACTOR)
    table = open_table(factor, as_of)
    low, high = start or dt.date.min, end or dt.date.max
    paths = [
        path
        for month, paths in data_files(table).items()
        if f"{low:%Y-%m}" <= month <= f"{high:%Y-%m}"
        for path in paths
    ]
    with ThreadPoolExecutor(_READERS) as pool:
        tables = list(pool.map(partial(read_rows, factor), paths))
    rows = pa.concat_tables([FILE_SCHEMA.empty_table(), *tables])
    days = [pa.scalar(day, pa.date32()) for day in (low, high)]
    date = rows["date"]
    rows = rows.filter(pc.and_(pc.greater_equal(date, days[0]), pc.less_equal(date, days[1])))
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


_ATTEMPTS = 20
_LONGEST_PAUSE_S = 2.0
_CHECKPOINT_EVERY = "10"
"""Commits between checkpoints of Delta's log; without them each load reads every commit."""
RETENTION_HOURS = 7 * 24
"""How long versions stay readable and unlisted files are kept: longer than any job takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """A data file that is written but not committed yet."""

    month: str
    """Its partition."""
    path: str
    """Path below the table."""
    size: int
    """Bytes."""
    rows: int
    """Number of rows."""
    days: tuple[DayCoverage, ...]
    """Days it covers, ascending; a day with an empty universe has no rows."""


def write_file(
    factor: Storage, month: str, rows: pa.Table, days: Iterable[DayCoverage]
) -> DataFile:
    """Write rows of one month to a new file, which is not visible before a commit.

    Args:
        factor: `Run.factor`.
        month: "2019-07".
        rows: Columns of `FILE_SCHEMA`, sorted by (date, asset).
        days: All days covered by the file.
    """
    covered = tuple(sorted(days, key=lambda day: day.date))
    sink = pa.BufferOutputStream()
    pq.write_table(with_coverage(rows, list(covered)), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    path = data_name(month, data)
    factor.write_bytes(path, data)
    return DataFile(month=month, path=path, size=len(data), rows=rows.num_rows, days=covered)


def _merge_month(
    factor: Storage, old: Sequence[str], new: Sequence[DataFile], drop: Collection[str]
) -> DataFile | None:
    """One file of a month: the new days, and the old that they do not replace; None if none."""
    replaced = {day.date for file in new for day in file.days} | set(drop)
    kept: list[DayCoverage] = []
    tables = []
    for path in old:
        days = [day for day in days_if_whole(factor, path) if day.date not in replaced]
        if days:
            dates = pa.array([day.date for day in days], pa.string()).cast(pa.date32())
            rows = _rows_if_whole(factor, path)
            if rows is not None:
                kept += days
                tables.append(rows.filter(pc.is_in(rows["date"], dates)))
    if not kept and len(new) <= 1:
        return new[0] if new else None
    tables += [read_rows(factor, file.path) for file in new]
    rows = pa.concat_tables(tables).sort_by([("date", "ascending"), ("asset", "ascending")])
    days = [*kept, *(day for file in new for day in file.days)]
    return write_file(factor, days[0].date[:7], rows, days)


def _rows_if_whole(factor: Storage, path: str) -> pa.Table | None:
    """None, and a warning, if the file is damaged: its days are scored again by the next job."""
    try:
        return read_rows(factor, path)
    except FactorError as error:
        _logger.warning("factor_file_damaged %s", error)
        return None


def _add_action(file: DataFile) -> AddAction:
    dates = [day.date for day in file.days]
    stats = {
        "numRecords": file.rows,
        "minValues": {"date": dates[0]},
        "maxValues": {"date": dates[-1]},
        "nullCount": {"date": 0, "asset": 0, "score": 0},
    }
    return AddAction(
        path=file.path,
        size=file.size,
        partition_values={PARTITION: file.month},
        modification_time=int(time.time() * 1000),
        data_change=True,
        stats=json.dumps(stats),
    )


def _create(factor: Storage) -> DeltaTable:
    uri, options = delta_address(factor)
    schema = Schema.from_arrow(FILE_SCHEMA.append(pa.field(PARTITION, pa.string())))
    configuration = {
        "delta.checkpointInterval": _CHECKPOINT_EVERY,
        "delta.deletedFileRetentionDuration": f"interval {RETENTION_HOURS} hours",
    }
    return DeltaTable.create(
        uri,
        schema,
        mode="error",
        partition_by=[PARTITION],
        configuration=configuration,
        storage_options=options,
    )


def _open_or_create(factor: Storage) -> DeltaTable:
    uri, options = delta_address(factor)
    try:
        return DeltaTable(uri, storage_options=options)
    except TableNotFoundError:
        if factor.is_local:
            factor.filesystem.create_dir(factor.path)
        return _create(factor)  # if another job is faster, the error leads to another attempt


def _try_commit(
    factor: Storage,
    table: DeltaTable,
    months: dict[str, list[DataFile]],
    transaction: str,
    drop: Collection[str],
) -> list[DataFile]:
    existing = data_files(table)
    whole = (_merge_month(factor, existing.get(m, []), files, drop) for m, files in months.items())
    merged = [file for file in whole if file is not None]
    table.create_write_transaction(
        [_add_action(file) for file in merged],
        mode="overwrite",
        schema=table.schema(),
        partition_by=[PARTITION],
        partition_filters=[(PARTITION, "in", list(months))],
        commit_properties=CommitProperties(
            max_commit_retries=0,  # compare-and-swap: fails after any other commit
            app_transactions=[Transaction(transaction, 1)],
        ),
    )
    return merged


def _group(files: Sequence[DataFile]) -> dict[str, list[DataFile]]:
    months: dict[str, list[DataFile]] = {}
    seen: dict[str, str] = {}
    for file in files:
        months.setdefault(file.month, []).append(file)
        for day in file.days:
            if day.date in seen or not day.date.startswith(file.month):
                raise FactorError(
                    f"{day.date} is in {file.path} and in {seen.get(day.date, 'another month')}; "
                    "each day must be in one file."
                )
            seen[day.date] = file.path
    return months


def commit(factor: Storage, files: Sequence[DataFile], *, drop: Collection[str] = ()) -> int:
    """Add the files' days to the table in one version; they replace the same days there.

    Args:
        factor: `Run.factor`.
        files: Written by `write_file`.
        drop: Days, ISO, that the table is to lose in the same version.

    Returns:
        The table's newest version afterwards.

    Raises:
        FactorError: The store refused every attempt, or a day is in two of the files. The
            table is then unchanged.
    """
    months = _group(files)
    for day in drop:
        months.setdefault(day[:7], [])
    transaction = f"gangru_dist-{uuid.uuid4().hex}"
    failure: Exception | None = None
    for attempt in range(_ATTEMPTS + 1):
        try:
            table = _open_or_create(factor)
            if not months or table.transaction_version(transaction) is not None:
                return int(table.version())
            if attempt == _ATTEMPTS:
                break
            merged = _try_commit(factor, table, months, transaction, drop)
            _drop(factor, {file.path for file in files} - {file.path for file in merged})
        except (DeltaError, OSError) as error:
            failure = error
            _logger.info("commit_retry attempt=%d reason=%s", attempt + 1, error)
            time.sleep(random.uniform(0.1, 1) * min(_LONGEST_PAUSE_S, 0.05 * 2**attempt))
    raise FactorError(
        f"the factor table at {factor.uri} could not be written in {_ATTEMPTS} attempts and is "
        f"unchanged. The last error: {failure}. Check the store, then run the job again."
    ) from failure


def _drop(factor: Storage, paths: Iterable[str]) -> None:
    """Delete uncommitted files whose rows are now in a merged file."""
    for path in paths:
        factor.delete(path)


def vacuum(factor: Storage, *, retention_hours: int = RETENTION_HOURS) -> list[str]:
    """Delete files that no version of the last `retention_hours` lists, also of killed jobs.

    Returns their paths. Less than `RETENTION_HOURS` could delete files of a running job.
    """
    table = open_table(factor)
    return list(
        table.vacuum(
            retention_hours=retention_hours,
            enforce_retention_duration=retention_hours >= RETENTION_HOURS,
            dry_run=False,
            full=True,
        )
    )
