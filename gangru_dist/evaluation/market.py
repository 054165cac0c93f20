"""The market as the evaluation needs it, and the factor table at its month-ends."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from gangru_dist.base.errors import EvaluationError
from gangru_dist.maths.calendar import is_month_over
from gangru_dist.maths.cross_section import cs_quantile
from gangru_dist.panel.block import PanelBlock

FACTOR_COLUMNS = ("date", "asset", "factor")
"""Required columns of a factor table; `score` and `quantile` are optional."""

ENDED_AFTER = 250
"""Trading days without a bar after which an asset counts as one that trades no more. Of 2,369 times
that an A-share was silent for 60 days and more, 2010 to 2020, it came back in all but 70."""
UNKNOWN = "unknown"
"""Industry of assets whose industry is not known."""
AMOUNT = "amount"
"""The panel's feature that capacity and turnover are read from, where it has it."""


@dataclass(frozen=True, kw_only=True)
class Market:
    """Prices and trading conditions of D consecutive trading days and N assets."""

    dates: np.ndarray
    """(D,) datetime64[D], ascending."""
    assets: np.ndarray
    """(N,) str, ascending."""
    price: Float[np.ndarray, "D N"]
    """Adjusted close, carried forward over days without a bar; NaN before the first bar."""
    suspended: Bool[np.ndarray, "D N"]
    """No bar that day: can be neither bought nor sold."""
    limit_up: Bool[np.ndarray, "D N"]
    """Closed at the upper price limit: cannot be bought."""
    limit_down: Bool[np.ndarray, "D N"]
    """Closed at the lower price limit: cannot be sold."""
    market_cap: Float[np.ndarray, "D N"]
    """Currency; NaN where unknown."""
    traded_value: Float[np.ndarray, "D N"]
    """Currency that day; NaN without a bar, everywhere if the panel has no feature `amount`."""
    industry: Int[np.ndarray, "D N"]
    """Index into `industries`, that of the last bar; -1 where unknown."""
    industries: tuple[str, ...]
    """Names, ascending."""
    delisted: Int[np.ndarray, " N"]
    """Row of the first day on which it is no longer listed; the number of days where that is not
    known."""
    member: Bool[np.ndarray, "D N"] | None = None
    """Of `panel.members`; None = nobody is marked."""

    @property
    def has_ended(self) -> Bool[np.ndarray, "D N"]:
        """Trades no more, as far as is known that day.

        It is no longer listed; where that day is not known, it was silent for `ENDED_AFTER` days.
        """
        days = len(self.dates)
        rows = np.arange(days, dtype=np.int32)[:, None]
        silent = np.isfinite(self.price) & (rows - _find_last_bars(~self.suspended) >= ENDED_AFTER)
        return np.where(self.delisted < days, rows >= self.delisted, silent)

    def name_industries(self, day: int, columns: Int[np.ndarray, " K"]) -> np.ndarray:
        """(K,) str: the industries of these assets on a day, `unknown` where there is none."""
        names = np.array([*self.industries, UNKNOWN])  # code -1 is the last
        return np.asarray(names[self.industry[day, columns]])

    def name_limits(self, day: int, columns: Int[np.ndarray, " K"]) -> np.ndarray:
        """(K,) str: `up` or `down` if the day's close was at that price limit, else empty."""
        up, down = self.limit_up[day, columns], self.limit_down[day, columns]
        return np.where(up, "up", np.where(down, "down", ""))


def to_market(block: PanelBlock) -> Market:
    """Market of a panel block; columns that the block was read without are unknown."""
    shape = block.traded.shape
    traded_value = np.full(shape, np.nan)
    if AMOUNT in block.feature_names:  # log(1 + traded value)
        logs = block.features[..., block.feature_names.index(AMOUNT)].astype(np.float64)
        traded_value = np.where(block.traded, np.expm1(logs), np.nan)
    industry = _fill(block.industry, shape, -1)
    return Market(
        dates=block.dates,
        assets=block.assets,
        price=pd.DataFrame(block.adj_close, dtype=np.float64).ffill().to_numpy(),
        suspended=~block.traded,
        limit_up=_fill(block.limit_up, shape, False),
        limit_down=_fill(block.limit_down, shape, False),
        market_cap=_fill(block.market_cap, shape, np.nan),
        traded_value=traded_value,
        industry=np.take_along_axis(industry, _find_last_bars(block.traded), axis=0),
        industries=block.industries,
        delisted=_fill(np.searchsorted(block.dates, block.delist_date), shape[1:], shape[0]),
        member=block.member if block.member.shape == shape else None,
    )


