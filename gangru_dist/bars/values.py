"""Turn a file's values into our types.

CSV columns arrive as text, and some vendors' parquet files hold numbers as text too; both go
through the same parser. Null stays null. What cannot be read is an error that names it; it never
becomes null.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.bars.formats import Kind
from gangru_dist.base.errors import BarsError

CODED = pa.dictionary(pa.int32(), pa.string())
"""Type of text columns while they are read: each text once."""

TEXT_KINDS: tuple[Kind, ...] = ("string", "code")
"""Kinds that are read as text."""

_TEXTS = (pa.string(), pa.large_string(), pa.string_view())
_TYPES = {
    "date": pa.date32(),
    "string": CODED,
    "code": CODED,
    "float": pa.float64(),
    "bool": pa.bool_(),
}
_TRUE = ("1", "true", "t", "yes", "y", "1.0")
_FALSE = ("0", "false", "f", "no", "n", "0.0")
_THOUSANDS = r"^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$"
_WEEKDAYS = "一二三四五六日"
_DATE = re.compile(
    r"(\d{4})(?:(\d\d)(\d\d)|[-/](\d{1,2})[-/](\d{1,2}))(?:\.0)?"
    rf"(?:[ T](?P<time>\d\d:\d\d(?::\d\d)?))?(?:[ ,/]?(?:星期|周)?(?P<weekday>[{_WEEKDAYS}]))?"
)
_MIDNIGHT = "00:00:00"
_UTC = "16:00:00"
"""Midnight in China where times are UTC: of the day after."""
_MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "NaT")
"""Texts that stand for no value; of codes only the empty one does, for NA and NAN are stocks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
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

    def check_values(self, column: pa.ChunkedArray, bad: np.ndarray, wanted: str) -> None:
        """Refuse the first bad value ((n,) bool), with its row: BarsError."""
        if bad.any():
            index = int(np.argmax(bad))
            value = column[index].as_py()
            value = str(value) if isinstance(value, dt.datetime) else value
            raise self.error(
                f"has {value!r} in row {self.first_row + index}, which is no {wanted}",
                f"Correct the file, or name the column to take for {self.ours} in bars.columns",
            )


def convert(column: pa.ChunkedArray, kind: Kind, origin: Origin) -> pa.ChunkedArray | pa.Array:
    """The column as date32, dictionary<string>, float64 or bool.

    Raises:
        BarsError: Its type or a value cannot be one; names file, column, row and value.
    """
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), _TYPES[kind])
    if kind in TEXT_KINDS:
        return _to_text(column, origin, is_code=kind == "code")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return {"float": _to_floats, "bool": _to_bools, "date": _to_dates}[kind](column, origin)


