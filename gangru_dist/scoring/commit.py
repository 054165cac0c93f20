"""Writing the factor table: scorers write files, and the driver commits them all at once.

A commit is a compare-and-swap on the table's version. If another job commits first, the files are
merged with its version and committed again, so that no day is lost or duplicated. Each commit has
its own application transaction, by which a commit whose response was lost is recognized and not
repeated. A killed job leaves files that no version lists; `vacuum` removes them.
"""

from __future__ import annotations

import json
import logging
import random
import time
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction

from gangru_dist.errors import FactorError
from gangru_dist.runs.score_summary import DayCoverage
from gangru_dist.scoring.table import (
    FILE_SCHEMA,
    PARTITION,
    data_files,
    data_name,
    days_if_whole,
    delta_address,
    open_table,
    read_rows,
    with_coverage,
)
from gangru_dist.storage import Storage

_logger = logging.getLogger(__name__)

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
