"""Which rows of the bars can be trusted. docs/data.md is the list in words.

A row that cannot be used is set aside and counted under its first reason; a file that cannot be
understood was refused before, by `reader` and `columns`. Duplicates show only once the rows of
a stock are together: `panel.bucket` finds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.bars import identities
from gangru_dist.bars.columns import CODED, Place, dictionary_of, marked_st
from gangru_dist.bars.days import DayRule, check_span, is_no_listing
from gangru_dist.bars.formats import BarsFormat, derived
from gangru_dist.bars.quality import Example, Finding, Quality, plain

CHECKED = pa.schema(
    [
        ("date", pa.date32()),
        ("code", CODED),
        *((name, pa.float64()) for name in ("open", "high", "low", "close", "volume", "amount")),
        *((name, pa.float64()) for name in ("adj_factor", "turnover_rate", "market_cap")),
        ("industry", CODED),
        ("name", CODED),
        ("is_st", pa.bool_()),
        ("list_date", pa.date32()),
        ("suspended", pa.bool_()),
        ("file", pa.int32()),
    ]
)
"""Columns of rows that passed: our units, no stand-ins, and the file's number for messages."""


def checked_schema(further: Sequence[str] = ()) -> pa.Schema:
    """`CHECKED`, and further columns behind it."""
    return pa.schema([*CHECKED, *((name, pa.float64()) for name in further)])


UNLISTED = "list_date before any stock was listed, taken as unknown"
PRICES = ("open", "high", "low", "close")
_TOLERANCE = 1e-4  # relative; prices that a vendor keeps as float32 are off by 1e-7
_ANY_DAY = DayRule()


def check_rows(
    table: pa.Table,
    form: BarsFormat,
    *,
    file: str,
    number: int,
    first_row: int,
    days: DayRule = _ANY_DAY,
) -> tuple[pa.Table, Quality]:
    """Only rows that can be used, with the columns that others stand in for.

    Args:
        table: One batch of a file, as `reader.read_part` gives it.
        form: What is derived, and how.
        file: The file's name, for examples.
        number: The file's number, for later messages.
        first_row: Rows of the file before this batch.
        days: Which dates may be.

    Returns:
        Rows in the columns of `checked_schema`, order kept, suspended ones flagged; and the counts.

    Raises:
        BarsError: A date is none that bars can be of.
    """
    date = _day_numbers(table["date"])
    check_span(
        date, days, Place(file=file, column=form.names("date")[0], ours="date", first_row=first_row)
    )
    floats = [name for name in table.column_names if pa.types.is_floating(table[name].type)]
    values = derived({name: _float(table[name]) for name in floats}, form)
    suspended = _suspended(values, table, form)
    quarantined: dict[str, Finding] = {}
    kept = np.ones(len(table), dtype=bool)

    def example(index: int) -> Example:
        shown = {name: plain(values[name][index]) for name in identities.JUDGED if name in values}
        where = {"file": file, "row": first_row + index}
        code = table["code"][index].as_py()
        return {**where, "date": str(date[index]), "code": code, **shown}

    reasons = _reasons(table, values, suspended)
    as_traded = form.prices == "traded"
    found_wrong = identities.contradictions(values, form, as_traded=as_traded)
    reasons |= {reason: wrong & ~suspended for reason, wrong in found_wrong.items()}
    reasons |= identities.lost_volume(values, form, suspended)
    for reason, wrong in {**reasons, **days.reasons(date)}.items():
        found = np.flatnonzero(wrong & kept)
        if len(found):
            quarantined[reason] = Finding(count=len(found), example=example(int(found[0])))
            kept[found] = False
    table, unlisted = _without_lost_list_dates(table, form)
    odd = {**_missing(table, values, form.further), **identities.odd(values)}
    notes = _notes(table, values, kept & ~suspended, file)
    for name, rows in {**odd, UNLISTED: unlisted}.items():
        found = np.flatnonzero(rows & kept & ~suspended)
        if len(found):
            notes[name] = Finding(count=len(found), example=example(int(found[0])))
    quality = Quality(
        rows=len(table),
        suspended=int((suspended & kept).sum()),
        quarantined=quarantined,
        notes=notes,
    )
    checked = _assemble(table, values, suspended, number, form.further)
    return (checked if kept.all() else checked.filter(pa.array(kept))), quality


def _reasons(
    table: pa.Table, values: Mapping[str, np.ndarray], suspended: np.ndarray
) -> dict[str, np.ndarray]:
    """Reason -> (n,) bool. A suspended day's numbers mean nothing, so they are not judged."""
    price = np.stack([values[name] for name in PRICES])
    low, high = values["low"], values["high"]
    with np.errstate(invalid="ignore"):
        bad_price = ~(np.isfinite(price) & (price > 0)).all(axis=0)
        outside = np.zeros(len(table), dtype=bool)
        for name in ("open", "close"):
            outside |= values[name] > high * (1 + _TOLERANCE)
            outside |= values[name] < low * (1 - _TOLERANCE)
        traded = {
            "price missing, infinite or not above 0": bad_price,
            "high below low": high < low,
            "open or close outside low to high": outside,
            "volume missing, infinite or negative": ~_at_least_zero(values["volume"]),
            "amount missing, infinite or negative": ~_at_least_zero(values["amount"]),
            "turnover_rate infinite or negative": _bad_turnover(values),
            "adj_factor missing, infinite or not above 0": _bad_factor(values),
        }
    return {
        "date missing": _null(table["date"]),
        "code missing": _null(table["code"]),
        **{reason: wrong & ~suspended for reason, wrong in traded.items()},
    }


