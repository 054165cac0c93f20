"""Our columns, and the named formats that map a vendor's columns to them.

Prices are currency per share as traded, `volume` is shares, `amount` currency, `turnover_rate` a
fraction of the free float (0.01 = 1 %), `market_cap` currency. The stock column is `code`, spelled
as the vendor does.

A format says, for each of our columns, which of the file's columns it is (the first that is there)
and what its numbers are multiplied by. A column that it does not mention goes by our own name. A
unit that a heading states, as in 成交量(手), wins over the format's. docs/data.md lists what each
vendor counts in which unit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.registry import Registry, suggest_names
from gangru_dist.config.settings import BarsConfig

Kind = Literal["date", "string", "code", "float", "bool"]
"""What a column's values must be. `code` is text that no number can stand for: its zeros count."""

Join = Literal["day", "since", "stock", "event"]

PriceLimits = Literal["none", "ashare"]

BAR_COLUMNS: dict[str, Kind] = {
    "date": "date",
    "code": "code",
    **dict.fromkeys(("open", "high", "low", "close", "volume", "amount"), "float"),
    **dict.fromkeys(("adj_factor", "turnover_rate", "market_cap", "total_shares"), "float"),
    "industry": "string",
    "is_st": "bool",
    "is_delisting": "bool",
    "list_date": "date",
    "delist_date": "date",
    "vwap": "float",
    "traded": "bool",
    "name": "string",
    **dict.fromkeys(("pre_close", "daily_change", "adj_close", "adjustflag"), "float"),
    **dict.fromkeys(("dividend", "bonus_shares", "up_limit", "down_limit"), "float"),
}
"""The bars' columns and their kinds; `traded` false marks a suspended day, `is_delisting` one of
a stock's last days on the exchange, which count as special treatment."""

MEMBER_COLUMNS: dict[str, Kind] = {
    "members_of": "string",
    "is_member": "bool",
    "members_from": "date",
    "members_to": "date",
    "members_until": "date",
}
"""Columns of an index's members beside date and code: which index; whether the stock is one; a
span's first and last day, or the first day after it."""

FACTOR_SOURCES = ("pre_close", "daily_change", "adj_close", "dividend")
"""Columns that give the adjustment factor in its place, best first: the previous close as the
exchange states it, the change from it (a fraction), the adjusted close, the cash that is paid for a
share on its ex-date (with `bonus_shares`, new shares for one)."""

STATED_LIMITS = ("up_limit", "down_limit")
"""Columns with the day's price limits, prices as traded."""

ADJUSTFLAGS = {1.0: "backward-adjusted", 2.0: "forward-adjusted", 3.0: "as traded"}
"""BaoStock's `adjustflag` -> what it says of prices."""

REQUIRED = ("date", "code", "open", "high", "low", "close", "volume")
"""Columns that bars must have, whatever is computed from them."""

STANDS_FOR = {"total_shares": "market_cap", "vwap": "amount", "name": "is_st"}
"""A column -> the one that it stands in for (x close, x volume, by its ST mark) where that is
missing."""


def kind_of(name: str) -> Kind:
    """Kind of one of our columns; a further one, which a feature reads, is a number."""
    return {**BAR_COLUMNS, **MEMBER_COLUMNS}.get(name, "float")


