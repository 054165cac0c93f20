"""Read what belongs to an index: its members, and its daily closes.

A members file lists all members at each of its dates; a list holds from its date on, until the
file's next date. So month-end lists, lists at changes and one list a day are read alike, and a
day knows nothing of later lists.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from gangru_dist.bars.columns import Origin, convert
from gangru_dist.bars.csv_files import read_csv, read_csv_shape
from gangru_dist.bars.days import to_days
from gangru_dist.bars.files import BarsFile, list_files
from gangru_dist.bars.formats import kind_of
from gangru_dist.bars.side_tables import Spellings
from gangru_dist.base.errors import BarsError
from gangru_dist.base.filesystems import open_filesystem

_logger = logging.getLogger(__name__)

NAMES: Mapping[str, tuple[str, ...]] = {
    "date": ("date", "trade_date", "updateDate", "日期", "交易日期"),
    "code": ("code", "con_code", "成分券代码", "品种代码", "股票代码", "asset"),
    "close": ("close", "收盘", "收盘价"),
}
"""Our column -> names it may have in the file: ours, Tushare's, BaoStock's, AKShare's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Members:
    """S lists of members over C codes."""

    dates: np.ndarray
    """(S,) datetime64[D], ascending: each list's first day."""
    codes: tuple[str, ...]
    """C codes, ascending."""
    listed: np.ndarray
    """(S, C) bool."""

    @property
    def digest(self) -> str:
        """Hash of all lists."""
        parts = [self.dates.astype("datetime64[D]").tobytes(), "\n".join(self.codes).encode()]
        return hashlib.sha256(b"\0".join([*parts, self.listed.tobytes()])).hexdigest()

    def respell(self, codes: Collection[str], calendar: np.ndarray) -> Members:
        """The same lists under the bars' spellings of codes; the log says what they lack.

        Args:
            codes: Of the bars.
            calendar: (days,) datetime64[D], the bars' trading days.

        Raises:
            BarsError: The bars have none of the members, or no day from the first list on.
        """
        if self.dates[0] > calendar[-1]:
            raise BarsError(
                f"panel.members begins on {self.dates[0]}, after the bars' last day "
                f"{calendar[-1]}: no day would have a member. Give lists from the first day on."
            )
        spellings = Spellings(codes)
        own = {name: i for i, code in enumerate(self.codes) if (name := spellings.find(code))}
        if not own:
            raise BarsError(
                f"panel.members names no stock of the bars: it has {self.codes[0]}, the bars "
                f"{next(iter(sorted(codes)), 'none')}. Give the members of these bars' market."
            )
        names = tuple(sorted(own))
        _logger.info(
            "members_read lists=%d stocks=%d without_bars=%d first=%s last=%s",
            len(self.dates),
            len(names),
            len(self.codes) - len(names),
            self.dates[0],
            self.dates[-1],
        )
        if self.dates[0] > calendar[0]:
            _logger.warning("members_begin_late lists=%s panel=%s", self.dates[0], calendar[0])
        listed = self.listed[:, [own[name] for name in names]]
        return Members(dates=self.dates, codes=names, listed=listed)

    def find_members(self, code: pa.DictionaryArray, date: np.ndarray) -> np.ndarray:
        """(n,) bool of rows: listed in the newest list up to their day; before the first, nobody.

        Args:
            code: (n,) codes as `respell` gives them.
            date: (n,) datetime64[D].
        """
        own = pc.index_in(code.dictionary, pa.array(self.codes, pa.string()))
        column = pc.fill_null(own, -1).take(code.indices).to_numpy()
        row = np.searchsorted(self.dates, date, side="right") - 1
        known = (row >= 0) & (column >= 0)
        return np.asarray(known & self.listed[np.maximum(row, 0), np.maximum(column, 0)])


