"""Read a vendor's files: parquet or CSV, any partitioning, any storage.

Files are cut into units, one task each: neighbours until there are enough rows, a large parquet
file by its row groups. Reading streams in batches, so neither a file nor a unit need fit into
memory. Hive folders (`date=2018-12-28/`) give their column where the file has none.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from gangru_dist.bars.columns import Place, convert
from gangru_dist.bars.files import BarsFile
from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.schema import BAR_COLUMNS, REQUIRED, TEXT_KINDS
from gangru_dist.errors import BarsError
from gangru_dist.filesystems import resolve
from gangru_dist.registry import close_names

BATCH_ROWS = 500_000
"""Rows held at once by a task; also the least of a unit, where files are small."""

_CSV_ROW_BYTES = 60  # a guess, for cutting units only
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "NaT"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BarsPart:
    """A file, or some row groups of a parquet file."""

    number: int
    """Index of the file in the sorted list of files."""
    file: BarsFile
    """Where the rows are."""
    row_groups: tuple[int, ...] = ()
    """Which; () = the whole of a CSV file."""
    first_row: int = 0
    """Rows of the file before these."""
    rows: int = 0
    """How many, a guess for CSV."""


def cut_parts(uri: str, files: Sequence[BarsFile], form: BarsFormat) -> list[BarsPart]:
    """All row groups of all parquet files, all CSV files; opens every footer and header.

    Raises:
        BarsError: A file cannot be opened or lacks a required column, or the user's mapping
            names a column that no file has: better known now than after an hour of reading.
    """
    filesystem, _ = resolve(uri)
    with ThreadPoolExecutor(16) as pool:
        cut = list(pool.map(lambda i: _cut(filesystem, i, files[i], form), range(len(files))))
    _check_renamed(uri, list(dict.fromkeys(name for _, names in cut for name in names)), form)
    return [part for parts, _ in cut for part in parts]


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
    """Batches of a part in our columns (`schema.BAR_COLUMNS` as far as they are there).

    Every batch of a file has the same columns; at least one comes, if only without rows.

    Raises:
        BarsError: A required column is missing, or a type or value is not what it must be.
    """
    filesystem, _ = resolve(uri)
    with _readable(part.file):
        partitions = _partitions(part.file.name)
        read = _read_parquet if part.file.is_parquet else _read_csv
        first = part.first_row

        def choose(names: Sequence[str]) -> dict[str, str]:
            return choose_columns(part.file.name, _with_folders(names, partitions), form)

        for raw, chosen in read(filesystem, part, choose):
            yield _ours(raw, chosen, part.file.name, partitions, first)
            first += len(raw)


def choose_columns(file: str, names: Sequence[str], form: BarsFormat) -> dict[str, str]:
    """Our column -> the file's.

    Raises:
        BarsError: A required column is missing, or one that we need is there twice.
    """
    twice = sorted({name for name in names if list(names).count(name) > 1})
    chosen = {}
    for ours in BAR_COLUMNS:
        there = [name for name in form.names(ours) if name in names]
        if there:
            chosen[ours] = there[0]
    if set(twice) & set(chosen.values()):
        raise BarsError(f"{file} has column(s) {twice} twice. Remove or rename one of them.")
    needed = [name for name in REQUIRED if not (name == "amount" and "vwap" in chosen)]
    missing = [name for name in needed if name not in chosen]
    if missing:
        spelled = [
            name if form.names(name) == (name,) else f"{name} (there: {'/'.join(form.names(name))})"
            for name in missing
        ]
        raise BarsError(
            f"{file} lacks the column(s) {', '.join(spelled)}; it has {', '.join(names)}. If they "
            "go by other names, say so: --set bars.columns.<ours>=<theirs> or bars.format; if it "
            "is no bars file, point --bars at the bars only."
        )
    return chosen


def _check_renamed(uri: str, there: Sequence[str], form: BarsFormat) -> None:
    """Refuse a mapping of the user's that no file answers to; `there`: columns of all files."""
    mapped = ((ours, form.names(ours)[0]) for ours in form.renamed)
    absent = [(ours, theirs) for ours, theirs in mapped if theirs not in there]
    if absent:
        nearest = {theirs: close_names(theirs, there, cutoff=0.6) for _, theirs in absent}
        spelled = ", ".join(
            f"bars.columns.{ours}={theirs} (nearest: {', '.join(nearest[theirs]) or 'none'})"
            for ours, theirs in absent
        )
        raise BarsError(
            f"no file at {uri} has what the mapping names: {spelled}; there are "
            f"{', '.join(there)}. Correct the name, or leave the mapping out."
        )


Choose = Callable[[Sequence[str]], dict[str, str]]
Batches = Iterator[tuple[pa.Table, dict[str, str]]]


