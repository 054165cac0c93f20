"""Read a vendor's files: parquet, CSV or Qlib's binary ones, any partitioning, any storage.

Files are cut into units, one task each: neighbours until there are enough rows, a large parquet
file by its row groups. Reading streams in batches, so neither a file nor a unit need fit into
memory. Hive folders (`date=2018-12-28/`) give their column where the file has none, and so does
the name of a file that holds one stock. What is read is what was listed: a file that changed in
between is an error, never fewer rows.

Of a CSV file, all columns are read as text; `columns.convert` makes numbers and dates of them. CR,
LF and CRLF end a line. A file in another encoding than it was taken for is an error, never other
characters.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from gangru_dist.bars import qlib
from gangru_dist.bars.columns import (
    TEXT_KINDS,
    Origin,
    check_renamed,
    choose_columns,
    choose_table_columns,
    convert,
)
from gangru_dist.bars.files import BarsFile
from gangru_dist.bars.formats import STANDS_FOR, BarsFormat, kind_of
from gangru_dist.bars.side_tables import find_code
from gangru_dist.base.errors import BarsError
from gangru_dist.base.filesystems import open_filesystem

BATCH_ROWS = 500_000
"""Rows held at once by a task; also the least of a unit, where files are small."""

_CSV_ROW_BYTES = 60  # a guess, for cutting units only
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "NaT"]
_PACKED = {"gz": "gzip", "bz2": "bz2", "zst": "zstd", "lz4": "lz4"}
_HEAD = 1 << 18
_BLOCK = 32 << 20
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""First bytes -> encoding. The decoder takes the mark away itself, and Arrow that of UTF-8."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvShape:
    """How a CSV file is written."""

    names: list[str]
    """Headings in order."""
    delimiter: str
    """Between fields."""
    encoding: str
    """As Python names it."""


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


def read_headings(uri: str, files: Sequence[BarsFile], form: BarsFormat) -> list[BarsPart]:
    """All row groups of all parquet files, all other files; opens every footer and header.

    Side tables come first; `BarsPart.table` tells them from the bars.

    Raises:
        BarsError: A file cannot be opened or lacks a required column, or the user's mapping
            names a column that no file has: found now rather than after an hour of reading.
    """
    filesystem, _ = open_filesystem(uri)
    with ThreadPoolExecutor(16) as pool:
        rows = [number for number, file in enumerate(files) if file.has_rows]
        opened = list(pool.map(lambda i: _open(filesystem, i, files[i], form), rows))
    check_renamed(uri, list(dict.fromkeys(name for _, names in opened for name in names)), form)
    sides, bars = [], []
    by_table: dict[str, frozenset[str]] = {}
    for parts, names in opened:
        if (table := parts[0].table) is not None:
            columns = choose_table_columns(parts[0].file.name, names, form, form.tables[table])
            sides += [replace(part, columns=columns) for part in parts]
            own = frozenset(columns) - {"code", "date"}
            by_table[table] = by_table.get(table, own) & own
    given = frozenset().union(*by_table.values())  # what all files of a table have
    for parts, names in opened:
        if parts[0].table is None:
            columns = choose_columns(parts[0].file.name, names, form, given=given)
            bars += [replace(part, columns=columns, given=given) for part in parts]
    if not bars:
        raise BarsError(
            f"{uri} has the side tables {', '.join(sorted(form.tables))} at most, and no daily "
            "bars. Put them beside the tables, or into a folder of another name."
        )
    return [*sides, *bars]


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
    """Batches of a part in our columns (`formats.BAR_COLUMNS` as far as they are there) and units.

    Every batch of a file has the same columns; at least one comes, if only without rows.

    Raises:
        BarsError: A type or value is not what it must be, or the file has changed since it was
            listed.
    """
    filesystem, _ = open_filesystem(uri)
    wanted = [name for name in part.columns.values() if name not in part.constants]
    with _explain_errors(part.file):
        if part.file.fields:
            batches = qlib.read_instrument(filesystem, part.file, wanted)
        elif part.shape is not None:
            batches = read_csv(filesystem, part.file, part.shape, wanted)
        else:
            batches = _read_parquet(filesystem, part, wanted)
        first = part.first_row
        for raw in batches:
            yield _convert_batch(raw, part, form, first)
            first += len(raw)
        part.file.check_unchanged(filesystem)


def read_csv_shape(filesystem: pafs.FileSystem, file: BarsFile, encoding: str) -> CsvShape:
    """Look at the start of a CSV file.

    Args:
        filesystem: Where it is.
        file: Compressed or not, by its name.
        encoding: As Python names it, or `auto`.

    Raises:
        BarsError: The encoding is unknown, or the file is none of those that `auto` knows.
        UnicodeDecodeError: The file is not in the encoding it was said to be in.
    """
    with filesystem.open_input_file(file.path) as source:
        head = _unpack(source, file).read(_HEAD)
    if encoding == "auto":
        encoding = _detect_encoding(head, file)
    try:
        codec = codecs.lookup(encoding)
    except LookupError as error:
        raise BarsError(
            f"bars.encoding={encoding} is no encoding that Python knows; common ones are utf-8, "
            "gb18030 and utf-16. Leave it out to have it detected."
        ) from error
    text = codec.incrementaldecoder().decode(head).removeprefix("\ufeff")
    line = re.split(r"\r\n|\n|\r", text, maxsplit=1)[0]
    delimiter = max(",\t;|", key=line.count)
    names = next(csv.reader([line], delimiter=delimiter), [])
    return CsvShape(names=names, delimiter=delimiter, encoding=codec.name)


def read_csv(
    filesystem: pafs.FileSystem, file: BarsFile, shape: CsvShape, wanted: Sequence[str]
) -> Iterator[pa.Table]:
    """Batches of some columns as text; at least one comes, if only without rows.

    Raises:
        BarsError: Fewer bytes came than the file was listed with.
    """
    schema = pa.schema([(name, pa.string()) for name in wanted])
    options = {
        "read_options": pa_csv.ReadOptions(block_size=_BLOCK, encoding=shape.encoding),
        "parse_options": pa_csv.ParseOptions(delimiter=shape.delimiter),
        "convert_options": pa_csv.ConvertOptions(
            include_columns=schema.names,
            column_types=schema,
            null_values=_MISSING,
            strings_can_be_null=True,
        ),
    }
    seen = False
    with filesystem.open_input_file(file.path) as source:
        for batch in pa_csv.open_csv(_unpack(source, file), **options):
            seen = True
            yield pa.Table.from_batches([batch])
        if not source.closed and source.tell() != file.size:  # unpacking closes it, and checks
            raise BarsError(
                f"{file.name}: {source.tell()} bytes were read, but it was listed with "
                f"{file.size}. It changed while it was read, or is damaged: let its download end, "
                "then run again."
            )
    if not seen:
        yield schema.empty_table()


def _unpack(source: pa.NativeFile, file: BarsFile) -> Any:
    """The file's text, whatever its name says it is packed with."""
    codec = _PACKED.get(file.name.lower().rpartition(".")[2])
    return pa.CompressedInputStream(source, codec) if codec else source


