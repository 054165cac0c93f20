"""Data files of the factor table: a month's rows, with a footer that lists the days they cover.

Rows are sorted by (date, asset). The footer lists days without rows too, with their models and
counts. A file's name ends with the hash of its bytes, which is checked when it is read.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from gangru_dist.base.errors import FactorError, shorten
from gangru_dist.base.records import describe_error, hash_bytes
from gangru_dist.base.storage import Storage
from gangru_dist.runs.summaries import DayCoverage

FILE_SCHEMA = pa.schema(
    [
        pa.field("date", pa.date32(), nullable=False),
        pa.field("asset", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("factor", pa.float64()),  # null on a day with too few assets
        pa.field("quantile", pa.int16(), nullable=False),  # 0 on such a day
        pa.field("window", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
    ]
)
"""Columns of a data file; the month is in its path, as usual in Delta."""

PARTITION = "month"
"""Partition column, "2019-07"."""

_FOOTER = b"gangru_dist.coverage"
_DAYS = TypeAdapter(list[DayCoverage])
_NAMED = re.compile(r"/[0-9a-f]{32}-(?P<digest>[0-9a-f]{32})\.parquet$")
_DAMAGE = (pa.ArrowException, KeyError, ValueError, OSError)
Parsed = TypeVar("Parsed")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """A data file that is written but not committed yet."""

    path: str
    """Path below the table."""
    size: int
    """Bytes."""
    rows: int
    """Number of rows."""
    days: tuple[DayCoverage, ...]
    """Days of one month, ascending; a day with an empty universe has no rows."""

    @property
    def month(self) -> str:
        """Its partition, "2019-07"."""
        return self.days[0].date[:7]


def write_file(factor: Storage, rows: pa.Table, days: Iterable[DayCoverage]) -> DataFile:
    """Write days of one month to a new file, which is not visible before a commit.

    Args:
        factor: `Run.factor`.
        rows: Columns of `FILE_SCHEMA`, sorted by (date, asset).
        days: All days covered by the file, at least one; also days without rows.
    """
    covered = tuple(sorted(days, key=lambda day: day.date))
    footer = json.dumps([asdict(day) for day in covered]).encode()
    sink = pa.BufferOutputStream()
    rows = rows.cast(FILE_SCHEMA).replace_schema_metadata({_FOOTER: footer})
    pq.write_table(rows, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    path = f"{PARTITION}={covered[0].date[:7]}/{uuid.uuid4().hex}-{hash_bytes(data)}.parquet"
    factor.write_bytes(path, data)
    return DataFile(path=path, size=len(data), rows=rows.num_rows, days=covered)


def read_rows(factor: Storage, path: str) -> pa.Table:
    """Rows of one data file, `FILE_SCHEMA`, once its bytes are those that were written.

    Files of earlier versions and of other tools have no hash in their name and are believed.

    Raises:
        FactorError: It is gone, or damaged.
    """
    return _read_file(factor, path, _parse_rows)


def read_days(factor: Storage, path: str) -> list[DayCoverage]:
    """Days covered by one data file; reads its footer alone.

    Raises:
        FactorError: It is gone, or damaged.
    """
    with suppress(*_DAMAGE), factor.filesystem.open_input_file(factor.full_path(path)) as file:
        return _parse_days(pq.ParquetFile(file))
    return _read_file(factor, path, _parse_days)  # says whether the file or the store is ill


def _read_file(factor: Storage, path: str, parse: Callable[[pq.ParquetFile], Parsed]) -> Parsed:
    """What is in a data file.

    Raises:
        FactorError: It is gone, or damaged; an OSError of bytes that are read says so too.
    """
    try:
        data = factor.read_bytes(path)
    except FileNotFoundError as error:
        raise _damaged_file(factor, path, "it is gone") from error
    named = _NAMED.search(path)
    if named and named["digest"] != hash_bytes(data):
        reason = "its bytes are not those that were written under this name"
        raise _damaged_file(factor, path, reason)
    try:
        return parse(pq.ParquetFile(pa.BufferReader(data)))
    except _DAMAGE as error:
        reason = describe_error(error) if isinstance(error, ValidationError) else str(error)
        raise _damaged_file(factor, path, reason) from error


def _parse_rows(file: pq.ParquetFile) -> pa.Table:
    return file.read().select(FILE_SCHEMA.names).replace_schema_metadata(None).cast(FILE_SCHEMA)


def _parse_days(file: pq.ParquetFile) -> list[DayCoverage]:
    """Days in the footer; those of another tool's file, e.g. a compaction, all count as stale."""
    footer = (file.schema_arrow.metadata or {}).get(_FOOTER)
    if footer is not None:
        return _DAYS.validate_json(footer)
    columns = ["date", "window", "model"]
    days = file.read(columns=columns).group_by(columns).aggregate([])
    rows = zip(*(days[name].to_pylist() for name in columns), strict=True)
    return [DayCoverage(date=str(d), window=str(w), model=str(m), basis="") for d, w, m in rows]


def _damaged_file(factor: Storage, path: str, reason: str) -> FactorError:
    found = re.search(r"\d{4}-\d{2}", path)
    first, last = ("DAY", "DAY")
    if found:
        month = pd.Period(found[0], "M")
        first, last = f"{month.start_time:%Y-%m-%d}", f"{month.end_time:%Y-%m-%d}"
    return FactorError(
        f"{factor.uri}/{path} is damaged: {shorten(reason)}. Run `gangru score` with "
        f"--from {first} --to {last}: it scores those days again."
    )
