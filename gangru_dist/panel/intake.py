"""Stage 1 of a build: read, check and stage bars, then side tables; a check does the same.

The rows stay in the staging folder; counts and names of columns are returned.

Checks of the files' headings: missing columns are found before any row is read or Ray starts.

Stage the tables that lie beside the bars, under the bars' own codes, cut by bucket.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gangru_dist.bars.codes import Spellings, check_spellings
from gangru_dist.bars.dated import Members, read_members
from gangru_dist.bars.days import DayRule, MarketDays, day_rule
from gangru_dist.bars.files import BarsFile, list_files
from gangru_dist.bars.formats import BarsFormat, bars_format
from gangru_dist.bars.joining import table_rows
from gangru_dist.bars.quality import Quality, merge
from gangru_dist.bars.reader import BarsPart, cut_parts, group_units, read_part
from gangru_dist.base import log
from gangru_dist.base.errors import BarsError, flag
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import Runner, value
from gangru_dist.config.settings import PanelConfig, RunConfig
from gangru_dist.features.price_volume import check_inputs, further_columns, inputs_of
from gangru_dist.panel.bucket import BucketTask, Tables
from gangru_dist.panel.stages import Staged, new_staging, stage_unit, write_staged

_ALL_OR_NONE = {
    "turnover_rate": "amount / market cap stands in for it only if no file has it",
}
"""Column -> what would come of a mix of files with and without it."""


def check_headers(uri: str, cfg: RunConfig) -> None:
    """Refuse bars that lack what the panel needs; opens every file, reads no row.

    Raises:
        BarsError: No files, a file that cannot be opened, a column or the factor missing.
        PanelError: A feature is unknown, or cannot be computed from these columns.
        ConfigError: The mapping names a column that we do not have.
    """
    check_names(cfg.panel)
    form = bars_format(cfg.bars, further_columns(cfg.panel.features))
    parts = cut_parts(uri, list_files(uri), form)
    columns = {part.file.name: part.has for part in parts if not part.table}
    check_columns(columns, cfg.panel.features, form)


def check_names(cfg: PanelConfig) -> None:
    """Refuse a feature that there is none of: PanelError with the nearest."""
    inputs_of((*cfg.features, *cfg.without))


def check_columns(
    columns: Mapping[str, Collection[str]], features: Collection[str], form: BarsFormat
) -> frozenset[str]:
    """Refuse columns that some files lack or no file has; all that there are.

    Args:
        columns: File -> our columns, its own and those that side tables give.
        features: What is to be computed.
        form: The mapping; it knows which call exports what is missing.

    Raises:
        BarsError: A column must be in every file or in none, and is not.
        PanelError: A feature cannot be computed from what is there.
    """
    for name in form.further:
        lacking = sorted(file for file in columns if name not in columns[file])
        if lacking:
            raise BarsError(
                f"{lacking[0]} has no column {name}, which a feature reads as column:{name}. "
                "Export it with every file; if it goes by another name, say so: "
                f"{flag(f'bars.columns.{name}', 'THEIRS')}"
            )
    for name in sorted(_ALL_OR_NONE.keys() & inputs_of(tuple(features))):
        having = sorted(file for file in columns if name in columns[file])
        lacking = sorted(file for file in columns if name not in columns[file])
        if having and lacking:
            raise BarsError(
                f"{lacking[0]} has no column {name}, or an empty one, and {having[0]} has: "
                f"{_ALL_OR_NONE[name]}. "
                "Export it with every file, or with none."
            )
    there = frozenset().union(*columns.values())
    check_inputs(tuple(features), there, call=form.calls.get("turnover_rate"))
    return there


@dataclass(frozen=True, kw_only=True)
class StagedTable:
    """What the staging of a side table's unit tells."""

    table: str
    """Name of the side table."""
    names: tuple[str, ...]
    """Staged files, in order."""
    rows: int
    """Rows of stocks that the bars have."""
    example: str
    """A code as the table spells it; empty if it has no rows."""


