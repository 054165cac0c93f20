"""Find our columns among a vendor's headings, and turn their values into our types.

CSV columns arrive as text, and some vendors' parquet files hold numbers as text too; both go
through the same parser. Null stays null. What cannot be read is an error that names it, never null.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.bars.formats import (
    BAR_COLUMNS,
    FACTOR_SOURCES,
    FORMATS,
    REQUIRED,
    BarsFormat,
    Kind,
    SideTable,
    kind_of,
)
from gangru_dist.base.errors import BarsError, format_flag
from gangru_dist.base.registry import find_close_names

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


_OTHER_NAMES = {
    "date": ("trddt", "tradedt", "tradingdate", "tradedate", "datetime", "time", "day", "交易日"),
    "code": ("stkcd", "symbol", "ticker", "secucode", "seccode", "stockcode", "windcode",
             "sinfowindcode", "orderbookid", "instrument", "secid"),
    "open": ("opnprc", "sdqopen"),
    "high": ("hiprc", "sdqhigh"),
    "low": ("loprc", "sdqlow"),
    "close": ("clsprc", "sdqclose"),
    "volume": ("dnshrtrd", "sdqvolume", "totalvolume", "turnovervolume", "成交股数"),
    "amount": ("dnvaltrd", "money", "value", "sdqamount", "totalturnover", "turnovervalue"),
    "adj_factor": ("复权因子", "累计复权因子", "后复权因子", "factor", "tafactor", "sdqadjfactor",
                   "adjustfactor", "cumfactor", "excumfactor", "accumadjfactor"),
}  # fmt: skip
"""Our column -> what further exports call it (CSMAR, Wind, RiceQuant, JoinQuant), for messages."""
_CODE_HEADING = re.compile(r"(?i:[a-z]{2,4}[._#]?)?\d{6}(?i:[._]?[a-z]{2,4})?")
_PAIR = re.compile(r"\('")
"""How pandas writes two rows of headings to parquet."""


def choose_columns(
    file: str,
    names: Sequence[str],
    form: BarsFormat,
    *,
    given: Collection[str] = (),
    lines: Sequence[str] = (),
) -> dict[str, str]:
    """Our column -> the file's, of a file of daily bars.

    Args:
        file: Its name.
        names: Its headings.
        form: The mapping.
        given: Our columns that side tables bring.
        lines: The first ones of a text file, for messages.

    Raises:
        BarsError: A required column is missing, one that we need is there twice, the table is a
            wide one, or the factor and the user's word on the prices contradict each other.
    """
    _check_long(file, names, lines)
    ours = [name for name in BAR_COLUMNS if name != "total_shares" or name in form.stand_ins]
    chosen = _find_columns(file, names, form, (*ours, *form.further))
    has_factor = "adj_factor" in {*chosen, *given}
    if has_factor:  # it is taken as it is
        unused = {*FACTOR_SOURCES, "bonus_shares"} - set(form.further)
        chosen = {name: theirs for name, theirs in chosen.items() if name not in unused}
    if form.prices == "adjusted" and has_factor:
        raise BarsError(
            f"bars.prices=adjusted says that prices need no factor, and {file} comes with one "
            f"({chosen.get('adj_factor', _find_folder('adj_factor', form))}): prices would be "
            "adjusted twice, or not at all. Leave out the setting, or the factor."
        )
    missing = [name for name in REQUIRED if name not in chosen]
    missing += _find_unpaid({*chosen, *given}, form)
    if missing:
        raise _explain_missing(file, names, form, missing, chosen, lines)
    for one, two in itertools.combinations(ours, 2):
        if kind_of(one) not in TEXT_KINDS and chosen.get(one, "") == chosen.get(two):
            raise BarsError(
                f"{file}: bars.columns takes the column {chosen[one]} for {one} and for {two}, and "
                "one number cannot be both. Leave one of them out; features that need an amount go "
                f"with {_leave_out(form, 'amount', 'vwap')}"
            )
    twice = sorted(set(given) & set(chosen))
    if twice:
        raise BarsError(
            f"{file} has the column {chosen[twice[0]]} ({twice[0]}), and the table beside the bars "
            f"in {_find_folder(twice[0], form)}/ has it too. Move that table away, or leave the "
            "column out of the bars."
        )
    sources = set(FACTOR_SOURCES) & {*chosen, *given}
    if form.prices == "traded" and not has_factor and not sources:
        raise _explain_no_factor(file, names, form, chosen)
    return chosen


def choose_table_columns(
    file: str, names: Sequence[str], form: BarsFormat, table: SideTable
) -> dict[str, str]:
    """Our column -> the file's, of a file of a side table.

    Raises:
        BarsError: A key is missing, or everything that the table is there for, or it is a wide one.
    """
    _check_long(file, names)
    form = replace(form, columns={**form.columns, **table.columns})
    keys = ("code",) if table.join == "stock" else ("code", "date")
    chosen = _find_columns(file, names, form, (*keys, *table.gives))
    missing = [name for name in keys if name not in chosen]
    if not set(table.gives) & set(chosen):
        missing += table.gives
    if missing:
        raise BarsError(
            f"{file} lacks the column(s) {_spell(missing, form)} of the side table "
            f"{file.split('/')[0]!r}; it has {_enumerate(names)}. Export the table as docs/data.md "
            "says, or give the folder another name if it holds bars."
        )
    return chosen


def check_renamed(uri: str, there: Sequence[str], form: BarsFormat) -> None:
    """Refuse a mapping of the user's that no file answers to; `there`: columns of all files."""
    lower = {name.lower(): name for name in there}
    absent = []
    for ours in form.renamed:
        if form.find(ours, there) is None:
            theirs = form.names(ours)[0]
            nearest = ", ".join(
                lower[name] for name in find_close_names(theirs.lower(), lower, 0.6)
            )
            absent.append(f"bars.columns.{ours}={theirs} (nearest: {nearest or 'none'})")
    if absent:
        raise BarsError(
            f"no file at {uri} has what the mapping names: {', '.join(absent)}; there are "
            f"{_enumerate(there)}. Correct the name, or leave the mapping out."
        )