def encode(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """A column of texts in one chunk, each text once."""
    coded = column.combine_chunks().dictionary_encode()
    return coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded


def is_as_before(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) bool: each value equals the one before; missing equals missing. The first does not."""
    if pa.types.is_dictionary(column.type):
        values = pc.fill_null(encode(column).indices, -1).to_numpy()
    elif pa.types.is_date(column.type):
        values = pc.fill_null(column.cast(pa.int32()), -(2**31)).to_numpy()
    else:
        values = column.to_numpy()
    result = np.zeros(len(values), dtype=bool)
    result[1:] = values[1:] == values[:-1]
    if values.dtype.kind == "f":
        result[1:] |= np.isnan(values[1:]) & np.isnan(values[:-1])
    return result


def is_st_name(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether a stock's short name carries the mark of special treatment: ST, *ST, S*ST, SST.

    Of any width, with blanks anywhere, and behind the day's own mark: XD, XR, DR for an ex-day, N
    for a new share.
    """
    return _match_name(names, r"^(XD|XR|DR|N)?[S*]*ST|^(?i:[S*]*ST)\p{Han}")


def is_delisting_name(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether a short name carries the mark of the delisting period, in which *ST leaves it."""
    return _match_name(names, "退")


def _match_name(names: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    coded = encode(names)
    plain = pc.replace_substring_regex(pc.utf8_normalize(coded.dictionary, "NFKC"), r"\s", "")
    found = pc.match_substring_regex(plain, pattern)
    return pa.chunked_array([found.take(coded.indices)])


def _to_text(column: pa.ChunkedArray, origin: Origin, *, is_code: bool) -> pa.ChunkedArray:
    """Dictionary-coded text, numbers too if it is no code; missing as in `_MISSING`.

    Blanks around a text are none of it; those of codes are left to `codes.check_spellings`.
    """
    is_coded = pa.types.is_dictionary(column.type)
    values = column.type.value_type if is_coded else column.type
    if not (values in _TEXTS or (not is_code and pa.types.is_integer(values))):
        raise origin.error(
            f"is of type {column.type}, text is needed", "Export it as text (leading zeros!)"
        )
    coded = column.cast(CODED) if is_coded else column.cast(pa.string()).dictionary_encode()
    chunks, words = [], pa.array(_MISSING[:1] if is_code else _MISSING)
    for chunk in coded.chunks:
        trimmed = pc.utf8_trim_whitespace(chunk.dictionary)
        texts = chunk.dictionary if is_code else pc.unique(trimmed)
        places = pc.index_in(chunk.dictionary if is_code else trimmed, texts)
        places = pc.if_else(pc.is_in(trimmed, words), None, places)
        chunks.append(pa.DictionaryArray.from_arrays(places.take(chunk.indices), texts))
    return pa.chunked_array(chunks, CODED)


def _trim(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text without blanks around it; missing as in `_MISSING`."""
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    return pc.if_else(pc.is_in(text, pa.array(_MISSING)), pa.scalar(None, pa.string()), text)


def _to_floats(column: pa.ChunkedArray, origin: Origin) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.float64(), safe=False)
    if kind not in _TEXTS:
        raise origin.error(
            f"is of type {kind}, a number is needed",
            f"Export numbers, or name the column to take for {origin.ours} in bars.columns",
        )
    text = _trim(column)
    try:
        return text.cast(pa.float64())
    except pa.ArrowInvalid:  # pandas reads what arrow does not, such as "+1.5"
        if origin.thousands:
            grouped = pc.fill_null(pc.match_substring_regex(text, _THOUSANDS), False)
            text = pc.if_else(grouped, pc.replace_substring(text, ",", ""), text)
        parsed = pd.to_numeric(text.to_pandas(), errors="coerce").to_numpy(dtype=float)
        is_nan = pc.fill_null(pc.equal(pc.utf8_lower(text), "nan"), True).to_numpy()
        origin.check_values(column, np.isnan(parsed) & ~is_nan, "number")
        return pa.chunked_array([pa.array(parsed)])


def _to_bools(column: pa.ChunkedArray, origin: Origin) -> pa.ChunkedArray:
    if pa.types.is_boolean(column.type):
        return column
    text = pc.utf8_lower(_trim(column))
    true, known = (pc.is_in(text, pa.array(words)) for words in (_TRUE, (*_TRUE, *_FALSE, None)))
    origin.check_values(column, ~known.to_numpy(), "yes or no (1/0, true/false)")
    return pc.if_else(pc.is_null(text), pa.scalar(None, pa.bool_()), true)


def _to_dates(column: pa.ChunkedArray, origin: Origin) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_date(kind):
        return column.cast(pa.date32())
    if pa.types.is_timestamp(kind):
        return _from_timestamps(column, origin)
    if not (kind in _TEXTS or pa.types.is_integer(kind)):
        raise origin.error(
            f"is of type {kind}, a date is needed", "Export dates as YYYY-MM-DD, YYYYMMDD or date32"
        )
    coded = encode(column.cast(pa.string()))
    found = [parse_date(text) for text in coded.dictionary.to_pylist()]
    intraday = _is_intraday({time for _, time in found if time})
    days = ["" if intraday and time not in (None, _MIDNIGHT) else day for day, time in found]
    bad = pa.array([day == "" for day in days], pa.bool_()).take(coded.indices)
    wanted = "day (YYYY-MM-DD or YYYYMMDD)"
    origin.check_values(column.cast(pa.string()), pc.fill_null(bad, False).to_numpy(False), wanted)
    values = pa.array(np.array(days, dtype="datetime64[D]"), pa.date32())  # None is NaT is null
    return pa.chunked_array([values.take(coded.indices)])


def _from_timestamps(column: pa.ChunkedArray, origin: Origin) -> pa.ChunkedArray:
    if column.type.tz is not None:
        raise origin.error(
            f"has time zone {column.type.tz}, so its days are ambiguous",
            "Convert it to the exchange's local date first",
        )
    times = column.cast(pa.timestamp("ns"))
    days = times.cast(pa.date32(), safe=False)
    clock = pc.subtract(times, days.cast(pa.timestamp("ns"))).cast(pa.int64())
    seen = {f"{dt.datetime(1, 1, 1) + dt.timedelta(microseconds=ns // 1000):%H:%M:%S.%f}"
            for ns in pc.unique(clock).drop_null().to_pylist()}  # fmt: skip
    if _is_intraday({time.removesuffix(".000000") for time in seen}):
        late = pc.fill_null(pc.not_equal(clock, 0), False).to_numpy()
        origin.check_values(column, late, "day: these are intraday bars, or days in UTC")
    return days


def _is_intraday(times: set[str]) -> bool:
    """Whether times of day are more than one fixed time of daily bars, such as the close."""
    return len(times) > 1 or _UTC in times


def parse_date(text: str) -> tuple[str | None, str | None]:
    """ISO day of 2018-12-28, 20181228 or 2018/12/28, and the time behind it; None if empty.

    A weekday may stand behind it too. A text that is no day gives "".
    """
    plain = text.strip()
    if plain in _MISSING or not plain.strip("0-"):  # 0, 0000-00-00
        return None, None
    found = _DATE.fullmatch(plain)
    try:
        day = dt.date(*(int(part) for part in found.groups()[:5] if part)) if found else None
    except ValueError:
        day = None
    if found is None or day is None or found["weekday"] not in (None, _WEEKDAYS[day.weekday()]):
        return "", None
    return str(day), f"{found['time'] or _MIDNIGHT}:00"[:8]
