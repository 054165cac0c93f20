"""Refuse bars whose rows together show wrong columns, days or units; warn of the rest.

`jump_checks` judges sums over all stocks: of factors, jumps, and marks of special treatment.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from gangru_dist.bars.days import check_shifted
from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.headings import Bars
from gangru_dist.bars.quality import Finding, Quality, check_share, describe
from gangru_dist.base.errors import BarsError, format_flag
from gangru_dist.config.settings import BarsConfig
from gangru_dist.features.price_volume import check_turnover_rate, list_inputs
from gangru_dist.panel import jumps
from gangru_dist.panel.adjustment import NO_SOURCE
from gangru_dist.panel.copies import REPEATED_DAY, TWINS
from gangru_dist.panel.jump_checks import (
    COUNTED,
    check_adjustment,
    check_ex_dates,
    check_jumps,
    check_marks,
    check_together,
)
from gangru_dist.panel.jumps import JumpSums
from gangru_dist.panel.scales import check_suspects, suggest_setting

_logger = logging.getLogger(__name__)

_OPTIONAL = (
    "amount",
    "adj_factor",
    "turnover_rate",
    "market_cap",
    "industry",
    "is_st",
    "list_date",
)

_SERIOUS = (
    *COUNTED, jumps.AFTER, jumps.RESTLESS, jumps.UNSTEADY, jumps.STALE_CAP, NO_SOURCE, TWINS,
    REPEATED_DAY,
)  # fmt: skip
GAP = "day on which most stocks lack"
"""Start of a note on a column of a side table."""


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
    check_turnover_rate(
        features,
        there,
        left_out=form.left_out,
        call=form.calls.get("turnover_rate"),
    )
    return there


def find_lacking(columns: Mapping[str, Collection[str]]) -> dict[str, Finding]:
    """Optional column -> the files without it or with an empty one, the first by name."""
    lacking = {name: [f for f in columns if name not in columns[f]] for name in _OPTIONAL}
    return {
        name: Finding(count=len(files), example={"file": min(files)})
        for name, files in lacking.items()
        if files
    }


def check_staged(
    quality: Quality,
    files: Collection[str],
    dates: np.ndarray,
    form: BarsFormat,
    cfg: BarsConfig,
) -> None:
    """Refuse what the rows of stage 1 show to be wrong as a whole.

    Args:
        quality: Of all rows.
        files: Names of the files that have rows.
        dates: (days,) datetime64[D], distinct days of the usable rows.
        form: The mapping.
        cfg: What is allowed.

    Raises:
        BarsError: A file is in another unit, dates are shifted, or too many rows are bad.
    """
    check_suspects(quality, files, form)
    check_shifted(quality, dates)
    check_share(quality, allowed=cfg.max_quarantined, hint=suggest_setting(quality, form))


def check_built(
    sums: Iterable[JumpSums],
    quality: Quality,
    form: BarsFormat,
    cfg: BarsConfig,
    *,
    columns: Collection[str] = (),
) -> None:
    """Refuse what whole stocks show to be wrong; warn of what is counted only.

    Args:
        sums: Of all buckets.
        quality: Of stage 1, of the days and of all buckets.
        form: The mapping.
        cfg: What is allowed.
        columns: Ours that there are.

    Raises:
        BarsError: Factors or lasting moves contradict prices, marks are none that a market has
            had, or too many rows are bad.
    """
    total = sum(sums, JumpSums())
    check_adjustment(quality, total, form, allowed=cfg.max_quarantined)
    check_jumps(quality, total, allowed=cfg.max_jumps)
    check_together(total, "shifts_on_day")
    if form.prices == "traded":
        check_ex_dates(total, form)
    check_marks(total, form, is_given=not {"is_st", "name"}.isdisjoint(columns))
    check_share(quality, allowed=cfg.max_quarantined, hint=suggest_setting(quality, form))
    counted = {**quality.quarantined, **quality.notes}
    gaps = [name for name in quality.notes if name.startswith(GAP)]
    for name in (*_SERIOUS, *gaps):
        if name in counted:
            found = counted[name]
            _logger.warning(
                "bars_suspicious count=%d what=%r example=[%s]",
                found.count,
                name,
                describe(found.example),
            )