def _find_last_bars(traded: Bool[np.ndarray, "D N"]) -> Int[np.ndarray, "D N"]:
    """Row of the last bar up to each day; 0 before the first."""
    rows = np.arange(len(traded), dtype=np.int32)[:, None]
    return np.maximum.accumulate(np.where(traded, rows, 0), axis=0)


def _fill(values: np.ndarray, shape: tuple[int, ...], empty: bool | int | float) -> np.ndarray:
    """The values, or an array of `empty` if the block was read without them."""
    return values if values.shape == shape else np.full(shape, empty, values.dtype)


@dataclass(frozen=True, kw_only=True)
class Rebalances:
    """M month-ends from the first day of the factor on, and the factor on those days.

    A row of `factor` is all NaN if the day has no factor (e.g. its window failed) or the same
    factor for all assets. Such a month-end has no IC, and the portfolio keeps its holdings.
    """

    day: Int[np.ndarray, " M"]
    """Row of a month's last trading day in the market's dates."""
    entry: Int[np.ndarray, " M"]
    """`day` + entry lag: trades happen at this close; -1 if after the market's end."""
    exit: Int[np.ndarray, " M"]
    """Entry day of the next month-end; -1 if after the market's end."""
    factor: Float[np.ndarray, "M N"]
    """NaN outside the universe, i.e. without a row in the factor table or without a price yet."""
    score: Float[np.ndarray, "M N"]
    """The raw prediction; NaN outside the universe or if the table has none."""
    quantile: Int[np.ndarray, "M N"]
    """1 = lowest factor; 0 outside the universe."""
    unpriced: int = 0
    """Pairs of month-end and asset that are left out: the market has no price of them yet."""

    @property
    def has_factor(self) -> Bool[np.ndarray, " M"]:
        """Whether a month-end has a factor."""
        return np.asarray(np.isfinite(self.factor).any(axis=1))

    @property
    def newest(self) -> int:
        """Row of the last month-end with a factor, whether or not it is entered yet."""
        return int(np.flatnonzero(self.has_factor)[-1])

    @property
    def universe(self) -> Int[np.ndarray, " M"]:
        """Assets with a factor at each month-end."""
        return np.asarray(np.isfinite(self.factor).sum(axis=1))

    @property
    def complete(self) -> Int[np.ndarray, " P"]:
        """Rows of the P periods with a factor that end within the market."""
        return np.flatnonzero(self.has_factor & (self.exit >= 0))

    @property
    def entered_rows(self) -> Int[np.ndarray, " K"]:
        """Rows of the K month-ends with a factor and an entry day within the market."""
        return np.flatnonzero(self.has_factor & (self.entry >= 0))


def find_month_ends(dates: np.ndarray) -> Int[np.ndarray, " M"]:
    """Row of each month's last trading day.

    The last month counts once it is known to be over (`is_month_over`).
    """
    months = dates.astype("datetime64[M]")
    ends = np.flatnonzero(months[1:] != months[:-1])
    last = (months[-1] + 1).astype("datetime64[D]") - 1
    return np.append(ends, len(dates) - 1) if is_month_over(dates, last) else ends


