"""Read what belongs to an index: its members day by day, and its closes."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.bars.days import to_days
from gangru_dist.bars.files import list_files
from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.reader import group_units, open_file, read_part
from gangru_dist.bars.side_tables import Members
from gangru_dist.bars.values import Origin
from gangru_dist.base.errors import BarsError
from gangru_dist.base.filesystems import open_filesystem

_INDEX_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "date": ("date", "trade_date", "updateDate", "日期", "交易日期"),
    "code": ("code", "con_code", "成分券代码", "品种代码", "股票代码", "asset", "instrument"),
    "close": ("close", "收盘", "收盘价"),
    "members_of": (
        "index_code", "index_symbol", "index_name", "IndexCode", "Indexcd", "指数代码", "指数名称",
        "benchmark", "index", "index_id",
    ),
    "is_member": (
        "is_member", "member", "in_index", "is_in_index", "in_universe", "是否成分股", "是否成份股",
        "hs300", "csi300", "sz50", "zz500", "csi500", "zz1000", "csi1000",
    ),
    "members_from": ("start", "start_date", "start_datetime", "in_date", "开始日期", "纳入日期"),
    "members_to": ("end", "end_date", "end_datetime", "结束日期"),
    "members_until": ("out_date", "剔除日期"),
}  # fmt: skip
"""Our column -> names it may have in a file of an index: ours, Tushare's, BaoStock's, AKShare's."""
_SPAN = ("code", "members_from")
_INDEX_MOVE, _INDEX_GAP = np.log(1.5), np.timedelta64(15, "D")
"""No index moves so far from one row to the next, but over a longer gap."""
_INDEX_DAYS, _RETURNS = 40, -0.3
"""Rows, and the autocorrelation of changes: 0 to 0.1 of real indices, -0.5 of returns as closes."""


def read_members(uri: str) -> Members:
    """Read the members from a file, or all files of a folder.

    Either lists, with the columns date and code: each date has a list of all members, which holds
    until the next date. So month-end lists, lists at changes and one list a day are read alike,
    and a day knows nothing of later lists. Or spans, with a stock and its first and last day, as
    Qlib's instruments/csi300.txt; an empty last day has not come yet. A column may say yes or no.

    Raises:
        BarsError: It cannot be read, lacks a column, has a row without date or code, or no row;
            or it has more than one index.
    """
    kinds = (("date", "code"), *((*_SPAN, last) for last in ("members_to", "members_until")))
    tables = _read_tables(uri, kinds, setting="panel.members", more=("members_of", "is_member"))
    _check_one_index(uri, tables)
    if all("date" in table.column_names for table in tables.values()):
        return _join_lists(uri, tables)
    if len(tables) > 1:
        raise BarsError(
            f"panel.members={uri} has spans of days in {len(tables)} files, for example "
            f"{', '.join(list(tables)[:2])}: of several indices? Name the file of one index."
        )
    return _list_spans(*tables.values())


def _check_one_index(uri: str, tables: Mapping[str, pa.Table]) -> None:
    having = {name: table for name, table in tables.items() if "members_of" in table.column_names}
    found = {name: pc.unique(table["members_of"]).drop_null() for name, table in having.items()}
    # as many as rows are the numbers of rows, as pandas writes them under "index"
    given = [found[name].to_pylist() for name in found if len(found[name]) < len(having[name])]
    indices = sorted({value for values in given for value in values})
    if len(indices) > 1:
        raise BarsError(
            f"panel.members={uri} has members of {len(indices)} indices ({', '.join(indices[:5])}) "
            "and they would be united. Write the rows of one index to a file of its own and name "
            f"that: rows[rows[INDEX] == {indices[0]!r}].to_parquet('members.parquet')"
        )


def _join_lists(uri: str, tables: Mapping[str, pa.Table]) -> Members:
    """The lists of all files; a date that two files have must have one list."""
    columns = ("date", "code", "is_member")
    rows = pa.concat_tables([table.select(columns) for table in tables.values()])
    days, row = np.unique(to_days(rows["date"]), return_inverse=True)
    names, column = np.unique(np.array(rows["code"].to_pylist()), return_inverse=True)
    listed, is_member = np.zeros((len(days), len(names)), dtype=bool), rows["is_member"].to_numpy()
    owner = np.full(len(days), -1)
    ends = np.cumsum([len(table) for table in tables.values()])
    for number, (end, table) in enumerate(zip(ends, tables.values(), strict=True)):
        here = slice(end - len(table), end)
        own_days, own_row = np.unique(row[here], return_inverse=True)
        own = np.zeros((len(own_days), len(names)), dtype=bool)
        np.logical_or.at(own, (own_row, column[here]), is_member[here])
        differs = (owner[own_days] >= 0) & (own != listed[own_days]).any(axis=1)
        if differs.any():
            day = own_days[np.argmax(differs)]
            one, two = list(tables)[owner[day]], list(tables)[number]
            raise BarsError(
                f"panel.members={uri} lists other stocks for {days[day]} in {one} than in {two}: "
                "of two indices? They would be united. Name the file of one index; if both files "
                "are parts of one list, write them as one."
            )
        listed[own_days], owner[own_days] = own, number
    return Members(dates=days, codes=tuple(names.tolist()), listed=listed)


