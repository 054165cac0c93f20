"""Read and check the rows of bars and side tables, and stage them by bucket in the storage.

A batch of rows is one Arrow IPC file with one record batch per bucket, so a task that needs one
bucket reads nothing else of it. Names follow from the unit: a task that runs twice writes the same
file twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.bars.days import DayRule
from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.quality import Quality, merge
from gangru_dist.bars.reader import BATCH_ROWS, BarsPart, read_part
from gangru_dist.bars.rows import check_rows, find_suspects
from gangru_dist.bars.side_tables import Spellings, respell_rows
from gangru_dist.bars.values import encode
from gangru_dist.base.refusals import retry
from gangru_dist.base.storage import Storage
from gangru_dist.panel.manifest import assign_buckets

STAGING = "staging-"
"""Start of the folders below `<storage>/panel` that hold staged rows."""
_MAY_BE_EMPTY = ("turnover_rate", "market_cap", "industry")


@dataclass(frozen=True, kw_only=True)
class StagedRows:
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


def merge_staged(staged: Sequence[StagedRows]) -> StagedRows:
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
    return StagedRows(
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
) -> StagedRows:
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
    parts: list[StagedRows] = []
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
) -> StagedRows:
    """What a batch tells: all its rows, and those that passed the checks."""
    day = checked["date"].cast(pa.int32()).to_numpy().astype(np.int64)
    is_traded = pc.invert(checked["suspended"])
    first = int(day.min(initial=2**31))
    traded = np.bincount(day - first, weights=is_traded.to_numpy())
    there = np.flatnonzero(np.bincount(day - first))
    columns = part.has
    if traded.any():  # what no traded row has a value of is not there, unless a table gives it
        given = part.given | ({"market_cap"} if "total_shares" in part.given else set())
        rows = checked.select([name for name in _MAY_BE_EMPTY if name not in given])
        rows = rows.filter(is_traded)
        columns -= {
            name
            for name in rows.column_names
            if pc.all(pc.is_null(rows[name], nan_is_null=True)).as_py()
        }
    dates = pc.unique(table["date"].drop_null()).to_numpy(zero_copy_only=False)
    dates = dates.astype("datetime64[D]")
    dates = dates[days.may_be_newest(dates)]
    return StagedRows(
        columns={part.file.name: columns},
        dates=(there + first).astype("datetime64[D]"),
        traded=traded[there],
        newest=dates.max() if len(dates) else np.datetime64("NaT"),
        codes=dict.fromkeys(pc.unique(table["code"]).drop_null().to_pylist(), part.file.name),
        quality=quality,
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


def write_staged(panel: Storage, name: str, tables: Sequence[pa.Table], buckets: int) -> str:
    """Write checked rows as one file with a record batch for every bucket; return its name."""
    rows = pa.concat_tables(tables).combine_chunks().unify_dictionaries()
    code = encode(rows["code"])
    own = assign_buckets(code.dictionary.to_pylist(), buckets)[code.indices.to_numpy()]
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
