"""What the two stages of a panel build do with one unit and one bucket: plain functions.

`build` maps them over a cluster. They return what the driver must know, never rows.

Checked bars on their way into buckets: one Arrow IPC file a batch, one record batch a bucket.

A task that needs one bucket reads that record batch of every file and nothing else of it. Names
follow from the unit, so a task that ran twice has written the same file twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from gangru_dist.bars.columns import dictionary_of
from gangru_dist.bars.days import DayRule, sum_by_day
from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.identities import suspects
from gangru_dist.bars.joining import joined, without_contradictions
from gangru_dist.bars.quality import Quality, merge
from gangru_dist.bars.reader import BATCH_ROWS, BarsPart, read_part
from gangru_dist.bars.rows import check_rows
from gangru_dist.base.filesystems import again
from gangru_dist.base.storage import Storage
from gangru_dist.panel.bucket import BucketTask, panel_rows, traded_rows
from gangru_dist.panel.manifest import bucket_of
from gangru_dist.panel.moves import Moves
from gangru_dist.panel.writer import BucketWritten, name_changes, write_bucket

_PREFIX = "staging-"


def new_staging() -> str:
    """Name of a fresh folder below `<storage>/panel`."""
    return f"{_PREFIX}{uuid.uuid4().hex[:12]}"


def find_staging(panel: Storage) -> list[str]:
    """Names of all staging folders, also those of builds that were killed."""
    selector = pafs.FileSelector(panel.path, allow_not_found=True)
    found = panel.filesystem.get_file_info(selector)
    folders = (info.path for info in found if info.type == pafs.FileType.Directory)
    names = (path.rstrip("/").rsplit("/", 1)[-1] for path in folders)
    return [name for name in names if name.startswith(_PREFIX)]


def remove_staging(panel: Storage) -> None:
    """Remove every staging folder and unfinished write; for whoever has the turn (`lock.py`)."""
    for name in find_staging(panel):
        panel.delete_folder(name)
    panel.delete_unfinished()


def write_staged(panel: Storage, name: str, rows: pa.Table, buckets: int) -> None:
    """Write checked rows (`validate.CHECKED`) as one file with a record batch for every bucket."""
    rows = rows.combine_chunks().unify_dictionaries()
    code = dictionary_of(rows["code"])
    own = bucket_of(code.dictionary.to_pylist(), buckets)
    bucket = own[code.indices.to_numpy()] if len(rows) else np.empty(0, dtype=np.int64)
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(buckets + 1))
    batch = rows.take(pa.array(order)).combine_chunks().to_batches()
    whole = batch[0] if batch else pa.RecordBatch.from_pylist([], schema=rows.schema)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(sink, rows.schema, options=options) as writer:
        for number in range(buckets):
            writer.write_batch(whole.slice(ends[number], ends[number + 1] - ends[number]))
    panel.write_bytes(name, sink.getvalue().to_pybytes())


def read_staged(panel: Storage, names: Sequence[str], bucket: int) -> pa.Table:
    """Rows of one bucket out of all staged files, in the files' order."""
    tables = [again(partial(_read_batch, panel, name, bucket)) for name in names]
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def _read_batch(panel: Storage, name: str, bucket: int) -> pa.Table:
    with panel.filesystem.open_input_file(panel.full(name)) as source:
        return pa.Table.from_batches([pa.ipc.open_file(source).get_batch(bucket)])


_ANY_DAY = DayRule()


_MAY_BE_EMPTY = ("turnover_rate", "market_cap", "industry")


@dataclass(frozen=True, kw_only=True)
class Staged:
    """What stage 1 tells of one unit."""

    names: tuple[str, ...]
    """Staged files, in order."""
    columns: dict[str, frozenset[str]]
    """File -> which of our columns it has, with a value in any traded row."""
    dates: np.ndarray
    """(days,) datetime64[D], distinct dates of its usable rows."""
    traded: np.ndarray
    """(days,) rows traded on each of them."""
    newest: np.datetime64
    """Latest day of any row that is no weekend's or unlisted one, usable or not; NaT = none."""
    codes: dict[str, str]
    """Every code of its rows -> a file that has it."""
    quality: Quality
    """Counts."""


@dataclass(frozen=True, kw_only=True)
class Bucketed:
    """What stage 2 tells of one bucket."""

    written: BucketWritten
    """Files and hashes."""
    names: pa.Table
    """Assets' names, as of `name_changes`."""
    quality: Quality = field(default_factory=Quality)
    """Rows set aside here, and what days say of each other."""
    moves: Moves = field(default_factory=Moves)
    """How prices and factors move."""


