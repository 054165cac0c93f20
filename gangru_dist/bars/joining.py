"""Bring side tables' rows to the bars: by day, by the newest row up to the day, or by stock.

A bar takes nothing from a row of a later day, so that rows to come change no day that is past.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.bars import identities
from gangru_dist.bars.codes import Spellings
from gangru_dist.bars.columns import CODED, dictionary_of, marked_st
from gangru_dist.bars.formats import BarsFormat, SideTable
from gangru_dist.bars.quality import Example, Finding, Quality, plain
from gangru_dist.bars.rows import CHECKED
from gangru_dist.base.errors import BarsError

_CLEAR_JUMP = 0.3
"""A first factor's logarithm from which on the price must show the jump too: no day's own move
hides that much."""


def table_rows(rows: pa.Table, spellings: Spellings, number: int) -> pa.Table:
    """Rows of a side table under the bars' own codes; those of other stocks are left out.

    Args:
        rows: A batch as `reader.read_part` gives it.
        spellings: Of the bars' codes.
        number: The file's number, for messages.
    """
    code = dictionary_of(rows["code"])
    names = [spellings.find(name) for name in code.dictionary.to_pylist()]
    places = {name: i for i, name in enumerate(dict.fromkeys(n for n in names if n is not None))}
    own = pa.array([None if name is None else places[name] for name in names], pa.int32())
    coded = pa.DictionaryArray.from_arrays(
        own.take(code.indices), pa.array(list(places), pa.string())
    )
    rows = rows.set_column(rows.column_names.index("code"), "code", coded.cast(CODED))
    rows = rows.append_column("file", pa.array(np.full(len(rows), number, dtype=np.int32)))
    return rows.filter(pc.is_valid(rows["code"]))


def joined(
    bars: pa.Table, side: pa.Table, table: SideTable, files: Sequence[str]
) -> tuple[pa.Table, Quality]:
    """The bars of one bucket with a side table's columns, less the rows that these spoil.

    Infinite values of further columns become missing, and all missing ones are noted.

    Args:
        bars: Checked rows (`validate.CHECKED`) in any order.
        side: Rows of `table_rows` of the same bucket.
        table: How they belong together.
        files: Names of all files by number, for messages.

    Raises:
        BarsError: Two rows of the side table contradict each other, or its factors begin later
            than the stock's history.
    """
    place = _matches(bars, side, table, files)
    found = place >= 0
    columns = {}
    for name in table.gives:
        if name in side.column_names:
            taken = side[name].take(pa.array(place, mask=~found))
            columns[name] = taken
    if "adj_factor" in columns and table.one_before:
        columns["adj_factor"] = pc.if_else(pa.array(found), columns["adj_factor"], 1.0)
        _check_complete(bars, side, place, files)
    if "total_shares" in columns:
        shares = columns.pop("total_shares")
        columns.setdefault("market_cap", pc.multiply(shares, bars["close"]))
    if "name" in columns:
        columns["is_st"] = pc.fill_null(marked_st(columns["name"]), False)
    if "market_cap" in columns:
        columns["market_cap"] = _known_caps(columns["market_cap"])
    further = [name for name in columns if name not in CHECKED.names]
    columns |= {name: _finite(columns[name]) for name in further}
    for name, column in columns.items():
        field = bars.schema.field(name)
        place_of = bars.schema.get_field_index(name)
        bars = bars.set_column(place_of, field, column.cast(field.type))
    bars, spoilt = _without_bad(bars, columns, files)
    return bars, Quality(quarantined=spoilt, notes=_missing(bars, further, files))


def without_contradictions(
    bars: pa.Table, form: BarsFormat, files: Sequence[str]
) -> tuple[pa.Table, dict[str, Finding]]:
    """Set aside rows whose joined columns contradict the others, as `validate` does in one file."""
    values = {name: bars[name].to_numpy() for name in identities.JUDGED}
    traded = ~bars["suspended"].to_numpy()
    found = identities.contradictions(values, form, as_traded=form.prices == "traded")
    return _without(bars, {name: wrong & traded for name, wrong in found.items()}, files)


def _matches(bars: pa.Table, side: pa.Table, table: SideTable, files: Sequence[str]) -> np.ndarray:
    """(n,) row of `side` that each bar takes; -1 = none."""
    code = dictionary_of(bars["code"])
    number = {name: i for i, name in enumerate(code.dictionary.to_pylist())}
    theirs = dictionary_of(side["code"])
    own = np.array([number.get(name, -1) for name in theirs.dictionary.to_pylist()], dtype=int)
    side_code = own[theirs.indices.to_numpy()] if len(own) else np.empty(0, dtype=int)
    by_stock = table.join == "stock"
    side_key = _keys(side_code, None if by_stock else side["date"])
    order = np.argsort(side_key, kind="stable")
    side_key = side_key[order]
    again = np.flatnonzero(side_key[1:] == side_key[:-1])
    _check_same(side, order, again[side_key[again] >= 0], table, files)
    bar_code = code.indices.to_numpy()
    key = _keys(bar_code, None if by_stock else bars["date"])
    place = np.searchsorted(side_key, key, side="right") - 1
    same = np.zeros(len(key), dtype=bool)
    if len(side_key):
        near = side_key[np.maximum(place, 0)]
        same = (near >> 32) == bar_code if table.join == "since" else near == key
        same &= place >= 0
    return np.where(same, order[np.maximum(place, 0)] if len(order) else -1, -1)


def _keys(code: np.ndarray, date: pa.ChunkedArray | None) -> np.ndarray:
    """(n,) int64 that sorts by code, then date; negative where there is no such stock or date."""
    days = np.zeros(len(code)) if date is None else date.cast(pa.int32()).to_numpy()
    known = (code >= 0) & np.isfinite(days)
    day = np.where(known, days, 0).astype(np.int64) + 2**31
    return np.where(known, (code.astype(np.int64) << 32) + day, -1)


def _check_same(
    side: pa.Table, order: np.ndarray, again: np.ndarray, table: SideTable, files: Sequence[str]
) -> None:
    """Refuse two rows of one key that differ; `again`: places in `order` of the first of two."""
    names = [name for name in table.gives if name in side.column_names]
    one = side.take(pa.array(order[again]))
    two = side.take(pa.array(order[again + 1]))
    for name in names:
        a, b = one[name].to_pylist(), two[name].to_pylist()
        for index, (first, second) in enumerate(zip(a, b, strict=True)):
            if first != second and not (first != first and second != second):
                row, other = one.slice(index, 1).to_pylist()[0], two["file"][index].as_py()
                raise BarsError(
                    f"two rows of {row.get('date', '')} {row['code']} contradict each other: "
                    f"{name}={first} in {files[row['file']]}, {name}={second} in {files[other]}. "
                    "Remove the wrong one."
                )


def _check_complete(
    bars: pa.Table, side: pa.Table, place: np.ndarray, files: Sequence[str]
) -> None:
    """Refuse factors whose first row is no event but the middle of a history that was cut off.

    Before its first row a factor is 1, so at that row the price must jump by that much. If it
    does not, earlier rows are missing: without a start date the vendor's call begins in 2015.
    """
    order = np.lexsort((bars["date"].cast(pa.int32()).to_numpy(), bars["code"].combine_chunks().
                        indices.to_numpy()))  # fmt: skip
    code = dictionary_of(bars["code"]).indices.to_numpy()[order]
    traded = ~bars["suspended"].to_numpy()[order]
    order, code = order[traded], code[traded]
    start = (code[1:] == code[:-1]) & (place[order][1:] >= 0) & (place[order][:-1] < 0)
    for index in np.flatnonzero(start):
        before, after = int(order[index]), int(order[index + 1])
        factor = side["adj_factor"][int(place[after])].as_py()
        gap = bars["close"][before].as_py() / bars["open"][after].as_py()
        jump = np.log(factor) if factor and factor > 0 else 0.0
        if abs(jump) > _CLEAR_JUMP and abs(np.log(gap) - jump) > abs(np.log(gap)):
            row = bars.slice(after, 1).to_pylist()[0]
            name = files[side["file"][int(place[after])].as_py()]
            raise BarsError(
                f"{name}: the factors of {row['code']} begin on or before {row['date']} with "
                f"{factor:g}, and the price does not jump by that much there (it went from "
                f"{bars['close'][before].as_py():g} to {row['open']:g}): earlier rows are missing. "
                'Export them from the first listing on (BaoStock: start_date="1990-01-01").'
            )


def _known_caps(caps: pa.ChunkedArray) -> pa.ChunkedArray:
    values = caps.cast(pa.float64()).to_numpy()
    with np.errstate(invalid="ignore"):
        unknown = ~(np.isfinite(values) & (values > 0))
    return pa.chunked_array([pa.array(np.where(unknown, np.nan, values))])


def _finite(column: pa.ChunkedArray) -> pa.ChunkedArray:
    values = column.cast(pa.float64()).to_numpy()
    return pa.chunked_array([pa.array(np.where(np.isfinite(values), values, np.nan))])


def _missing(bars: pa.Table, further: Sequence[str], files: Sequence[str]) -> dict[str, Finding]:
    """Note -> traded rows without a value, as `validate` counts them of the bars' own columns."""
    traded = ~bars["suspended"].to_numpy()
    rows = {name: np.flatnonzero(np.isnan(bars[name].to_numpy()) & traded) for name in further}
    return {
        f"{name} missing or infinite": Finding(
            count=len(found), example=_example(bars, int(found[0]), files)
        )
        for name, found in rows.items()
        if len(found)
    }