def stage_tables(
    run: Callable[[Sequence[tuple[Any, ...]]], list[StagedTable]],
    parts: Sequence[BarsPart],
    staging: str,
    form: BarsFormat,
    codes: Mapping[str, str],
) -> Tables:
    """Stage all side tables; nothing where there are none.

    Args:
        run: Calls `stage_table` for each (unit, prefix).
        parts: Of all side tables.
        staging: Folder of the staged files.
        form: Knows the tables.
        codes: Of the bars.

    Raises:
        BarsError: A file cannot be understood, or a table has no stock of the bars.
    """
    names = sorted({str(part.table) for part in parts})
    units = [unit for name in names for unit in group_units([p for p in parts if p.table == name])]
    if not units:
        return ()
    done = run([(unit, f"{staging}/table-{i:05d}") for i, unit in enumerate(units)])
    for name in names:
        own = [unit for unit in done if unit.table == name]
        if not sum(unit.rows for unit in own):
            example = next((unit.example for unit in own if unit.example), "no row")
            raise BarsError(
                f"the side table {name} has no stock of the bars: it has {example}, the bars "
                f"{next(iter(sorted(codes)), 'none')}. Export it for the same stocks."
            )
    return tuple(
        (form.tables[name], tuple(n for unit in done if unit.table == name for n in unit.names))
        for name in names
    )


def stage_table(
    bars_uri: str,
    unit: Sequence[BarsPart],
    prefix: str,
    *,
    form: BarsFormat,
    panel: Storage,
    buckets: int,
    codes: Mapping[str, str],
) -> StagedTable:
    """Read and stage some files of one side table, under the bars' own codes.

    Args:
        bars_uri: Where the bars are.
        unit: Files or row groups of one table.
        prefix: Start of the names of the staged files; belongs to this unit alone.
        form: The files' mapping.
        panel: The folder `<storage>/panel`.
        buckets: Number of hash buckets.
        codes: The bars' codes, for their spelling.

    Raises:
        BarsError: A file cannot be understood.
    """
    names: list[str] = []
    spellings = Spellings(codes)
    example = ""
    count = 0
    for part in unit:
        for table in read_part(bars_uri, part, form):
            example = example or next(iter(table["code"].drop_null()[:1].to_pylist()), "")
            rows = table_rows(table, spellings, part.number)
            if len(rows):
                names.append(f"{prefix}-{len(names):04d}.arrow")
                write_staged(panel, names[-1], rows, buckets)
                count += len(rows)
    return StagedTable(table=str(unit[0].table), names=tuple(names), rows=count, example=example)


_logger = logging.getLogger(__name__)

_OPTIONAL = ("adj_factor", "turnover_rate", "market_cap", "industry", "is_st", "list_date")


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A vendor's bars, listed but not read."""

    uri: str
    """Folder or file."""
    files: Sequence[BarsFile]
    """All files, side tables included."""
    form: BarsFormat
    """Their mapping."""
    rule: DayRule
    """Which dates may be."""
    members: Members | None
    """Of an index, day by day."""


@dataclass(frozen=True, kw_only=True)
class Intake:
    """Bars that are read and staged."""

    units: Sequence[Staged]
    """What each unit of files tells."""
    parts: Sequence[BarsPart]
    """All parts of all files."""
    folder: str
    """Where the rows are staged, below `<storage>/panel`."""

    @property
    def names(self) -> list[str]:
        """Staged files of the bars, in order."""
        return [name for unit in self.units for name in unit.names]

    @property
    def quality(self) -> Quality:
        """Counts over all units."""
        return merge(unit.quality for unit in self.units)

    @property
    def columns(self) -> dict[str, frozenset[str]]:
        """File -> its columns, side tables' included."""
        found: dict[str, frozenset[str]] = {}
        for unit in self.units:  # row groups of one file may be in several
            for name, having in unit.columns.items():
                found[name] = found.get(name, frozenset()) | having
        return found

    @property
    def lacking(self) -> dict[str, dict[str, Any]]:
        """Optional column -> number and example of the files without it, or with an empty one."""
        columns, found = self.columns, {}
        for name in _OPTIONAL:
            without = sorted(file for file, having in columns.items() if name not in having)
            if without:
                found[name] = {"files": len(without), "example": without[0]}
        return found


