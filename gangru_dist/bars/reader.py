"""Read a vendor's files: parquet, CSV or Qlib's binary ones, any partitioning, any storage.

Files are cut into units, one task each: neighbours until there are enough rows, a large parquet
file by its row groups. Reading streams in batches, so neither a file nor a unit need fit into
memory. Hive folders (`date=2018-12-28/`) give their column where the file has none, and so does
the name of a file that holds one stock. What is read is what was listed: a file that changed in
between is an error, never fewer rows.

Headings are opened once: missing columns are found before Ray starts and before an hour of reading.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from gangru_dist.bars import qlib
from gangru_dist.bars.columns import (
    TEXT_KINDS,
    Origin,
    check_renamed,
    choose_columns,
    choose_table_columns,
    convert,
)
from gangru_dist.bars.csv_files import CsvShape, read_csv, read_csv_shape
from gangru_dist.bars.days import DayRule, read_day_rule, to_days
from gangru_dist.bars.files import BarsFile, list_files
from gangru_dist.bars.formats import (
    FACTOR_SOURCES,
    STATED_LIMITS,
    BarsFormat,
    kind_of,
    resolve_format,
)
from gangru_dist.bars.side_tables import Members, check_years, find_code, normalize_code
from gangru_dist.base.errors import BarsError
from gangru_dist.base.filesystems import open_filesystem
from gangru_dist.config.settings import RunConfig
from gangru_dist.features.price_volume import list_further_columns, list_inputs, list_readers

BATCH_ROWS = 500_000
"""Rows held at once by a task; also the least of a unit, where files are small."""

_CSV_ROW_BYTES = 60  # a guess, for cutting units only
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


@dataclass(frozen=True, kw_only=True, slots=True)
class BarsPart:
    """A file, or some row groups of a parquet file."""

    number: int
    """Index of the file in the sorted list of files."""
    file: BarsFile
    """Where the rows are."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our column -> the file's."""
    constants: Mapping[str, str | None] = field(default_factory=dict)
    """Columns that the file's name and folders give -> their value."""
    given: frozenset[str] = frozenset()
    """Our columns that side tables bring to its rows."""
    derived: frozenset[str] = frozenset()
    """Our columns that others stand in for."""
    table: str | None = None
    """Name of the side table it belongs to; None = daily bars."""
    row_groups: tuple[int, ...] = ()
    """Which; () = the whole of a file that is no parquet."""
    first_row: int = 0
    """Rows of the file before these."""
    rows: int = 0
    """How many, a guess where it is no parquet."""
    shape: CsvShape | None = None
    """How a CSV file is written."""

    @property
    def has(self) -> frozenset[str]:
        """Our columns that its rows will have: own, given, and those that others stand in for."""
        return self.given.union(self.columns, self.derived)


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A vendor's bars, listed but not read."""

    uri: str
    """Folder or file."""
    files: Sequence[BarsFile]
    """All files, side tables included."""
    form: BarsFormat
    """The mapping of their columns."""
    rule: DayRule
    """Which dates may be."""
    members: Members | None
    """Of an index, day by day; None = no index is asked for."""

    @cached_property
    def parts(self) -> list[BarsPart]:
        """All row groups of all parquet files, all other files; side tables come first.

        The first use opens every footer and header.

        Raises:
            BarsError: A file cannot be opened or lacks a required column, or the user's mapping
                names a column that no file has.
        """
        return read_headings(self.uri, self.files, self.form)

    @property
    def given(self) -> frozenset[str]:
        """Our columns that side tables bring, and those that they stand in for."""
        names = frozenset().union(*(part.given for part in self.parts))
        return names | {other for name, other in self.form.stand_ins.items() if name in names}

    @property
    def facts(self) -> tuple[str, ...]:
        """Those of them that tables by stock bring: they have no date."""
        tables = [part for part in self.parts if part.table is not None]
        by_stock = [part for part in tables if self.form.tables[part.table or ""].join == "stock"]
        found = frozenset().union(*(part.columns for part in by_stock))
        return tuple(name for name in ("industry", "list_date") if name in found)

    @cached_property
    def own_form(self) -> BarsFormat:
        """The mapping, with what these files state of the factor and of price limits.

        Raises:
            BarsError: As `parts`; or files give the factor in ways that differ.
        """
        return replace(self.form, stated=find_stated(self.parts, self.form))


