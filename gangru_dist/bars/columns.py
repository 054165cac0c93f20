"""Turn a vendor's column of whatever type into ours, or name the value that cannot be converted.

CSV columns arrive as strings, and some vendors' parquet files hold numbers as strings too;
both go through the same parser. Null stays null; what cannot be read is an error, never null.

Columns of the bars that come in.

Prices are currency per share as traded, `volume` is shares, `amount` currency, `turnover_rate`
a fraction of the free float (0.01 = 1 %), `market_cap` currency. The stock column is `code`,
spelled as the vendor does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.base.errors import BarsError

Kind = Literal["date", "string", "code", "float", "bool"]
"""`code` is text that no number can stand for: its leading zeros count."""

TEXT_KINDS: tuple[Kind, ...] = ("string", "code")
"""Kinds that are read as text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BarColumn:
    """One column of the bars."""

    kind: Kind
    """What its values must be."""
    required: bool = False
    """Whether bars without it are refused."""


BAR_COLUMNS: dict[str, BarColumn] = {
    "date": BarColumn(kind="date", required=True),
    "code": BarColumn(kind="code", required=True),
    "open": BarColumn(kind="float", required=True),
    "high": BarColumn(kind="float", required=True),
    "low": BarColumn(kind="float", required=True),
    "close": BarColumn(kind="float", required=True),
    "volume": BarColumn(kind="float", required=True),
    "amount": BarColumn(kind="float", required=True),
    "adj_factor": BarColumn(kind="float"),
    "turnover_rate": BarColumn(kind="float"),
    "market_cap": BarColumn(kind="float"),
    "total_shares": BarColumn(kind="float"),
    "industry": BarColumn(kind="string"),
    "is_st": BarColumn(kind="bool"),
    "list_date": BarColumn(kind="date"),
    "vwap": BarColumn(kind="float"),
    "traded": BarColumn(kind="bool"),
    "name": BarColumn(kind="string"),
}
"""The bars' columns by name; `traded` false marks a suspended day."""


def kind_of(name: str) -> Kind:
    """Kind of one of our columns; a further one, which a feature reads, is a number."""
    return BAR_COLUMNS[name].kind if name in BAR_COLUMNS else "float"


STANDS_FOR = {"total_shares": "market_cap", "vwap": "amount", "name": "is_st"}
"""A column -> the one that it (x close, x volume, by its ST mark) stands in for if that is not
there."""

REQUIRED = tuple(name for name, column in BAR_COLUMNS.items() if column.required)
"""Names of the columns that bars must have."""

ARROW_TYPES: dict[Kind, pa.DataType] = {
    "date": pa.date32(),
    "string": pa.string(),
    "code": pa.string(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}
"""Type of a column of each kind, once read."""


CODED = pa.dictionary(pa.int32(), pa.string())
"""Type of text columns while they are read: each name once."""

_TRUE = {"1", "true", "t", "yes", "y", "1.0"}
_THOUSANDS = r"^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$"
_FALSE = {"0", "false", "f", "no", "n", "0.0"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a column comes from, for messages."""

    file: str
    """Name of the file."""
    column: str
    """The file's name of the column."""
    ours: str
    """Our name of it."""
    first_row: int
    """Number of the first row in the file, counted from 0."""
    thousands: bool = False
    """Whether "1,234.5" can be nothing but a number with its thousands apart: the file's fields
    are separated by commas, so a comma within one is no decimal point."""

    def error(self, problem: str, way_out: str) -> BarsError:
        """A BarsError that names file and column."""
        return BarsError(f"{self.file}: column {self.column!r} {problem}. {way_out}")

    def bad_value(self, index: int, value: object, wanted: str) -> BarsError:
        """A BarsError that also names the row and its value."""
        return self.error(
            f"has {value!r} in row {self.first_row + index}, which is no {wanted}",
            f"Correct the file, or name the column to take for {self.ours} in bars.columns",
        )


def convert(column: pa.ChunkedArray, kind: Kind, place: Place) -> pa.ChunkedArray | pa.Array:
    """The column as date32, dictionary<string>, float64 or bool.

    Raises:
        BarsError: Its type or a value cannot be one; names file, column, row and value.
    """
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), CODED if kind in TEXT_KINDS else ARROW_TYPES[kind])
    if pa.types.is_dictionary(column.type) and kind not in TEXT_KINDS:
        column = column.cast(column.type.value_type)
    return _CONVERTERS[kind](column, place)