@dataclass(frozen=True, kw_only=True, slots=True)
class SideTable:
    """What a vendor exports beside its daily bars: Tushare has three tables a day, for example.

    Its rows are joined to the bars on (stock, date), a bucket of stocks at a time. A bar takes
    nothing from a row of a later day.
    """

    gives: tuple[str, ...]
    """Our columns that it may bring."""
    join: Join
    """`day`: the row of the same day; `since`: the newest row up to the day; `stock`: the one row
    of the stock; `event`: all rows since the stock's traded day before."""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Our column -> names it has in these files, on top of the format's."""
    one_before: bool = False
    """Whether the factor is 1 before a stock's first row, and throughout if it has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BarsFormat:
    """How a file's columns become ours."""

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Our column -> names it may have in the file, best first."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """Our column -> what the file's number is multiplied by."""
    tables: Mapping[str, SideTable] = field(default_factory=dict)
    """Folder, or file without its suffix, below the bars -> the side table that lies there."""
    calls: Mapping[str, str] = field(default_factory=dict)
    """Our column -> the vendor's call that exports it, for messages."""
    adjusted: bool = False
    """Whether prices and volume come adjusted and must be brought back to those traded."""
    price_limits: PriceLimits = "none"
    """Daily price-limit rule of the market."""
    empty_is_suspended: bool = False
    """Whether a suspended day is a row with neither prices nor volume, not one of volume 0."""
    code_in_name: Literal["none", "digits", "any"] = "none"
    """Whether a file without a column of codes is of the one stock that its name says: not, if
    there are six digits in it, or whatever its name is."""
    prices: Literal["traded", "adjusted"] = "traded"
    """The user's word on the prices: adjusted = there is no factor, and none is needed."""
    encoding: str = "auto"
    """Of CSV files."""
    skip_rows: int = 0
    """Lines before the headings of CSV files."""
    renamed: tuple[str, ...] = ()
    """Our columns that the user's own mapping names."""
    rescaled: tuple[str, ...] = ()
    """Our columns that the user's own scales name."""
    further: tuple[str, ...] = ()
    """Columns beyond ours, numbers that features read as they come."""
    readers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """amount, vwap or turnover_rate -> the features that read it."""
    left_out: tuple[str, ...] = ()
    """Features that the user leaves out already, for messages."""
    stated: tuple[str, ...] = ()
    """Of `FACTOR_SOURCES` and `STATED_LIMITS`, what these bars have and is made use of."""

    @property
    def stand_ins(self) -> dict[str, str]:
        """`STANDS_FOR`, as far as the product has a meaning.

        Adjusted prices times shares as traded are neither an amount nor a market cap.
        """
        if self.prices == "traded":
            return STANDS_FOR
        mixed = {"total_shares"} if self.adjusted else {"total_shares", "vwap"}
        return {name: ours for name, ours in STANDS_FOR.items() if name not in mixed}

    @property
    def factor_source(self) -> str | None:
        """The best of `FACTOR_SOURCES` that the bars have, if they have no factor."""
        return next((name for name in FACTOR_SOURCES if name in self.stated), None)

    @property
    def paid_gives_vwap(self) -> bool:
        """Whether amount / volume is a price in the adjustment of the others."""
        return self.prices == "traded" or self.adjusted

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Columns that are kept beside those of `rows.CHECKED`, numbers all."""
        vwap = () if self.paid_gives_vwap else ("vwap",)
        return tuple(dict.fromkeys([*vwap, *self.stated, *self.further]))

    def names(self, column: str) -> tuple[str, ...]:
        """Names that our column may have in the file."""
        return self.columns.get(column, (column,))

    def find(self, column: str, there: Sequence[str]) -> str | None:
        """The file's name of our column; None if it has none. A unit behind it does not count."""
        bare = {_split_unit(name)[0]: name for name in reversed(there)}
        known = {**bare, **{name: name for name in there}}
        return next((known[name] for name in self.names(column) if name in known), None)

    def scale(self, column: str, theirs: str) -> float:
        """What numbers of the file's column `theirs` are multiplied by: user, heading, format."""
        stated = _split_unit(theirs)[1]
        if stated is None or column in self.rescaled:
            return self.scales.get(column, 1.0)
        return stated


