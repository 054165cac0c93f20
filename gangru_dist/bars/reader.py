"""Read a vendor's files: parquet, CSV or Qlib's binary ones, any partitioning, any storage.

Files are cut into units, one task each: neighbours until there are enough rows, a large parquet
file by its row groups. Reading streams in batches, so neither a file nor a unit need fit into
memory. Hive folders (`date=2018-12-28/`) give their column where the file has none, and so does
the name of a file that holds one stock. What is read is what was listed: a file that changed in
between is an error, never fewer rows.

Read Qlib's own folder: calendars/day.txt, instruments/all.txt, features/<code>/<field>.day.bin.

A field's file is little-endian float32: first the place of its first value in the calendar, then
one value a trading day, NaN where the stock was suspended. `D.features` shows a stock only within
its spans of instruments/all.txt, and so does this. Source: qlib's scripts/dump_bin.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from gangru_dist.bars.codes import code_in_name
from gangru_dist.bars.columns import STANDS_FOR, TEXT_KINDS, Place, convert, kind_of
from gangru_dist.bars.files import BarsFile, CsvShape, csv_shape, read_csv
from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.headings import check_renamed, choose_columns, choose_table_columns
from gangru_dist.base.errors import BarsError
from gangru_dist.base.filesystems import resolve


def headings(file: BarsFile) -> list[str]:
    """Columns of an instrument: date, instrument, and its fields as Qlib writes them."""
    return ["date", "instrument", *(f"${name}" for name in file.fields)]


def read_instrument(
    filesystem: pafs.FileSystem, file: BarsFile, wanted: Sequence[str]
) -> Iterator[pa.Table]:
    """The days of one instrument as one table.

    Raises:
        BarsError: A file's place in the calendar is none, or the instrument is not listed, or not
            with a first and a last day.
    """
    base = file.path.removesuffix(f"/{file.name}")
    calendar = _calendar(_text(filesystem, f"{base}/calendars/day.txt"))
    code, spans = _spans(_listed(_text(filesystem, f"{base}/instruments/all.txt")), file)
    inside = np.zeros(len(calendar), dtype=bool)
    for first, last in spans:
        inside |= (calendar >= first) & (calendar <= last)
    values = {
        name: _field(filesystem, f"{file.path}/{name[1:]}.day.bin", file, len(calendar))
        for name in wanted
        if name.startswith("$")
    }
    there = inside & np.any([there for _, there in values.values()], axis=0)
    columns = {"date": pa.array(calendar[there], pa.date32())}
    columns["instrument"] = pa.repeat(pa.scalar(code), int(there.sum()))
    columns |= {name: pa.array(numbers[there]) for name, (numbers, _) in values.items()}
    yield pa.table({name: columns[name] for name in wanted})


@lru_cache(maxsize=2)
def _calendar(text: str) -> np.ndarray:
    """(days,) datetime64[D] of calendars/day.txt."""
    try:
        days = np.array([_day(line) for line in text.split("\n") if line.strip()], "datetime64[D]")
    except ValueError as error:
        raise BarsError(f"calendars/day.txt has a line that is no day: {error}.") from error
    if (np.diff(days.astype(np.int64)) <= 0).any():
        raise BarsError("calendars/day.txt is not in order, or has a day twice. Dump it again.")
    return days


@lru_cache(maxsize=2)
def _listed(text: str) -> dict[str, list[list[str]]]:
    """Folder's name -> the lines of instruments/all.txt: code, first day, last day."""
    result: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        if line.strip():
            fields = line.split("\t")
            result.setdefault(fields[0].lower(), []).append(fields)
    return result


def _spans(
    listed: Mapping[str, list[list[str]]], file: BarsFile
) -> tuple[str, list[tuple[np.datetime64, np.datetime64]]]:
    """The instrument's code as instruments/all.txt spells it, and its first and last days."""
    own = listed.get(file.name.rpartition("/")[2].lower(), [])
    if not own or any(len(line) != 3 for line in own):
        raise BarsError(
            f"{file.name} is not in instruments/all.txt as code, first and last day. Dump it "
            "again, or move the folder away."
        )
    return own[0][0], [_span(line) for line in own]