def _without_bad(
    bars: pa.Table, columns: Collection[str], files: Sequence[str]
) -> tuple[pa.Table, dict[str, Finding]]:
    """Set aside what `validate` would have set aside, had the columns been there."""
    traded = ~bars["suspended"].to_numpy()
    reasons = {}
    for name, reason in _REASONS.items():
        if name in columns:
            values = bars[name].cast(pa.float64()).to_numpy()
            with np.errstate(invalid="ignore"):
                if name == "adj_factor":
                    wrong = ~(np.isfinite(values) & (values > 0))
                else:
                    wrong = np.isinf(values) | (values < 0)
            reasons[reason] = wrong & traded
    return _without(bars, reasons, files)


def _without(
    bars: pa.Table, reasons: Mapping[str, np.ndarray], files: Sequence[str]
) -> tuple[pa.Table, dict[str, Finding]]:
    """Less the rows that a reason ((n,) bool) holds for; a row counts under its first."""
    kept = np.ones(len(bars), dtype=bool)
    findings = {}
    for reason, wrong in reasons.items():
        bad = np.flatnonzero(wrong & kept)
        if len(bad):
            example = _example(bars, int(bad[0]), files)
            findings[reason] = Finding(count=len(bad), example=example)
            kept[bad] = False
    return (bars if kept.all() else bars.filter(pa.array(kept))), findings


_REASONS = {
    "adj_factor": "adj_factor missing, infinite or not above 0",
    "turnover_rate": "turnover_rate infinite or negative",
}


def _example(bars: pa.Table, index: int, files: Sequence[str]) -> Example:
    row = bars.slice(index, 1).to_pylist()[0]
    where = {"file": files[row["file"]], "date": str(row["date"]), "code": row["code"]}
    return {**where, **{name: plain(row[name]) for name in identities.JUDGED}}