_PERCENT = 0.01
_LOT = 100.0  # shares
_UNITS = {
    "手": _LOT, "股": 1.0, "万股": 1e4, "亿股": 1e8,
    "元": 1.0, "千元": 1e3, "万元": 1e4, "亿元": 1e8, "%": _PERCENT,
}  # fmt: skip
_HEADING = re.compile(r"(?P<name>.+?)\s*[(\uff08](?P<unit>[^()\uff08\uff09]+)[)\uff09]")
"""A name with a unit in brackets, ASCII's or wide ones."""


def _split_unit(heading: str) -> tuple[str, float | None]:
    """Name and unit of a heading such as 成交额(千元); None where it states none that we know."""
    found = _HEADING.fullmatch(heading)
    unit = _UNITS.get(found["unit"].strip()) if found else None
    return (found["name"], unit) if found and unit is not None else (heading, None)


_DAILY_FACTOR = SideTable(gives=("adj_factor",), join="day")
_FACTOR_SINCE = SideTable(gives=("adj_factor",), join="since")
_DIVIDENDS = SideTable(gives=("dividend", "bonus_shares"), join="event")
_STOCKS = SideTable(gives=("industry", "list_date", "delist_date"), join="stock")
_OWN_TABLES = {
    "adj_factor": _DAILY_FACTOR,
    "factor_changes": _FACTOR_SINCE,
    "dividends": _DIVIDENDS,
    "stock_basic": _STOCKS,
}