def _span(line: Sequence[str]) -> tuple[np.datetime64, np.datetime64]:
    """First and last day of a line; numpy would take 2019 for a day, and nothing for NaT."""
    written = [_day(text) for text in line[1:]]
    try:
        first, last = np.array(written, "datetime64[D]")
    except ValueError:
        first = last = np.datetime64("NaT")
    if [str(first), str(last)] != written or not first <= last:
        raise BarsError(
            f"instruments/all.txt has the line {' '.join(line)!r}: it must give a code, its first "
            "day as 2019-01-02, and its last day, which is no earlier. Dump it again."
        )
    return first, last


def _field(
    filesystem: pafs.FileSystem, path: str, file: BarsFile, days: int
) -> tuple[np.ndarray, np.ndarray]:
    """(days,) float64 values, NaN outside the file; and where the file has any."""
    with filesystem.open_input_file(path) as source:
        data = source.read()
    name = f"{file.name}/{path.rpartition('/')[2]}"
    raw = np.frombuffer(data[: len(data) // 4 * 4], dtype="<f4").astype(np.float64)
    start = raw[0] if len(raw) else np.nan
    if len(data) % 4 or not (start >= 0 and start == np.floor(start)):
        raise BarsError(
            f"{name} is not one of Qlib's files: it does not begin with a place in the calendar. "
            "Dump it again."
        )
    end = int(start) + len(raw) - 1
    if end > days:
        raise BarsError(
            f"{name} has values of {len(raw) - 1} days from day {int(start)} of the calendar on, "
            f"and calendars/day.txt ends after {days}. They come from different dumps."
        )
    values = np.full(days, np.nan)
    values[int(start) : end] = raw[1:]
    there = np.zeros(days, dtype=bool)
    there[int(start) : end] = True
    return values, there


def _day(text: str) -> str:
    """ISO day of 2018-12-28, 20181228 or either with a time behind."""
    day = text.strip()[:10]
    return f"{day[:4]}-{day[4:6]}-{day[6:8]}" if day[:8].isdigit() else day


def _text(filesystem: pafs.FileSystem, path: str) -> str:
    with filesystem.open_input_file(path) as source:
        return bytes(source.read()).decode("utf-8-sig")


BATCH_ROWS = 500_000
"""Rows held at once by a task; also the least of a unit, where files are small."""

_CSV_ROW_BYTES = 60  # a guess, for cutting units only


@dataclass(frozen=True, kw_only=True, slots=True)
class BarsPart:
    """A file, or some row groups of a parquet file."""

    number: int
    """Index of the file in the sorted list of files."""
    file: BarsFile
    """Where the rows are."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our column -> the file's."""
    constants: Mapping[str, str | None] = field(default_factory=dict)
    """Columns that the file's name and folders give -> their value."""
    given: frozenset[str] = frozenset()
    """Our columns that side tables bring to its rows."""
    table: str | None = None
    """Name of the side table it belongs to; None = daily bars."""
    row_groups: tuple[int, ...] = ()
    """Which; () = the whole of a file that is no parquet."""
    first_row: int = 0
    """Rows of the file before these."""
    rows: int = 0
    """How many, a guess where it is no parquet."""
    shape: CsvShape | None = None
    """How a CSV file is written."""

    @property
    def has(self) -> frozenset[str]:
        """Our columns that its rows will have: own, given, and those that others stand in for."""
        there = self.given.union(self.columns)
        return there.union(STANDS_FOR[name] for name in there & STANDS_FOR.keys())


def cut_parts(uri: str, files: Sequence[BarsFile], form: BarsFormat) -> list[BarsPart]:
    """All row groups of all parquet files, all other files; opens every footer and header.

    Side tables come first; `BarsPart.table` tells them from the bars.

    Raises:
        BarsError: A file cannot be opened or lacks a required column, or the user's mapping
            names a column that no file has: found now rather than after an hour of reading.
    """
    filesystem, _ = resolve(uri)
    with ThreadPoolExecutor(16) as pool:
        rows = [number for number, file in enumerate(files) if file.has_rows]
        opened = list(pool.map(lambda i: _open(filesystem, i, files[i], form), rows))
    check_renamed(uri, list(dict.fromkeys(name for _, names in opened for name in names)), form)
    sides = [_of_table(parts, names, form) for parts, names in opened if parts[0].table]
    given = given_columns([part for parts in sides for part in parts])
    bars = [_of_bars(parts, names, form, given) for parts, names in opened if not parts[0].table]
    if not bars:
        raise BarsError(
            f"{uri} has the side tables {', '.join(sorted(form.tables))} at most, and no daily "
            "bars. Put them beside the tables, or into a folder of another name."
        )
    return [part for parts in (*sides, *bars) for part in parts]


def given_columns(parts: Sequence[BarsPart]) -> frozenset[str]:
    """Our columns that all files of a side table have, of all side tables."""
    by_table: dict[str, frozenset[str]] = {}
    for part in parts:
        if part.table:
            own = frozenset(part.columns) - {"code", "date"}
            by_table[part.table] = by_table.get(part.table, own) & own
    return frozenset().union(*by_table.values())


def group_units(parts: Sequence[BarsPart], *, rows: int = BATCH_ROWS) -> list[list[BarsPart]]:
    """Neighbouring parts together until a unit has `rows` rows."""
    units: list[list[BarsPart]] = []
    filled = 0
    for part in parts:
        if not units or filled + part.rows > rows:
            units.append([])
            filled = 0
        units[-1].append(part)
        filled += part.rows
    return units


def read_part(uri: str, part: BarsPart, form: BarsFormat) -> Iterator[pa.Table]:
    """Batches of a part in our columns (`schema.BAR_COLUMNS` as far as they are there) and units.

    Every batch of a file has the same columns; at least one comes, if only without rows.

    Raises:
        BarsError: A type or value is not what it must be, or the file has changed since it was
            listed.
    """
    filesystem, _ = resolve(uri)
    with _readable(part.file):
        first = part.first_row
        for raw in _read(filesystem, part):
            yield _ours(raw, part, form, first)
            first += len(raw)
        if part.file.is_parquet and first - part.first_row != part.rows:
            raise _changed(part.file, f"{first - part.first_row} of {part.rows} rows were read")
        part.file.check_unchanged(filesystem)


def _read(filesystem: pafs.FileSystem, part: BarsPart) -> Iterator[pa.Table]:
    """Batches of the columns that are wanted, as the file has them."""
    wanted = [name for name in part.columns.values() if name not in part.constants]
    if part.file.fields:
        return read_instrument(filesystem, part.file, wanted)
    if part.shape is not None:
        return read_csv(filesystem, part.file, part.shape, wanted)
    return _read_parquet(filesystem, part, wanted)


def _read_parquet(
    filesystem: pafs.FileSystem, part: BarsPart, wanted: list[str]
) -> Iterator[pa.Table]:
    text = [name for ours, name in part.columns.items() if kind_of(ours) in TEXT_KINDS]
    with filesystem.open_input_file(part.file.path) as source:
        plain = pq.ParquetFile(source)
        if not set(wanted) <= set(plain.schema_arrow.names):
            raise _changed(part.file, "it has other columns now")
        leaves = {plain.schema.column(i).path for i in range(len(plain.schema))}  # no lists
        coded = [name for name in text if name in wanted and name in leaves]
        file = pq.ParquetFile(source, metadata=plain.metadata, read_dictionary=coded)
        batches = file.iter_batches(BATCH_ROWS, row_groups=list(part.row_groups), columns=wanted)
        seen = False
        for batch in batches:
            seen = True
            yield pa.Table.from_batches([batch])
        if not seen:
            yield file.schema_arrow.empty_table().select(wanted)


def _ours(raw: pa.Table, part: BarsPart, form: BarsFormat, first: int) -> pa.Table:
    """Our columns, types and units."""
    columns: dict[str, Any] = {}
    commas = part.shape is not None and part.shape.delimiter == ","
    for ours, theirs in part.columns.items():
        place = Place(
            file=part.file.name, column=theirs, ours=ours, first_row=first, thousands=commas
        )
        if theirs in part.constants:
            column = pa.chunked_array([pa.repeat(pa.scalar(part.constants[theirs]), len(raw))])
            column = column.cast(pa.string())
        else:
            column = raw[theirs]
        columns[ours] = convert(column, kind_of(ours), place)
        scale = form.scale(ours, theirs)
        if scale != 1:
            columns[ours] = pc.multiply(columns[ours], scale)
    return pa.table(columns)


def _open(
    filesystem: pafs.FileSystem, number: int, file: BarsFile, form: BarsFormat
) -> tuple[list[BarsPart], list[str]]:
    """Parts of one file, and its columns; which of them are ours is not decided yet."""
    whole = BarsPart(number=number, file=file, table=_table_of(file.name, form))
    with _readable(file):
        if file.fields:
            names = headings(file)
            parts = [replace(whole, rows=file.size // (4 * len(file.fields)))]
        elif file.is_parquet:
            names, parts = _open_parquet(filesystem, whole)
        else:
            shape = csv_shape(filesystem, file, form.encoding)
            names, rows = shape.names, file.size // _CSV_ROW_BYTES
            parts = [replace(whole, shape=shape, rows=rows)]
    constants = _constants(file.name, names, form)
    return [replace(part, constants=constants) for part in parts], [*names, *constants]


def _open_parquet(filesystem: pafs.FileSystem, whole: BarsPart) -> tuple[list[str], list[BarsPart]]:
    with filesystem.open_input_file(whole.file.path) as source:
        parquet = pq.ParquetFile(source)
        names, footer = parquet.schema_arrow.names, parquet.metadata
    sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    parts = [
        replace(whole, row_groups=(group,), first_row=sum(sizes[:group]), rows=rows)
        for group, rows in enumerate(sizes)
    ]
    return names, parts or [whole]


def _of_bars(
    parts: list[BarsPart], names: list[str], form: BarsFormat, given: frozenset[str]
) -> list[BarsPart]:
    columns = choose_columns(parts[0].file.name, names, form, given=given)
    return [replace(part, columns=columns, given=given) for part in parts]


def _of_table(parts: list[BarsPart], names: list[str], form: BarsFormat) -> list[BarsPart]:
    table = form.tables[str(parts[0].table)]
    columns = choose_table_columns(parts[0].file.name, names, form, table)
    return [replace(part, columns=columns) for part in parts]


def _table_of(name: str, form: BarsFormat) -> str | None:
    """The side table that a file belongs to, by its first folder or its own name."""
    first = name.split("/")[0].split(".")[0].lower()
    return first if first in form.tables else None


@contextmanager
def _readable(file: BarsFile) -> Iterator[None]:
    """Word what goes wrong when a file is opened or decoded."""
    try:
        yield
    except (UnicodeDecodeError, pa.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        if isinstance(error, UnicodeDecodeError) or "invalid UTF8" in reason:
            raise BarsError(
                f"{file.name} is not in the encoding of its first bytes ({reason}). Say which it "
                "is, for example --set bars.encoding=gb18030, or convert it."
            ) from error
        kind = "parquet" if file.is_parquet else "CSV"
        raise BarsError(
            f"{file.name} cannot be read as {kind}: {reason}. Replace it, or move it away."
        ) from error


def _changed(file: BarsFile, how: str) -> BarsError:
    return BarsError(
        f"{file.name} changed while it was read: {how}. Let its download end, then run the same "
        "command again."
    )


def _constants(name: str, there: Sequence[str], form: BarsFormat) -> dict[str, str | None]:
    """Columns that a file has by its place: `date=2018-12-28/part.parquet`, `600000.SH.csv`."""
    pairs = [part.split("=", 1) for part in name.split("/")[:-1] if "=" in part]
    found = {
        key: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
        for key, value in pairs
        if key not in there
    }
    if form.code_in_name != "none" and form.find("code", [*there, *found]) is None:
        code = code_in_name(name, any_name=form.code_in_name == "any")
        if code is not None:
            found[form.names("code")[0]] = code
    return found