def stage_unit(
    bars_uri: str,
    unit: Sequence[BarsPart],
    prefix: str,
    *,
    form: BarsFormat,
    panel: Storage,
    buckets: int,
    days: DayRule = _ANY_DAY,
) -> Staged:
    """Read, check and stage one unit, a batch at a time.

    Args:
        bars_uri: Where the bars are.
        unit: Files or row groups.
        prefix: Start of the names of the staged files; belongs to this unit alone.
        form: The files' mapping.
        panel: The folder `<storage>/panel`.
        buckets: Number of hash buckets.
        days: Which dates may be.

    Raises:
        BarsError: The bars cannot be understood.
    """
    names: list[str] = []
    waiting: list[pa.Table] = []
    columns: dict[str, frozenset[str]] = {}
    counts: list[Quality] = []
    seen: list[np.ndarray] = []
    traded: list[np.ndarray] = []
    newest: list[np.datetime64] = []
    codes: dict[str, str] = {}

    def flush() -> None:
        names.append(f"{prefix}-{len(names):04d}.arrow")
        write_staged(panel, names[-1], pa.concat_tables(waiting), buckets)
        waiting.clear()

    for part in unit:
        row, whole = part.first_row, []
        for table in read_part(bars_uri, part, form):
            for code in pc.unique(table["code"]).drop_null().to_pylist():
                codes.setdefault(code, part.file.name)
            checked, quality = check_rows(
                table, form, file=part.file.name, number=part.number, first_row=row, days=days
            )
            has = columns.get(part.file.name, frozenset()) | _having(part, checked)
            columns[part.file.name] = has
            row += len(table)
            whole.append(quality)
            newest.append(_newest(table["date"], days))
            if len(checked):
                waiting.append(checked)
                dates, stocks = _traded_by_day(checked)
                seen.append(dates)
                traded.append(stocks)
            if sum(map(len, waiting)) >= BATCH_ROWS:
                flush()
        quality = merge(whole)
        counts.append(replace(quality, suspects=suspects(quality, part.file.name)))
    if waiting:
        flush()
    dates, stocks = sum_by_day(seen, traded)
    return Staged(
        names=tuple(names),
        columns=columns,
        dates=dates,
        traded=stocks,
        newest=np.fmax.reduce(np.array(newest, "datetime64[D]"), initial=np.datetime64("NaT")),
        codes=codes,
        quality=merge(counts),
    )


def build_bucket(
    bucket: int,
    names: Sequence[str],
    task: BucketTask,
    *,
    panel: Storage,
    buckets: int,
    kept: Collection[str] = (),
) -> Bucketed:
    """Turn one bucket's staged rows into its panel files; those of `kept` are not written again.

    Raises:
        BarsError: Two rows of one date and code contradict each other.
    """
    bars, beside = bucket_rows(panel, names, bucket, task)
    rows, quality, moves = traded_rows(bars, task)
    written = write_bucket(panel, bucket, buckets, panel_rows(rows, task), kept=kept)
    changes, quality = name_changes(rows.bars), merge([beside, quality])
    return Bucketed(written=written, names=changes, quality=quality, moves=moves)


def bucket_rows(
    panel: Storage, names: Sequence[str], bucket: int, task: BucketTask
) -> tuple[pa.Table, Quality]:
    """One bucket's staged rows with the side tables' columns; and what is wrong with these."""
    rows = read_staged(panel, names, bucket)
    found = []
    for table, staged in task.tables:
        rows, quality = joined(rows, read_staged(panel, staged, bucket), table, task.files)
        found.append(quality)
    if task.tables:  # columns that stage 1 did not see
        rows, spoilt = without_contradictions(rows, task.form, task.files)
        found.append(Quality(quarantined=spoilt))
    return rows, merge(found)


def _having(part: BarsPart, checked: pa.Table) -> frozenset[str]:
    """Columns of a batch; one that no traded row has a value of is not there."""
    traded = checked.filter(pc.invert(checked["suspended"]))
    if part.given or not len(traded):
        return part.has
    empty = {name for name in _MAY_BE_EMPTY if _is_empty(traded[name])}
    return part.has - empty


def _is_empty(column: pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.is_null(column, nan_is_null=True)).as_py())


def _traded_by_day(checked: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(days,) distinct dates, and (days,) rows that traded on each."""
    day = checked["date"].cast(pa.int32()).to_numpy().astype(np.int64)
    first = int(day.min())
    rows = np.bincount(day - first)
    traded = np.bincount(day - first, weights=pc.invert(checked["suspended"]).to_numpy())
    there = np.flatnonzero(rows)
    return (there + first).astype("datetime64[D]"), traded[there]


def _newest(column: pa.ChunkedArray, rule: DayRule) -> np.datetime64:
    """Latest date that may be a trading day, whatever its rows are worth."""
    days = pc.unique(pc.drop_null(column)).to_numpy(zero_copy_only=False).astype("datetime64[D]")
    for wrong in rule.reasons(days).values():  # one at most
        days = days[~wrong]
    return days.max() if len(days) else np.datetime64("NaT")
