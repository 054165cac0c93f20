"""Compute a panel of bars, in stages that are mapped over a cluster or done in this process.

    stage_unit    units of files   -> checked rows, staged by bucket
    stage_table   units of tables  -> rows under the bars' own codes, staged by bucket
    build_bucket  one bucket       -> its panel files

Rows go through the storage; tasks return what the driver must know. A batch of rows is staged as
one Arrow IPC file with one record batch a bucket, so that a task which needs one bucket reads
nothing else of it. Names follow from the unit: a task that ran twice has written the same file
twice.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.bars.columns import encode
from gangru_dist.bars.days import (
    DayRule,
    check_calendar,
    find_emptied_days,
    find_market_days,
    to_days,
)
from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.headings import Bars
from gangru_dist.bars.quality import Example, Findings, Quality, merge
from gangru_dist.bars.reader import BATCH_ROWS, BarsPart, group_units, read_part
from gangru_dist.bars.rows import MISSING, check_joined, check_rows, find_missing, find_suspects
from gangru_dist.bars.side_tables import Spellings, check_spellings, join_table, respell_rows
from gangru_dist.base import log
from gangru_dist.base.errors import BarsError, GangruError
from gangru_dist.base.filesystems import retry
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import Runner, catch_error, unwrap
from gangru_dist.config.settings import RunConfig
from gangru_dist.panel.bucket import BucketTask, Tables, find_delisted, panel_rows, select_rows
from gangru_dist.panel.checks import GAP, check_built, check_columns, check_staged
from gangru_dist.panel.copies import (
    REPEATED_DAY,
    count_examples,
    describe_histories,
    find_repeated_days,
    find_twins,
)
from gangru_dist.panel.history import KnownFacts
from gangru_dist.panel.manifest import Manifest, bucket_of
from gangru_dist.panel.writer import WrittenBucket, make_manifest, name_changes, write_bucket

_logger = logging.getLogger(__name__)

STAGING = "staging-"
"""Start of the folders below `<storage>/panel` that hold staged rows."""
_HALF = 0.5
_MAY_BE_EMPTY = ("turnover_rate", "market_cap", "industry")


@dataclass(frozen=True, kw_only=True)
class Computed:
    """Result of both stages of a build; readers see nothing of it yet."""

    columns: Mapping[str, frozenset[str]]
    """File -> which of our columns it has, with a value in any traded row."""
    quality: Quality
    """Counts, of the days and of all buckets too if it came so far."""
    manifest: Manifest | None = None
    """Of the panel, if it came so far; lists no files where none were written."""
    names: Sequence[pa.Table] = ()
    """Assets' names, a table a bucket."""
    problem: GangruError | None = None
    """Why the bars cannot be trusted."""


