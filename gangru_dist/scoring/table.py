"""The factor table: a Delta table in `runs/<run>/factor`, one parquet file per month.

The footer of each file lists the days it covers. Coverage thus changes in the same commit as the
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
import json
import logging
import random
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction

from gangru_dist.base.errors import FactorError, shorten
from gangru_dist.base.refusals import retry
from gangru_dist.base.storage import READERS, Storage
from gangru_dist.runs.summaries import DayCoverage
from gangru_dist.scoring.files import (
    FILE_SCHEMA,
    PARTITION,
    DataFile,
    read_days,
    read_rows,
    write_file,
)

_LOG = "_delta_log"
_ATTEMPTS = 20
LONGEST_PAUSE_S = 2.0
"""Between two attempts to commit."""
_CHECKPOINT_EVERY = "10"
"""Commits between checkpoints of Delta's log; without them each load reads every commit."""
RETENTION_HOURS = 7 * 24
"""How long versions stay readable and unlisted files are kept: longer than any job takes."""
_logger = logging.getLogger(__name__)


class FactorTable:
    """The factor table of a run, opened once a job; `commit` takes it to the newest version."""

    def __init__(self, folder: Storage) -> None:
        """Open the newest version in `Run.factor`, if there is a table.

        Raises:
            FactorError: Its log is damaged.
        """
        self._folder = folder
        self._uri, self._options = folder.find_delta_address()
        self._days: dict[str, list[DayCoverage]] = {}
        self._delta: DeltaTable | None = None
        try:
            self._delta = retry(partial(DeltaTable, self._uri, storage_options=self._options))
        except TableNotFoundError:
            return
        except DeltaError as error:
            raise _damaged_log(folder, str(error)) from error
        logs = folder.list_infos(_LOG).items()
        if any(name.endswith(".json") and info.size == 0 for name, info in logs):
            raise _damaged_log(folder, "empty")  # delta-rs takes it for a commit of nothing

    def require(self, as_of: int | dt.datetime | None = None) -> DeltaTable:
        """The opened version, or that of a version number or a time (UTC if without zone).

        Raises:
            FactorError: There is no table or no such version.
        """
        if self._delta is None:
            raise FactorError(
                f"no factor table at {self._folder.uri}. Correct the run's name (gangru runs lists "
                "them), or score first: gangru score --storage URI --run NAME"
            )
        if as_of is None:
            return self._delta
        newest, created = self._delta.version(), self._delta.metadata().created_time
        try:
            retry(partial(self._delta.load_as_version, as_of))
            if isinstance(as_of, dt.datetime):
                aware = as_of if as_of.tzinfo else as_of.replace(tzinfo=dt.UTC)
                if created > aware.timestamp() * 1000:  # delta-rs would give the empty version
                    raise DeltaError("the table was made later")
        except (DeltaError, TypeError, ValueError) as error:
            raise FactorError(
                f"the factor table at {self._folder.uri} has no version as of {as_of!r} ({error}); "
                f"the newest is {newest}. Give a version's number, or a datetime."
            ) from error
        return self._delta

    def list_files(self) -> dict[str, list[str]]:
        """Month -> paths of its files below the table; one, unless another tool wrote too."""
        if self._delta is None:
            return {}
        actions = pa.table(self._delta.get_add_actions(flatten=True)).to_pandas()
        return dict(actions.groupby(f"partition.{PARTITION}")["path"].agg(list))

    def read_coverage(self) -> dict[dt.date, DayCoverage]:
        """Days of the table, ascending; empty if there is no table yet.

        A file that is gone or damaged covers none: a warning says so, and its days are scored
        again.
        """
        paths = [path for paths in self.list_files().values() for path in paths]
        with ThreadPoolExecutor(READERS) as pool:
            found = [day for days in pool.map(self._read_days, paths) for day in days]
        return {dt.date.fromisoformat(day.date): day for day in sorted(found, key=lambda d: d.date)}

    def commit(self, files: Sequence[DataFile], *, drop: Collection[str] = ()) -> int:
        """Add the files' days to the table in one version; they replace the same days there.

        Args:
            files: Written by `write_file`; of one month each, and each day is in one of them.
            drop: Days, ISO, that the table is to lose in the same version.

        Returns:
            The table's newest version afterwards.

        Raises:
            FactorError: The store refused every attempt, or a day is in two of the files or not in
                its month's. The table is then unchanged.
        """
        months: dict[str, list[DataFile]] = {day[:7]: [] for day in drop}
        seen: dict[str, str] = {}
        for file in files:
            months.setdefault(file.month, []).append(file)
            for day in file.days:
                if day.date in seen or not day.date.startswith(file.month):
                    raise FactorError(
                        f"{day.date} is in {file.path} and in {seen.get(day.date, 'another month')}"
                        "; each day must be in one file."
                    )
                seen[day.date] = file.path
        transaction = f"gangru_dist-{uuid.uuid4().hex}"
        failure: Exception | None = None
        for attempt in range(_ATTEMPTS + 1):
            try:
                delta = self._update()
                if not months or delta.transaction_version(transaction) is not None:
                    return int(delta.version())
                if attempt == _ATTEMPTS:
                    break
                merged = self._try_commit(delta, months, transaction, drop)
                self._days |= {file.path: list(file.days) for file in merged}
                for path in {file.path for file in files} - {file.path for file in merged}:
                    self._folder.discard(path)
            except (DeltaError, OSError) as error:
                failure = error
                _logger.info("commit_retry attempt=%d reason=%s", attempt + 1, error)
                time.sleep(random.uniform(0.1, 1) * min(LONGEST_PAUSE_S, 0.05 * 2**attempt))
        raise FactorError(
            f"the factor table at {self._folder.uri} could not be written in {_ATTEMPTS} attempts "
            f"and is unchanged. The last error: {failure}. Check the store, then run the job again."
        ) from failure

    def vacuum(self, *, retention_hours: int = RETENTION_HOURS) -> list[str]:
        """Delete files that no version of the last `retention_hours` lists, also of killed jobs.

        Returns their paths. Less than `RETENTION_HOURS` could delete files of a running job.

        Raises:
            FactorError: There is no table.
        """
        return list(
            self.require().vacuum(
                retention_hours=retention_hours,
                enforce_retention_duration=retention_hours >= RETENTION_HOURS,
                dry_run=False,
                full=True,
            )
        )

    def _update(self) -> DeltaTable:
        """The newest version; of a new table if there is none."""
        if self._delta is not None:
            self._delta.update_incremental()
            return self._delta
        if self._folder.is_local:
            self._folder.filesystem.create_dir(self._folder.path)
        self._delta = DeltaTable.create(
            self._uri,
            Schema.from_arrow(FILE_SCHEMA.append(pa.field(PARTITION, pa.string()))),
            mode="ignore",  # another job may have made it
            partition_by=[PARTITION],
            configuration={
                "delta.checkpointInterval": _CHECKPOINT_EVERY,
                "delta.deletedFileRetentionDuration": f"interval {RETENTION_HOURS} hours",
            },
            storage_options=self._options,
        )
        return self._delta

    def _try_commit(
        self,
        delta: DeltaTable,
        months: dict[str, list[DataFile]],
        transaction: str,
        drop: Collection[str],
    ) -> list[DataFile]:
        old = self.list_files()
        merged = [
            file
            for month, files in months.items()
            if (file := self._merge_month(old.get(month, []), files, drop)) is not None
        ]
        delta.create_write_transaction(
            [_add_action(file) for file in merged],
            mode="overwrite",
            schema=delta.schema(),
            partition_by=[PARTITION],
            partition_filters=[(PARTITION, "in", list(months))],
            commit_properties=CommitProperties(
                max_commit_retries=0,  # compare-and-swap: fails after any other commit
                app_transactions=[Transaction(transaction, 1)],
            ),
        )
        return merged

    def _merge_month(
        self, old: Sequence[str], new: Sequence[DataFile], drop: Collection[str]
    ) -> DataFile | None:
        """One file of a month: the new days, and the old ones that they do not replace; or None."""
        replaced = {day.date for file in new for day in file.days} | set(drop)
        days: list[DayCoverage] = []
        tables = []
        for path in old:
            staying = [day for day in self._read_days(path) if day.date not in replaced]
            with _skip_damaged():
                rows = read_rows(self._folder, path) if staying else FILE_SCHEMA.empty_table()
                dates = pa.array([day.date for day in staying], pa.string()).cast(pa.date32())
                tables.append(rows.filter(pc.is_in(rows["date"], dates)))
                days += staying
        if not days and len(new) <= 1:
            return new[0] if new else None
        tables += [read_rows(self._folder, file.path) for file in new]
        rows = pa.concat_tables(tables).sort_by([("date", "ascending"), ("asset", "ascending")])
        days += [day for file in new for day in file.days]
        return write_file(self._folder, rows, days)

    def _read_days(self, path: str) -> list[DayCoverage]:
        """Days of a file, read once; none, and a warning, if it is damaged."""
        if path not in self._days:
            days: list[DayCoverage] = []
            with _skip_damaged():
                days = read_days(self._folder, path)
            self._days[path] = days  # not if the store failed: the next attempt reads it again
        return self._days[path]


def _damaged_log(factor: Storage, reason: str) -> FactorError:
    """Names the file of the log that is not JSON, if there is one."""

    def is_log(name: str) -> bool:
        try:
            return bool([json.loads(line) for line in factor.read_bytes(name).splitlines()])
        except ValueError:
            return False

    names = (name for name in factor.list_files(_LOG) if name.endswith(".json"))
    file = next((name for name in names if not is_log(name)), _LOG)
    return FactorError(
        f"{factor.uri}/{file} is damaged: {shorten(reason)}. If the store is healthy, restore it "
        f"from a copy; or delete {factor.uri}, then run `gangru score`: it scores all days again."
    )


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


@contextmanager
def _skip_damaged() -> Iterator[None]:
    """Log a damaged file as a warning: the next job scores its days again."""
    try:
        yield
    except FactorError as error:
        _logger.warning("factor_file_damaged %s", error)
