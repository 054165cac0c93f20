"""Checks of the files' headings: missing columns are found before any row is read or Ray starts."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gangru_dist.bars.files import list_files
from gangru_dist.bars.formats import BarsFormat, bars_format
from gangru_dist.bars.reader import cut_parts
from gangru_dist.config import PanelConfig, RunConfig
from gangru_dist.errors import BarsError, flag
from gangru_dist.features.price_volume import check_inputs, further_columns, inputs_of

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
