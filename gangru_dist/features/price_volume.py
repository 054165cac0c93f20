"""The price-volume features of SPEC 2: functions of adjusted bars that look backward only.

Legend: K rows of time, N assets. Row k of an asset is its k-th *traded* day, so "one row ago" is
the previous traded day, however long a suspension lay between; assets with fewer days end in
NaN. Every function maps the bars (K, N) - or (K,) of one asset - to (K, N), and row k of its
result depends on rows up to k only. NaN = undefined (too few days, a null turnover rate).

To add a feature: write a function of `AdjustedBars` under `@feature(...)`, which names the fields
that it reads, and list it in the configuration (`panel.features`): by its name if it stands here,
as `my_package.factors:surprise` if it is your own.
"""

# numpy's stubs give Any for arithmetic of arrays without a dtype, which all of these are:
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from jaxtyping import Float

from gangru_dist.errors import PanelError, flag
from gangru_dist.registry import Registry, nearest

Values = Float[np.ndarray, "K *N"]
Named = Callable[["AdjustedBars"], np.ndarray]
Level = Literal["price", "own_mean", "as_is"]
"""The level of a feature: log of it over the sample's last close, less its mean, or itself."""


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
    """Shares of the first listing day's size: volume / factor. The factor also holds dividends
    (it cannot be told apart from splits), so this drifts by the dividend yield."""
    amount: Values
    """Currency."""
    vwap: Values
    """Currency per share, adjusted: amount / volume x factor; NaN where nothing was paid."""
    turnover_rate: Values
    """Fraction of the free float; of all shares (amount / market cap) where bars have none."""


def adjust(bars: Mapping[str, np.ndarray], *, has_turnover_rate: bool) -> AdjustedBars:
    """Apply the adjustment factor.

    Args:
        bars: open, high, low, close (as traded), volume, amount, adj_factor, turnover_rate and
            market_cap, each (K, N) or (K,) float64, NaN where there is no value.
        has_turnover_rate: Whether the bars bring a turnover rate; else it is amount / market cap.
    """
    factor, volume, amount = bars["adj_factor"], bars["volume"], bars["amount"]
    with np.errstate(divide="ignore", invalid="ignore"):
        paid = np.where((amount > 0) & (volume > 0), amount / volume * factor, np.nan)
        turnover = bars["turnover_rate"] if has_turnover_rate else amount / bars["market_cap"]
    return AdjustedBars(
        open=bars["open"] * factor,
        high=bars["high"] * factor,
        low=bars["low"] * factor,
        close=bars["close"] * factor,
        volume=volume / factor,
        amount=amount,
        vwap=paid,
        turnover_rate=turnover,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """A function of the bars, and what is known of it without running it."""

    compute: Named
    inputs: tuple[str, ...]
    """Fields of `AdjustedBars` that it reads, and no others."""
    level: Level = "as_is"
    """What its level channel is taken against (SPEC 3)."""

    def __post_init__(self) -> None:
        known = [field.name for field in fields(AdjustedBars)]
        for name in self.inputs:
            if name not in known:
                raise PanelError(
                    f"no input {name!r} of a feature; nearest: {nearest(name, known)}."
                )


FEATURES: Registry[Feature] = Registry("feature", PanelError, code=lambda item: item.compute)
"""Every feature there is, by its function's name."""


def feature(*inputs: str, level: Level = "as_is") -> Callable[[Named], Named]:
    """Add a function to `FEATURES`; `inputs` are the fields of `AdjustedBars` that it reads."""

    def register(function: Named) -> Named:
        item = Feature(compute=function, inputs=inputs, level=level)
        FEATURES.register(function.__name__, item)
        return function

    return register


def inputs_of(features: Sequence[str]) -> set[str]:
    """Fields of `AdjustedBars` that these features read together.

    Raises:
        PanelError: There is no such feature; the message names the nearest.
    """
    return {field for name in features for field in FEATURES[name].inputs}


def check_inputs(features: Sequence[str], columns: Collection[str]) -> None:
    """Fail before any work if the bars' columns cannot give these features.

    Raises:
        PanelError: A name is unknown, or `turnover_rate` can be computed from nothing.
    """
    asking = [name for name in features if "turnover_rate" in inputs_of([name])]
    if asking and not {"turnover_rate", "market_cap"} & set(columns):
        raise PanelError(
            f"feature {', '.join(map(repr, asking))} needs the bars' column turnover_rate, "
            "market_cap or total_shares, and they have none of them. Leave it out: "
            f"{flag('panel.without', asking)}"
        )


def compute(bars: AdjustedBars, features: Sequence[str]) -> Float[np.ndarray, "K *N F"]:
    """The named features side by side, float32, in the order given."""
    columns = [FEATURES[name].compute(bars).astype(np.float32) for name in features]
    return np.stack(columns, axis=-1)


def ago(values: Values, days: int) -> Values:
    """Values `days` rows earlier; NaN in the first rows."""
    result = np.full_like(values, np.nan)
    result[days:] = values[: max(len(values) - days, 0)]
    return result


def last(values: Values, days: int) -> Float[np.ndarray, "days K *N"]:
    """The last `days` rows up to and including each; NaN where there are not as many.

    Stacked rather than cumulated: a row's result is then exactly the same whatever came before
    the window, and later bars cannot move it by a rounding error.
    """
    return np.stack([ago(values, back) for back in range(days)])


@feature("open", level="price")
def open(bars: AdjustedBars) -> Values:  # named as the column is; builtins.open is not needed here
    """Adjusted open, currency per share."""
    return bars.open


@feature("high", level="price")
def high(bars: AdjustedBars) -> Values:
    """Adjusted high, currency per share."""
    return bars.high


@feature("low", level="price")
def low(bars: AdjustedBars) -> Values:
    """Adjusted low, currency per share."""
    return bars.low


@feature("close", level="price")
def close(bars: AdjustedBars) -> Values:
    """Adjusted close, currency per share."""
    return bars.close


@feature("vwap", level="price")
def vwap(bars: AdjustedBars) -> Values:
    """Adjusted average price paid, currency per share."""
    return bars.vwap


@feature("volume", level="own_mean")
def volume(bars: AdjustedBars) -> Values:
    """log(1 + volume / factor)."""
    return np.log1p(bars.volume)


@feature("amount", level="own_mean")
def amount(bars: AdjustedBars) -> Values:
    """log(1 + amount)."""
    return np.log1p(bars.amount)


@feature("turnover_rate")
def turnover_rate(bars: AdjustedBars) -> Values:
    """Traded share of the free float, a fraction."""
    return bars.turnover_rate


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
"""The eighteen of SPEC 2, in its order; features that are added later are not among them."""
