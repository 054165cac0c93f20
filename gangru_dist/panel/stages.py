"""Compute a panel of bars, in stages that are mapped over a cluster or done in this process.

    stage_unit    units of files   -> checked rows, staged by bucket
    stage_table   units of tables  -> rows under the bars' own codes, staged by bucket
    build_bucket  one bucket       -> its panel files

Rows go through the storage (`panel.staging`); tasks return only what the driver must know.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from gangru_dist.bars.codes import check_spellings
from gangru_dist.bars.days import (
    DayRule,
    check_calendar,
    find_emptied_days,
    find_market_days,
    to_days,
)
from gangru_dist.bars.headings import Bars
from gangru_dist.bars.quality import Example, Findings, Quality, count_examples, merge
from gangru_dist.bars.reader import group_units
from gangru_dist.bars.rows import MISSING, check_joined, find_missing
from gangru_dist.bars.side_tables import join_table
from gangru_dist.base import log
from gangru_dist.base.errors import BarsError, GangruError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import Runner, catch_error, unwrap
from gangru_dist.config.settings import RunConfig
from gangru_dist.panel.bucket import BucketTask, Tables, find_delisted, make_panel_rows, select_rows
from gangru_dist.panel.checks import GAP, check_built, check_columns, check_staged
from gangru_dist.panel.copies import (
    REPEATED_DAY,
    describe_histories,
    find_repeated_days,
    find_twins,
)
from gangru_dist.panel.history import KnownFacts
from gangru_dist.panel.manifest import Manifest
from gangru_dist.panel.staging import (
    STAGING,
    StagedRows,
    merge_staged,
    read_staged,
    stage_table,
    stage_unit,
)
from gangru_dist.panel.writer import WrittenBucket, find_name_changes, make_manifest, write_bucket

_logger = logging.getLogger(__name__)

_HALF = 0.5


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """Result of both stages of a build; readers see nothing of it yet."""

    columns: Mapping[str, frozenset[str]]
    """File -> which of our columns it has, with a value in any traded row."""
    quality: Quality
    """Counts; those of the days and of all buckets too if the build got that far."""
    manifest: Manifest | None = None
    """Of the panel, if the build got that far; it lists no files where none were written."""
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
) -> BuildResult:
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
            return BuildResult(columns=staged.columns, quality=staged.quality, problem=problem)
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
    return BuildResult(
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


def _stage_bars(bars: Bars, folder: str, run: Callable[..., list[Any]], **stage: Any) -> StagedRows:
    """Read, check and stage the daily bars."""
    form = bars.own_form
    units = group_units([part for part in bars.parts if part.table is None])
    if form.prices == "traded" and form.factor_source is not None:
        _logger.info("adj_factor_derived from=%s uri=%s", form.factor_source, bars.uri)
    _logger.info("panel_read files=%d units=%d uri=%s", len(bars.files), len(units), bars.uri)
    read = partial(stage_unit, bars.uri, days=bars.rule, **stage)
    items = [(unit, f"{folder}/unit-{i:05d}") for i, unit in enumerate(units)]
    return merge_staged(run("panel_read", read, items))


def _check_staged(staged: StagedRows, bars: Bars, cfg: RunConfig) -> None:
    check_staged(staged.quality, staged.columns, staged.dates, bars.own_form, cfg.bars)
    check_calendar(staged.newest, bars.rule)


def _plan_buckets(
    bars: Bars, staged: StagedRows, cfg: RunConfig, there: Collection[str]
) -> BucketTask:
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
    staged: StagedRows,
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
            panel, bucket, buckets, make_panel_rows(rows, task), existing=existing, views=views
        )
    place, days = np.searchsorted(task.calendar, to_days(rows["date"])), len(task.calendar)
    valued = {name: ~find_missing(rows[name]) for name in task.given & MISSING.keys()}
    return replace(
        written,
        names=find_name_changes(rows),
        quality=merge([beside, quality, findings.quality]),
        sums=sums,
        delisted=delisted,
        histories=describe_histories(rows, place),
        rows_by_day=np.bincount(place, minlength=days),
        valued={name: np.bincount(place[has], minlength=days) for name, has in valued.items()},
    )
