"""Find a vendor's files at a URI.

Names that start with `_` or `.` (markers, checksums) are passed over, and what a write of ours that
was cut off leaves (`.<32 hex digits>.part`); every other file must be parquet or CSV.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow.fs as pafs

from gangru_dist.errors import BarsError
from gangru_dist.filesystems import resolve

_PARQUET = (".parquet", ".pq", ".parq")
_CSV = (".csv", ".csv.gz", ".csv.bz2", ".csv.zst", ".csv.lz4")
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.part$")
"""Ours; a vendor's own `.part` is a stock that has not arrived, and no reason to go on without."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BarsFile:
    """One file of the bars."""

    name: str
    """Path below the bars' folder; how messages call it."""
    path: str
    """Path for the filesystem."""
    size: int
    """Bytes."""
    modified: int | None
    """Nanoseconds since 1970; None where the storage does not say."""

    @property
    def is_parquet(self) -> bool:
        """Whether it is read as parquet, else as CSV."""
        return self.name.lower().endswith(_PARQUET)


def list_files(uri: str) -> list[BarsFile]:
    """Files of the bars at a URI (a folder or one file), sorted by name.

    Raises:
        BarsError: There are none, or one is empty or neither parquet nor CSV.
    """
    filesystem, path = resolve(uri)
    top = filesystem.get_file_info(path)
    if top.type == pafs.FileType.File:
        found = [top]
        base = str(PurePosixPath(path).parent)
    else:
        found = filesystem.get_file_info(
            pafs.FileSelector(path, recursive=True, allow_not_found=True)
        )
        base = path.rstrip("/")
    files = [_bars_file(info, base) for info in found if info.type == pafs.FileType.File]
    bars = sorted((file for file in files if not _hidden(file.name)), key=lambda file: file.name)
    if not bars:
        raise BarsError(f"no files at {uri}. --bars takes a folder, or a file, of parquet or CSV.")
    for file in bars:
        _check_file(file)
    return bars


def _bars_file(info: pafs.FileInfo, base: str) -> BarsFile:
    return BarsFile(
        name=info.path[len(base) + 1 :],
        path=info.path,
        size=info.size,
        modified=info.mtime_ns,
    )


def _check_file(file: BarsFile) -> None:
    if file.size == 0:
        raise BarsError(f"{file.name} is empty (0 bytes). Export it again, or move it away.")
    if not file.name.lower().endswith(_PARQUET + _CSV):
        raise BarsError(
            f"{file.name} is neither parquet nor CSV ({', '.join(_PARQUET + _CSV)}). Move it away, "
            "or point --bars at the bars only."
        )


def _hidden(name: str) -> bool:
    return bool(_UNFINISHED.search(name)) or any(
        part.startswith(("_", ".")) for part in name.split("/")
    )
