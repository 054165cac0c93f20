"""Columns of one row held against each other: what is true of a trading day in any market.

    low <= amount / volume <= high          shares and currency, prices as traded
    volume x close / market_cap <= turnover_rate <= 90 x that     the float is a part of all

A row that breaks one is set aside. Where most rows of a file break the same one in the same way,
a unit is wrong, not a row: `check_suspects` stops the build and names the setting that mends it.
All 3.4 million rows of four years of the real market keep all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.quality import Quality, Suspect, describe
from gangru_dist.base.errors import BarsError

JUDGED = (
    "open", "high", "low", "close", "volume", "amount", "adj_factor", "turnover_rate", "market_cap",
)  # fmt: skip
"""Columns that are held against each other, and shown with a row that contradicts itself."""
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
_FEWEST = 5  # rows, for the same
_ROUNDED = 1e-4  # turnover: per cent with two decimals
_TURNED = 0.1  # a turnover_rate under it may be a large float's
_LARGEST = {"open": 1e8, "high": 1e8, "low": 1e8, "close": 1e8, "volume": 1e13, "amount": 1e17}
_SMALLEST_PRICE = 1e-6

ZERO_AMOUNT = "amount is 0 although volume is not"
EXCHANGED = "volume / amount lies within low to high: the two seem exchanged"
ADJUSTED_TWICE = "amount / volume x adj_factor lies within low to high: prices seem adjusted"
OUTSIDE = "amount / volume outside low to high"
TURNOVER_LOW = "turnover_rate below volume x close / market_cap"
TURNOVER_HIGH = "turnover_rate above 90 x volume x close / market_cap"
TURNOVER_BOUND = "turnover_rate too large to be true"
ABOVE_CAP = "amount above 10 x market_cap"
NO_VOLUME = "volume is 0 although amount is not"
NOT_TRADED = "marked as not traded although volume is not 0"
ABOVE_ONE = "turnover_rate above 1"
"""A note, no reason: legitimate where shares are sold on the day they were bought."""
ONE_PRICE = "high equals low"
"""A note where a stock is locked at its limit; a lost column where it is so in nearly all rows."""
_ODD = {ABOVE_ONE: MANY, ONE_PRICE: 0.9}
"""Note -> share of a file's traded rows from which on it is a mistake."""
_FEWEST_LOCKED = 60  # rows: a stock's first month may be locked at its limits
_POWERS = tuple(k for k in range(-8, 9) if k)


def times_price(power: int) -> str:
    """The reason of rows whose amount / volume is 10^power x the price."""
    return f"amount / volume is {10.0**power:g} x the price"


_UNITS = (
    ZERO_AMOUNT, NO_VOLUME, NOT_TRADED, EXCHANGED, ADJUSTED_TWICE, TURNOVER_LOW, TURNOVER_HIGH,
    TURNOVER_BOUND, ABOVE_CAP, OUTSIDE, *map(times_price, _POWERS),
)  # fmt: skip


def contradictions(
    values: Mapping[str, np.ndarray], form: BarsFormat, *, as_traded: bool
) -> dict[str, np.ndarray]:
    """Reason -> (n,) bool, rows that break an identity.

    Args:
        values: Our column -> (n,) float64 in our units, NaN = missing.
        form: Scales, for what was rounded away, and the market's rule.
        as_traded: Whether prices are as traded, so that amount / volume is one; adjusted prices
            are off by a factor that nobody knows, and only sizes are judged.
    """
    with np.errstate(all="ignore"):
        found = {"number too large or too small to be true": _absurd(values)}
        found[ZERO_AMOUNT] = _zero_amount(values, form)
        if as_traded:
            found |= _average_price(values, form)
        if "turnover_rate" in values:
            found[TURNOVER_BOUND] = values["turnover_rate"] > MOST_TURNOVER[form.price_limits]
        if as_traded and "market_cap" in values:
            found |= _turnover(values)
    return found