FORMATS: Registry[BarsFormat] = Registry("bars format")
FORMATS |= {
    "generic": BarsFormat(columns={"code": ("code", "asset")}, tables=_OWN_TABLES),
    "ashare": BarsFormat(
        scales={"turnover_rate": _PERCENT},
        tables=_OWN_TABLES,
        price_limits="ashare",
    ),
    # Tushare Pro: daily; adj_factor, daily_basic and stock_basic beside it, or joined to it
    "tushare": BarsFormat(
        columns={
            "date": ("trade_date",),
            "code": ("ts_code",),
            "volume": ("vol",),
            "turnover_rate": ("turnover_rate_f", "turnover_rate"),
            "market_cap": ("total_mv",),
            "total_shares": ("total_share",),
            "daily_change": ("pct_chg",),
        },
        scales={
            "volume": _LOT,
            "amount": 1e3,
            "turnover_rate": _PERCENT,
            "market_cap": 1e4,
            "total_shares": 1e4,
            "daily_change": _PERCENT,
        },
        tables={
            "adj_factor": _DAILY_FACTOR,
            "daily_basic": SideTable(
                gives=("turnover_rate", "market_cap", "total_shares"), join="day"
            ),
            "stk_limit": SideTable(gives=STATED_LIMITS, join="day"),
            "stock_basic": _STOCKS,
            "namechange": SideTable(
                gives=("name",), join="since", columns={"date": ("start_date",)}
            ),
        },
        calls={
            **dict.fromkeys(("open", "high", "low", "close", "volume", "amount"), "pro.daily"),
            "adj_factor": "pro.adj_factor",
            "turnover_rate": "pro.daily_basic",
            "market_cap": "pro.daily_basic",
        },
        price_limits="ashare",
    ),
    # AKShare: stock_zh_a_hist(adjust=""), factor from stock_zh_a_daily(adjust="hfq-factor")
    "akshare": BarsFormat(
        columns={
            "date": ("日期", "交易日期", "时间"),
            "code": ("股票代码", "代码", "证券代码"),
            "open": ("开盘", "开盘价"),
            "high": ("最高", "最高价"),
            "low": ("最低", "最低价"),
            "close": ("收盘", "收盘价"),
            "volume": ("成交量", "总手"),
            "amount": ("成交额", "成交金额", "金额"),
            "vwap": ("均价", "成交均价", "vwap"),
            "turnover_rate": ("换手率", "换手%"),
            "adj_factor": ("hfq_factor", "后复权因子", "adj_factor"),
            "market_cap": ("总市值", "market_cap"),
            "total_shares": ("总股本", "total_shares"),
            "industry": ("行业", "industry"),
            "name": ("名称", "股票名称", "证券名称", "股票简称", "name"),
            "list_date": ("上市时间", "上市日期", "list_date"),
            "delist_date": ("退市日期", "终止上市日期", "delist_date"),
            "pre_close": ("前收盘价", "前收盘", "昨收", "昨收价"),
            "daily_change": ("涨跌幅",),
            "up_limit": ("涨停价",),
            "down_limit": ("跌停价",),
        },
        scales={"volume": _LOT, "turnover_rate": _PERCENT, "daily_change": _PERCENT},
        tables={
            "hfq_factor": SideTable(
                gives=("adj_factor",),
                join="since",
                columns={"date": ("date", "日期"), "code": ("code", "股票代码", "代码")},
            ),
        },
        calls={"adj_factor": 'ak.stock_zh_a_daily(adjust="hfq-factor")'},
        price_limits="ashare",
        code_in_name="digits",
    ),
    # BaoStock: query_history_k_data_plus(adjustflag="3"), factor from query_adjust_factor
    "baostock": BarsFormat(
        columns={
            "adj_factor": ("backAdjustFactor", "adj_factor"),
            "turnover_rate": ("turn",),
            "is_st": ("isST",),
            "list_date": ("ipoDate", "list_date"),
            "delist_date": ("outDate", "delist_date"),
            "traded": ("tradestatus",),
            "pre_close": ("preclose",),
            "daily_change": ("pctChg",),
        },
        scales={"turnover_rate": _PERCENT, "daily_change": _PERCENT},
        tables={
            "adjust_factor": SideTable(
                gives=("adj_factor",),
                join="since",
                columns={"date": ("dividOperateDate",)},
                one_before=True,
            ),
            "stock_basic": SideTable(gives=("list_date", "delist_date"), join="stock"),
            "stock_industry": SideTable(gives=("industry",), join="stock"),
        },
        calls={"adj_factor": 'bs.query_adjust_factor(start_date="1990-01-01")'},
        price_limits="ashare",
    ),
    # yfinance: Ticker.history(auto_adjust=False); closes lack splits, adjusted closes dividends too
    "yfinance": BarsFormat(
        columns={
            **{name: (name.title(), name) for name in ("date", "open", "high", "low", "close")},
            "code": ("Ticker", "Symbol", "code", "symbol"),
            "volume": ("Volume", "volume"),
            "adj_close": ("Adj Close", "adj_close"),
        },
        calls={"adj_factor": "yfinance.Ticker.history(auto_adjust=False)"},
        code_in_name="any",
    ),
    # Qlib: its folder of binary files, dumped CSV, or D.features(...).reset_index(); prices and
    # volume are adjusted there, and all numbers of a suspended day are NaN
    "qlib": BarsFormat(
        columns={
            "date": ("date", "datetime"),
            "code": ("symbol", "instrument", "code"),
            **{name: (name, f"${name}") for name in ("open", "high", "low", "close", "volume")},
            **{name: (name, f"${name}") for name in ("vwap", "turnover_rate", "market_cap")},
            "amount": ("amount", "$amount", "money", "$money"),
            "adj_factor": ("factor", "$factor", "adj_factor"),
        },
        adjusted=True,
        price_limits="ashare",
        empty_is_suspended=True,
        code_in_name="digits",
    ),
}
"""By the name used in `bars.format`; another one is added as to any dictionary."""


