"""Named column mappings of common exports, and the user's own on top (SPEC 1).

A mapping says, for each of our columns, which of the file's columns it is (the first that is
there) and what its numbers are multiplied by. Columns that a format does not mention go by our
own names. docs/data.md lists what each vendor counts in which unit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gangru_dist.bars.schema import BAR_COLUMNS
from gangru_dist.config import BarsConfig
from gangru_dist.errors import ConfigError
from gangru_dist.registry import Registry, nearest

PriceLimits = Literal["none", "ashare"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BarsFormat:
    """How a file's columns become ours."""

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Our column -> names it may have in the file, best first."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """Our column -> what the file's number is multiplied by."""
    adjusted: bool = False
    """Whether prices and volume come adjusted and must be brought back to those traded."""
    price_limits: PriceLimits = "none"
    """Daily price-limit rule of the market."""
    empty_is_suspended: bool = False
    """Whether a suspended day is a row with neither prices nor volume, not one of volume 0."""
    renamed: tuple[str, ...] = ()
    """Our columns that the user's own mapping names."""

    def names(self, column: str) -> tuple[str, ...]:
        """Names that our column may have in the file."""
        return self.columns.get(column, (column,))


_PERCENT = 0.01
_LOT = 100.0  # shares

FORMATS: Registry[BarsFormat] = Registry("bars format")
FORMATS |= {
    "generic": BarsFormat(columns={"code": ("code", "asset")}),
    "ashare": BarsFormat(scales={"turnover_rate": _PERCENT}, price_limits="ashare"),
    # Tushare Pro: daily + adj_factor + daily_basic, joined on (ts_code, trade_date)
    "tushare": BarsFormat(
        columns={
            "date": ("trade_date",),
            "code": ("ts_code",),
            "volume": ("vol",),
            "turnover_rate": ("turnover_rate_f", "turnover_rate"),
            "market_cap": ("total_mv",),
            "total_shares": ("total_share",),
        },
        scales={
            "volume": _LOT,
            "amount": 1e3,
            "turnover_rate": _PERCENT,
            "market_cap": 1e4,
            "total_shares": 1e4,
        },
        price_limits="ashare",
    ),
    # AKShare: stock_zh_a_hist(adjust="")
    "akshare": BarsFormat(
        columns={
            "date": ("日期",),
            "code": ("股票代码", "代码"),
            "open": ("开盘",),
            "high": ("最高",),
            "low": ("最低",),
            "close": ("收盘",),
            "volume": ("成交量",),
            "amount": ("成交额",),
            "turnover_rate": ("换手率",),
            "market_cap": ("总市值", "market_cap"),
            "total_shares": ("总股本", "total_shares"),
            "industry": ("行业", "industry"),
            "list_date": ("上市时间", "list_date"),
        },
        scales={"volume": _LOT, "turnover_rate": _PERCENT},
        price_limits="ashare",
    ),
    # BaoStock: query_history_k_data_plus(adjustflag="3"), factor from query_adjust_factor
    "baostock": BarsFormat(
        columns={
            "adj_factor": ("backAdjustFactor", "adj_factor"),
            "turnover_rate": ("turn",),
            "is_st": ("isST",),
            "list_date": ("ipoDate", "list_date"),
            "traded": ("tradestatus",),
        },
        scales={"turnover_rate": _PERCENT},
        price_limits="ashare",
    ),
    # Qlib: dumped CSV, or D.features(...).reset_index(); prices and volume are adjusted there,
    # and all numbers of a suspended day are NaN
    "qlib": BarsFormat(
        columns={
            "date": ("date", "datetime"),
            "code": ("symbol", "instrument", "code"),
            **{name: (name, f"${name}") for name in ("open", "high", "low", "close", "volume")},
            "amount": ("amount", "$amount", "money", "$money"),
            "vwap": ("vwap", "$vwap"),
            "adj_factor": ("factor", "$factor", "adj_factor"),
        },
        adjusted=True,
        price_limits="ashare",
        empty_is_suspended=True,
    ),
}
"""By the name used in `bars.format`; another one is added as to any dictionary."""


def bars_format(cfg: BarsConfig) -> BarsFormat:
    """The configured format with the user's own columns, scales and price limits on top.

    A column that the user renames keeps the format's scale unless `bars.scales` names it too.

    Raises:
        ConfigError: There is no such format, or `bars.columns` or `bars.scales` names a column
            that we do not have.
    """
    for key, given in (("columns", cfg.columns), ("scales", cfg.scales)):
        _check_names(given, key=key)
    base = FORMATS[cfg.format]
    limits = base.price_limits if cfg.price_limits == "auto" else cfg.price_limits
    return BarsFormat(
        columns={**base.columns, **{ours: (theirs,) for ours, theirs in cfg.columns.items()}},
        scales={**base.scales, **cfg.scales},
        adjusted=base.adjusted,
        price_limits=limits,
        empty_is_suspended=base.empty_is_suspended,
        renamed=tuple(cfg.columns),
    )


def to_our_units(values: Mapping[str, np.ndarray], form: BarsFormat) -> dict[str, np.ndarray]:
    """Scale the file's numbers and derive the columns that stand in for others.

    Args:
        values: Our column -> (n,) float64, NaN = missing; only columns that the file has.
        form: Scales, and whether prices and volume are adjusted.

    Returns:
        As SPEC 1 has them: prices as traded, shares, currency, fractions; `amount` from vwap x
        volume and `market_cap` from close x total_shares where the file has no such column.
    """
    ours = {name: column * form.scales.get(name, 1.0) for name, column in values.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        if form.adjusted and "adj_factor" in ours:
            for name in ("open", "high", "low", "close", "vwap"):
                if name in ours:
                    ours[name] = ours[name] / ours["adj_factor"]
            ours["volume"] = ours["volume"] * ours["adj_factor"]
        if "amount" not in ours:
            ours["amount"] = ours["vwap"] * ours["volume"]
        if "market_cap" not in ours and "total_shares" in ours:
            ours["market_cap"] = ours["close"] * ours["total_shares"]
    return ours


def _check_names(given: Collection[str], *, key: str) -> None:
    numeric = [name for name, column in BAR_COLUMNS.items() if column.kind == "float"]
    known = numeric if key == "scales" else list(BAR_COLUMNS)
    for name in given:
        if name not in known:
            raise ConfigError(
                f"bars.{key}.{name}: no such column of ours; nearest: {nearest(name, known)}. "
                "Write our column = the file's: --set bars.columns.volume=vol"
            )
