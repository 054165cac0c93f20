"""Bring side tables' rows to the bars: by day, by the newest row up to the day, or by stock.

A bar takes nothing from a row of a later day, so rows that come later never change past days.

Codes stay as the bars spell them. 600000.SH, sh600000 and 600000.XSHG mean one stock: `Spellings`
finds the stock of the bars that a table spells differently, and `codes.check_spellings` refuses
bars in which one stock has two codes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.bars.codes import normalize_code
from gangru_dist.bars.formats import SideTable
from gangru_dist.bars.rows import CHECKED
from gangru_dist.bars.values import CODED, encode, is_delisting_name, is_st_name
from gangru_dist.base.errors import BarsError

_logger = logging.getLogger(__name__)

_CLEAR_JUMP = 0.3
"""A first factor's logarithm from which on the price must show the jump too: no day's own move
hides that much."""


class Spellings:
    """Finds the bars' spelling of a code that a side table spells its own way."""

    def __init__(self, codes: Collection[str]) -> None:
        keys = {normalize_code(code): code for code in codes}
        bare: dict[str, list[str]] = {}
        for key, code in keys.items():
            bare.setdefault(key[:6], []).append(code)
        self._by_key = {digits: found[0] for digits, found in bare.items() if len(found) == 1}
        self._by_key |= keys

    def find(self, code: str) -> str | None:
        """The bars' code; None if they do not have the stock."""
        key = normalize_code(code)
        found = self._by_key.get(key)
        if found is None and key[:6].isdigit():
            bare = self._by_key.get(key[:6])
            # bars without exchanges take any; bars with one take none of another exchange
            found = bare if bare is not None and normalize_code(bare) == key[:6] else None
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Members:
    """S lists of an index's members over C codes; each holds until the next one's first day."""

    dates: np.ndarray
    """(S,) datetime64[D], ascending: each list's first day."""
    codes: tuple[str, ...]
    """C codes, ascending."""
    listed: np.ndarray
    """(S, C) bool."""
    until: np.datetime64 = field(default_factory=lambda: np.datetime64("NaT"))
    """First day of which nothing is known; NaT = the last list holds on."""

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
        if self.until <= calendar[-1]:
            raise BarsError(
                f"panel.members has spans up to {self.until - 1}, and the bars go on to "
                f"{calendar[-1]}: nobody is known to be a member then. Bring the file up to date, "
                "or leave the end of those spans empty that have not ended."
            )
        spellings = Spellings(codes)
        own: dict[str, list[int]] = {}  # lists may spell one stock in several ways
        for i, code in enumerate(self.codes):
            if name := spellings.find(code):
                own.setdefault(name, []).append(i)
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
            len(self.codes) - sum(map(len, own.values())),
            self.dates[0],
            self.dates[-1],
        )
        if self.dates[0] > calendar[0]:
            _logger.warning("members_begin_late lists=%s panel=%s", self.dates[0], calendar[0])
        listed = np.stack([self.listed[:, own[name]].any(axis=1) for name in names], axis=1)
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


def respell_rows(rows: pa.Table, spellings: Spellings, number: int) -> pa.Table:
    """Rows of a side table under the bars' own codes; those of other stocks are left out.

    Args:
        rows: A batch as `reader.read_part` gives it.
        spellings: Of the bars' codes.
        number: The file's number, for messages.
    """
    code = encode(rows["code"])
    names = pa.array(map(spellings.find, code.dictionary.to_pylist()), pa.string())
    own = names.take(code.indices).dictionary_encode().cast(CODED)
    rows = rows.set_column(rows.column_names.index("code"), "code", own)
    rows = rows.append_column("file", pa.array(np.full(len(rows), number, dtype=np.int32)))
    return rows.filter(pc.is_valid(rows["code"]))


def join_table(bars: pa.Table, side: pa.Table, table: SideTable, files: Sequence[str]) -> pa.Table:
    """The bars of one bucket with a side table's columns.

    Infinite values of further columns become missing. `rows.check_joined` judges the rest.

    Args:
        bars: Checked rows (`rows.CHECKED`) in any order.
        side: Rows of `respell_rows` of the same bucket.
        table: How they belong together.
        files: Names of all files by number, for messages.

    Raises:
        BarsError: Two rows of the side table contradict each other, or its factors begin later
            than the stock's history.
    """
    if table.join == "event":
        return _join_events(bars, side, files)
    match = _match(bars, side, table, files)
    found = match >= 0
    rows = pa.array(match, mask=~found)
    columns = {name: side[name].take(rows) for name in table.gives if name in side.column_names}
    if "adj_factor" in columns and table.one_before:
        columns["adj_factor"] = pc.if_else(pa.array(found), columns["adj_factor"], 1.0)
        _check_complete(bars, side, match, files)
    if "total_shares" in columns:
        shares = columns.pop("total_shares")
        columns.setdefault("market_cap", pc.multiply(shares, bars["close"]))
    if "name" in columns:
        leaving = pc.fill_null(is_delisting_name(columns["name"]), False)
        columns["is_delisting"] = pc.or_(leaving, bars["is_delisting"])
        marked = pc.fill_null(is_st_name(columns["name"]), False)
        columns["is_st"] = pc.or_(marked, columns["is_delisting"])
    for name, column in columns.items():
        if name not in CHECKED.names:
            values = column.to_numpy()
            column = pa.array(np.where(np.isfinite(values), values, np.nan))
        field = bars.schema.field(name)
        bars = bars.set_column(bars.schema.get_field_index(name), field, column.cast(field.type))
    return bars


