"""The price-volume features: functions of adjusted bars that look backward only.

K rows of time, N assets. Row k of an asset is its k-th *traded* day, so "one row ago" is the
previous traded day, however long a suspension in between; assets with fewer days end in NaN.
Every function maps bars of shape (K, N), or (K,) for one asset, to the same shape, and row k of
the result depends on rows up to k only. NaN = undefined (too few days, a null turnover rate).

To add a feature, write a function of `AdjustedBars` decorated by `@feature(...)` with the fields
that it reads, and list its name in the configuration (`panel.features`). A feature in a module of
your own is named with the module: `my_package.factors:surprise`. `column:NAME` is a further column
of the bars as it comes, such as `column:pe_ttm`; a function may name it as an input too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
from jaxtyping import Float

from gangru_dist.base.errors import PanelError, format_flag
from gangru_dist.base.registry import Registry, suggest_names

# numpy's stubs give Any for arithmetic on arrays without a dtype:
# mypy: disable-error-code="no-any-return"


Values = Float[np.ndarray, "K *N"]
Named = Callable[["AdjustedBars"], np.ndarray]
COLUMN = "column:"
"""Begins the name of a feature, or of an input, that is a further column of the bars."""
Level = Literal["price", "own_mean", "as_is"]
"""Level of a feature: log of its ratio to the sample's last close; minus its mean; unchanged."""


