"""Open a folder of bars: read every footer and header once, before any row.

Thus missing columns are found before Ray starts and before an hour of reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

from gangru_dist.bars.codes import check_years
from gangru_dist.bars.columns import check_renamed, choose_columns, choose_table_columns
from gangru_dist.bars.days import DayRule, read_day_rule
from gangru_dist.bars.files import BarsFile, list_files
from gangru_dist.bars.formats import (
    FACTOR_SOURCES,
    STATED_LIMITS,
    BarsFormat,
    resolve_format,
)
from gangru_dist.bars.indices import read_members
from gangru_dist.bars.reader import BarsPart, open_file
from gangru_dist.bars.side_tables import Members
from gangru_dist.base.errors import BarsError
from gangru_dist.base.filesystems import open_filesystem
from gangru_dist.config.settings import RunConfig
from gangru_dist.features.price_volume import list_further_columns, list_inputs, list_readers


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
        opened = list(pool.map(lambda i: open_file(filesystem, i, files[i], form), rows))
    if form.renamed:
        check_renamed(uri, list(dict.fromkeys(n for _, names in opened for n in names)), form)
    sides, bars = [], []
    by_table: dict[str, frozenset[str]] = {}
    first_of: dict[str, str] = {}  # table -> its first file
    for parts, names in opened:
        if (table := parts[0].table) is not None:
            columns = choose_table_columns(parts[0].file.name, names, form, form.tables[table])
            sides += [replace(part, columns=columns) for part in parts]
            own = frozenset(columns) - {"code", "date"}
            first = first_of.setdefault(table, parts[0].file.name)
            if uneven := by_table.setdefault(table, own) ^ own:
                column, this = min(uneven), parts[0].file.name
                has, lacks = (this, first) if column in own else (first, this)
                raise BarsError(
                    f"{lacks} has no {column}, and {has} of the same table has. Export them alike."
                )
    given = frozenset().union(*by_table.values())
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