def _suspended(values: Mapping[str, np.ndarray], table: pa.Table, form: BarsFormat) -> np.ndarray:
    """(n,) bool: volume 0, or marked as not traded, or empty where the format means that by it."""
    result = values["volume"] == 0
    if "traded" in table.column_names:
        result |= pc.invert(pc.fill_null(table["traded"], fill_value=True)).to_numpy()
    if form.empty_is_suspended:
        result |= np.isnan([values[name] for name in (*PRICES, "volume")]).all(axis=0)
    return np.asarray(result)


def _at_least_zero(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(values) & (values >= 0))


def _bad_turnover(values: Mapping[str, np.ndarray]) -> np.ndarray:
    rate = values.get("turnover_rate", np.zeros(len(values["close"])))
    return np.asarray(np.isinf(rate) | (rate < 0))


def _bad_factor(values: Mapping[str, np.ndarray]) -> np.ndarray:
    factor = values.get("adj_factor", np.ones(len(values["close"])))
    return ~np.asarray(np.isfinite(factor) & (factor > 0))


def _notes(
    table: pa.Table, values: dict[str, np.ndarray], traded: np.ndarray, file: str
) -> dict[str, Finding]:
    """Repairs that lose no row; `market_cap` in `values` is cleaned in passing."""
    notes = {}
    if not len(table):
        notes["file without rows"] = Finding(count=1, example={"file": file})
    if "market_cap" in values:
        cap = values["market_cap"]
        with np.errstate(invalid="ignore"):
            unknown = ~((cap > 0) & (cap < identities.MOST_CAP))
        values["market_cap"] = np.where(unknown, np.nan, cap)
        if (unknown & traded).any():
            count = int((unknown & traded).sum())
            notes["market_cap unknown"] = Finding(count=count, example={"file": file})
    if not _is_sorted(table):
        notes["batch not sorted by date, nor by code and date"] = Finding(
            count=1, example={"file": file}
        )
    return notes


def _missing(
    table: pa.Table, values: dict[str, np.ndarray], further: Sequence[str]
) -> dict[str, np.ndarray]:
    """Note -> (n,) bool: values that are missing and stay so, of columns that are there.

    Infinite ones of further columns become missing in passing.
    """
    there = {
        name: _null(table[name]) for name in ("industry", "is_st") if name in table.column_names
    }
    if "turnover_rate" in values:
        there["turnover_rate"] = np.isnan(values["turnover_rate"])
    for name in values.keys() & set(further):
        there[name] = ~np.isfinite(values[name])
        values[name] = np.where(there[name], np.nan, values[name])
    ends = {"is_st": ", taken as no", **dict.fromkeys(further, " or infinite")}
    return {f"{name} missing{ends.get(name, '')}": rows for name, rows in there.items()}


def _without_lost_list_dates(table: pa.Table, form: BarsFormat) -> tuple[pa.Table, np.ndarray]:
    """List dates without those that no stock can have, and (n,) bool where these were.

    1970-01-01 and the like are what a lost date turns into; such a stock would count as listed
    for decades on its first day.
    """
    if "list_date" not in table.column_names:
        return table, np.zeros(len(table), dtype=bool)
    lost = is_no_listing(_day_numbers(table["list_date"]), form.price_limits)
    if lost.any():
        place = table.column_names.index("list_date")
        known = pc.if_else(pa.array(lost), pa.scalar(None, pa.date32()), table["list_date"])
        table = table.set_column(place, "list_date", known)
    return table, lost


def _is_sorted(table: pa.Table) -> bool:
    """Dates ascend, or codes stand together and dates ascend within each."""
    date = table["date"].cast(pa.int32()).to_numpy()
    code = dictionary_of(table["code"])
    later = np.diff(date) >= 0
    other = np.diff(code.indices.to_numpy(zero_copy_only=False)) != 0
    runs = int(other.sum()) + 1
    together = runs <= len(code.dictionary)
    return bool(later.all() or (together and (later | other).all()))


def _assemble(
    table: pa.Table,
    values: Mapping[str, np.ndarray],
    suspended: np.ndarray,
    number: int,
    further: Sequence[str],
) -> pa.Table:
    count = len(table)
    named = ("date", "code", "industry", "name", "is_st", "list_date")
    given = {name: table[name] for name in named if name in table.column_names}
    for name in ("industry", "name"):
        given.setdefault(name, pa.nulls(count, CODED))
    given.setdefault("list_date", pa.nulls(count, pa.date32()))
    if "is_st" not in given and "name" in table.column_names:
        given["is_st"] = marked_st(table["name"])
    given["is_st"] = pc.fill_null(given.get("is_st", pa.nulls(count, pa.bool_())), False)
    absent = {"adj_factor": np.ones(count)}
    schema = checked_schema(further)
    for field in schema:
        if pa.types.is_floating(field.type):
            default = absent.get(field.name, np.full(count, np.nan))
            given[field.name] = pa.array(values.get(field.name, default))
    given["suspended"] = pa.array(suspended)
    given["file"] = pa.array(np.full(count, number, dtype=np.int32))
    return pa.table({name: given[name] for name in schema.names}, schema=schema)


def _day_numbers(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) datetime64[D], NaT = missing; any year, also after 9999."""
    days = pc.fill_null(column.cast(pa.int32()).cast(pa.int64()), np.iinfo(np.int64).min)
    return np.asarray(days.to_numpy()).astype("datetime64[D]")


def _float(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _null(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.is_null(column).to_numpy())