class Columns(dict[str, Values]):
    """Further columns of the bars by name."""

    def __missing__(self, name: str) -> Values:
        raise PanelError(
            f"a feature reads the column {name!r} of the bars without naming it as an input. "
            f'Write @feature("{COLUMN}{name}") above it.'
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AdjustedBars:
    """Bars of N assets on their traded days, float64; prices are adjusted (price x factor)."""

    open: Values
    """Currency per share, adjusted."""
    high: Values
    """Currency per share, adjusted."""
    low: Values
    """Currency per share, adjusted."""
    close: Values
    """Currency per share, adjusted."""
    volume: Values
    """Volume / factor: shares in units of the listing day. The factor also includes dividends,
    which cannot be separated from splits, so this drifts by the dividend yield."""
    amount: Values
    """Currency."""
    vwap: Values
    """Currency per share, adjusted: amount / volume x factor, or a column of bars whose prices are
    adjusted already; NaN if there was no trade."""
    turnover_rate: Values
    """Fraction of the free float; of all shares (amount / market cap) if the bars have no rate."""
    columns: Columns = field(default_factory=Columns)
    """Further columns of the bars that features name as `column:NAME`, by NAME, as they come."""


def adjust_bars(bars: Mapping[str, np.ndarray], *, has_turnover_rate: bool) -> AdjustedBars:
    """Apply the adjustment factor.

    Args:
        bars: open, high, low, close (as traded), volume, amount, adj_factor, turnover_rate and
            market_cap, each (K, N) or (K,) float64, NaN where there is no value; vwap, if it is
            given in the adjustment of the prices; all others are further columns.
        has_turnover_rate: Whether the bars have a turnover rate; else it is amount / market cap.
    """
    factor, volume, amount = bars["adj_factor"], bars["volume"], bars["amount"]
    with np.errstate(divide="ignore", invalid="ignore"):
        paid = bars["vwap"] if "vwap" in bars else amount / volume
        is_paid = (paid > 0) & (volume > 0)
        turnover = bars["turnover_rate"] if has_turnover_rate else amount / bars["market_cap"]
    return AdjustedBars(
        open=bars["open"] * factor,
        high=bars["high"] * factor,
        low=bars["low"] * factor,
        close=bars["close"] * factor,
        volume=volume / factor,
        amount=amount,
        vwap=np.where(is_paid, paid * factor, np.nan),
        turnover_rate=turnover,
        columns=Columns({name: values for name, values in bars.items() if name not in _OWN}),
    )


_OWN = {"open", "high", "low", "close", "volume", "amount"}
_OWN |= {"adj_factor", "turnover_rate", "market_cap", "vwap"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """A function of the bars, with its inputs and its kind of level."""

    compute: Named
    inputs: tuple[str, ...]
    """All fields of `AdjustedBars` that it reads, and further columns as `column:NAME`."""
    level: Level = "as_is"
    """How its level channel is computed (`samples/standardize.py`)."""

    def __post_init__(self) -> None:
        known = [own.name for own in fields(AdjustedBars) if own.name != "columns"]
        for name in self.inputs:
            if name not in known and not name.startswith(COLUMN):
                raise PanelError(
                    f"no input {name!r} of a feature; nearest: {suggest_names(name, known)}."
                )


def _as_it_comes(name: str) -> Feature | None:
    """The feature that `column:NAME` says; None of any other name."""
    if not name.startswith(COLUMN):
        return None
    column = name.removeprefix(COLUMN)

    def of_column(bars: AdjustedBars) -> np.ndarray:
        return bars.columns[column]

    return Feature(compute=of_column, inputs=(name,))


FEATURES: Registry[Feature] = Registry(
    "feature", PanelError, code=lambda item: item.compute, made=_as_it_comes
)
"""All features, by function name."""


def feature(*inputs: str, level: Level = "as_is") -> Callable[[Named], Named]:
    """Register a function in `FEATURES`; `inputs` are the fields of `AdjustedBars` it reads."""

    def register(function: Named) -> Named:
        item = Feature(compute=function, inputs=inputs, level=level)
        FEATURES.register(function.__name__, item)
        return function

    return register


def list_inputs(features: Sequence[str]) -> set[str]:
    """All fields of `AdjustedBars` that these features read.

    Raises:
        PanelError: A feature is unknown; the message gives the nearest names.
    """
    return {field for name in features for field in FEATURES[name].inputs}


def list_further_columns(features: Sequence[str]) -> tuple[str, ...]:
    """Names of the further columns of the bars that these features read, sorted."""
    inputs = list_inputs(features)
    return tuple(sorted(n.removeprefix(COLUMN) for n in inputs if n.startswith(COLUMN)))


def list_readers(features: Sequence[str]) -> dict[str, list[str]]:
    """Inputs that bars may lack -> the features that read them.

    Raises:
        PanelError: A name is unknown.
    """
    inputs = ("amount", "vwap", "turnover_rate")
    return {name: [f for f in features if name in list_inputs([f])] for name in inputs}


def check_turnover_rate(
    features: Sequence[str],
    columns: Collection[str],
    *,
    left_out: Sequence[str] = (),
    call: str | None = None,
) -> None:
    """Check before any work that the bars give the turnover rate, if a feature reads it.

    Args:
        features: Their names.
        columns: Ours that the bars have.
        left_out: What `panel.without` has already.
        call: The vendor's, that exports `turnover_rate`.

    Raises:
        PanelError: A name is unknown, or the bars do not give the rate.
    """
    needy = list_readers(features)["turnover_rate"]
    if needy and not ("turnover_rate" in columns or {"market_cap", "amount"} <= set(columns)):
        raise PanelError(
            f"feature {', '.join(map(repr, needy))} needs the column turnover_rate, or amount with "
            "market_cap or (prices as traded) total_shares, but the bars have none of them."
            f"{f' {call} exports them.' if call else ''} "
            f"Leave it out: {format_flag('panel.without', [*left_out, *needy])}"
        )


def compute_features(bars: AdjustedBars, features: Sequence[str]) -> Float[np.ndarray, "K *N F"]:
    """The named features in the order given, float32."""
    columns = [FEATURES[name].compute(bars).astype(np.float32) for name in features]
    return np.stack(columns, axis=-1)


def ago(values: Values, days: int) -> Values:
    """Values of `days` rows earlier; NaN in the first rows."""
    result = np.full_like(values, np.nan)
    result[days:] = values[: max(len(values) - days, 0)]
    return result


def last(values: Values, days: int) -> Float[np.ndarray, "days K *N"]:
    """The last `days` rows up to and including each row; NaN where there are fewer.

    Stacked instead of cumulated, so that rows outside of the window do not change the rounding.
    """
    return np.stack([ago(values, back) for back in range(days)])


def _take_field(name: str, level: Level) -> Feature:
    """A field of the bars as a feature."""

    def take(bars: AdjustedBars) -> Values:
        return getattr(bars, name)

    take.__name__ = name
    return Feature(compute=take, inputs=(name,), level=level)


FEATURES |= {name: _take_field(name, "price") for name in ("open", "high", "low", "close", "vwap")}


@feature("volume", level="own_mean")
def volume(bars: AdjustedBars) -> Values:
    """log(1 + volume / factor)."""
    return np.log1p(bars.volume)


@feature("amount", level="own_mean")
def amount(bars: AdjustedBars) -> Values:
    """log(1 + amount)."""
    return np.log1p(bars.amount)


FEATURES["turnover_rate"] = _take_field("turnover_rate", "as_is")


@feature("close")
def daily_return(bars: AdjustedBars) -> Values:
    """Close over the previous traded close, - 1."""
    return bars.close / ago(bars.close, 1) - 1


@feature("open", "close")
def overnight_return(bars: AdjustedBars) -> Values:
    """Open over the previous traded close, - 1."""
    return bars.open / ago(bars.close, 1) - 1


@feature("open", "close")
def intraday_return(bars: AdjustedBars) -> Values:
    """Close over open, - 1."""
    return bars.close / bars.open - 1


@feature("high", "low", "close")
def amplitude(bars: AdjustedBars) -> Values:
    """(high - low) over the previous traded close."""
    return (bars.high - bars.low) / ago(bars.close, 1)


@feature("open", "high", "close")
def upper_shadow(bars: AdjustedBars) -> Values:
    """(high - the higher of open and close) over the previous traded close."""
    return (bars.high - np.maximum(bars.open, bars.close)) / ago(bars.close, 1)


@feature("open", "low", "close")
def lower_shadow(bars: AdjustedBars) -> Values:
    """(the lower of open and close - low) over the previous traded close."""
    return (np.minimum(bars.open, bars.close) - bars.low) / ago(bars.close, 1)


@feature("close", "vwap")
def close_to_vwap(bars: AdjustedBars) -> Values:
    """Close over the average price paid, - 1."""
    return bars.close / bars.vwap - 1


@feature("volume")
def volume_ratio(bars: AdjustedBars) -> Values:
    """Volume over its mean of the last 5 traded days, the day itself included."""
    return bars.volume / last(bars.volume, 5).mean(axis=0)


@feature("close")
def return_5d(bars: AdjustedBars) -> Values:
    """Close over the close 5 traded days before, - 1."""
    return bars.close / ago(bars.close, 5) - 1


@feature("close")
def volatility_5d(bars: AdjustedBars) -> Values:
    """Sample standard deviation (n - 1) of `daily_return` over the last 5 traded days."""
    return last(daily_return(bars), 5).std(axis=0, ddof=1)


NAMES = tuple(FEATURES)
"""The eighteen features in the order of their declaration, without any registered later."""
