"""The two stages of a panel build, each mapped over a cluster or done in this process.

    stage_bars    units of files   -> checked rows, staged by bucket
    stage_tables  units of tables  -> rows under the bars' own codes, staged by bucket
    build_bucket  one bucket       -> its panel files

Rows go through the storage; tasks return what the driver must know. A batch of rows is staged as
one Arrow IPC file with one record batch a bucket, so that a task which needs one bucket reads
nothing else of it. Names follow from the unit: a task that ran twice has written the same file
twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.bars.columns import encode
from gangru_dist.bars.days import DayRule, sum_by_day
from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.quality import Quality, merge
from gangru_dist.bars.reader import BATCH_ROWS, BarsPart, group_units, read_part
from gangru_dist.bars.rows import check_joined, check_rows, find_suspects
from gangru_dist.bars.side_tables import Spellings, join_table, respell_rows
from gangru_dist.base import log
from gangru_dist.base.errors import BarsError
from gangru_dist.base.filesystems import retry
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import Runner, unwrap
from gangru_dist.config.settings import RunConfig
from gangru_dist.panel.bucket import BucketTask, Tables, panel_rows, select_rows
from gangru_dist.panel.intake import Bars
from gangru_dist.panel.manifest import bucket_of
from gangru_dist.panel.writer import WrittenBucket, name_changes, write_bucket

_logger = logging.getLogger(__name__)

_MAY_BE_EMPTY = ("turnover_rate", "market_cap", "industry")
_ANY_DAY = DayRule()


@dataclass(frozen=True, kw_only=True)
class Staged:
    """What the driver must know of some staged rows; `merge_staged` adds them up."""

    names: tuple[str, ...] = ()
    """Staged files, in order."""
    columns: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """File -> which of our columns it has, with a value in any traded row."""
    dates: np.ndarray
    """(days,) datetime64[D], distinct dates of the usable rows."""
    traded: np.ndarray
    """(days,) rows traded on each of them."""
    newest: np.datetime64
    """Latest day of any row that is no weekend's or unlisted one, usable or not; NaT = none."""
    codes: Mapping[str, str]
    """Every code -> a file that has it."""
    quality: Quality
    """Counts."""


def merge_staged(staged: Sequence[Staged]) -> Staged:
    """The sum; row groups of one file may be in several parts."""
    columns: dict[str, frozenset[str]] = {}
    codes: dict[str, str] = {}
    for part in staged:
        for file, names in part.columns.items():
            columns[file] = columns.get(file, frozenset()) | names
        for code, file in part.codes.items():
            codes.setdefault(code, file)
    dates, traded = sum_by_day([part.dates for part in staged], [part.traded for part in staged])
    newest = np.array([part.newest for part in staged], "datetime64[D]")
    return Staged(
        names=tuple(name for part in staged for name in part.names),
        columns=columns,
        dates=dates,
        traded=traded,
        newest=np.fmax.reduce(newest, initial=np.datetime64("NaT")),
        codes=codes,
        quality=merge(part.quality for part in staged),
    )


def stage_bars(
    bars: Bars, folder: str, *, panel: Storage, cfg: RunConfig, runner: Runner
) -> Staged:
    """Read, check and stage the daily bars.

    Args:
        bars: What is read.
        folder: Where the rows are staged, below `panel`.
        panel: The folder `<storage>/panel`.
        cfg: Its sections `panel` and `resources` count.
        runner: Where units are worked on.

    Raises:
        BarsError: A file or a row cannot be understood.
    """
    units = group_units([part for part in bars.parts if part.table is None])
    _logger.info("panel_read files=%d units=%d uri=%s", len(bars.files), len(units), bars.uri)
    work = partial(
        stage_unit, bars.uri, form=bars.form, panel=panel, buckets=cfg.panel.buckets, days=bars.rule
    )
    items = [(unit, f"{folder}/unit-{i:05d}") for i, unit in enumerate(units)]
    return merge_staged(map_items("panel_read", work, items, cfg=cfg, runner=runner))


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
    parts: list[Staged] = []

    def flush() -> None:
        names.append(f"{prefix}-{len(names):04d}.arrow")
        write_staged(panel, names[-1], pa.concat_tables(waiting), buckets)
        waiting.clear()

    for part in unit:
        batches, row = [], part.first_row
        for table in read_part(bars_uri, part, form):
            checked, quality = check_rows(
                table, form, file=part.file.name, number=part.number, first_row=row, days=days
            )
            batches.append(_summarize(table, checked, part, days, quality))
            row += len(table)
            if len(checked):
                waiting.append(checked)
            if sum(map(len, waiting)) >= BATCH_ROWS:
                flush()
        whole = merge_staged(batches)
        found = find_suspects(whole.quality, part.file.name)
        parts.append(replace(whole, quality=replace(whole.quality, suspects=found)))
    if waiting:
        flush()
    return replace(merge_staged(parts), names=tuple(names))


def _summarize(
    table: pa.Table, checked: pa.Table, part: BarsPart, days: DayRule, quality: Quality
) -> Staged:
    """What a batch tells: all its rows, and those that passed the checks."""
    day = checked["date"].cast(pa.int32()).to_numpy().astype(np.int64)
    is_traded = pc.invert(checked["suspended"])
    first = int(day.min(initial=2**31))
    traded = np.bincount(day - first, weights=is_traded.to_numpy())
    there = np.flatnonzero(np.bincount(day - first))
    columns = part.has
    if not part.given and traded.any():  # what no traded row has a value of is not there
        rows = checked.select(_MAY_BE_EMPTY).filter(is_traded)
        empty = (pc.all(pc.is_null(rows[name], nan_is_null=True)).as_py() for name in _MAY_BE_EMPTY)
        columns -= {name for name, is_empty in zip(_MAY_BE_EMPTY, empty, strict=True) if is_empty}
    dates = pc.unique(table["date"].drop_null()).to_numpy(zero_copy_only=False)
    dates = dates.astype("datetime64[D]")
    for wrong in days.reasons(dates).values():  # one at most
        dates = dates[~wrong]
    return Staged(
        columns={part.file.name: columns},
        dates=(there + first).astype("datetime64[D]"),
        traded=traded[there],
        newest=dates.max() if len(dates) else np.datetime64("NaT"),
        codes=dict.fromkeys(pc.unique(table["code"]).drop_null().to_pylist(), part.file.name),
        quality=quality,
    )