def to_rebalances(
    table: pd.DataFrame, market: Market, *, entry_lag: int, quantiles: int = 10
) -> Rebalances:
    """The factor table at the market's month-ends.

    If the table has no column `quantile`, each month-end is divided into `quantiles`. An asset
    without a price up to a month-end cannot be bought or judged, and is left out there.

    Raises:
        EvaluationError: The table is empty, lacks a column, has duplicate rows, days or assets
            that the market lacks, or no complete period.
    """
    rows, columns = _locate(table, market)
    span = slice(int(rows.min()), None)
    day = find_month_ends(market.dates[span]) + span.start
    month = np.full(len(market.dates), -1)
    month[day] = np.arange(len(day))
    numbers = {
        name: table[name].to_numpy(dtype=np.float64, na_value=np.nan)
        for name in ("factor", "score", "quantile")
        if name in table
    }
    given = (month[rows] >= 0) & np.isfinite(numbers["factor"])
    used = given & np.isfinite(market.price[rows, columns])
    factor, score, quantile = np.full((3, len(day), len(market.assets)), np.nan)
    for name, values in (("factor", factor), ("score", score), ("quantile", quantile)):
        if name in numbers:
            values[month[rows[used]], columns[used]] = numbers[name][used]
    if "quantile" not in numbers:
        quantile = cs_quantile(factor, quantiles)
    high = np.fmax.reduce(factor, axis=1, initial=-np.inf)
    flat = ~(high > np.fmin.reduce(factor, axis=1, initial=np.inf))
    factor[flat], score[flat], quantile[flat] = np.nan, np.nan, 0
    entry = np.where(day + entry_lag < len(market.dates), day + entry_lag, -1)
    result = Rebalances(
        day=day,
        entry=entry,
        exit=np.append(entry, -1)[1:],
        factor=factor,
        score=score,
        quantile=np.nan_to_num(quantile).astype(np.int64),
        unpriced=int((given & ~used).sum()),
    )
    if not len(result.complete):
        days = ", ".join(str(market.dates[row]) for row in day[result.has_factor])
        raise EvaluationError(
            f"month-ends with different factors: {days or 'none'}. A report needs two rebalance "
            "days, each the last trading day of its month, and the trading day on which the second "
            f"is entered; the panel ends {market.dates[-1]}. Score more days with `gangru score`, "
            "give a factor of your own a value on those days, or add later bars."
        )
    return result


def filter_members(table: pd.DataFrame, market: Market) -> pd.DataFrame:
    """The rows of assets that were members on their day; all where the market marks nobody.

    Quantiles of a larger universe are left out: they are cut anew among the members.

    Raises:
        EvaluationError: No row is a member's, or the table is not of this market.
    """
    if market.member is None:
        return table
    rows, columns = _locate(table, market)
    member = market.member[rows, columns]
    if member.all():
        return table
    if not member.any():
        raise EvaluationError(
            f"none of the factor table's {len(table)} rows is a member of panel.members on its "
            "day. Score days that the members file covers, or --set evaluation.members=false."
        )
    members: pd.DataFrame = table[member].drop(columns="quantile", errors="ignore")
    return members


def settle_prices(market: Market, loss: float) -> Market:
    """The market in which assets that trade no more have lost this fraction of their last price."""
    if not loss:
        return market
    return replace(
        market, price=np.where(market.has_ended, market.price * (1 - loss), market.price)
    )


def _locate(table: pd.DataFrame, market: Market) -> tuple[np.ndarray, np.ndarray]:
    """Row and column in the market of each table row, after checks."""
    missing = [name for name in FACTOR_COLUMNS if name not in table.columns]
    if missing or table.empty:
        what = f"lacks the columns {missing}" if missing else "has no rows"
        raise EvaluationError(f"the factor table {what}. Run `gangru score` for this run first.")
    rows = _look_up(pd.to_datetime(table["date"]), pd.DatetimeIndex(market.dates), "day")
    columns = _look_up(table["asset"], pd.Index(market.assets), "asset")
    pairs = rows.astype(np.int64) * len(market.assets) + columns
    twice = pairs[pd.Series(pairs).duplicated()]
    if len(twice):
        row, column = divmod(int(twice.min()), len(market.assets))
        raise EvaluationError(
            f"{len(twice)} repeated (date, asset) rows in the factor table, first "
            f"{market.dates[row]} {market.assets[column]}. Score those days again."
        )
    return rows, columns


def _look_up(values: pd.Series, known: pd.Index, what: str) -> np.ndarray:
    """Index of each value in `known`."""
    index = known.get_indexer(pd.Index(values))
    strange = np.flatnonzero(index < 0)
    if len(strange):
        raise EvaluationError(
            f"{len(strange)} rows of the factor table have a {what} that is not in the panel, "
            f"first {values.iloc[strange[0]]}. If the panel was rebuilt since, run `gangru score`."
        )
    return np.asarray(index)
