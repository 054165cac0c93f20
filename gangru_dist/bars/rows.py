"""Check the rows of the bars; docs/data.md describes all checks.

A row that cannot be used is set aside and counted under its first reason; a file that cannot be
understood was refused before, by `reader`, `columns` and `values`. Duplicates show only when all
rows of a stock are together: `panel.bucket` finds them.

The columns of a row are compared with each other by rules that hold on any trading day of any
market:

    low <= amount / volume <= high          shares and currency, prices as traded
    volume x close / market_cap <= turnover_rate <= 90 x that     the float is a part of all shares

All 3.4 million rows of four years of the real market keep all of them. Where most rows of a file
break the same one, a unit is wrong, not a row: `find_suspects` finds such files, and
`panel.checks` refuses them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.bars.days import EPOCH, FIRST_DAY, DayRule, check_span, to_days
from gangru_dist.bars.formats import ADJUSTFLAGS, BarsFormat, derive
from gangru_dist.bars.quality import NUMBERS, PRICES, Finding, Findings, Quality, Suspect
from gangru_dist.bars.values import CODED, Origin, encode, is_delisting_name, is_st_name
from gangru_dist.base.errors import BarsError, format_flag

CHECKED = pa.schema(
    [
        ("date", pa.date32()),
        ("code", CODED),
        *((name, pa.float64()) for name in NUMBERS),
        ("industry", CODED),
        ("name", CODED),
        ("is_st", pa.bool_()),
        ("is_delisting", pa.bool_()),
        ("list_date", pa.date32()),
        ("delist_date", pa.date32()),
        ("suspended", pa.bool_()),
        ("file", pa.int32()),
    ]
)
"""Columns of rows that passed: our units, no stand-ins, and the file's number for messages. The
further columns that features read stand behind them."""

TOLERANCE = 0.05
"""Of amount / volume beyond low and high: vendors round, and some count block trades in."""
LEAST_FLOAT, MOST_FLOAT = 0.2, 90.0
"""turnover_rate over volume / all shares: at least 1, but share counts lag behind issues (the real
market's least is 0.29); its largest is 79."""
MOST_TURNOVER = {"ashare": 2.0, "none": 100.0}
"""By the price-limit rule. A share bought today is sold tomorrow at the earliest in China, so 1 is
the most there, and vendors' floats lag; elsewhere small floats turn over many times a day."""
SYSTEMATIC, MANY = 0.5, 0.1
"""Share of a file's traded rows from which on a contradiction is no single row's; MANY where good
rows in the wrong unit may pass."""
MOST_CAP = 1e17
"""Currency; a larger one is unknown."""
_MOST_CAP_HERE = {"ashare": 1e13, "none": MOST_CAP}
"""By the price-limit rule: no stock of China's has come to half of it."""
_PRICE_TOLERANCE = 1e-4  # relative; prices that a vendor keeps as float32 are off by 1e-7
_FEWEST = 5  # rows, for a suspect
_FEWEST_LOCKED = 60  # rows: a stock's first month may be locked at its limits
_ROUNDED = 1e-4  # turnover: per cent with two decimals
_TURNED = 0.1  # a turnover_rate under it may be a large float's
_LARGEST = {"open": 1e8, "high": 1e8, "low": 1e8, "close": 1e8, "volume": 1e13, "amount": 1e17}
_SMALLEST_PRICE = 1e-6
_ANY_DAY = DayRule()

ZERO_AMOUNT = "amount is 0 although volume is not"
EXCHANGED = "volume / amount lies within low to high: the two seem exchanged"
ADJUSTED_TWICE = "amount / volume x adj_factor lies within low to high: prices seem adjusted"
OUTSIDE = "amount / volume outside low to high"
OTHER_VWAP = "vwap outside low to high: it is not in the adjustment of the prices"
TURNOVER_LOW = "turnover_rate below volume x close / market_cap"
TURNOVER_HIGH = "turnover_rate above 90 x volume x close / market_cap"
TURNOVER_BOUND = "turnover_rate too large to be true"
ABOVE_CAP = "amount above 10 x market_cap"
NO_VOLUME = "volume is 0 although amount is not"
NOT_TRADED = "marked as not traded although volume is not 0"
TIMES_PRICE = {
    f"amount / volume is {10.0**power:g} x the price": power for power in range(-8, 9) if power
}
"""Reason -> power of ten that is between amount / volume and the price."""
ABOVE_ONE = "turnover_rate above 1"
"""A note, no reason: legitimate where shares are sold on the day they were bought."""
ST_MISSING, ST_BLANK = "is_st missing, taken as no", "is_st blank, taken as no"
OTHER_MARK = "is_st is not what the mark in the name says"
"""A note where names are today's; an inverted column where it is so in most rows."""
"""Notes: beside rows that say no, and where a blank may be the only way to say it."""
NAMELESS = "name missing, so special treatment is not known"
CAP_HIGH = "market_cap larger than any stock's, taken as unknown"
ZERO_RATE = "turnover_rate is 0 although volume is not"
"""A note where a small rate was rounded; a lost column where it is so in most rows."""
ONE_PRICE = "high equals low"
"""A note where a stock is locked at its limit; a lost column where it is so in nearly all rows."""
UNLISTED = "list_date that no stock can have, taken as unknown"
MISSING = {
    "turnover_rate": "turnover_rate missing",
    "market_cap": "market_cap unknown",
    "industry": "industry missing",
    "name": "is_st missing, taken as no",
}
"""Column that a side table may bring -> note of rows without a value."""
UNSORTED = "batch not sorted by date, nor by code and date"

UNIT_REASONS = (
    ZERO_AMOUNT, NO_VOLUME, NOT_TRADED, EXCHANGED, ADJUSTED_TWICE, TURNOVER_LOW, TURNOVER_HIGH,
    TURNOVER_BOUND, ABOVE_CAP, OUTSIDE, OTHER_VWAP, *TIMES_PRICE,
)  # fmt: skip
"""Reasons that, where they hold for most rows of a file, come from a wrong unit or column."""
_ODD = {
    **dict.fromkeys((ABOVE_ONE, ST_MISSING, NAMELESS, CAP_HIGH), (MANY, _FEWEST)),
    OTHER_MARK: (SYSTEMATIC, _FEWEST),
    ONE_PRICE: (0.9, _FEWEST_LOCKED),
    ZERO_RATE: (SYSTEMATIC, _FEWEST),
}
"""Note -> share and number of a file's traded rows from which on it is a mistake."""


def check_rows(
    table: pa.Table,
    form: BarsFormat,
    *,
    file: str,
    number: int,
    first_row: int,
    days: DayRule = _ANY_DAY,
) -> tuple[pa.Table, Quality]:
    """Set aside the rows of a batch that cannot be used; derive columns that others stand in for.

    Args:
        table: One batch of a file, as `reader.read_part` gives it.
        form: What is derived, and how.
        file: The file's name, for examples.
        number: The file's number, for later messages.
        first_row: Rows of the file before this batch.
        days: Which dates may be.

    Returns:
        Rows in the columns of `CHECKED` and further ones behind, in order, suspended ones flagged;
        and the counts.

    Raises:
        BarsError: A date is none that bars can be of.
    """
    date = to_days(table["date"])
    theirs = form.names("date")[0]
    check_span(date, days, Origin(file=file, column=theirs, ours="date", first_row=first_row))
    _check_adjustflag(table, form, file=file, first_row=first_row)
    floats = [name for name in table.column_names if pa.types.is_floating(table[name].type)]
    values = derive({name: table[name].to_numpy() for name in floats}, form)
    rows, notes = _complete(table, values, form, number)
    suspended = rows["suspended"].to_numpy()
    reasons = {
        "date missing": np.isnat(date),
        "code missing": rows["code"].is_null().to_numpy(),
        **_find_wrong(rows, form, has_amount="amount" in values),
        **days.find_wrong(date),
    }
    findings = Findings(files={number: file}, first_row=first_row)
    show = [name for name in NUMBERS if name in values]
    stays = findings.take(rows, reasons, show=show)
    traded = stays & ~suspended
    findings.note(rows, {kind: mask & traded for kind, mask in notes.items()}, show=show)
    for kind, is_so in (("file without rows", not len(rows)), (UNSORTED, not _is_sorted(rows))):
        if is_so:
            findings.quality.notes[kind] = Finding(count=1, example={"file": file})
    suspended_days = int((suspended & stays).sum())
    quality = replace(findings.quality, rows=len(rows), suspended=suspended_days)
    return (rows if stays.all() else rows.filter(pa.array(stays))), quality


def check_joined(
    rows: pa.Table, form: BarsFormat, files: Sequence[str], given: Collection[str] = ()
) -> tuple[pa.Table, Quality]:
    """Check rows again after side tables have brought further columns.

    Args:
        rows: Rows that `check_rows` gave.
        form: Of the bars.
        files: Names of the files by number.
        given: Our columns that the tables bring; rows without a value are counted.
    """
    findings = Findings(files=files)
    listed, unlisted = clean_listings(rows["list_date"], form)
    place = rows.column_names.index("list_date")
    rows = rows.set_column(place, "list_date", pa.array(listed, pa.date32()))
    caps, high = clean_caps(rows["market_cap"].to_numpy(), form)
    rows = rows.set_column(rows.column_names.index("market_cap"), "market_cap", pa.array(caps))
    stays = findings.take(rows, _find_wrong(rows, form))
    traded = stays & ~rows["suspended"].to_numpy()
    notes = {f"{name} missing or infinite": name for name in form.further}
    notes |= {words: name for name, words in MISSING.items() if name in given}
    masks = {words: find_missing(rows[name]) & traded for words, name in notes.items()}
    findings.note(rows, {**masks, UNLISTED: unlisted & traded, CAP_HIGH: high & traded})
    return (rows if stays.all() else rows.filter(pa.array(stays))), findings.quality


def find_missing(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) bool, rows without a value."""
    return np.asarray(pc.is_null(column, nan_is_null=True).to_numpy())


_LAST_LISTING = np.datetime64("2200-01-01")


def clean_listings(column: pa.ChunkedArray, form: BarsFormat) -> tuple[np.ndarray, np.ndarray]:
    """(n,) datetime64[D], NaT where there is none or none can be; (n,) bool, the latter.

    What a lost date turns into would count as listed for decades on its first day.
    """
    listed, first = to_days(column), np.datetime64(FIRST_DAY[form.price_limits])
    wrong = (listed < first) | (listed == EPOCH) | (listed > _LAST_LISTING)
    return np.where(wrong, np.datetime64("NaT"), listed), np.asarray(wrong)


def clean_caps(caps: np.ndarray, form: BarsFormat) -> tuple[np.ndarray, np.ndarray]:
    """(n,) market caps, NaN where one is none; (n,) bool, those larger than any stock's."""
    with np.errstate(invalid="ignore"):
        high = (caps > _MOST_CAP_HERE[form.price_limits]) & (caps < MOST_CAP)
        return np.where((caps > 0) & (caps < MOST_CAP) & ~high, caps, np.nan), high


def find_suspects(quality: Quality, file: str) -> tuple[Suspect, ...]:
    """Find the contradictions that half of a file's rows share; `quality` is of that file."""
    rows = quality.rows - quality.suspended
    found = [(name, quality.quarantined.get(name), SYSTEMATIC, _FEWEST) for name in UNIT_REASONS]
    found += [(name, quality.notes.get(name), *least) for name, least in _ODD.items()]
    return tuple(
        Suspect(file=file, reason=name, finding=finding, rows=rows)
        for name, finding, share, fewest in found
        if finding is not None and finding.count >= max(fewest, share * rows)
    )


def _check_adjustflag(table: pa.Table, form: BarsFormat, *, file: str, first_row: int) -> None:
    """Refuse rows whose `adjustflag` says of prices what the settings deny."""
    if "adjustflag" not in table.column_names:
        return
    flags = table["adjustflag"].to_numpy()
    wrong = np.isin(
        flags, [flag for flag in ADJUSTFLAGS if (flag == 3) == (form.prices != "traded")]
    )
    if wrong.any() and not form.adjusted:
        row = int(np.argmax(wrong))
        raise BarsError(
            f"{file}: adjustflag={flags[row]:g} in row {first_row + row} says that prices are "
            f"{ADJUSTFLAGS[flags[row]]}, and bars.prices={form.prices} says something else. Export "
            'prices as traded (adjustflag="3") with their factor, or say what they are: '
            + format_flag("bars.prices", "traded" if form.prices == "adjusted" else "adjusted")
        )


def _complete(
    table: pa.Table, values: Mapping[str, np.ndarray], form: BarsFormat, number: int
) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """All columns of checked rows; and note -> (n,) bool: odd, missing or repaired values."""
    count = len(table)
    columns = {name: table[name] for name in CHECKED.names if name in table.column_names}
    notes = {ONE_PRICE: values["high"] == values["low"]}
    if "industry" in columns:
        notes["industry missing"] = columns["industry"].is_null().to_numpy()
    if "list_date" in columns:
        listed, notes[UNLISTED] = clean_listings(columns["list_date"], form)
        columns["list_date"] = pa.array(listed, pa.date32())
    notes |= _mark_special(columns, count)
    numbers = dict(values)
    if "turnover_rate" in values:
        notes["turnover_rate missing"] = np.isnan(values["turnover_rate"])
        notes[ABOVE_ONE] = values["turnover_rate"] > 1
        notes[ZERO_RATE] = (values["turnover_rate"] == 0) & (values["volume"] > 0)
    if "market_cap" in values:
        numbers["market_cap"], notes[CAP_HIGH] = clean_caps(values["market_cap"], form)
        notes["market_cap unknown"] = np.isnan(numbers["market_cap"])
    for name in values.keys() & set(form.further):
        notes[f"{name} missing or infinite"] = ~np.isfinite(values[name])
        numbers[name] = np.where(np.isfinite(values[name]), values[name], np.nan)
    for name in (*NUMBERS, *form.extra_columns):
        missing = 1.0 if name == "adj_factor" else np.nan
        columns[name] = pa.array(numbers.get(name, np.full(count, missing)))
    columns["suspended"] = pa.array(_find_suspended(table, values, form))
    columns["file"] = pa.array(np.full(count, number, dtype=np.int32))
    schema = pa.schema([*CHECKED, *((name, pa.float64()) for name in form.extra_columns)])
    arrays = [columns.get(field.name, pa.nulls(count, field.type)) for field in schema]
    return pa.table(arrays, schema=schema), notes


def _mark_special(columns: dict[str, Any], count: int) -> dict[str, np.ndarray]:
    """Complete the columns is_st and is_delisting, by names where there are; note -> (n,) bool."""
    notes: dict[str, np.ndarray] = {}
    none = pa.array(np.zeros(count, dtype=bool))
    name = columns.get("name")
    leaving = pc.fill_null(columns.get("is_delisting", none), False)
    if name is not None:
        leaving = pc.or_(leaving, pc.fill_null(is_delisting_name(name), False))
    if "is_st" in columns:
        says_no = pc.any(pc.invert(columns["is_st"])).as_py()
        notes[ST_MISSING if says_no else ST_BLANK] = columns["is_st"].is_null().to_numpy()
        if name is not None:
            other = pc.and_not(pc.xor(columns["is_st"], is_st_name(name)), leaving)
            notes[OTHER_MARK] = pc.fill_null(other, False).to_numpy()
    elif name is not None:
        notes[NAMELESS] = name.is_null().to_numpy()
        columns["is_st"] = is_st_name(name)
    columns["is_delisting"] = leaving
    columns["is_st"] = pc.or_(pc.fill_null(columns.get("is_st", none), False), leaving)
    return notes


def _find_suspended(
    table: pa.Table, values: Mapping[str, np.ndarray], form: BarsFormat
) -> np.ndarray:
    """(n,) bool: volume 0, or marked as not traded, or empty where the format means that by it."""
    result = values["volume"] == 0
    if "traded" in table.column_names:
        result |= pc.invert(pc.fill_null(table["traded"], fill_value=True)).to_numpy()
    if form.empty_is_suspended:
        result |= np.isnan([values[name] for name in (*PRICES, "volume")]).all(axis=0)
    return np.asarray(result)


def _find_wrong(
    rows: pa.Table, form: BarsFormat, *, has_amount: bool = False
) -> dict[str, np.ndarray]:
    """Reason -> (n,) bool, in the order in which they count.

    A suspended day's numbers mean nothing, so they are not judged: only whether it is one. Without
    `has_amount` a missing amount is none: the file has no such column, or rows were judged before.
    """
    values = {name: rows[name].to_numpy() for name in (*NUMBERS, *form.extra_columns)}
    suspended = rows["suspended"].to_numpy()
    price = np.stack([values[name] for name in PRICES])
    volume, amount, factor = (values[name] for name in ("volume", "amount", "adj_factor"))
    rate, high, inner = values["turnover_rate"], values["high"], price[[0, 3]]
    with np.errstate(all="ignore"):
        valid = np.isfinite(price) & (price > 0)
        reasons = {
            "price missing, infinite or not above 0": ~valid.all(axis=0),
            "high below low": high < values["low"],
            "open or close outside low to high": (
                (inner > high * (1 + _PRICE_TOLERANCE))
                | (inner < values["low"] * (1 - _PRICE_TOLERANCE))
            ).any(axis=0),
            "volume missing, infinite or negative": ~(np.isfinite(volume) & (volume >= 0)),
            "amount missing, infinite or negative": np.isinf(amount)
            | (amount < 0)
            | (np.isnan(amount) & has_amount),
            "turnover_rate infinite or negative": np.isinf(rate) | (rate < 0),
            "adj_factor missing, infinite or not above 0": ~(np.isfinite(factor) & (factor > 0)),
            **_find_contradictions(values, form),
        }
        reasons = {reason: mask & ~suspended for reason, mask in reasons.items()}
        lot, unit = form.scales.get("volume", 1.0), form.scales.get("amount", 1.0)
        rounded = np.nan_to_num(high, nan=0.0) * lot + unit
        reasons[NO_VOLUME] = suspended & (volume == 0) & (amount > rounded)
        reasons[NOT_TRADED] = suspended & (volume > 0)
    return reasons


def _find_contradictions(
    values: Mapping[str, np.ndarray], form: BarsFormat
) -> dict[str, np.ndarray]:
    """Reason -> (n,) bool: columns that contradict each other.

    Prices that are adjusted already are off by a factor that nobody knows, so only sizes are
    judged there.
    """
    volume, amount, close = (values[name] for name in ("volume", "amount", "close"))
    cap, rate = values["market_cap"], values["turnover_rate"]
    absurd = [values[name] > most for name, most in _LARGEST.items()]
    found = {
        "number too large or too small to be true": np.any(
            [*absurd, close < _SMALLEST_PRICE], axis=0
        ),
        # more was traded than rounding takes away
        ZERO_AMOUNT: (amount == 0) & (values["low"] * volume > form.scales.get("amount", 1.0)),
    }
    if form.prices == "traded":
        found |= _find_wrong_average(values, form)
    if not form.paid_gives_vwap:
        low, high, vwap = values["low"], values["high"], values["vwap"]
        found[OTHER_VWAP] = (vwap < low * (1 - TOLERANCE)) | (vwap > high * (1 + TOLERANCE))
    found[TURNOVER_BOUND] = rate > MOST_TURNOVER[form.price_limits]
    if form.prices == "traded":
        least = volume * close / cap  # market_cap / close are all shares
        high = (rate > MOST_FLOAT * least) & (rate > _TURNED)
        found[ABOVE_CAP] = amount > 10 * cap
        found[TURNOVER_LOW] = rate + _ROUNDED < LEAST_FLOAT * least
        found[TURNOVER_HIGH] = high | (rate > 10 * MOST_FLOAT * least + _ROUNDED)
    return found


def _find_wrong_average(
    values: Mapping[str, np.ndarray], form: BarsFormat
) -> dict[str, np.ndarray]:
    """Rows whose amount / volume is none of the day's prices, by what would explain it."""
    volume, amount, low, high = (values[name] for name in ("volume", "amount", "low", "high"))
    lot, unit = form.scales.get("volume", 1.0), form.scales.get("amount", 1.0)
    outside = amount + unit < low * (1 - TOLERANCE) * np.maximum(volume - lot, 0)
    outside |= amount - unit > high * (1 + TOLERANCE) * (volume + lot)
    if not outside.any():
        return {}

    def fits(price: np.ndarray) -> np.ndarray:
        return outside & (price >= low * (1 - TOLERANCE)) & (price <= high * (1 + TOLERANCE))

    average = amount / volume
    power = np.rint(np.log10(average / np.sqrt(low * high)))
    near = fits(average / 10.0**power)
    return {
        EXCHANGED: fits(1 / average),
        ADJUSTED_TWICE: fits(average * values["adj_factor"]),
        **{reason: near & (power == k) for reason, k in TIMES_PRICE.items()},
        OUTSIDE: outside,
    }


def _is_sorted(rows: pa.Table) -> bool:
    """Dates ascend, or codes stand together and dates ascend within each."""
    date = rows["date"].cast(pa.int32()).to_numpy()
    code = encode(rows["code"])
    later = np.diff(date) >= 0
    other = np.diff(code.indices.to_numpy(zero_copy_only=False)) != 0
    together = int(other.sum()) + 1 <= len(code.dictionary)
    return bool(later.all() or (together and (later | other).all()))
