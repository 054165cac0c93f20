"""What the two stages of a panel build do with one unit and one bucket: plain functions.

`build` maps them over a cluster. They return what the driver must know, never rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.joining import joined
from gangru_dist.bars.quality import Finding, Quality, merge
from gangru_dist.bars.reader import BATCH_ROWS, BarsPart, read_part
from gangru_dist.bars.validate import check_rows
from gangru_dist.calendar import distinct_days
from gangru_dist.panel.bucket import BucketTask, panel_rows
from gangru_dist.panel.staging import read_staged, write_staged
from gangru_dist.panel.writer import BucketWritten, write_bucket
from gangru_dist.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Staged:
    """What stage 1 tells of one unit."""

    names: tuple[str, ...]
    """Staged files, in order."""
    columns: dict[str, frozenset[str]]
    """File -> which of our columns it has."""
    dates: np.ndarray
    """(days,) datetime64[D], distinct dates of its usable rows."""
    codes: dict[str, str]
    """Every code of its rows -> a file that has it."""
    quality: Quality
    """Counts."""


@dataclass(frozen=True, kw_only=True)
class Bucketed:
    """What stage 2 tells of one bucket."""

    written: BucketWritten
    """Files and hashes."""
    quarantined: dict[str, Finding] = field(default_factory=dict)
    """Rows set aside here."""


def stage_unit(
    bars_uri: str,
    unit: Sequence[BarsPart],
    prefix: str,
    *,
    form: BarsFormat,
    panel: Storage,
    buckets: int,
) -> Staged:
    """Read, check and stage one unit, a batch at a time.

    Args:
        bars_uri: Where the bars are.
        unit: Files or row groups.
        prefix: Start of the names of the staged files; belongs to this unit alone.
        form: The files' mapping.
        panel: The folder `<storage>/panel`.
        buckets: Number of hash buckets.

    Raises:
        BarsError: The bars cannot be understood.
    """
    names: list[str] = []
    waiting: list[pa.Table] = []
    columns: dict[str, frozenset[str]] = {}
    counts: list[Quality] = []
    days: list[np.ndarray] = []
    codes: dict[str, str] = {}

    def flush() -> None:
        names.append(f"{prefix}-{len(names):04d}.arrow")
        write_staged(panel, names[-1], pa.concat_tables(waiting), buckets)
        waiting.clear()

    for part in unit:
        row = part.first_row
        for table in read_part(bars_uri, part, form):
            columns[part.file.name] = part.has
            for code in pc.unique(table["code"]).drop_null().to_pylist():
                codes.setdefault(code, part.file.name)
            checked, quality = check_rows(
                table, form, file=part.file.name, number=part.number, first_row=row
            )
            row += len(table)
            counts.append(quality)
            if len(checked):
                waiting.append(checked)
                days.append(pc.unique(checked["date"]).to_numpy(zero_copy_only=False))
            if sum(map(len, waiting)) >= BATCH_ROWS:
                flush()
    if waiting:
        flush()
    return Staged(
        names=tuple(names),
        columns=columns,
        dates=distinct_days(np.concatenate(days)) if days else np.empty(0, "datetime64[D]"),
        codes=codes,
        quality=merge(counts),
    )


def build_bucket(
    bucket: int,
    names: Sequence[str],
    task: BucketTask,
    *,
    panel: Storage,
    buckets: int,
    kept: Collection[str] = (),
) -> Bucketed:
    """Turn one bucket's staged rows into its panel files; those of `kept` are not written again.

    Raises:
        BarsError: Two rows of one date and code contradict each other.
    """
    rows = read_staged(panel, names, bucket)
    quarantined: dict[str, Finding] = {}
    for table, staged in task.tables:
        side = read_staged(panel, staged, bucket)
        rows, spoilt = joined(rows, side, table, task.files)
        quarantined |= spoilt
    rows, duplicates = panel_rows(rows, task)
    written = write_bucket(panel, bucket, buckets, rows, kept=kept)
    return Bucketed(written=written, quarantined=quarantined | duplicates)
