"""Read a vendor's files: parquet, CSV or Qlib's binary ones, any partitioning, any storage.

Files are cut into units, one task each: neighbouring files are joined until there are enough rows,
a large parquet file is split by its row groups. Rows are read in batches, so neither a file nor a
unit has to fit into memory. Hive folders (`date=2018-12-28/`) give their column where the file has
none, and so does the name of a file that holds one stock. What is read is what was listed: a file
that changed in between is an error; it never gives fewer rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from gangru_dist.bars import qlib
from gangru_dist.bars.codes import find_code, normalize_code
from gangru_dist.bars.csv_files import CsvShape, read_csv, read_csv_shape
from gangru_dist.bars.files import BarsFile
from gangru_dist.bars.formats import BarsFormat, kind_of
from gangru_dist.bars.values import TEXT_KINDS, Origin, convert
from gangru_dist.base.errors import BarsError
from gangru_dist.base.filesystems import open_filesystem

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
    derived: frozenset[str] = frozenset()
    """Our columns that others stand in for."""
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
        return self.given.union(self.columns, self.derived)


def open_file(
    filesystem: pafs.FileSystem, number: int, file: BarsFile, form: BarsFormat
) -> tuple[list[BarsPart], list[str]]:
    """Parts of one file, and its columns; which of them are ours is not decided yet."""
    folder = file.name.split("/")[0].split(".")[0].lower()
    whole = BarsPart(number=number, file=file, table=folder if folder in form.tables else None)
    parts = []
    with _explain_errors(file):
        if file.fields:
            names = ["date", "instrument", *(f"${name}" for name in file.fields)]
            whole = replace(whole, rows=file.size // (4 * len(file.fields)))
        elif file.is_parquet:
            with filesystem.open_input_file(file.path) as source:
                footer = pq.read_metadata(source)
            names, first = footer.schema.to_arrow_schema().names, 0
            for group in range(footer.num_row_groups):
                rows = footer.row_group(group).num_rows
                parts.append(replace(whole, row_groups=(group,), first_row=first, rows=rows))
                first += rows
        else:
            shape = read_csv_shape(filesystem, file, form.encoding, form.skip_rows)
            names = shape.names
            whole = replace(whole, shape=shape, rows=file.size // _CSV_ROW_BYTES)
    title = whole.shape.title if whole.shape is not None else ""
    constants = _find_constants(file.name, names, form, title)
    return [replace(part, constants=constants) for part in parts or [whole]], [*names, *constants]


def _find_constants(
    name: str, there: Sequence[str], form: BarsFormat, title: str = ""
) -> dict[str, str | None]:
    """Columns that a file has by its place: `date=2018-12-28/part.parquet`, `600000.SH.csv`.

    A title above the headings begins with a code: the file's name must agree, and tells the
    exchange.
    """
    pairs = [part.split("=", 1) for part in name.split("/")[:-1] if "=" in part]
    found = {
        key: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
        for key, value in pairs
        if key not in there
    }
    if (form.code_in_name != "none" or title) and form.find("code", [*there, *found]) is None:
        code = find_code(name, any_name=form.code_in_name == "any" and not title)
        if title:
            said = title.split()[0]
            if code is not None and normalize_code(code)[:6] != said:
                raise BarsError(
                    f"{name} has the code {code} in its name and {said} in its title. Rename it."
                )
            code = code or said
        if code is not None:
            found[form.names("code")[0]] = code
    return found


def group_units(parts: Sequence[BarsPart], *, rows: int = BATCH_ROWS) -> list[list[BarsPart]]:
    """Neighbouring parts together until a unit has `rows` rows.

    A unit's row groups of one file become one part, so that it parses the footer once.
    """
    units: list[list[BarsPart]] = []
    filled = 0
    for part in parts:
        if not units or filled + part.rows > rows:
            units.append([])
            filled = 0
        last = units[-1][-1] if units[-1] else None
        if last is not None and last.number == part.number:
            groups = (*last.row_groups, *part.row_groups)
            units[-1][-1] = replace(last, row_groups=groups, rows=last.rows + part.rows)
        else:
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
    names = dict.fromkeys(part.columns.values())  # one may be two of ours
    wanted = [name for name in names if name not in part.constants]
    with _explain_errors(part.file):
        if part.file.fields:
            batches = qlib.read_instrument(filesystem, part.file, wanted)
        elif part.shape is not None:
            batches = read_csv(filesystem, part.file, part.shape, wanted)
        else:
            batches = _read_parquet(filesystem, part, wanted)
        first = part.first_row
        for batch in batches:
            yield _convert_batch(batch, part, form, first)
            first += len(batch)
        part.file.check_unchanged(filesystem)


def _read_parquet(
    filesystem: pafs.FileSystem, part: BarsPart, wanted: list[str]
) -> Iterator[pa.Table]:
    text = [name for ours, name in part.columns.items() if kind_of(ours) in TEXT_KINDS]
    rows = 0
    with filesystem.open_input_file(part.file.path) as source:
        footer = pq.read_metadata(source)
        if not set(wanted) <= set(footer.schema.to_arrow_schema().names):
            raise _explain_change(part.file, "it has other columns now")
        leaves = {footer.schema.column(i).path for i in range(len(footer.schema))}  # no lists
        coded = [name for name in text if name in leaves]
        file = pq.ParquetFile(
            source, metadata=footer, read_dictionary=coded, page_checksum_verification=True
        )
        groups = list(part.row_groups)
        for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=wanted):
            rows += len(batch)
            yield pa.Table.from_batches([batch]).select(wanted)
        if not rows:
            yield file.schema_arrow.empty_table().select(wanted)
    if rows != part.rows:
        raise _explain_change(part.file, f"{rows} of {part.rows} rows were read")


def _convert_batch(batch: pa.Table, part: BarsPart, form: BarsFormat, first: int) -> pa.Table:
    """Our columns, types and units."""
    columns = {}
    commas = part.shape is not None and part.shape.delimiter == ","
    for ours, theirs in part.columns.items():
        origin = Origin(
            file=part.file.name, column=theirs, ours=ours, first_row=first, thousands=commas
        )
        if theirs in part.constants:
            value = pa.scalar(part.constants[theirs], pa.string())
            column = pa.chunked_array([pa.repeat(value, len(batch))])
        else:
            column = batch[theirs]
        column, scale = convert(column, kind_of(ours), origin), form.scale(ours, theirs)
        columns[ours] = column if scale == 1 else pc.multiply(column, scale)
    return pa.table(columns)


def _explain_change(file: BarsFile, what: str) -> BarsError:
    return BarsError(
        f"{file.name} changed while it was read: {what}. Let its download end, then run the same "
        "command again."
    )


@contextmanager
def _explain_errors(file: BarsFile) -> Iterator[None]:
    """Word what goes wrong when a file is opened or decoded."""
    try:
        yield
    except (UnicodeDecodeError, pa.ArrowException, OSError, KeyError) as error:
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
