"""The bars of a build before any row is read: listed, their headings opened once and checked.

Missing columns are found here, before Ray starts and before an hour of reading.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from gangru_dist.bars.days import DayRule, MarketDays, read_day_rule
from gangru_dist.bars.files import BarsFile, list_files
from gangru_dist.bars.formats import BarsFormat, resolve_format
from gangru_dist.bars.index import Members, read_members
from gangru_dist.bars.reader import BarsPart, read_headings
from gangru_dist.base.errors import BarsError, format_flag
from gangru_dist.config.settings import PanelConfig, RunConfig
from gangru_dist.features.price_volume import (
    FEATURES,
    check_inputs,
    list_further_columns,
    list_inputs,
)
from gangru_dist.panel.manifest import ROWS_VERSION

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
    """The mapping of their columns."""
    rule: DayRule
    """Which dates may be."""
    members: Members | None
    """Of an index, day by day; None = no index is asked for."""

    @cached_property
    def parts(self) -> list[BarsPart]:
        """All parts of all files; the first use opens every footer and header.

        Raises:
            BarsError: A file cannot be opened or lacks a required column.
        """
        return read_headings(self.uri, self.files, self.form)


def open_bars(uri: str, cfg: RunConfig) -> Bars:
    """List the files.

    Raises:
        BarsError: There are none, or `bars.calendar` or `panel.members` cannot be read.
        PanelError: A feature is unknown; the message gives the nearest names.
        ConfigError: The mapping names a column that we do not have.
    """
    check_names(cfg.panel)
    form = resolve_format(cfg.bars, list_further_columns(cfg.panel.features))
    return Bars(
        uri=uri,
        files=list_files(uri),
        form=form,
        rule=read_day_rule(cfg.bars, form),
        members=None if cfg.panel.members is None else read_members(cfg.panel.members),
    )


def are_dated(bars: Bars) -> bool:
    """Whether a changed file would show: its size may be the same, so its time must be known."""
    undated = [file.name for file in bars.files if file.modified is None]
    if undated:
        _logger.info(
            "panel_not_kept reason=storage_gives_no_modification_time files=%d example=%s",
            len(undated),
            undated[0],
        )
    return not undated


def describe_source(bars: Bars, cfg: RunConfig) -> dict[str, Any]:
    """What a panel is made from; equal sources give equal panels, if the files are dated."""
    listing = "\n".join(f"{file.name} {file.size} {file.modified}" for file in bars.files)
    own = [FEATURES.hash_user_code(name) for name in cfg.panel.features]
    days = bars.rule.calendar
    days_bytes = None if days is None else days.astype("datetime64[D]").tobytes()
    return {
        "uri": bars.uri,
        "files": len(bars.files),
        "bytes": sum(file.size for file in bars.files),
        "listing": hashlib.sha256(listing.encode()).hexdigest(),
        "rows_version": ROWS_VERSION,
        "users_code": {name: code for feature in own for name, code in feature.items()},
        "bars": asdict(cfg.bars),
        "trading_days": None if days_bytes is None else hashlib.sha256(days_bytes).hexdigest(),
        "members": cfg.panel.members,
        "member_lists": None if bars.members is None else bars.members.digest,
        "buckets": cfg.panel.buckets,
        "features": list(cfg.panel.features),
    }


def select_members(members: Members, codes: Collection[str], market: MarketDays) -> Members:
    """The lists under the bars' codes; the log says what they lack."""
    first, last = market.calendar[0], market.calendar[-1]
    if members.dates[0] > last:
        raise BarsError(
            f"panel.members begins on {members.dates[0]}, after the bars' last day {last}: no day "
            "would have a member. Give lists from the first day on."
        )
    known = members.respell(codes)
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


def check_names(cfg: PanelConfig) -> None:
    """Refuse a feature that there is none of: PanelError with the nearest names."""
    list_inputs((*cfg.features, *cfg.without))


def check_headings(bars: Bars, features: Sequence[str]) -> None:
    """Refuse bars that lack what the panel needs; opens every file, reads no row.

    Raises:
        BarsError: A file cannot be opened, a column or the factor is missing.
        PanelError: A feature cannot be computed from these columns.
    """
    columns = {part.file.name: part.has for part in bars.parts if not part.table}
    check_columns(columns, features, bars.form)


def check_columns(
    columns: Mapping[str, Collection[str]], features: Sequence[str], form: BarsFormat
) -> frozenset[str]:
    """Refuse columns that some files lack or no file has; return all that there are.

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
                f"{format_flag(f'bars.columns.{name}', 'THEIRS')}"
            )
    if "turnover_rate" in list_inputs(features):
        having = sorted(file for file in columns if "turnover_rate" in columns[file])
        lacking = sorted(columns.keys() - set(having))
        if having and lacking:
            raise BarsError(
                f"{lacking[0]} has no column turnover_rate, or an empty one, and {having[0]} has: "
                "amount / market cap stands in for it only if no file has it. "
                "Export it with every file, or with none."
            )
    there = frozenset().union(*columns.values())
    check_inputs(features, there, call=form.calls.get("turnover_rate"))
    return there


def find_lacking(columns: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Optional column -> the files, sorted, without it or with an empty one."""
    files = sorted(columns)
    without = {name: [file for file in files if name not in columns[file]] for name in _OPTIONAL}
    return {name: lacking for name, lacking in without.items() if lacking}
