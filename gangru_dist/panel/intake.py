"""Stage 1 of a build: read, check and stage bars, then side tables; a check does the same.

The rows stay in the staging folder; counts and names of columns are returned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gangru_dist import log
from gangru_dist.bars.codes import check_spellings
from gangru_dist.bars.dated import Members, read_members
from gangru_dist.bars.days import DayRule, MarketDays, day_rule
from gangru_dist.bars.files import BarsFile, list_files
from gangru_dist.bars.formats import BarsFormat, bars_format
from gangru_dist.bars.quality import Quality, merge
from gangru_dist.bars.reader import BarsPart, cut_parts, group_units
from gangru_dist.cluster_map import Runner, value
from gangru_dist.config import RunConfig
from gangru_dist.errors import BarsError
from gangru_dist.features.price_volume import further_columns
from gangru_dist.panel.bucket import BucketTask
from gangru_dist.panel.headers import check_columns
from gangru_dist.panel.side_tables import stage_table, stage_tables
from gangru_dist.panel.stages import Staged, stage_unit
from gangru_dist.panel.staging import new_staging
from gangru_dist.storage import Storage

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