def _find_columns(
    file: str, names: Sequence[str], form: BarsFormat, columns: Collection[str]
) -> dict[str, str]:
    chosen = {ours: name for ours in columns if (name := form.find(ours, names)) is not None}
    twice = sorted({name for name in chosen.values() if list(names).count(name) > 1})
    if twice:
        raise BarsError(f"{file} has column(s) {twice} twice. Remove or rename one of them.")
    return chosen


def _find_unpaid(there: set[str], form: BarsFormat) -> list[str]:
    """What a feature needs of what was paid: amount, or vwap beside adjusted prices."""
    paid = "amount" in there or ("vwap" in there and "vwap" in form.stand_ins)
    by_amount = ("amount", "vwap") if form.paid_gives_vwap else ("amount",)
    lacks_amount = not paid and any(form.readers.get(name) for name in by_amount)
    lacks_vwap = not form.paid_gives_vwap and "vwap" not in there and form.readers.get("vwap")
    return ["amount"] * lacks_amount + ["vwap"] * bool(lacks_vwap)


def _leave_out(form: BarsFormat, *inputs: str) -> str:
    """The setting that leaves out all features of these inputs."""
    needy = [name for ours in inputs for name in form.readers.get(ours, ())]
    return format_flag("panel.without", list(dict.fromkeys([*form.left_out, *needy])))


def _explain_missing(
    file: str,
    names: Sequence[str],
    form: BarsFormat,
    missing: Sequence[str],
    chosen: Mapping[str, str],
    lines: Sequence[str],
) -> BarsError:
    """What is missing, who exports it, and the setting that would find it or do without it."""
    start = f"{file} lacks the column(s) {_spell(missing, form)}; it has {_enumerate(names)}."
    is_bars = not set(missing) & set(REQUIRED)
    for number, line in enumerate(lines):
        fields = [field.strip(' "') for field in re.split(r"[,;\t|]", line)]
        if number != form.skip_rows and all(form.find(name, fields) for name in missing):
            way_out = format_flag("bars.skip_rows", number)
            return BarsError(f"{start} Its line {number + 1} has them: {way_out}")
    for name, other in {} if form.renamed or is_bars else FORMATS.items():
        if all(other.find(column, names) for column in REQUIRED):
            way_out = format_flag("bars.format", name)
            return BarsError(f"{start} They read like another format: {way_out}")
    calls = sorted({form.calls[name] for name in missing if name in form.calls})
    text = f" {', '.join(calls)} exports what is missing." if calls else ""
    guesses = [
        format_flag(f"bars.columns.{name}", theirs)
        for name in missing
        if (theirs := _guess(name, names, chosen)) is not None
    ]
    if "code" in missing and not any(".code=" in guess for guess in guesses):
        text += f" If the file's name is the stock: {format_flag('bars.code_from_name', True)}"
    if guesses:
        end = f"If they go by other names, say so: {' '.join(guesses)}"
    else:
        end = "If they go by other names, name those in bars.columns."
    if is_bars:
        inputs = ["amount", "vwap"] if "amount" in missing else ["vwap"]
        inputs += ["turnover_rate"] if {"amount", "turnover_rate"}.isdisjoint(chosen) else []
        if "vwap" in missing:
            text += (
                " amount / volume is a price as traded and the prices are adjusted, so a vwap must "
                "come in their adjustment; prices as traded with their adj_factor need none."
            )
        return BarsError(
            f"{start}{text} {end} Or leave out what needs it: {_leave_out(form, *inputs)}"
        )
    return BarsError(f"{start}{text} If it is no bars file, point --bars at the bars only. {end}")