def open_bars(uri: str, cfg: RunConfig) -> Bars:
    """List the files.

    Raises:
        BarsError: There are none, or `bars.calendar` or `panel.members` cannot be read.
        PanelError: A feature is unknown; the message gives the nearest names.
        ConfigError: The mapping names a column that we do not have.
    """
    list_inputs((*cfg.panel.features, *cfg.panel.without))
    form = resolve_format(
        cfg.bars,
        list_further_columns(cfg.panel.features),
        readers=list_readers(cfg.panel.features),
        left_out=cfg.panel.without,
    )
    return Bars(
        uri=uri,
        files=list_files(uri),
        form=form,
        rule=read_day_rule(cfg.bars, form),
        members=None if cfg.panel.members is None else read_members(cfg.panel.members),
    )


def read_headings(uri: str, files: Sequence[BarsFile], form: BarsFormat) -> list[BarsPart]:
    """Open every footer and header; see `Bars.parts`."""
    filesystem, _ = open_filesystem(uri)
    with ThreadPoolExecutor(16) as pool:
        # Qlib's texts say how its files are to be read
        is_qlib = any(file.fields for file in files)
        rows = [i for i, file in enumerate(files) if file.fields or not is_qlib]
        opened = list(pool.map(lambda i: _open(filesystem, i, files[i], form), rows))
    if form.renamed:
        check_renamed(uri, list(dict.fromkeys(n for _, names in opened for n in names)), form)
    sides, bars = [], []
    by_table: dict[str, frozenset[str]] = {}
    for parts, names in opened:
        if (table := parts[0].table) is not None:
            columns = choose_table_columns(parts[0].file.name, names, form, form.tables[table])
            sides += [replace(part, columns=columns) for part in parts]
            own = frozenset(columns) - {"code", "date"}
            by_table[table] = by_table.get(table, own) & own
    given = frozenset().union(*by_table.values())  # what all files of a table have
    for parts, names in opened:
        if parts[0].table is None:
            name, shape = parts[0].file.name, parts[0].shape
            if shape is not None:
                _check_title(name, shape.title, form)
            lines = shape.lines if shape is not None else ()
            columns = choose_columns(name, names, form, given=given, lines=lines)
            there = given.union(columns)
            derived = frozenset(ours for name, ours in form.stand_ins.items() if name in there)
            bars += [replace(p, columns=columns, given=given, derived=derived) for p in parts]
    ours = form.names("code")[0]
    named = [(part.constants.get(ours), part.file.name) for part in bars]
    check_years({code: file for code, file in named if code is not None})
    if not bars:
        raise BarsError(
            f"{uri} has the side tables {', '.join(sorted(form.tables))} at most, and no daily "
            "bars. Put them beside the tables, or into a folder of another name."
        )
    return [*sides, *bars]


def find_stated(parts: Sequence[BarsPart], form: BarsFormat) -> tuple[str, ...]:
    """What daily bars have of `FACTOR_SOURCES` and `STATED_LIMITS`, as far as it is made use of.

    Raises:
        BarsError: Files give the factor in ways that differ.
    """
    daily = {part.file.name: part.has for part in parts if part.table is None}
    there = frozenset().union(*daily.values())
    limits = [name for name in STATED_LIMITS if name in there]
    if all("adj_factor" in has for has in daily.values()):  # it is taken as it is
        return tuple(limits)
    sources = [name for name in FACTOR_SOURCES if all(name in has for has in daily.values())]
    if form.prices == "adjusted":  # dividends are no evidence against it
        return (*[name for name in sources if name != "dividend"][:1], *limits)
    if not sources:
        name = min(there & {*FACTOR_SOURCES, "adj_factor"})
        lacking = min(file for file, has in daily.items() if name not in has)
        raise BarsError(
            f"{lacking} has no {name}, and other files have: the adjustment factor must come from "
            "one column in all files. Export them alike."
        )
    shares = [name for name in ("bonus_shares",) if name in there and sources[:1] == ["dividend"]]
    return (*sources[:1], *shares, *limits)


