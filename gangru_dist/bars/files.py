"""Find a vendor's files at a URI.

Names that start with `_` or `.` (markers, checksums) are ignored, and so is what an
interrupted write of ours leaves (`.<32 hex digits>.part`); every other file must be parquet, CSV or
one of Qlib's. What is there and cannot be read is an error, never left out: a broken link, a
pipe, a name that is not UTF-8.

Read a vendor's CSV: which encoding, what separates fields, batches of text columns.

All columns are read as text; `columns` makes numbers and dates of them. CR, LF and CRLF end a
line. A file of another encoding than it was taken for is an error, never other characters.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.fs as pafs

from gangru_dist.base.errors import BarsError
from gangru_dist.base.filesystems import resolve
from gangru_dist.base.storage import Storage

_PARQUET = (".parquet", ".pq", ".parq")
_CSV = (".csv", ".csv.gz", ".csv.bz2", ".csv.zst", ".csv.lz4")
_QLIB_DAYS = "calendars/day.txt"
_QLIB = re.compile(r"(calendars|instruments)/[^/]+\.txt|features/[^/]+/[^/]+\.bin")
_QLIB_INDEX = re.compile(r"features/(sh000|sz399)\d{3}", re.IGNORECASE)
"""An index of the exchanges, not a stock."""
_QLIB_FIELD = re.compile(r"(?P<folder>features/[^/]+)/(?P<field>[^/.]+)\.day\.bin")
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.part$")
"""Our own; a vendor's `.part` is an unfinished download, and an error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BarsFile:
    """One file of the bars, or one instrument's folder of Qlib's."""

    name: str
    """Path below the bars' folder; how messages call it."""
    path: str
    """Path for the filesystem."""
    size: int
    """Bytes."""
    modified: int | None
    """Nanoseconds since 1970; None where the storage does not say."""
    fields: tuple[str, ...] = ()
    """Of Qlib's folder: the fields that it has a file of."""

    @property
    def is_parquet(self) -> bool:
        """Whether it is read as parquet."""
        return self.name.lower().endswith(_PARQUET)

    @property
    def has_rows(self) -> bool:
        """Whether it is bars; else it says how Qlib's are to be read."""
        return not self.name.endswith(".txt")

    def check_unchanged(self, filesystem: pafs.FileSystem) -> None:
        """Refuse to go on with a file that is another one than was listed.

        Asked after it has been read: what was read then is what was listed.

        Raises:
            BarsError: Its size or modification time differs, or it is gone.
        """
        if self.fields:
            found = filesystem.get_file_info(pafs.FileSelector(self.path, allow_not_found=True))
            now = _instrument(self.name, self.path, _days_of(found))
        else:
            info = filesystem.get_file_info(self.path)
            now = _bars_file(info, self.path[: -len(self.name) - 1])
        if now.size != self.size or not _same_time(now.modified, self.modified):
            raise BarsError(
                f"{self.name} changed while it was read: it was listed with {self.size} bytes and "
                f"has {now.size} now. Let its download end, then run the same command again."
            )


def list_files(uri: str) -> list[BarsFile]:
    """Files of the bars at a URI (a folder or one file), sorted by name.

    Raises:
        BarsError: There are none, or one is empty, cannot be read, or is neither parquet nor CSV
            nor Qlib's.
    """
    filesystem, path = resolve(uri)
    top = filesystem.get_file_info(path)
    if top.type in (pafs.FileType.File, pafs.FileType.Unknown):
        found = [top]
        base = str(PurePosixPath(path).parent)
    else:
        if isinstance(filesystem, pafs.LocalFileSystem):
            _check_names(path)
        found = filesystem.get_file_info(
            pafs.FileSelector(path, recursive=True, allow_not_found=True)
        )
        base = path.rstrip("/")
    _check_kinds(found, base)
    files = [_bars_file(info, base) for info in found if info.type == pafs.FileType.File]
    bars = sorted((file for file in files if not _hidden(file.name)), key=lambda file: file.name)
    if not bars:
        raise BarsError(f"no files at {uri}. --bars takes a folder, or a file, of parquet or CSV.")
    is_qlib = any(file.name == _QLIB_DAYS for file in bars)
    for file in bars:
        _check_file(file, is_qlib=is_qlib)
    return _instruments(bars, base) if is_qlib else bars