def compute_panel(
    bars: Bars,
    panel: Storage,
    cfg: RunConfig,
    runner: Runner,
    *,
    source: dict[str, Any],
    existing: Collection[str] | None,
    known: KnownFacts | None = None,
    views: Sequence[Sequence[str]] = (),
) -> Computed:
    """All stages, with the checks of all rows together after each.

    Args:
        bars: What is read.
        panel: The folder `<storage>/panel`.
        cfg: Its sections `bars`, `panel` and `resources` count.
        runner: Where units and buckets are worked on.
        source: What the manifest says of the bars.
        existing: Panel files that are not written again; None = only check, write none at all.
        known: What the panel that is there knew of its stocks.
        views: Features of runs that name others than `panel.features`.

    Raises:
        BarsError: A file, a row or a side table cannot be understood, one stock goes by two
            codes, or `panel.members` has no stock or no day of these bars.
        PanelError: A feature cannot be computed from these columns.
    """
    folder, buckets = f"{STAGING}{uuid.uuid4().hex[:12]}", cfg.panel.buckets
    run = partial(_map_items, cfg=cfg, runner=runner)
    stage: dict[str, Any] = {"form": bars.own_form, "panel": panel, "buckets": buckets}
    try:
        staged = _stage_bars(bars, folder, run, **stage)
        problem = catch_error(partial(_check_staged, staged, bars, cfg))
        if problem is not None:
            return Computed(columns=staged.columns, quality=staged.quality, problem=problem)
        check_spellings(staged.codes)
        there = check_columns(staged.columns, cfg.panel.features, bars.own_form)
        task = _plan_buckets(bars, staged, cfg, there)
        if len(bars.parts) > sum(part.table is None for part in bars.parts):
            task = replace(task, tables=_stage_tables(bars, staged.codes, folder, run, **stage))
        work = partial(
            build_bucket,
            names=staged.names,
            panel=panel,
            buckets=buckets,
            existing=existing,
            known=known,
            views=views,
        )
        task, written, repeated = _build_buckets(staged, task, bars.rule, run, work, cfg)
    finally:
        panel.discard(folder)
    calendar = task.calendar
    market = find_market_days(calendar, _count_kept(written), bars.rule)
    found = [market.quality, repeated, _find_gaps(written, calendar)]
    found.append(find_twins([b.histories for b in written if b.histories], calendar))
    quality = merge([staged.quality, *found, *(b.quality for b in written)])
    return Computed(
        columns=staged.columns,
        quality=quality,
        manifest=make_manifest(
            written,
            () if existing is None else views,
            features=cfg.panel.features,
            buckets=buckets,
            calendar=calendar,
            source=source,
            has_members=cfg.panel.members is not None,
            set_aside=str(staged.newest) if staged.newest > calendar[-1] else None,
            facts=bars.facts,
            incomplete=str(calendar[-1]) if market.incomplete else None,
        ),
        names=[bucket.names for bucket in written],
        problem=catch_error(
            lambda: check_built(
                [b.sums for b in written], quality, bars.own_form, cfg.bars, columns=there
            )
        ),
    )


def _stage_bars(bars: Bars, folder: str, run: Callable[..., list[Any]], **stage: Any) -> Staged:
    """Read, check and stage the daily bars."""
    form = bars.own_form
    units = group_units([part for part in bars.parts if part.table is None])
    if form.prices == "traded" and form.factor_source is not None:
        _logger.info("adj_factor_derived from=%s uri=%s", form.factor_source, bars.uri)
    _logger.info("panel_read files=%d units=%d uri=%s", len(bars.files), len(units), bars.uri)
    read = partial(stage_unit, bars.uri, days=bars.rule, **stage)
    items = [(unit, f"{folder}/unit-{i:05d}") for i, unit in enumerate(units)]
    return merge_staged(run("panel_read", read, items))


def _check_staged(staged: Staged, bars: Bars, cfg: RunConfig) -> None:
    check_staged(staged.quality, staged.columns, staged.dates, bars.own_form, cfg.bars)
    check_calendar(staged.newest, bars.rule)


def _plan_buckets(bars: Bars, staged: Staged, cfg: RunConfig, there: Collection[str]) -> BucketTask:
    """What all buckets have in common, without side tables; `there`: columns that there are."""
    market = find_market_days(staged.dates, staged.traded, bars.rule)
    return BucketTask(
        features=cfg.panel.features,
        calendar=market.calendar,
        closed=market.closed,
        has_turnover_rate="turnover_rate" in there,
        form=bars.own_form,
        files=tuple(file.name for file in bars.files),
        given=bars.given,
        members=bars.members and bars.members.respell(staged.codes, market.calendar),
    )


def _build_buckets(
    staged: Staged,
    task: BucketTask,
    rule: DayRule,
    run: Callable[..., list[Any]],
    work: Callable[..., WrittenBucket],
    cfg: RunConfig,
) -> tuple[BucketTask, list[WrittenBucket], Quality]:
    """Build all buckets, and again without the days that are none by their rows, if there are any.

    Returns:
        The task with the days that are left, the buckets, and which days repeat which.
    """
    repeated: list[Example] = []
    most = cfg.bars.max_quarantined * staged.quality.rows  # more is refused afterwards
    while True:
        numbers = [(number,) for number in range(cfg.panel.buckets)]
        written = run("panel_features", partial(work, task=task), numbers)
        traded = staged.traded[np.isin(staged.dates, task.calendar)]
        back = find_repeated_days([part for b in written for part in b.sums.repeated], traded)
        kept = np.where(back > 0, 0, _count_kept(written))
        emptied = find_emptied_days(traded, kept, rule) | (back > 0)
        too_many = sum(part.quality.set_aside for part in (staged, *written)) > most
        if too_many or not emptied.any():
            return task, written, count_examples({REPEATED_DAY: repeated})
        repeated += [
            {"date": str(task.calendar[i]), "as": str(task.calendar[i - back[i]])}
            for i in np.flatnonzero(back)
        ]
        closed = np.union1d(task.emptied, task.calendar[emptied])
        left = ~np.isin(staged.dates, closed)
        market = find_market_days(staged.dates[left], staged.traded[left], rule)
        task = replace(task, calendar=market.calendar, closed=market.closed, emptied=closed)