def group_units(parts: Sequence[BarsPart], *, rows: int = BATCH_ROWS) -> list[list[BarsPart]]:
    """Neighbouring parts together until a unit has `rows` rows.

    A unit's row groups of one file become one part, so that it parses the footer once.
    """
    units: list[list[BarsPart]] = []
    filled = 0
    for part in parts:
        if not units or filled + part.rows > rows:
            units.append([])
            filled = 0
        last = units[-1][-1] if units[-1] else None
        if last is not None and last.number == part.number:
            groups = (*last.row_groups, *part.row_groups)
            units[-1][-1] = replace(last, row_groups=groups, rows=last.rows + part.rows)
        else:
            units[-1].append(part)
        filled += part.rows
    return units


def read_part(uri: str, part: BarsPart, form: BarsFormat) -> Iterator[pa.Table]:
    """Batches of a part in our columns (`formats.BAR_COLUMNS` as far as they are there) and units.

    Every batch of a file has the same columns; at least one comes, if only without rows.

    Raises:
        BarsError: A type or value is not what it must be, or the file has changed since it was
            listed.
    """
    filesystem, _ = open_filesystem(uri)
    names = dict.fromkeys(part.columns.values())  # one may be two of ours
    wanted = [name for name in names if name not in part.constants]
    with _explain_errors(part.file):
        if part.file.fields:
            batches = qlib.read_instrument(filesystem, part.file, wanted)
        elif part.shape is not None:
            batches = read_csv(filesystem, part.file, part.shape, wanted)
        else:
            batches = _read_parquet(filesystem, part, wanted)
        first = part.first_row
        for batch in batches:
            yield _convert_batch(batch, part, form, first)
            first += len(batch)
        part.file.check_unchanged(filesystem)


def _read_parquet(
    filesystem: pafs.FileSystem, part: BarsPart, wanted: list[str]
) -> Iterator[pa.Table]:
    text = [name for ours, name in part.columns.items() if kind_of(ours) in TEXT_KINDS]
    rows = 0
    with filesystem.open_input_file(part.file.path) as source:
        footer = pq.read_metadata(source)
        if not set(wanted) <= set(footer.schema.to_arrow_schema().names):
            raise _explain_change(part.file, "it has other columns now")
        leaves = {footer.schema.column(i).path for i in range(len(footer.schema))}  # no lists
        coded = [name for name in text if name in leaves]
        file = pq.ParquetFile(
            source, metadata=footer, read_dictionary=coded, page_checksum_verification=True
        )
        groups = list(part.row_groups)
        for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=wanted):
            rows += len(batch)
            yield pa.Table.from_batches([batch]).select(wanted)
        if not rows:
            yield file.schema_arrow.empty_table().select(wanted)
    if rows != part.rows:
        raise _explain_change(part.file, f"{rows} of {part.rows} rows were read")


def _explain_change(file: BarsFile, what: str) -> BarsError:
    return BarsError(
        f"{file.name} changed while it was read: {what}. Let its download end, then run the same "
        "command again."
    )


def _convert_batch(batch: pa.Table, part: BarsPart, form: BarsFormat, first: int) -> pa.Table:
    """Our columns, types and units."""
    columns = {}
    commas = part.shape is not None and part.shape.delimiter == ","
    for ours, theirs in part.columns.items():
        origin = Origin(
            file=part.file.name, column=theirs, ours=ours, first_row=first, thousands=commas
        )
        if theirs in part.constants:
            value = pa.scalar(part.constants[theirs], pa.string())
            column = pa.chunked_array([pa.repeat(value, len(batch))])
        else:
            column = batch[theirs]
        column, scale = convert(column, kind_of(ours), origin), form.scale(ours, theirs)
        columns[ours] = column if scale == 1 else pc.multiply(column, scale)
    return pa.table(columns)