def open_bars(uri: str, cfg: RunConfig) -> Bars:
    """List the files.

    Raises:
        BarsError: There are none, or `bars.calendar` or `panel.members` cannot be read.
        ConfigError: The mapping names a column that we do not have.
    """
    form = bars_format(cfg.bars, further_columns(cfg.panel.features))
    return Bars(
        uri=uri,
        files=list_files(uri),
        form=form,
        rule=day_rule(cfg.bars, form),
        members=None if cfg.panel.members is None else read_members(cfg.panel.members),
    )


def stage_bars(bars: Bars, panel: Storage, cfg: RunConfig, runner: Runner) -> Intake:
    """Read, check and stage the daily bars.

    Raises:
        BarsError: A file or a row cannot be understood.
    """
    parts = cut_parts(bars.uri, bars.files, bars.form)
    units = group_units([part for part in parts if part.table is None])
    _logger.info("panel_read files=%d units=%d uri=%s", len(bars.files), len(units), bars.uri)
    folder = new_staging()
    work = partial(stage_unit, bars.uri, days=bars.rule, **_common(bars, panel, cfg))
    named = [(unit, f"{folder}/unit-{i:05d}") for i, unit in enumerate(units)]
    staged = do_all("panel_read", runner, cfg, lambda item: work(*item), named)
    return Intake(units=staged, parts=parts, folder=folder)


def bucket_task(
    bars: Bars,
    intake: Intake,
    market: MarketDays,
    *,
    panel: Storage,
    cfg: RunConfig,
    runner: Runner,
) -> BucketTask:
    """Stage the side tables; what stage 2 needs to know of everything together.

    Args:
        bars: What is read.
        intake: Its daily bars.
        market: Their trading days.
        panel: The folder `<storage>/panel`.
        cfg: Its sections `panel` and `resources` count.
        runner: Where side tables are read.

    Raises:
        BarsError: One stock goes by two codes, a side table cannot be understood, or
            `panel.members` has no stock or no day of these bars.
        PanelError: A feature cannot be computed from these columns.
    """
    codes: Mapping[str, str] = {c: file for unit in intake.units for c, file in unit.codes.items()}
    check_spellings(codes)
    there = check_columns(intake.columns, cfg.panel.features, bars.form)
    work = partial(stage_table, bars.uri, codes=codes, **_common(bars, panel, cfg))
    of_table = partial(do_all, "panel_tables", runner, cfg, lambda item: work(*item))
    side = [part for part in intake.parts if part.table is not None]
    return BucketTask(
        features=cfg.panel.features,
        calendar=market.calendar,
        closed=market.closed,
        has_turnover_rate="turnover_rate" in there,
        form=bars.form,
        files=tuple(file.name for file in bars.files),
        tables=stage_tables(of_table, side, intake.folder, bars.form, codes),
        members=None if bars.members is None else _members(bars.members, codes, market),
    )


def _members(members: Members, codes: Collection[str], market: MarketDays) -> Members:
    """The lists under the bars' codes; the log says what they lack."""
    first, last = market.calendar[0], market.calendar[-1]
    if members.dates[0] > last:
        raise BarsError(
            f"panel.members begins on {members.dates[0]}, after the bars' last day {last}: no day "
            "would have a member. Give lists from the first day on."
        )
    known = members.spelled(codes)
    _logger.info(
        "members_read lists=%d stocks=%d without_bars=%d first=%s last=%s",
        len(known.dates),
        len(known.codes),
        len(members.codes) - len(known.codes),
        known.dates[0],
        known.dates[-1],
    )
    if known.dates[0] > first:
        _logger.warning("members_begin_late lists=%s panel=%s", known.dates[0], first)
    return known


def do_all(
    name: str, runner: Runner, cfg: RunConfig, work: Callable[[Any], Any], items: Sequence[Any]
) -> list[Any]:
    """Results of all items, in their order.

    Raises:
        GangruError: Of the first item that has one, once all are through.
    """
    results: dict[int, Any] = {}
    with log.progress(name, total=len(items)) as progress:
        for number, result in runner(cfg, lambda: work, items):
            results[number] = result
            progress.advance()
    return [value(results[number]) for number in range(len(items))]


def _common(bars: Bars, panel: Storage, cfg: RunConfig) -> dict[str, Any]:
    return {"form": bars.form, "panel": panel, "buckets": cfg.panel.buckets}