def _join_events(bars: pa.Table, side: pa.Table, files: Sequence[str]) -> pa.Table:
    """The bars with what was paid on their days, and on days since the traded one before.

    What is paid after new shares came is paid for these as well.
    """
    key, side_key, order = _sort_keys(bars, side, files)
    traded = np.flatnonzero(~bars["suspended"].to_numpy())
    traded = traded[np.argsort(key[traded], kind="stable")]
    cash, shares = np.zeros(len(bars)), np.ones(len(bars))
    given = {
        name: np.nan_to_num(side[name].to_numpy())
        if name in side.column_names
        else np.zeros(len(side))
        for name in ("dividend", "bonus_shares")
    }
    at = np.searchsorted(key[traded], side_key)
    for place, row in enumerate(order):
        is_new = side_key[place] >= 0 and (place == 0 or side_key[place] != side_key[place - 1])
        if not is_new or at[place] == len(traded):
            continue
        bar = traded[at[place]]
        if key[bar] >> 32 == side_key[place] >> 32:
            cash[bar] += given["dividend"][row] * shares[bar]
            shares[bar] *= 1 + given["bonus_shares"][row]
    for name, values in (("dividend", cash), ("bonus_shares", shares - 1)):
        if name in bars.column_names:
            bars = bars.set_column(bars.column_names.index(name), name, pa.array(values))
    return bars


def _match(bars: pa.Table, side: pa.Table, table: SideTable, files: Sequence[str]) -> np.ndarray:
    """(n,) row of `side` that each bar takes; -1 = none."""
    key, side_key, order = _sort_keys(bars, side, files, by_stock=table.join == "stock")
    if not len(side_key):
        return np.full(len(key), -1)
    at = np.searchsorted(side_key, key, side="right") - 1
    near = side_key[np.maximum(at, 0)]
    same = near >> 32 == key >> 32 if table.join == "since" else near == key
    return np.where(same & (at >= 0), order[np.maximum(at, 0)], -1)


def _sort_keys(
    bars: pa.Table, side: pa.Table, files: Sequence[str], *, by_stock: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make the keys by which bars find a side table's rows; two rows of a key must not differ.

    Returns:
        (n,) keys of the bars; (m,) keys of the side table, ascending; (m,) their rows.
    """
    code, theirs = encode(bars["code"]), encode(side["code"])
    own = pc.fill_null(pc.index_in(theirs.dictionary, code.dictionary), -1)
    key = make_keys(code.indices.to_numpy(), None if by_stock else bars["date"])
    side_key = make_keys(own.take(theirs.indices).to_numpy(), None if by_stock else side["date"])
    order = np.argsort(side_key, kind="stable")
    side_key = side_key[order]
    again = np.flatnonzero((side_key[1:] == side_key[:-1]) & (side_key[1:] >= 0))
    check_same(side.take(pa.array(order[again])), side.take(pa.array(order[again + 1])), files)
    return key, side_key, order


def make_keys(code: np.ndarray, date: pa.ChunkedArray | None) -> np.ndarray:
    """(n,) int64 that sorts by code, then date; negative where there is no such stock or date."""
    days = np.zeros(len(code)) if date is None else date.cast(pa.int32()).to_numpy()
    known = (code >= 0) & np.isfinite(days)
    day = np.where(known, days, 0).astype(np.int64) + 2**31
    return np.where(known, (code.astype(np.int64) << 32) + day, -1)


def check_same(
    one: pa.Table, two: pa.Table, files: Sequence[str], *, ignore: Collection[str] = ()
) -> None:
    """Refuse two rows of one key that differ.

    Args:
        one: n rows.
        two: n rows; row i has the key of row i of `one`.
        files: Names of all files by number.
        ignore: Columns that may differ, besides the key and the file.
    """
    names = [n for n in one.column_names if n not in ("code", "date", "file", *ignore)]
    before, after = (rows.select(names).to_pandas().astype(object) for rows in (one, two))
    differs = np.asarray((before != after) & ~(before.isna() & after.isna()))
    if differs.any():
        column, row = (int(index[0]) for index in np.nonzero(differs.T))
        name, key, other = names[column], one.slice(row, 1).to_pylist()[0], two["file"][row]
        raise BarsError(
            f"two rows of {key.get('date', '')} {key['code']} contradict each other: "
            f"{name}={key[name]} in {files[key['file']]}, {name}={two[name][row]} in "
            f"{files[other.as_py()]}. Every (date, code) must be unique; remove the wrong one."
        )


def _check_complete(
    bars: pa.Table, side: pa.Table, match: np.ndarray, files: Sequence[str]
) -> None:
    """Refuse factors whose first row is no event but the middle of a history that was cut off.

    Before its first row a factor is 1, so at that row the price must jump by that much. If it
    does not, earlier rows are missing: without a start date the vendor's call begins in 2015.
    """
    code = encode(bars["code"]).indices.to_numpy()
    order = np.lexsort((bars["date"].cast(pa.int32()).to_numpy(), code))
    order = order[~bars["suspended"].to_numpy()[order]]
    code, found = code[order], match[order] >= 0
    for index in np.flatnonzero((code[1:] == code[:-1]) & found[1:] & ~found[:-1]):
        before = bars["close"][int(order[index])].as_py()
        row = bars.slice(int(order[index + 1]), 1).to_pylist()[0]
        first = side.slice(int(match[order[index + 1]]), 1).to_pylist()[0]
        factor, gap = first["adj_factor"], np.log(before / row["open"])
        jump = np.log(factor) if factor and factor > 0 else 0.0
        if abs(jump) > _CLEAR_JUMP and abs(gap - jump) > abs(gap):
            raise BarsError(
                f"{files[first['file']]}: the factors of {row['code']} begin on or before "
                f"{row['date']} with {factor:g}, and the price does not jump by that much there "
                f"(it went from {before:g} to {row['open']:g}): earlier rows are missing. "
                'Export them from the first listing on (BaoStock: start_date="1990-01-01").'
            )