def _explain_no_factor(
    file: str, names: Sequence[str], form: BarsFormat, chosen: Mapping[str, str]
) -> BarsError:
    theirs = _guess("adj_factor", names, chosen)
    if theirs is not None:
        return BarsError(
            f"{file} has no adjustment factor by the name of {'/'.join(form.names('adj_factor'))}. "
            f"If {theirs} is the cumulative backward factor, say so: "
            f"{format_flag('bars.columns.adj_factor', theirs)}"
        )
    folders = [folder for folder, table in form.tables.items() if "adj_factor" in table.gives]
    beside = f", or a table beside the bars in {' or '.join(f'{f}/' for f in folders)}"
    call = f" ({form.calls['adj_factor']})" if "adj_factor" in form.calls else ""
    mixed = not (form.adjusted or "vwap" in chosen) and form.readers.get("vwap")
    return BarsError(
        f"{file} has no adjustment factor{call}: without it every split and dividend would read "
        f"as a loss. Add the column {'/'.join(form.names('adj_factor'))}, or what gives it: the "
        f"previous close that the exchange states ({'/'.join(form.names('pre_close'))}), the daily "
        f"change ({'/'.join(form.names('daily_change'))}) or an adjusted close "
        f"({'/'.join(form.names('adj_close'))}), or dividends"
        f"{beside if folders else ''}; docs/data.md names the calls. If the prices are adjusted "
        f"already, say so: {format_flag('bars.prices', 'adjusted')}"
        + (
            f" and leave out what mixes them with amounts: {_leave_out(form, 'vwap')}"
            if mixed
            else ""
        )
    )


def _guess(ours: str, names: Sequence[str], chosen: Mapping[str, str]) -> str | None:
    """The heading that may be our column: one that exports call it by, or ours misspelt."""
    own = {
        column: {_letters(name) for form in FORMATS.values() for name in form.names(column)}
        | {_letters(column), *_OTHER_NAMES.get(column, ())}
        for column in BAR_COLUMNS
    }
    others = {_letters(name) for column, some in own.items() if column != ours for name in some}
    free = [name for name in names if name not in chosen.values()]
    known = [name for name in free if _letters(name) in own[ours]]
    first = [
        name
        for name in free
        if ours in (*REQUIRED[2:], "amount")
        and re.fullmatch(
            rf"{ours}[^a-z]+(price|shares|cny|rmb|usd|value|volume|amount)\W*", name.lower()
        )
    ]
    near = {_letters(name): name for name in free if _letters(name) not in others}
    misspelt = [near[name] for name in find_close_names(_letters(ours), near, 0.8)]
    return next(iter([*known, *first, *misspelt]), None)


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def _check_long(file: str, names: Sequence[str], lines: Sequence[str] = ()) -> None:
    """Refuse a table with a column a stock or a day, or a row of stocks below its headings."""
    first = [re.split(r"[,;\t|]", line)[0].strip() for line in lines[1:3]]
    if "Ticker" in first or sum(bool(_PAIR.match(name)) for name in names) > 1:
        raise BarsError(
            f"{file} has two rows of headings, a column a field and stock (yfinance). Reshape it: "
            "rows = pd.read_csv(FILE, header=[0, 1], index_col=0).stack(level=1, future_stack=True)"
            "; rows.rename_axis(['date', 'code']).to_csv(OTHER). Or download with "
            "multi_level_index=False, a stock a file"
        )
    is_day = [_parse_date(name)[0] not in (None, "") for name in names]
    by_day = sum(is_day) > 1 and sum(is_day) >= len(names) / 2
    codes = sum(bool(_CODE_HEADING.fullmatch(name)) for name in names)
    if by_day or (codes > 1 and codes >= len(names) / 2):
        turned = ".T" if by_day else ""
        raise BarsError(
            f"{file} is a wide table, a column a {'day' if by_day else 'stock'}. Reshape the files "
            "of all fields into one: pd.concat({name: pd.read_csv(f'{name}.csv', index_col=0)"
            f"{turned}.stack() for name in ['open', 'high', 'low', 'close', 'volume', 'amount', "
            "'adj_factor']}, axis=1).rename_axis(['date', 'code']).to_csv('bars.csv')"
        )


def _find_folder(column: str, form: BarsFormat) -> str:
    return next((name for name, table in form.tables.items() if column in table.gives), column)


def _spell(columns: Sequence[str], form: BarsFormat) -> str:
    return ", ".join(
        name if form.names(name) == (name,) else f"{name} (there: {'/'.join(form.names(name))})"
        for name in columns
    )


def _enumerate(names: Sequence[str]) -> str:
    return ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")


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
    """Dictionary-coded text, numbers too if it is no code; missing as in `_MISSING`."""
    is_coded = pa.types.is_dictionary(column.type)
    values = column.type.value_type if is_coded else column.type
    if not (values in _TEXTS or (not is_code and pa.types.is_integer(values))):
        raise origin.error(
            f"is of type {column.type}, text is needed", "Export it as text (leading zeros!)"
        )
    coded = column.cast(CODED) if is_coded else column.cast(pa.string()).dictionary_encode()
    chunks, words = [], pa.array(_MISSING[:1] if is_code else _MISSING)
    for chunk in coded.chunks:
        blank = pc.is_in(pc.utf8_trim_whitespace(chunk.dictionary), words)
        known = pc.if_else(blank.take(chunk.indices), None, chunk.indices)
        chunks.append(pa.DictionaryArray.from_arrays(known, chunk.dictionary))
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
    found = [_parse_date(text) for text in coded.dictionary.to_pylist()]
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


def _parse_date(text: str) -> tuple[str | None, str | None]:
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
