"""Find our columns among a vendor's headings; where one is missing, name the nearest."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from gangru_dist.bars.formats import (
    BAR_COLUMNS,
    FACTOR_SOURCES,
    FORMATS,
    REQUIRED,
    BarsFormat,
    SideTable,
    kind_of,
)
from gangru_dist.bars.values import TEXT_KINDS, parse_date
from gangru_dist.base.errors import BarsError, format_flag
from gangru_dist.base.registry import find_close_names

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
    is_day = [parse_date(name)[0] not in (None, "") for name in names]
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