def resolve_format(
    cfg: BarsConfig,
    further: Sequence[str] = (),
    *,
    readers: Mapping[str, Sequence[str]] | None = None,
    left_out: Sequence[str] = (),
) -> BarsFormat:
    """The configured format with the user's own columns, scales and price limits on top.

    A column that the user renames keeps the format's scale unless `bars.scales` names it too.

    Args:
        cfg: The user's settings.
        further: Columns beyond ours that features read, from the bars or a side table by day.
        readers: As of `BarsFormat`.
        left_out: Features that the user leaves out already.

    Raises:
        ConfigError: There is no such format, `bars.columns` or `bars.scales` names a column
            that we do not have, a further column is one of ours, or shares are to be multiplied
            by adjusted prices.
    """
    _check_names(cfg, further)
    if cfg.prices == "adjusted" and "total_shares" in cfg.columns:
        raise ConfigError(
            f"bars.columns.total_shares={cfg.columns['total_shares']} with bars.prices=adjusted: "
            "shares times an adjusted price are no market cap. Leave the mapping out, map a market "
            "cap (bars.columns.market_cap), or give prices as traded with their adj_factor."
        )
    base = FORMATS[cfg.format]
    return replace(
        base,
        columns={
            **base.columns,
            **{name: (name, f"${name}") for name in further},  # as Qlib writes its fields
            **{ours: (theirs,) for ours, theirs in cfg.columns.items()},
        },
        tables={
            folder: replace(
                table,
                gives=(
                    *(n for n in table.gives if n != "total_shares" or cfg.prices == "traded"),
                    *(further if table.join == "day" else ()),
                ),
            )
            for folder, table in base.tables.items()
        },
        further=tuple(further),
        readers=readers or {},
        left_out=tuple(left_out),
        scales={**base.scales, **cfg.scales},
        price_limits=base.price_limits if cfg.price_limits == "auto" else cfg.price_limits,
        code_in_name="any" if cfg.code_from_name else base.code_in_name,
        prices=cfg.prices,
        encoding=cfg.encoding,
        skip_rows=cfg.skip_rows,
        renamed=tuple(cfg.columns),
        rescaled=tuple(cfg.scales),
    )


def derive(values: Mapping[str, np.ndarray], form: BarsFormat) -> dict[str, np.ndarray]:
    """Add the columns that others stand in for; turn adjusted prices and volume into those traded.

    Args:
        values: Our column -> (n,) float64 in our units, NaN = missing; only columns that are there.
        form: Whether prices and volume are adjusted.

    Returns:
        In our units: `amount` from vwap x volume and `market_cap` from close x total_shares
        where the file has no such column and the product has a meaning.
    """
    ours = dict(values)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if form.adjusted and "adj_factor" in ours:
            for name in ("open", "high", "low", "close", "vwap"):
                if name in ours:
                    ours[name] = _without_noise(ours[name] / ours["adj_factor"])
            ours["volume"] = _without_noise(ours["volume"] * ours["adj_factor"])
        for name, factor in (("vwap", "volume"), ("total_shares", "close")):
            product = form.stand_ins.get(name)
            if name in ours and product is not None and product not in ours:
                ours[product] = ours[name] * ours[factor]
    return ours


def _without_noise(values: np.ndarray) -> np.ndarray:
    """Without the last digits that (price x factor) / factor leaves: they are no price's."""
    return np.asarray(np.round(values, 6))


def _check_names(cfg: BarsConfig, further: Sequence[str]) -> None:
    for name in further:
        stated = (*FACTOR_SOURCES, "bonus_shares", *STATED_LIMITS)
        taken = name in BAR_COLUMNS and name not in stated
        if taken or name in ("suspended", "file", ""):
            raise ConfigError(
                f"panel.features: column:{name} names a column that has a meaning here. Take a "
                "feature that is there already (`gangru settings panel`), or give the column "
                "another name in the bars."
            )
    columns = [*BAR_COLUMNS, *further]
    numbers = [name for name in columns if kind_of(name) == "float"]
    pairs = [("columns", name, columns) for name in cfg.columns]
    for key, name, known in (*pairs, *(("scales", name, numbers) for name in cfg.scales)):
        if name not in known:
            raise ConfigError(
                f"bars.{key}.{name}: no such column of ours; nearest: {suggest_names(name, known)}."
                " Write our column = the file's: --set bars.columns.volume=vol"
            )