def read_members(uri: str) -> Members:
    """Members from a file, or all files of a folder, with the columns date and code.

    Raises:
        BarsError: It cannot be read, lacks a column, has a row without date or code, or no row.
    """
    table = _read_table(uri, ("date", "code"), setting="panel.members")
    date, code = table["date"], table["code"]
    days, row = np.unique(date, return_inverse=True)
    names, column = np.unique(code, return_inverse=True)
    listed = np.zeros((len(days), len(names)), dtype=bool)
    listed[row, column] = True
    return Members(dates=days, codes=tuple(names.tolist()), listed=listed)


def read_closes(uri: str) -> tuple[np.ndarray, np.ndarray]:
    """(T,) datetime64[D], ascending, and (T,) float64: an index's closes by day.

    Raises:
        BarsError: It cannot be read, lacks a column, or has a day twice or a close not above 0.
    """
    table = _read_table(uri, ("date", "close"), setting="evaluation.index")
    date, close = table["date"], table["close"]
    days, first, count = np.unique(date, return_index=True, return_counts=True)
    if count.max() > 1:
        raise BarsError(
            f"evaluation.index={uri} has {days[np.argmax(count)]} {count.max()} times. Give the "
            "closes of one index, each day once."
        )
    if not (close > 0).all() or not np.isfinite(close).all():
        wrong = int(np.argmin(np.isfinite(close) & (close > 0)))
        raise BarsError(
            f"evaluation.index={uri} has close={close[wrong]} on {date[wrong]}. Correct it, or "
            "leave the day out."
        )
    return days, close[first]


def _read_table(uri: str, wanted: tuple[str, ...], *, setting: str) -> dict[str, np.ndarray]:
    """Our column -> (n,) values of all rows; none is missing."""
    filesystem, _ = open_filesystem(uri)
    parts = [_read_file(filesystem, file, wanted, setting) for file in list_files(uri)]
    table = {name: np.concatenate([part[name] for part in parts]) for name in wanted}
    if not len(table["date"]):
        raise BarsError(f"{setting}={uri} has no row. Export it again.")
    return table


def _read_file(
    filesystem: pafs.FileSystem, file: BarsFile, wanted: tuple[str, ...], setting: str
) -> dict[str, np.ndarray]:
    try:
        if file.is_parquet:
            with filesystem.open_input_file(file.path) as source:
                raw = pq.read_table(source)
            theirs = _choose_columns(raw.column_names, wanted, file, setting)
        else:
            shape = read_csv_shape(filesystem, file, "auto")
            theirs = _choose_columns(shape.names, wanted, file, setting)
            raw = pa.concat_tables(read_csv(filesystem, file, shape, list(theirs.values())))
    except (UnicodeDecodeError, pa.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise BarsError(
            f"{setting}: {file.name} cannot be read: {reason}. Give a parquet or CSV file."
        ) from error
    found = {}
    for ours in wanted:
        origin = Origin(file=file.name, column=theirs[ours], ours=ours, first_row=0)
        column = convert(raw[theirs[ours]], kind_of(ours), origin)
        missing = pc.is_null(column, nan_is_null=True).to_numpy(zero_copy_only=False)
        if missing.any():
            raise origin.error(f"is empty in row {int(np.argmax(missing))}", "Fill it in.")
        if ours == "code":
            found[ours] = np.array(column.cast(pa.string()).to_pylist(), dtype=np.str_)
        else:
            found[ours] = to_days(column) if ours == "date" else column.to_numpy()
    return found


def _choose_columns(
    there: list[str], wanted: tuple[str, ...], file: BarsFile, setting: str
) -> dict[str, str]:
    found = {ours: name for ours in wanted for name in reversed(NAMES[ours]) if name in there}
    lacking = [ours for ours in wanted if ours not in found]
    if lacking:
        raise BarsError(
            f"{setting}: {file.name} lacks the column {lacking[0]} (or "
            f"{', '.join(NAMES[lacking[0]][1:])}); it has {', '.join(there[:40])}. Rename it."
        )
    return found