def stage_tables(
    bars: Bars,
    codes: Mapping[str, str],
    folder: str,
    *,
    panel: Storage,
    cfg: RunConfig,
    runner: Runner,
) -> Tables:
    """Read and stage the tables that lie beside the bars; nothing where there are none.

    Args:
        bars: What is read.
        codes: Of the daily bars, for their spelling.
        folder: Where the rows are staged, below `panel`.
        panel: The folder `<storage>/panel`.
        cfg: Its sections `panel` and `resources` count.
        runner: Where units are worked on.

    Raises:
        BarsError: A file cannot be understood, or a table has no stock of the bars.
    """
    tables: dict[str, list[BarsPart]] = {}
    for part in bars.parts:
        if part.table is not None:
            tables.setdefault(part.table, []).append(part)
    units = [(name, unit) for name in sorted(tables) for unit in group_units(tables[name])]
    if not units:
        return ()
    work = partial(
        stage_table, bars.uri, form=bars.form, panel=panel, buckets=cfg.panel.buckets, codes=codes
    )
    items = [(unit, f"{folder}/table-{i:05d}") for i, (_, unit) in enumerate(units)]
    staged = map_items("panel_tables", work, items, cfg=cfg, runner=runner)
    files: dict[str, tuple[str, ...]] = {}
    examples: dict[str, str] = {}
    for (name, _), (names, example) in zip(units, staged, strict=True):
        files[name] = (*files.get(name, ()), *names)
        examples[name] = examples.get(name) or example
    for name in files:
        if not files[name]:
            raise BarsError(
                f"the side table {name} has no stock of the bars: it has "
                f"{examples[name] or 'no row'}, the bars {min(codes, default='none')}. "
                "Export it for the same stocks."
            )
    return tuple((bars.form.tables[name], files[name]) for name in files)


def stage_table(
    bars_uri: str,
    unit: Sequence[BarsPart],
    prefix: str,
    *,
    form: BarsFormat,
    panel: Storage,
    buckets: int,
    codes: Mapping[str, str],
) -> tuple[list[str], str]:
    """Read and stage some files of one side table, as `stage_unit` does of the bars.

    Returns:
        The staged files, none without a row of the bars' stocks; and a code as the table spells
        it, empty if it has no rows.

    Raises:
        BarsError: A file cannot be understood.
    """
    names: list[str] = []
    spellings, example = Spellings(codes), ""
    for part in unit:
        for table in read_part(bars_uri, part, form):
            example = example or next(iter(table["code"].drop_null()[:1].to_pylist()), "")
            rows = respell_rows(table, spellings, part.number)
            if len(rows):
                names.append(f"{prefix}-{len(names):04d}.arrow")
                write_staged(panel, names[-1], rows, buckets)
    return names, example


def build_bucket(
    bucket: int,
    names: Sequence[str],
    task: BucketTask,
    *,
    panel: Storage,
    buckets: int,
    kept: Collection[str] | None = (),
) -> WrittenBucket:
    """Turn one bucket's staged rows into its panel files.

    Args:
        bucket: Its number.
        names: Staged files of the daily bars.
        task: What all buckets have in common.
        panel: The folder `<storage>/panel`.
        buckets: How many there are.
        kept: Panel files that are not written again; None = only check, write none at all.

    Raises:
        BarsError: Two rows of one date and code contradict each other.
    """
    bars, beside = read_staged(panel, names, bucket), Quality()
    for table, staged in task.tables:
        bars = join_table(bars, read_staged(panel, staged, bucket), table, task.files)
    if task.tables:  # columns that stage 1 did not see
        bars, beside = check_joined(bars, task.form, task.files)
    rows, quality, sums = select_rows(bars, task)
    written = WrittenBucket(assets=sums.assets)
    if kept is not None:
        written = write_bucket(panel, bucket, buckets, panel_rows(rows, task), kept=kept)
    return replace(written, names=name_changes(rows), quality=merge([beside, quality]), sums=sums)


def write_staged(panel: Storage, name: str, rows: pa.Table, buckets: int) -> None:
    """Write checked rows (`rows.CHECKED`) as one file with a record batch for every bucket."""
    rows = rows.combine_chunks().unify_dictionaries()
    code = encode(rows["code"])
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

    def read(name: str) -> pa.Table:
        with panel.filesystem.open_input_file(panel.full_path(name)) as source:
            return pa.Table.from_batches([pa.ipc.open_file(source).get_batch(bucket)])

    tables = [retry(partial(read, name)) for name in names]
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def map_items(
    name: str,
    work: Callable[..., Any],
    items: Sequence[tuple[Any, ...]],
    *,
    cfg: RunConfig,
    runner: Runner,
) -> list[Any]:
    """Results of `work(*item)` for all items, in their order.

    Raises:
        GangruError: Of the first item that has one, once all are through.
    """
    results: dict[int, Any] = {}
    with log.Progress(name, total=len(items)) as progress:
        for number, result in runner(cfg, lambda: lambda item: work(*item), items):
            results[number] = result
            progress.advance()
    return [unwrap(results[number]) for number in range(len(items))]