def lost_volume(
    values: Mapping[str, np.ndarray], form: BarsFormat, suspended: np.ndarray
) -> dict[str, np.ndarray]:
    """Reason -> (n,) bool: days called suspended on which something was traded."""
    volume, amount = values["volume"], values["amount"]
    lot, unit = form.scales.get("volume", 1.0), form.scales.get("amount", 1.0)
    least = np.nan_to_num(values["high"], nan=0.0) * lot + unit  # rounded away
    return {
        NO_VOLUME: suspended & (volume == 0) & (amount > least),
        NOT_TRADED: suspended & (volume > 0),
    }


def odd(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Note -> (n,) bool: rows that may be right, unless most of a file are like that."""
    rate = values.get("turnover_rate", np.zeros(len(values["close"])))
    return {ABOVE_ONE: rate > 1, ONE_PRICE: values["high"] == values["low"]}


def suspects(quality: Quality, file: str) -> tuple[Suspect, ...]:
    """What most rows of a file have wrong in one way; `quality` is of that file alone."""
    rows = quality.rows - quality.suspended
    found = {name: (quality.quarantined.get(name), SYSTEMATIC) for name in _UNITS}
    found |= {name: (quality.notes.get(name), share) for name, share in _ODD.items()}
    fewest = {ONE_PRICE: _FEWEST_LOCKED}
    return tuple(
        Suspect(file=file, reason=name, finding=finding, rows=rows)
        for name, (finding, share) in found.items()
        if finding is not None and finding.count >= max(fewest.get(name, _FEWEST), share * rows)
    )


def check_suspects(quality: Quality, files: Sequence[str], form: BarsFormat) -> None:
    """Refuse bars of which a file is in another unit than the mapping says.

    Args:
        quality: Of all rows.
        files: Names of the files that have rows.
        form: The mapping.

    Raises:
        BarsError: Names the file, the share of its rows, one of them and the setting.
    """
    if not quality.suspects:
        return
    first = quality.suspects[0]
    alike = sorted({s.file for s in quality.suspects if s.reason == first.reason})
    others = len(set(files) - set(alike))
    way_out = _mend(first.reason, form)
    if others:
        way_out = (
            f"{others} of {len(files)} files are not so, and a setting holds for all: bring the "
            f"{len(alike)} to the unit of the others. If all files are like this: {way_out}"
        )
    raise BarsError(
        f"{first.file}: {first.finding.count} of {first.rows} traded rows contradict themselves: "
        f"{first.reason}, e.g. {describe(first.finding.example)}. {way_out}"
    )


def mending(quality: Quality, form: BarsFormat) -> str:
    """The setting for the commonest reason, if it is one of units; else nothing."""
    found = {name: finding.count for name, finding in quality.quarantined.items()}
    reason = max(found, key=lambda name: found[name], default="")
    return f" or, if all rows are like this: {_mend(reason, form)}" if reason in _UNITS else ""


def _absurd(values: Mapping[str, np.ndarray]) -> np.ndarray:
    wrong = np.zeros(len(values["close"]), dtype=bool)
    for name, bound in _LARGEST.items():
        wrong |= values[name] > bound
    return np.asarray(wrong | (values["close"] < _SMALLEST_PRICE))


def _zero_amount(values: Mapping[str, np.ndarray], form: BarsFormat) -> np.ndarray:
    """More was traded than rounding takes away."""
    worth = values["low"] * values["volume"]
    return np.asarray((values["amount"] == 0) & (worth > form.scales.get("amount", 1.0)))


def _average_price(values: Mapping[str, np.ndarray], form: BarsFormat) -> dict[str, np.ndarray]:
    """Rows whose amount / volume is none of the day's prices, by what would explain it."""
    volume, amount, low, high = (values[name] for name in ("volume", "amount", "low", "high"))
    lot, unit = form.scales.get("volume", 1.0), form.scales.get("amount", 1.0)
    outside = amount + unit < low * (1 - TOLERANCE) * np.maximum(volume - lot, 0)
    outside |= amount - unit > high * (1 + TOLERANCE) * (volume + lot)
    reasons = {}
    if outside.any():
        rows = np.flatnonzero(outside)
        factor = values.get("adj_factor", np.ones(len(volume)))[rows]
        reasons = _explained(amount[rows] / volume[rows], low[rows], high[rows], factor)
        reasons = {name: _at(rows[there], len(volume)) for name, there in reasons.items()}
    return reasons | {OUTSIDE: outside}


def _explained(
    average: np.ndarray, low: np.ndarray, high: np.ndarray, factor: np.ndarray
) -> dict[str, np.ndarray]:
    """Explanation -> (n,) bool; several may hold, the first counts."""

    def fits(price: np.ndarray) -> np.ndarray:
        return np.asarray((price >= low * (1 - TOLERANCE)) & (price <= high * (1 + TOLERANCE)))

    found = {EXCHANGED: fits(1 / average), ADJUSTED_TWICE: fits(average * factor)}
    power = np.rint(np.log10(average / np.sqrt(low * high)))
    near = fits(average / 10.0**power)
    for k in _POWERS:
        if (near & (power == k)).any():
            found[times_price(k)] = near & (power == k)
    return found


def _turnover(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Against volume over all shares, which are market_cap / close."""
    cap = values["market_cap"]
    found = {ABOVE_CAP: values["amount"] > 10 * cap}
    if "turnover_rate" in values:
        rate, least = values["turnover_rate"], values["volume"] * values["close"] / cap
        found[TURNOVER_LOW] = rate + _ROUNDED < LEAST_FLOAT * least
        high = (rate > MOST_FLOAT * least) & (rate > _TURNED)
        found[TURNOVER_HIGH] = high | (rate > 10 * MOST_FLOAT * least + _ROUNDED)
    return {name: wrong & (cap > 0) & (cap < MOST_CAP) for name, wrong in found.items()}


def _at(rows: np.ndarray, count: int) -> np.ndarray:
    result = np.zeros(count, dtype=bool)
    result[rows] = True
    return result


def _mend(reason: str, form: BarsFormat) -> str:
    """The setting for what is wrong in every file, ready to paste."""
    power = next((k for k in _POWERS if reason == times_price(k)), None)
    if power is not None:
        return _mend_unit(power, form)
    names = {ours: form.names(ours)[0] for ours in ("volume", "amount")}
    rate = form.scales.get("turnover_rate", 1.0)
    other = 1.0 if rate != 1.0 else 0.01
    turnover = (
        f"Say in which unit turnover_rate comes: --set bars.scales.turnover_rate={other:g} (per "
        "cent: 0.01, fraction: 1), or market_cap (ten thousands): "
        "--set bars.scales.market_cap=10000"
    )
    return {
        NO_VOLUME: "Export the shares traded, or map them: --set bars.columns.volume=THEIRS",
        NOT_TRADED: "Its marks seem inverted: 1 must mean that the stock traded. Correct them, or "
        "leave the column out",
        ONE_PRICE: "Export the day's high and low: these seem to be the close, three times over",
        ZERO_AMOUNT: "Export the traded value, or map it or a volume-weighted price: "
        "--set bars.columns.amount=THEIRS or --set bars.columns.vwap=THEIRS",
        EXCHANGED: f"Exchange them: --set bars.columns.volume={names['amount']} "
        f"--set bars.columns.amount={names['volume']}",
        ADJUSTED_TWICE: "adj_factor would adjust these prices a second time. Export prices as "
        "traded beside it, or leave adj_factor out of every file",
        OUTSIDE: "Prices, volume and amount are not of one unit, or prices are adjusted already. "
        "Export prices as traded, and volume and amount of the same day in shares and currency",
    }.get(reason, turnover)


def _mend_unit(power: int, form: BarsFormat) -> str:
    volume, amount = (form.scales.get(name, 1.0) for name in ("volume", "amount"))
    ratio = 10.0**power
    if power > 0 and amount == ratio:
        return "amount comes in single currency units: --set bars.scales.amount=1"
    if power > 0:
        return f"volume comes in lots or thousands: --set bars.scales.volume={volume * ratio:g}"
    if power == -2 and volume == 1.0:
        scales = " ".join(f"--set bars.scales.{name}=0.01" for name in ("open", "high", "low"))
        return (
            f"prices come in cents: {scales} --set bars.scales.close=0.01 or, if prices are right, "
            "volume is 100 times too large: --set bars.scales.volume=0.01"
        )
    if volume * ratio == 1.0:
        return "volume comes in single shares: --set bars.scales.volume=1"
    return f"amount comes in larger units: --set bars.scales.amount={amount / ratio:g}"