def _detect_encoding(head: bytes, file: BarsFile) -> str:
    """Encoding of the start of a file: its mark, else the first that reads it without an error."""
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    candidates = ["utf-8", "gb18030"]
    if b"\0" in head[:200]:
        candidates = ["utf-16-le" if head[1:2] == b"\0" else "utf-16-be"]
    for name in candidates:
        try:
            text = codecs.getincrementaldecoder(name)().decode(head)
        except UnicodeDecodeError:
            continue
        if name != "gb18030" or _is_chinese(text):
            return name
    raise BarsError(
        f"{file.name} is neither UTF-8 nor UTF-16 nor GB18030 (GBK). Say what it is, for example "
        "--set bars.encoding=big5, or convert it."
    )


def _is_chinese(text: str) -> bool:
    """Whether characters are those of daily use: GB18030 makes rare ones of almost any bytes."""
    other = [char for char in text if not char.isascii()]
    usual = sum(bool(char.encode("gb2312", "ignore")) for char in other)
    return usual >= 0.8 * len(other)


def _read_parquet(
    filesystem: pafs.FileSystem, part: BarsPart, wanted: list[str]
) -> Iterator[pa.Table]:
    text = [name for ours, name in part.columns.items() if kind_of(ours) in TEXT_KINDS]
    seen, rows = False, 0
    with filesystem.open_input_file(part.file.path) as source:
        footer = pq.read_metadata(source)
        if not set(wanted) <= set(footer.schema.to_arrow_schema().names):
            raise _changed(part.file, "it has other columns now")
        leaves = {footer.schema.column(i).path for i in range(len(footer.schema))}  # no lists
        coded = [name for name in text if name in wanted and name in leaves]
        file = pq.ParquetFile(source, metadata=footer, read_dictionary=coded)
        for batch in file.iter_batches(
            BATCH_ROWS, row_groups=list(part.row_groups), columns=wanted
        ):
            seen = True
            rows += len(batch)
            yield pa.Table.from_batches([batch])
        if not seen:
            yield file.schema_arrow.empty_table().select(wanted)
    if rows != part.rows:
        raise _changed(part.file, f"{rows} of {part.rows} rows were read")