def _bars_file(info: pafs.FileInfo, base: str) -> BarsFile:
    return BarsFile(
        name=info.path[len(base) + 1 :],
        path=info.path,
        size=info.size or 0,
        modified=info.mtime_ns,
    )


def _check_names(folder: str) -> None:
    """Refuse what pyarrow leaves out of a listing, or fails on, in a local folder."""
    for where, folders, names in os.walk(os.fsencode(folder), followlinks=True):
        for entry in (*folders, *names):
            path = where + b"/" + entry
            name = os.fsdecode(path[len(os.fsencode(folder)) + 1 :])
            try:
                entry.decode()
            except UnicodeDecodeError as error:
                raise BarsError(
                    f"the file name {name.encode(errors='backslashreplace').decode()!r} is not "
                    "UTF-8. Rename the file."
                ) from error
            if not os.path.exists(path) and not _hidden(name):  # noqa: PTH110  # bytes
                raise BarsError(f"{name} is a broken link. Fix it, or remove it.")


def _check_kinds(found: Sequence[pafs.FileInfo], base: str) -> None:
    for info in found:
        name = info.path[len(base) + 1 :]
        if info.type == pafs.FileType.Unknown and not _hidden(name):
            raise BarsError(
                f"{name} is neither a file nor a folder (a pipe, a device?). Move it away, or "
                "point --bars at the bars only."
            )


def _check_file(file: BarsFile, *, is_qlib: bool) -> None:
    if file.size == 0:
        raise BarsError(f"{file.name} is empty (0 bytes). Export it again, or move it away.")
    known = file.name.lower().endswith(_PARQUET + _CSV)
    if is_qlib and not _QLIB.fullmatch(file.name):
        raise BarsError(
            f"{file.name} lies in a folder of Qlib's binary files ({_QLIB_DAYS}) and is none of "
            "them. Move it away, or point --bars elsewhere."
        )
    if not is_qlib and not known:
        raise BarsError(
            f"{file.name} is neither parquet nor CSV ({', '.join(_PARQUET + _CSV)}). Move it away, "
            "or point --bars at the bars only."
        )


def _instruments(files: Sequence[BarsFile], base: str) -> list[BarsFile]:
    """Qlib's files as one a stock; the calendar and the list of instruments stay for the record."""
    folders: dict[str, list[BarsFile]] = {}
    for file in files:
        found = _QLIB_FIELD.fullmatch(file.name)
        if found and not _QLIB_INDEX.fullmatch(found["folder"]):
            folders.setdefault(found["folder"], []).append(file)
    rest = [file for file in files if file.name in (_QLIB_DAYS, "instruments/all.txt")]
    return [*rest, *(_instrument(name, f"{base}/{name}", folders[name]) for name in folders)]


def _instrument(name: str, path: str, files: Sequence[BarsFile]) -> BarsFile:
    times = [file.modified for file in files]
    return BarsFile(
        name=name,
        path=path,
        size=sum(file.size for file in files),
        modified=None if None in times else max((t for t in times if t is not None), default=0),
        fields=tuple(sorted(PurePosixPath(file.name).name.split(".")[0] for file in files)),
    )


def _days_of(found: Sequence[pafs.FileInfo]) -> list[BarsFile]:
    named = [_bars_file(info, info.path.rpartition("/")[0]) for info in found]
    return [file for file in named if file.name.endswith(".day.bin")]


def _same_time(one: int | None, two: int | None) -> bool:
    """Whether two answers may be the same time: a store may give one of them in whole seconds."""
    if one is None or two is None or one == two:
        return True
    whole = 10**9
    return (one % whole == 0 or two % whole == 0) and one // whole == two // whole