def _open(
    filesystem: pafs.FileSystem, number: int, file: BarsFile, form: BarsFormat
) -> tuple[list[BarsPart], list[str]]:
    """Parts of one file, and its columns; which of them are ours is not decided yet."""
    folder = file.name.split("/")[0].split(".")[0].lower()
    whole = BarsPart(number=number, file=file, table=folder if folder in form.tables else None)
    parts = []
    with _explain_errors(file):
        if file.fields:
            names = ["date", "instrument", *(f"${name}" for name in file.fields)]
            whole = replace(whole, rows=file.size // (4 * len(file.fields)))
        elif file.is_parquet:
            with filesystem.open_input_file(file.path) as source:
                footer = pq.read_metadata(source)
            names, first = footer.schema.to_arrow_schema().names, 0
            for group in range(footer.num_row_groups):
                rows = footer.row_group(group).num_rows
                parts.append(replace(whole, row_groups=(group,), first_row=first, rows=rows))
                first += rows
        else:
            shape = read_csv_shape(filesystem, file, form.encoding, form.skip_rows)
            names = shape.names
            whole = replace(whole, shape=shape, rows=file.size // _CSV_ROW_BYTES)
    title = whole.shape.title if whole.shape is not None else ""
    constants = _find_constants(file.name, names, form, title)
    return [replace(part, constants=constants) for part in parts or [whole]], [*names, *constants]


def _check_title(file: str, title: str, form: BarsFormat) -> None:
    """Refuse a title that says what the settings deny, or that these are no daily bars."""
    adjusted = next((word for word in ("前复权", "后复权") if word in title), None)
    is_adjusted = form.prices == "adjusted" or form.adjusted
    if (adjusted and not is_adjusted) or ("不复权" in title and is_adjusted):
        raise BarsError(
            f"{file}: its title says {adjusted or '不复权'}, and bars.prices={form.prices} not. "
            "Export prices as traded (不复权) with a factor, or say that they are adjusted: "
            f"--set bars.prices={'adjusted' if adjusted else 'traded'}"
        )
    other = next((word for word in ("周线", "月线", "季线", "年线", "分钟") if word in title), None)
    if other is not None:
        raise BarsError(f"{file} has {other} by its title. Export daily bars (日线).")


def _find_constants(
    name: str, there: Sequence[str], form: BarsFormat, title: str = ""
) -> dict[str, str | None]:
    """Columns that a file has by its place: `date=2018-12-28/part.parquet`, `600000.SH.csv`.

    A title above the headings begins with a code: the file's name must agree, and tells the
    exchange.
    """
    pairs = [part.split("=", 1) for part in name.split("/")[:-1] if "=" in part]
    found = {
        key: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
        for key, value in pairs
        if key not in there
    }
    if (form.code_in_name != "none" or title) and form.find("code", [*there, *found]) is None:
        code = find_code(name, any_name=form.code_in_name == "any" and not title)
        if title:
            said = title.split()[0]
            if code is not None and normalize_code(code)[:6] != said:
                raise BarsError(
                    f"{name} has the code {code} in its name and {said} in its title. Rename it."
                )
            code = code or said
        if code is not None:
            found[form.names("code")[0]] = code
    return found


@contextmanager
def _explain_errors(file: BarsFile) -> Iterator[None]:
    """Word what goes wrong when a file is opened or decoded."""
    try:
        yield
    except (UnicodeDecodeError, pa.ArrowException, OSError, KeyError) as error:
        reason = str(error).split("\n")[0]
        if isinstance(error, UnicodeDecodeError) or "invalid UTF8" in reason:
            raise BarsError(
                f"{file.name} is not in the encoding of its first bytes ({reason}). Say which it "
                "is, for example --set bars.encoding=gb18030, or convert it."
            ) from error
        kind = "parquet" if file.is_parquet else "CSV"
        raise BarsError(
            f"{file.name} cannot be read as {kind}: {reason}. Replace it, or move it away."
        ) from error


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
            parts, names = _open(filesystem, number, file, form)
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