def _list_spans(table: pa.Table) -> Members:
    """A list for each day on which a span begins or has ended."""
    table = table.filter(table["is_member"])
    if not len(table):
        raise BarsError(
            "panel.members: is_member is false in all rows. Name the column of this index."
        )
    code, first = np.array(table["code"].to_pylist()), to_days(table["members_from"])
    if "members_to" in table.column_names:
        after = to_days(table["members_to"]) + np.timedelta64(1, "D")
    else:
        after = to_days(table["members_until"])
    wrong = after < first
    if wrong.any():
        raise BarsError(
            f"panel.members: the span of {code[wrong][0]} ends before it begins on "
            f"{first[wrong][0]}. Correct it."
        )
    until = np.datetime64("NaT") if np.isnat(after).any() else after.max()
    days = np.unique(np.concatenate([first, after[~np.isnat(after)]]))
    names, column = np.unique(code, return_inverse=True)
    listed = np.zeros((len(days), len(names)), dtype=bool)
    begin = np.searchsorted(days, first)
    end = np.where(np.isnat(after), len(days), np.searchsorted(days, after))
    for number, start, stop in zip(column, begin, end, strict=True):
        listed[start:stop, number] = True
    return Members(dates=days, codes=tuple(names.tolist()), listed=listed, until=until)


def read_closes(uri: str, column: str = "close") -> tuple[np.ndarray, np.ndarray]:
    """(T,) datetime64[D], ascending, and (T,) float64: an index's closes by day.

    `column` has them.

    Raises:
        BarsError: It cannot be read, lacks a column, or has a day twice or a close not above 0;
            or its closes change unit, or are returns.
    """
    aliases = _INDEX_COLUMNS if column == "close" else {**_INDEX_COLUMNS, "close": (column,)}
    tables = _read_tables(uri, [("date", "close")], setting="evaluation.index", aliases=aliases)
    rows = pa.concat_tables(tables.values())
    date, close = to_days(rows["date"]), rows["close"].to_numpy()
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
    _check_index(uri, days, close[first])
    return days, close[first]


def _check_index(uri: str, days: np.ndarray, close: np.ndarray) -> None:
    """Refuse what no index does: halving or doubling between two rows, falling back each day."""
    change = np.diff(np.log(close))
    far = np.flatnonzero((np.abs(change) > _INDEX_MOVE) & (np.diff(days) <= _INDEX_GAP))
    if len(far):
        day = far[0] + 1
        raise BarsError(
            f"evaluation.index={uri} has close={close[day]:g} on {days[day]} and "
            f"{close[day - 1]:g} on {days[day - 1]}: another unit or another index from there on. "
            "Give the closes of one index, in one unit."
        )
    if len(change) < _INDEX_DAYS or not change.any():
        return
    centered = change - change.mean()
    back = float((centered[1:] * centered[:-1]).sum() / np.square(centered).sum())
    if back < _RETURNS:
        raise BarsError(
            f"evaluation.index={uri} takes back each day {-back:.0%} of the day before, as returns "
            "do and closes do not. Give closes: the running product of 1 + return."
        )


def _read_tables(
    uri: str,
    kinds: Sequence[Sequence[str]],
    *,
    setting: str,
    more: Sequence[str] = (),
    aliases: Mapping[str, tuple[str, ...]] = _INDEX_COLUMNS,
) -> dict[str, pa.Table]:
    """File of an index -> its rows in our columns; only the end of a span may be missing.

    Args:
        uri: File or folder.
        kinds: Which columns a file must have, one kind or another.
        setting: What names the file.
        more: Columns that it may have.
        aliases: Our column -> names it may have in the file.
    """
    filesystem, _ = open_filesystem(uri)
    form, tables = BarsFormat(columns=aliases), {}
    try:
        for number, file in enumerate(list_files(uri, given_by=setting)):
            parts, names = open_file(filesystem, number, file, form)
            columns = {ours: theirs for ours in aliases if (theirs := form.find(ours, names))}
            kind = next((kind for kind in kinds if columns.keys() >= set(kind)), None)
            if kind is None:
                ours = next(name for name in kinds[0] if name not in columns)
                first, *others = form.names(ours)
                other = f" (or {', '.join(others)})" if others else ""
                raise BarsError(
                    f"{file.name} lacks the column {first}{other}; it has "
                    f"{', '.join(names[:40])}. Rename it."
                )
            columns = {name: columns[name] for name in (*kind, *more) if name in columns}
            flags = [name for name in form.names("is_member") if name in names]
            if "is_member" in columns and len(flags) > 1:
                raise BarsError(
                    f"{file.name} says of several indices who are members ({', '.join(flags)}). "
                    "Leave one of these columns."
                )
            found = [
                read_part(uri, replace(part, columns=columns), form)
                for part in group_units(parts, rows=sys.maxsize)[0]
            ]
            table = pa.concat_tables(itertools.chain(*found))
            if "is_member" in more and "is_member" not in columns:
                table = table.append_column("is_member", pa.array(np.ones(len(table), dtype=bool)))
            for ours in {*columns} - {"members_to", "members_until", "members_of"}:
                missing = pc.is_null(table[ours], nan_is_null=True).to_numpy()
                if missing.any():
                    theirs = columns[ours]
                    origin = Origin(file=file.name, column=theirs, ours=ours, first_row=0)
                    raise origin.error(f"is empty in row {int(np.argmax(missing))}", "Fill it in.")
            tables[file.name] = table
    except BarsError as error:
        raise BarsError(f"{setting}: {error}") from error
    if not any(map(len, tables.values())):
        raise BarsError(f"{setting}={uri} has no row. Export it again.")
    return tables