def _read_parquet(filesystem: pafs.FileSystem, part: BarsPart, choose: Choose) -> Batches:
    with filesystem.open_input_file(part.file.path) as source:
        file = pq.ParquetFile(source)
        names = file.schema_arrow.names
        chosen = choose(names)
        wanted = [name for name in chosen.values() if name in names]
        text = [theirs for ours, theirs in chosen.items() if BAR_COLUMNS[ours].kind in TEXT_KINDS]
        file = pq.ParquetFile(source, read_dictionary=[name for name in text if name in wanted])
        batches = file.iter_batches(BATCH_ROWS, row_groups=list(part.row_groups), columns=wanted)
        seen = False
        for batch in batches:
            seen = True
            yield pa.Table.from_batches([batch]), chosen
        if not seen:
            yield file.schema_arrow.empty_table().select(wanted), chosen


def _read_csv(filesystem: pafs.FileSystem, part: BarsPart, choose: Choose) -> Batches:
    names, delimiter = _csv_header(filesystem, part.file)
    chosen = choose(names)
    wanted = [name for name in chosen.values() if name in names]
    empty = pa.schema([(name, pa.string()) for name in wanted]).empty_table()
    with filesystem.open_input_stream(part.file.path, compression="detect") as source:
        reader = pa_csv.open_csv(
            source,
            read_options=pa_csv.ReadOptions(block_size=32 << 20),
            parse_options=pa_csv.ParseOptions(delimiter=delimiter),
            convert_options=pa_csv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(wanted, pa.string()),
                null_values=_MISSING,
                strings_can_be_null=True,
            ),
        )
        seen = False
        for batch in reader:
            seen = True
            yield pa.Table.from_batches([batch]), chosen
        if not seen:
            yield empty, chosen


def _csv_header(filesystem: pafs.FileSystem, file: BarsFile) -> tuple[list[str], str]:
    """Names of the first line, and what separates them."""
    with filesystem.open_input_stream(file.path, compression="detect") as source:
        head = source.read(1 << 16).split(b"\n", 1)[0]
    line = head.decode("utf-8-sig").rstrip("\r")
    delimiter = max(",\t;|", key=line.count)
    return next(csv.reader([line], delimiter=delimiter), []), delimiter


def _ours(
    raw: pa.Table, chosen: dict[str, str], file: str, partitions: dict[str, str | None], first: int
) -> pa.Table:
    columns: dict[str, Any] = {}
    for ours, theirs in chosen.items():
        place = Place(file=file, column=theirs, first_row=first)
        if theirs in raw.column_names:
            column = raw[theirs]
        else:
            column = pa.chunked_array([pa.repeat(pa.scalar(partitions[theirs]), len(raw))])
            column = column.cast(pa.string())
        columns[ours] = convert(column, BAR_COLUMNS[ours].kind, place)
    return pa.table(columns)


def _cut(
    filesystem: pafs.FileSystem, number: int, file: BarsFile, form: BarsFormat
) -> tuple[list[BarsPart], list[str]]:
    """Parts of one file, and its columns."""
    partitions = _partitions(file.name)
    if not file.is_parquet:
        with _readable(file):
            header, _ = _csv_header(filesystem, file)
        names = _with_folders(header, partitions)
        choose_columns(file.name, names, form)
        return [BarsPart(number=number, file=file, rows=file.size // _CSV_ROW_BYTES)], names
    with _readable(file), filesystem.open_input_file(file.path) as source:
        parquet = pq.ParquetFile(source)
        names = _with_folders(parquet.schema_arrow.names, partitions)
        choose_columns(file.name, names, form)
        footer = parquet.metadata
    sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    if not sizes:
        return [BarsPart(number=number, file=file)], names
    parts = [
        BarsPart(
            number=number, file=file, row_groups=(group,), first_row=sum(sizes[:group]), rows=rows
        )
        for group, rows in enumerate(sizes)
    ]
    return parts, names


@contextmanager
def _readable(file: BarsFile) -> Iterator[None]:
    """Word what goes wrong when a file is opened or decoded."""
    kind = "parquet" if file.is_parquet else "CSV"
    try:
        yield
    except UnicodeDecodeError as error:
        raise BarsError(f"{file.name} is not UTF-8 ({error}). Convert it first.") from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        reason = str(error).split("\n")[0]
        if "invalid UTF8" in reason:
            raise BarsError(f"{file.name} is not UTF-8 ({reason}). Convert it first.") from error
        raise BarsError(
            f"{file.name} cannot be read as {kind}: {reason}. Replace it, or move it away."
        ) from error


def _with_folders(names: Sequence[str], partitions: dict[str, str | None]) -> list[str]:
    """The file's columns, then those that only its folders give."""
    return [*names, *(name for name in partitions if name not in names)]


def _partitions(name: str) -> dict[str, str | None]:
    """Columns that the folders' names give: `date=2018-12-28/part.parquet`."""
    pairs = [part.split("=", 1) for part in name.split("/")[:-1] if "=" in part]
    return {
        key: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
        for key, value in pairs
    }