def _convert_batch(raw: pa.Table, part: BarsPart, form: BarsFormat, first: int) -> pa.Table:
    """Our columns, types and units."""
    columns: dict[str, Any] = {}
    commas = part.shape is not None and part.shape.delimiter == ","
    for ours, theirs in part.columns.items():
        origin = Origin(
            file=part.file.name, column=theirs, ours=ours, first_row=first, thousands=commas
        )
        if theirs in part.constants:
            value = pa.scalar(part.constants[theirs], pa.string())
            column = pa.chunked_array([pa.repeat(value, len(raw))])
        else:
            column = raw[theirs]
        columns[ours] = convert(column, kind_of(ours), origin)
        scale = form.scale(ours, theirs)
        if scale != 1:
            columns[ours] = pc.multiply(columns[ours], scale)
    return pa.table(columns)


def _open(
    filesystem: pafs.FileSystem, number: int, file: BarsFile, form: BarsFormat
) -> tuple[list[BarsPart], list[str]]:
    """Parts of one file, and its columns; which of them are ours is not decided yet."""
    folder = file.name.split("/")[0].split(".")[0].lower()
    whole = BarsPart(number=number, file=file, table=folder if folder in form.tables else None)
    with _explain_errors(file):
        if file.fields:
            names = qlib.list_columns(file)
            parts = [replace(whole, rows=file.size // (4 * len(file.fields)))]
        elif file.is_parquet:
            with filesystem.open_input_file(file.path) as source:
                footer = pq.read_metadata(source)
            names, parts = footer.schema.to_arrow_schema().names, []
            first = 0
            for group in range(footer.num_row_groups):
                rows = footer.row_group(group).num_rows
                parts.append(replace(whole, row_groups=(group,), first_row=first, rows=rows))
                first += rows
        else:
            shape = read_csv_shape(filesystem, file, form.encoding)
            names = shape.names
            parts = [replace(whole, shape=shape, rows=file.size // _CSV_ROW_BYTES)]
    constants = _constants(file.name, names, form)
    return [replace(part, constants=constants) for part in parts or [whole]], [*names, *constants]


def _constants(name: str, there: Sequence[str], form: BarsFormat) -> dict[str, str | None]:
    """Columns that a file has by its place: `date=2018-12-28/part.parquet`, `600000.SH.csv`."""
    pairs = [part.split("=", 1) for part in name.split("/")[:-1] if "=" in part]
    found = {
        key: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
        for key, value in pairs
        if key not in there
    }
    if form.code_in_name != "none" and form.find("code", [*there, *found]) is None:
        code = find_code(name, any_name=form.code_in_name == "any")
        if code is not None:
            found[form.names("code")[0]] = code
    return found


@contextmanager
def _explain_errors(file: BarsFile) -> Iterator[None]:
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