def dictionary_of(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """A column of texts in one piece, each text once."""
    coded = column.combine_chunks().dictionary_encode()
    return coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded


def marked_st(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether a stock's short name carries the mark of special treatment: ST, *ST, S*ST, SST."""
    return pc.match_substring_regex(names.cast(pa.string()), r"^[S*]*ST")


def _string(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    if pa.types.is_integer(_plain(column)):
        return _coded(column)
    return _code(column, place)


def _code(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    if not _is_text(_plain(column)):
        raise place.error(
            f"is of type {column.type}, text is needed", "Export it as text (leading zeros!)"
        )
    return _coded(column)


def _plain(column: pa.ChunkedArray) -> pa.DataType:
    """Type of the values, coded or not."""
    return column.type.value_type if pa.types.is_dictionary(column.type) else column.type


def _coded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text or numbers as dictionary-coded text."""
    if pa.types.is_dictionary(column.type):
        return _without_blanks(column.cast(CODED))
    return _without_blanks(column.cast(pa.string()).dictionary_encode())


def _without_blanks(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dictionary-coded text; an empty or blank one is missing, as it is in a CSV file."""
    chunks = []
    for chunk in column.chunks:
        blank = pc.equal(pc.utf8_trim_whitespace(chunk.dictionary), "")
        known = pc.if_else(blank.take(chunk.indices), None, chunk.indices)
        chunks.append(pa.DictionaryArray.from_arrays(known, chunk.dictionary))
    return pa.chunked_array(chunks, CODED)


def _float(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    kind = column.type
    if _is_text(kind):
        return _parse_floats(column.cast(pa.string()), place)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.float64(), safe=False)
    raise place.error(
        f"is of type {kind}, a number is needed",
        f"Export numbers, or name the column to take for {place.ours} in bars.columns",
    )


def _parse_floats(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    trimmed = pc.utf8_trim_whitespace(column)
    trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    try:
        return trimmed.cast(pa.float64())
    except pa.ArrowInvalid:
        if place.thousands:
            grouped = pc.match_substring_regex(trimmed, _THOUSANDS)
            plain = pc.replace_substring(trimmed, ",", "")
            trimmed = pc.if_else(pc.fill_null(grouped, False), plain, trimmed)
        parsed = pd.to_numeric(trimmed.to_pandas(), errors="coerce").to_numpy(dtype=float)
        bad = np.isnan(parsed) & trimmed.is_valid().to_numpy()
        bad &= ~pc.equal(pc.utf8_lower(trimmed), "nan").to_pandas().fillna(value=False).to_numpy()
        if not bad.any():  # pandas reads what arrow does not, such as "+1.5"
            return pa.chunked_array([pa.array(parsed)])
        index = int(np.flatnonzero(bad)[0])
        raise place.bad_value(index, column[index].as_py(), "number") from None


def _bool(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    if pa.types.is_boolean(column.type):
        return column
    text = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.string())))
    true, false = (pc.is_in(text, pa.array(sorted(words))) for words in (_TRUE, _FALSE))
    empty = pc.or_(pc.is_null(text), pc.equal(pc.fill_null(text, ""), ""))
    bad = pc.invert(pc.or_(pc.or_(true, false), empty)).to_numpy()
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise place.bad_value(index, column[index].as_py(), "yes or no (1/0, true/false)")
    return pc.if_else(empty, pa.scalar(None, pa.bool_()), true)


def _date(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_date(kind):
        return column.cast(pa.date32())
    if pa.types.is_timestamp(kind):
        return _from_timestamps(column, place)
    if _is_text(kind) or pa.types.is_integer(kind):
        return _parse_dates(column.cast(pa.string()), place)
    raise place.error(
        f"is of type {kind}, a date is needed", "Export dates as YYYY-MM-DD, YYYYMMDD or date32"
    )


def _from_timestamps(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    if column.type.tz is not None:
        raise place.error(
            f"has time zone {column.type.tz}, so its days are ambiguous",
            "Convert it to the exchange's local date first",
        )
    days = column.cast(pa.timestamp("ns")).cast(pa.date32(), safe=False)
    same = pc.equal(days.cast(pa.timestamp("ns")), column.cast(pa.timestamp("ns")))
    bad = ~pc.fill_null(same, fill_value=True).to_numpy()
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise place.bad_value(index, str(column[index].as_py()), "day: these are intraday bars")
    return days


def _parse_dates(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    """Dates written as 2018-12-28, 20181228, 2018/12/28, or with a midnight behind."""
    coded = dictionary_of(column)
    days = [_parse_date(text) for text in coded.dictionary.to_pylist()]
    bad = [i for i, day in enumerate(days) if day == ""]
    if bad:
        index = int(np.flatnonzero(coded.indices.to_numpy(zero_copy_only=False) == bad[0])[0])
        raise place.bad_value(index, column[index].as_py(), "day (YYYY-MM-DD or YYYYMMDD)")
    values = pa.array(np.array(days, dtype="datetime64[D]"), pa.date32())  # None is NaT is null
    return pa.chunked_array([values.take(coded.indices)])


def _parse_date(text: str) -> str | None:
    """ISO day of a text; None for an empty one, "" for one that is no day."""
    plain = text.strip()
    if plain in ("", "0", "NaT", "nan", "None"):
        return None
    for tail in (" 00:00:00", "T00:00:00"):
        plain = plain.removesuffix(tail)
    plain = plain.removesuffix(".0").replace("/", "-")
    if len(plain) == 8 and plain.isdigit():
        plain = f"{plain[:4]}-{plain[4:6]}-{plain[6:]}"
    parts = plain.split("-")
    if len(parts) != 3 or not all(part.isdigit() for part in parts) or len(parts[0]) != 4:
        return ""
    iso = f"{parts[0]}-{parts[1]:0>2}-{parts[2]:0>2}"
    try:
        np.datetime64(iso, "D")
    except ValueError:
        return ""
    return iso


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


_CONVERTERS = {"string": _string, "code": _code, "float": _float, "bool": _bool, "date": _date}
