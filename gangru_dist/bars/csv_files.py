"""Read CSV files: any of the common encodings, delimiters and compressions, as text.

All columns are read as text; `values.convert` turns them into numbers and dates. CR, LF and CRLF
end a line. A file that does not have the encoding it was read with is an error; it never gives
wrong characters. 通达信's text export has a title above its headings and a source below its rows.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.fs as pafs

from gangru_dist.bars.files import BarsFile
from gangru_dist.base.errors import BarsError

_PACKED = {"gz": "gzip", "bz2": "bz2", "zst": "zstd", "lz4": "lz4"}
_HEAD = 1 << 18
_BLOCK = 32 << 20
_SHOWN = 10  # lines
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""First bytes -> encoding. The decoder takes the mark away itself, and Arrow that of UTF-8."""


_OTHERS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "packed with gzip",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ": "packed with xz",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"PAR1": "parquet",
    b"ARROW1": "an Arrow file",
    b"\x89HDF": "an HDF5 file",
    b"SQLite": "a database",
    b"%PDF": "a PDF",
    b"<": "a web page",
    b"{": "JSON",
    b"[": "JSON",
}
"""First bytes of what is no CSV file -> what it is."""
_TITLE = re.compile(r"\s*(\d{6})\s+\S.*")
"""The line above the headings: code, name, period and adjustment."""
_SOURCE = re.compile(r"\W*数据来源")
_SPAN = re.compile(r"[^\t]+(\t\d{4}-?\d\d-?\d\d){2}")
"""A line of Qlib's lists of instruments, which have no headings."""
_SPAN_NAMES = ["code", "start", "end"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvShape:
    """How a CSV file is written."""

    names: list[str]
    """Headings in order."""
    delimiter: str
    """Between fields."""
    encoding: str
    """As Python names it."""
    skip: int = 0
    """Lines before the rows."""
    title: str = ""
    """The line above the headings; empty if it does not begin with a code."""
    lines: tuple[str, ...] = ()
    """The first ones, for messages."""


def read_csv_shape(
    filesystem: pafs.FileSystem, file: BarsFile, encoding: str, skip: int = 0
) -> CsvShape:
    """Look at the start of a CSV file.

    Args:
        filesystem: Where it is.
        file: Compressed or not, by its name.
        encoding: As Python names it, or `auto`.
        skip: Lines before the headings; a title that begins with a stock's code is found.

    Raises:
        BarsError: The encoding is unknown, the file is none of those that `auto` knows, or it has
            no line after those to skip.
        UnicodeDecodeError: The file is not in the encoding it was said to be in.
    """
    with filesystem.open_input_file(file.path) as source:
        head = _unpack(source, file).read(_HEAD)
    kind = next((kind for start, kind in _OTHERS.items() if head.startswith(start)), None)
    if kind:
        raise BarsError(
            f"{file.name} is {kind}, whatever its name says. Export the bars as CSV or parquet."
        )
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
    lines = re.split(r"\r\n|\n|\r", text, maxsplit=skip + _SHOWN)[: skip + _SHOWN]
    title = next((line for line in lines[: max(skip, 1)] if _TITLE.fullmatch(line)), "")
    skip = max(skip, bool(title) and len(lines) > 1)
    if skip >= len(lines):
        raise BarsError(f"bars.skip_rows={skip}: {file.name} has {len(lines)} lines. Skip fewer.")
    delimiter = max(",\t;|", key=lines[skip].count)
    names = next(csv.reader([lines[skip]], delimiter=delimiter), [])
    names = [name.strip() for name in names] if title else names
    if _SPAN.fullmatch(lines[skip]):
        names, skip = _SPAN_NAMES, skip - 1
    return CsvShape(
        names=names,
        delimiter=delimiter,
        encoding=codec.name,
        skip=skip + 1,
        title=title,
        lines=tuple(lines),
    )


def read_csv(
    filesystem: pafs.FileSystem, file: BarsFile, shape: CsvShape, wanted: Sequence[str]
) -> Iterator[pa.Table]:
    """Batches of some columns as text; at least one comes, if only without rows.

    Raises:
        BarsError: Fewer bytes came than the file was listed with.
    """
    schema = pa.schema([(name, pa.string()) for name in wanted])
    options = {
        "read_options": pa_csv.ReadOptions(
            block_size=_BLOCK,
            encoding=shape.encoding,
            skip_rows=shape.skip,
            column_names=shape.names,
        ),
        "parse_options": pa_csv.ParseOptions(
            delimiter=shape.delimiter,
            invalid_row_handler=lambda row: "skip" if _SOURCE.match(row.text or "") else "error",
        ),
        "convert_options": pa_csv.ConvertOptions(
            include_columns=schema.names,
            column_types=schema,
            null_values=[""],  # `values.convert` knows the words for it
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