def _hidden(name: str) -> bool:
    return bool(_UNFINISHED.search(name)) or any(
        part.startswith(("_", ".")) for part in name.split("/")
    )


def check_apart(uri: str, root: Storage) -> None:
    """Refuse bars that lie among our own files, which are parquet as well; `<storage>/bars` may be.

    Raises:
        BarsError: One is inside the other.
    """
    filesystem, path = resolve(uri)
    bars, storage = PurePosixPath(path), PurePosixPath(root.path)
    is_inside = storage in (bars, *bars.parents) and storage / "bars" not in (bars, *bars.parents)
    if filesystem.equals(root.filesystem) and (is_inside or bars in storage.parents):
        raise BarsError(
            f"--bars {uri} and --storage {root.uri} lie inside one another, so our own files would "
            f"be read as bars. Move the bars out, or to {root.uri}/bars."
        )


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


def csv_shape(filesystem: pafs.FileSystem, file: BarsFile, encoding: str) -> CsvShape:
    """Look at the start of a file.

    Args:
        filesystem: Where it is.
        file: Compressed or not, by its name.
        encoding: As Python names it, or `auto`.

    Raises:
        BarsError: The encoding is unknown, or the file is none of those that `auto` knows.
        UnicodeDecodeError: The file is not in the encoding it was said to be in.
    """
    with filesystem.open_input_file(file.path) as source:
        head = _unpacked(source, file).read(_HEAD)
    found = _detect(head, file) if encoding == "auto" else _known(encoding)
    text = codecs.getincrementaldecoder(found)().decode(head).removeprefix("\ufeff")
    line = re.split(r"\r\n|\n|\r", text, maxsplit=1)[0]
    delimiter = max(",\t;|", key=line.count)
    names = next(csv.reader([line], delimiter=delimiter), [])
    return CsvShape(names=names, delimiter=delimiter, encoding=found)


def read_csv(
    filesystem: pafs.FileSystem, file: BarsFile, shape: CsvShape, wanted: Sequence[str]
) -> Iterator[pa.Table]:
    """Batches of some columns as text; at least one comes, if only without rows.

    Raises:
        BarsError: Fewer bytes came than the file was listed with.
    """
    names = list(wanted)
    options = {
        "read_options": pa_csv.ReadOptions(block_size=_BLOCK, encoding=shape.encoding),
        "parse_options": pa_csv.ParseOptions(delimiter=shape.delimiter),
        "convert_options": pa_csv.ConvertOptions(
            include_columns=names,
            column_types=dict.fromkeys(names, pa.string()),
            null_values=_MISSING,
            strings_can_be_null=True,
        ),
    }
    seen = False
    with filesystem.open_input_file(file.path) as source:
        for batch in pa_csv.open_csv(_unpacked(source, file), **options):
            seen = True
            yield pa.Table.from_batches([batch])
        if not source.closed and source.tell() != file.size:  # unpacking closes it, and checks
            raise BarsError(
                f"{file.name}: {source.tell()} bytes were read, but it was listed with "
                f"{file.size}. It changed while it was read, or is damaged: let its download end, "
                "then run again."
            )
    if not seen:
        yield pa.schema([(name, pa.string()) for name in names]).empty_table()


def _unpacked(source: pa.NativeFile, file: BarsFile) -> Any:
    """The file's text, whatever its name says it is packed with."""
    codec = _PACKED.get(file.name.lower().rpartition(".")[2])
    return pa.CompressedInputStream(source, codec) if codec else source


def _known(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError as error:
        raise BarsError(
            f"bars.encoding={encoding} is no encoding that Python knows; common ones are utf-8, "
            "gb18030 and utf-16. Leave it out to have it detected."
        ) from error


def _detect(head: bytes, file: BarsFile) -> str:
    """Encoding of the start of a file: its mark, else the first that reads it without an error."""
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    if b"\0" in head[:200]:
        candidates = ["utf-16-le" if head[1:2] == b"\0" else "utf-16-be"]
    else:
        candidates = ["utf-8", "gb18030"]
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
