"""Stage the tables that lie beside the bars, under the bars' own codes, cut by bucket."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gangru_dist.bars.codes import Spellings
from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.joining import table_rows
from gangru_dist.bars.reader import BarsPart, group_units, read_part
from gangru_dist.errors import BarsError
from gangru_dist.panel.bucket import Tables
from gangru_dist.panel.staging import write_staged
from gangru_dist.storage import Storage


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