def _count_kept(written: Sequence[WrittenBucket]) -> np.ndarray:
    """(days,) rows of all buckets on each trading day."""
    return np.asarray(np.stack([bucket.rows_by_day for bucket in written]).sum(axis=0))


def _find_gaps(written: Sequence[WrittenBucket], calendar: np.ndarray) -> Quality:
    """Count the days on which a column of a side table has values of less than half the stocks."""
    kept, lacking = _count_kept(written), {}
    for name in written[0].valued:
        valued = np.stack([bucket.valued[name] for bucket in written]).sum(axis=0)
        lacking[f"{GAP} {name}"] = [
            {"date": str(calendar[i]), "stocks": int(kept[i]), "with_a_value": int(valued[i])}
            for i in np.flatnonzero(valued < _HALF * kept)
        ]
    return count_examples(lacking)


def _map_items(
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
    dates, day = np.unique(np.concatenate([p.dates for p in staged]), return_inverse=True)
    traded = np.bincount(day, weights=np.concatenate([p.traded for p in staged]))
    return Staged(
        names=tuple(name for part in staged for name in part.names),
        columns=columns,
        dates=dates,
        traded=traded,
        newest=np.fmax.reduce(np.array([part.newest for part in staged])),
        codes=codes,
        quality=merge(part.quality for part in staged),
    )


def stage_unit(
    bars_uri: str,
    unit: Sequence[BarsPart],
    prefix: str,
    *,
    form: BarsFormat,
    panel: Storage,
    buckets: int,
    days: DayRule,
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
    for part in unit:
        batches, row = [], part.first_row
        for table in read_part(bars_uri, part, form):
            checked, quality = check_rows(
                table, form, file=part.file.name, number=part.number, first_row=row, days=days
            )
            batches.append(_summarize(table, checked, part, days, quality))
            row += len(table)
            waiting += [checked] if len(checked) else []
            if sum(map(len, waiting)) >= BATCH_ROWS:
                names.append(write_staged(panel, f"{prefix}-{len(names):04d}", waiting, buckets))
                waiting = []
        whole = merge_staged(batches)
        found = find_suspects(whole.quality, part.file.name)
        parts.append(replace(whole, quality=replace(whole.quality, suspects=found)))
    if waiting:
        names.append(write_staged(panel, f"{prefix}-{len(names):04d}", waiting, buckets))
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
    dates = dates[days.may_be_newest(dates)]
    return Staged(
        columns={part.file.name: columns},
        dates=(there + first).astype("datetime64[D]"),
        traded=traded[there],
        newest=dates.max() if len(dates) else np.datetime64("NaT"),
        codes=dict.fromkeys(pc.unique(table["code"]).drop_null().to_pylist(), part.file.name),
        quality=quality,
    )


def _stage_tables(
    bars: Bars, codes: Mapping[str, str], folder: str, run: Callable[..., list[Any]], **stage: Any
) -> Tables:
    """Read and stage the tables that lie beside the bars.

    Raises:
        BarsError: A file cannot be understood, or a table has no stock of the bars.
    """
    tables = sorted({part.table for part in bars.parts if part.table is not None})
    parts = [[part for part in bars.parts if part.table == name] for name in tables]
    units = [unit for own in parts for unit in group_units(own)]
    work = partial(stage_table, bars.uri, codes=codes, **stage)
    items = [(unit, f"{folder}/table-{i:05d}") for i, unit in enumerate(units)]
    staged = run("panel_tables", work, items)
    result = []
    for name in tables:
        own = [done for unit, done in zip(units, staged, strict=True) if unit[0].table == name]
        files = tuple(file for files, _ in own for file in files)
        if not files:
            example = next((code for _, code in own if code), "no row")
            raise BarsError(
                f"the side table {name} has no stock of the bars: it has {example}, the bars "
                f"{min(codes, default='none')}. Export it for the same stocks."
            )
        result.append((bars.form.tables[name], files))
    return tuple(result)


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
                names.append(write_staged(panel, f"{prefix}-{len(names):04d}", [rows], buckets))
    return names, example


def build_bucket(
    bucket: int,
    names: Sequence[str],
    task: BucketTask,
    *,
    panel: Storage,
    buckets: int,
    existing: Collection[str] | None = (),
    known: KnownFacts | None = None,
    views: Sequence[Sequence[str]] = (),
) -> WrittenBucket:
    """Turn one bucket's staged rows into its panel files.

    Args:
        bucket: Its number.
        names: Staged files of the daily bars.
        task: What all buckets have in common.
        panel: The folder `<storage>/panel`.
        buckets: How many there are.
        existing: Panel files that are not written again; None = only check, write none at all.
        known: What the panel that is there knew of its stocks.
        views: As of `write_bucket`.

    Raises:
        BarsError: Two rows of one date and code contradict each other.
    """
    bars, beside = read_staged(panel, names, bucket), Quality()
    for table, staged in task.tables:
        bars = join_table(bars, read_staged(panel, staged, bucket), table, task.files)
    if task.tables:  # columns that stage 1 did not see
        if known is not None:
            bars = known.keep(bars, bucket, buckets)
        bars, beside = check_joined(bars, task.form, task.files, task.given)
    rows, quality, sums = select_rows(bars, task)
    findings = Findings(files=task.files)
    delisted = find_delisted(rows, {} if known is None else known.manifest.delisted, task, findings)
    written = WrittenBucket(assets=sums.assets)
    if existing is not None:
        written = write_bucket(
            panel, bucket, buckets, panel_rows(rows, task), existing=existing, views=views
        )
    place, days = np.searchsorted(task.calendar, to_days(rows["date"])), len(task.calendar)
    valued = {name: ~find_missing(rows[name]) for name in task.given & MISSING.keys()}
    return replace(
        written,
        names=name_changes(rows),
        quality=merge([beside, quality, findings.quality]),
        sums=sums,
        delisted=delisted,
        histories=describe_histories(rows, place),
        rows_by_day=np.bincount(place, minlength=days),
        valued={name: np.bincount(place[has], minlength=days) for name, has in valued.items()},
    )


def write_staged(panel: Storage, name: str, tables: Sequence[pa.Table], buckets: int) -> str:
    """Write checked rows as one file with a record batch for every bucket; return its name."""
    rows = pa.concat_tables(tables).combine_chunks().unify_dictionaries()
    code = encode(rows["code"])
    own = bucket_of(code.dictionary.to_pylist(), buckets)[code.indices.to_numpy()]
    order = np.argsort(own, kind="stable")
    ends = np.searchsorted(own[order], np.arange(buckets + 1))
    (batch,) = rows.take(pa.array(order)).combine_chunks().to_batches()
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(sink, rows.schema, options=options) as writer:
        for number in range(buckets):
            writer.write_batch(batch.slice(ends[number], ends[number + 1] - ends[number]))
    panel.write_bytes(f"{name}.arrow", sink.getvalue().to_pybytes())
    return f"{name}.arrow"


def read_staged(panel: Storage, names: Sequence[str], bucket: int) -> pa.Table:
    """Rows of one bucket out of all staged files, in the files' order."""

    def read(name: str) -> pa.Table:
        with panel.filesystem.open_input_file(panel.full_path(name)) as source:
            return pa.Table.from_batches([pa.ipc.open_file(source).get_batch(bucket)])

    tables = [retry(partial(read, name)) for name in names]
    rows = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    for place, column in enumerate(rows.columns):
        if pa.types.is_dictionary(column.type):
            rows = rows.set_column(place, rows.schema.field(place), _drop_unused(column))
    return rows


def _drop_unused(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """The column without the texts of other buckets' rows."""
    coded = encode(column)
    used = pc.unique(coded.indices.drop_null())
    indices = pc.index_in(coded.indices, used)
    return pa.DictionaryArray.from_arrays(indices, coded.dictionary.take(used)).cast(column.type)
