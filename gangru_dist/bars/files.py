"""Find a vendor's files at a URI.

Names that start with `_` or `.` (markers, checksums) are ignored, and so is what our own
interrupted writes leave (`.<32 hex digits>.part`); every other file must be parquet, CSV or one of
Qlib's. Of a Delta table, the files of its newest version count. What cannot be read (a broken link,
a pipe, a name that is not UTF-8) is an error and never left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from gangru_dist.base.errors import BarsError
from gangru_dist.base.filesystems import open_filesystem
from gangru_dist.base.storage import Storage
from gangru_dist.base.store_check import check_answer

_PARQUET = (".parquet", ".pq", ".parq")
_CSV = tuple(
    f".{kind}{packed}" for kind in ("csv", "txt") for packed in ("", ".gz", ".bz2", ".zst", ".lz4")
)
_QLIB_DAYS = "calendars/day.txt"
_QLIB = re.compile(r"(calendars|instruments)/[^/]+\.txt|features/[^/]+/[^/]+\.bin")
_QLIB_INDEX = re.compile(r"features/(sh000|sz399)\d{3}", re.IGNORECASE)
"""An index of the exchanges, not a stock."""
_QLIB_FIELD = re.compile(r"(?P<folder>features/[^/]+)/(?P<field>[^/.]+)\.day\.bin")
_TABLE_LOG = re.compile(
    r"^(?:.*/)?(?:_delta_log|\.hoodie[^/]*|metadata(?=/[^/]*\.metadata\.json|/version-hint\.text))"
)
"""Where a table keeps what its files do not say: which rows count."""
_TABLES = {
    "_delta_log": ("Delta", "DeltaTable(PATH).to_pandas().to_parquet(OTHER)"),
    ".hoodie": ("Hudi", "spark.read.format('hudi').load(PATH).write.parquet(OTHER)"),
    "metadata": ("Iceberg", "catalog.load_table(NAME).scan().to_pandas().to_parquet(OTHER)"),
}
"""Part of the log's name -> the table's kind, and the call that gives its rows."""
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

    def check_unchanged(self, filesystem: pafs.FileSystem) -> None:
        """Refuse to go on with a file that is another one than was listed.

        Asked after it has been read: what was read then is what was listed.

        Raises:
            BarsError: Its size or modification time differs, or it is gone.
        """
        if self.fields:
            found = filesystem.get_file_info(pafs.FileSelector(self.path, allow_not_found=True))
            fields = [info for info in found if info.path.endswith(".day.bin")]
            now = _make_instrument(self.name, self.path, [_make_file(f, self.path) for f in fields])
        else:
            info = filesystem.get_file_info(self.path)
            now = _make_file(info, self.path[: -len(self.name) - 1])
        before, after, second = self.modified, now.modified, 10**9
        changed = now.size != self.size
        if before is not None and after is not None and before != after:
            # a store may give one of them in whole seconds
            fine = before % second and after % second
            changed |= bool(fine) or before // second != after // second
        if changed:
            raise BarsError(
                f"{self.name} changed while it was read: it was listed with {self.size} bytes and "
                f"has {now.size} now. Let its download end, then run the same command again."
            )


def list_files(uri: str, *, given_by: str = "--bars") -> list[BarsFile]:
    """Files of the bars at a URI (a folder or one file), sorted by name; messages name its flag.

    Raises:
        BarsError: There are none, or one is empty, cannot be read, or is neither parquet nor CSV
            nor Qlib's.
    """
    filesystem, path = open_filesystem(uri)
    if not path.strip("/") and isinstance(filesystem, pafs.LocalFileSystem):
        raise BarsError(
            f"{given_by} {uri} is the root of this machine: every file on it would be read. Name "
            "the folder of the bars."
        )
    check_answer(uri)
    found, base = [filesystem.get_file_info(path)], str(PurePosixPath(path).parent)
    if found[0].type not in (pafs.FileType.File, pafs.FileType.Unknown):
        if isinstance(filesystem, pafs.LocalFileSystem):
            _check_local_names(path)
        selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
        found, base = filesystem.get_file_info(selector), path.rstrip("/")
    stale = _find_stale(filesystem, path, base, [_make_file(info, base) for info in found])
    files = []
    for info in found:
        file = _make_file(info, base)
        if file.name in stale or _is_hidden(file.name):
            continue
        if info.type == pafs.FileType.Unknown:
            raise BarsError(
                f"{file.name} is neither a file nor a folder (a pipe, a device?). Move it away, or "
                "point --bars at the bars only."
            )
        if info.type == pafs.FileType.File:
            files.append(file)
    if not files:
        before = re.split(r"[*?[]", uri, maxsplit=1)[0]
        folder = before.rpartition("/")[0] or "."
        advice = f" Patterns are not expanded; name the folder: {folder}" if before != uri else ""
        raise BarsError(
            f"no files at {uri}. {given_by} takes a folder, or a file, of parquet or CSV.{advice}"
        )
    files.sort(key=lambda file: file.name)
    is_qlib = any(file.name == _QLIB_DAYS for file in files)
    for file in files:
        _check_file(file, is_qlib=is_qlib)
    return _group_instruments(files, base) if is_qlib else files


def _find_stale(
    filesystem: pafs.FileSystem, path: str, base: str, there: Sequence[BarsFile]
) -> set[str]:
    """Names of a Delta table's files that its log no longer lists: their rows were replaced.

    Raises:
        BarsError: The table is one whose current rows only its own reader finds.
    """
    folder = PurePosixPath(path)
    while "=" in folder.name or folder.name == "data" or str(folder.parent) == base:
        folder = folder.parent  # a part of a table: its log lies above
        for mark in ("_delta_log", ".hoodie", "metadata"):
            selector = pafs.FileSelector(f"{folder}/{mark}", allow_not_found=True)
            for info in filesystem.get_file_info(selector):
                if _TABLE_LOG.search(info.path):
                    raise _explain_table(path, mark)
    stale: set[str] = set()
    for log in sorted({found[0] for file in there if (found := _TABLE_LOG.search(file.name))}):
        root = f"{base}/{log.rpartition('/')[0]}".rstrip("/")
        if not (log.endswith("_delta_log") and isinstance(filesystem, pafs.LocalFileSystem)):
            raise _explain_table(root, log)
        stale |= _find_removed(root, [f for f in there if f.path.startswith(f"{root}/")])
    return stale


def _find_removed(root: str, there: Sequence[BarsFile]) -> set[str]:
    """Names of the parquet files below a local Delta table that are not of its newest version."""
    try:
        table = DeltaTable(root)
        protocol, mapping = table.protocol(), table.metadata().configuration
        current = {unquote(path) for path in table.file_uris()}
    except DeltaError as error:
        raise BarsError(f"{root} is a Delta table whose log cannot be read: {error}") from error
    features = {*(protocol.reader_features or ())} - {"timestampNtz", "v2Checkpoint"}
    if features or mapping.get("delta.columnMapping.mode", "none") != "none":
        raise _explain_table(root, "_delta_log")
    data = {unquote(file.path): file.name for file in there if file.is_parquet}
    lost = sorted(current - data.keys())
    if lost:
        raise BarsError(f"{root} is a Delta table whose log lists {lost[0]}, which is not there.")
    return {name for path, name in data.items() if path not in current}


def _explain_table(path: str, mark: str) -> BarsError:
    kind, call = next(call for name, call in _TABLES.items() if name in mark)
    return BarsError(
        f"{path} is a {kind} table or part of one: deleted rows are still in its files, and only "
        f"its log tells which count. Write the current rows elsewhere, and point --bars there: "
        f"{call}"
    )


def check_apart(uri: str, root: Storage) -> None:
    """Refuse bars that lie among our own files, which are parquet as well; `<storage>/bars` may be.

    Raises:
        BarsError: One is inside the other.
    """
    filesystem, path = open_filesystem(uri)
    bars, storage = PurePosixPath(path), PurePosixPath(root.path)
    is_inside = storage in (bars, *bars.parents) and storage / "bars" not in (bars, *bars.parents)
    if filesystem.equals(root.filesystem) and (is_inside or bars in storage.parents):
        raise BarsError(
            f"--bars {uri} and --storage {root.uri} lie inside one another, so our own files would "
            f"be read as bars. Move the bars out, or to {root.uri}/bars."
        )


def _make_file(info: pafs.FileInfo, base: str) -> BarsFile:
    name = info.path[len(base.rstrip("/")) + 1 :]
    return BarsFile(name=name, path=info.path, size=info.size or 0, modified=info.mtime_ns)


def _check_local_names(folder: str) -> None:
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
            if not os.path.exists(path) and not _is_hidden(name):  # noqa: PTH110  # bytes
                raise BarsError(f"{name} is a broken link. Fix it, or remove it.")


def _check_file(file: BarsFile, *, is_qlib: bool) -> None:
    if file.size == 0:
        raise BarsError(f"{file.name} is empty (0 bytes). Export it again, or move it away.")
    if is_qlib and not _QLIB.fullmatch(file.name):
        raise BarsError(
            f"{file.name} lies in a folder of Qlib's binary files ({_QLIB_DAYS}) and is none of "
            "them. Move it away, or point --bars elsewhere."
        )
    if not is_qlib and not file.name.lower().endswith(_PARQUET + _CSV):
        raise BarsError(
            f"{file.name} is neither parquet nor CSV ({', '.join(_PARQUET + _CSV)}). Move it away, "
            "or point --bars at the bars only."
        )


def _group_instruments(files: Sequence[BarsFile], base: str) -> list[BarsFile]:
    """Qlib's files as one a stock; the calendar and the list of instruments stay for the record."""
    folders: dict[str, list[BarsFile]] = {}
    for file in files:
        found = _QLIB_FIELD.fullmatch(file.name)
        if found and not _QLIB_INDEX.fullmatch(found["folder"]):
            folders.setdefault(found["folder"], []).append(file)
    rest = [file for file in files if file.name in (_QLIB_DAYS, "instruments/all.txt")]
    return [*rest, *(_make_instrument(name, f"{base}/{name}", folders[name]) for name in folders)]


def _make_instrument(name: str, path: str, files: Sequence[BarsFile]) -> BarsFile:
    times = [file.modified for file in files]
    return BarsFile(
        name=name,
        path=path,
        size=sum(file.size for file in files),
        modified=None if None in times else max((t for t in times if t is not None), default=0),
        fields=tuple(sorted(PurePosixPath(file.name).name.split(".")[0] for file in files)),
    )


def _is_hidden(name: str) -> bool:
    return bool(_UNFINISHED.search(name)) or any(
        part.startswith(("_", ".")) for part in name.split("/")
    )
