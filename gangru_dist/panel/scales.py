"""Find the unit that a file is in, and the setting that corrects it.

Where most rows of a file break the same rule, a unit is wrong, not a row: the message names the
setting that corrects it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import numpy as np

from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.quality import PRICES, Finding, Quality, describe
from gangru_dist.bars.rows import (
    ADJUSTED_TWICE,
    CAP_HIGH,
    EXCHANGED,
    NAMELESS,
    NO_VOLUME,
    NOT_TRADED,
    ONE_PRICE,
    OTHER_MARK,
    OTHER_VWAP,
    OUTSIDE,
    ST_MISSING,
    TIMES_PRICE,
    UNIT_REASONS,
    ZERO_AMOUNT,
    ZERO_RATE,
)
from gangru_dist.base.errors import BarsError, format_flag

_CENT = 0.01
_UNIT_PAIRS = (
    (1.0, 1.0), (100.0, 1.0), (100.0, 1e3), (100.0, 1e4), (1.0, 1e3), (1.0, 1e4), (1e4, 1.0),
    (1e3, 1.0), (_CENT, 1.0), (1.0, _CENT), (1e4, 1e8), (1e6, 1e8), (1e6, 1e4), (1.0, 1e6),
    (1.0, 1e8), (100.0, 1e8), (1e6, 1.0), (1e8, 1.0),
)  # fmt: skip
"""Units of volume (shares) and amount (currency) that exports have, the commonest first."""
_UNIT_WORDS = {
    _CENT: "hundredths", 1.0: "single units", 100.0: "lots", 1e3: "thousands",
    1e4: "ten thousands", 1e6: "millions", 1e8: "hundred millions",
}  # fmt: skip
_USUAL_AMOUNT = (1e8, 2.5)  # currency a stock trades in a day; and decades around it
_USUAL_TURNOVER = (0.01, 1.5)  # of the market cap; and decades around it


def check_suspects(quality: Quality, files: Collection[str], form: BarsFormat) -> None:
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
    way_out = _mend(first.reason, form, first.finding)
    if others:
        way_out = (
            f"{others} of {len(files)} files are not so, and a setting holds for all: bring the "
            f"{len(alike)} to the unit of the others. If all files are like this: {way_out}"
        )
    raise BarsError(
        f"{first.file}: {first.finding.count} of {first.rows} traded rows contradict themselves: "
        f"{first.reason}, e.g. {describe(first.finding.example)}. {way_out}"
    )


def suggest_setting(quality: Quality, form: BarsFormat) -> str:
    """The setting for the commonest reason, if it is one of units; else nothing."""
    found = {name: finding.count for name, finding in quality.quarantined.items()}
    reason = max(found, key=lambda name: found[name], default="")
    if reason not in UNIT_REASONS:
        return ""
    return f" or, if all rows are like this: {_mend(reason, form, quality.quarantined[reason])}"


def _mend(reason: str, form: BarsFormat, finding: Finding) -> str:
    """The setting for what is wrong in every file, ready to paste."""
    if reason in TIMES_PRICE:
        return _mend_units(TIMES_PRICE[reason], form, finding)
    names = {ours: form.names(ours)[0] for ours in ("volume", "amount")}
    without = [*form.left_out, *form.readers.get("vwap", ())]
    rate = form.scales.get("turnover_rate", 1.0)
    other = 1.0 if rate != 1.0 else 0.01
    turnover = (
        f"Say in which unit turnover_rate comes: --set bars.scales.turnover_rate={other:g} (per "
        "cent: 0.01, fraction: 1), or market_cap (ten thousands): "
        "--set bars.scales.market_cap=10000"
    )
    if likely := _mend_turnover(form, finding):
        turnover = f"turnover_rate, market_cap, volume and amount agree with: {likely}"
    return {
        CAP_HIGH: "Bring market_cap to single currency units in every row: --set "
        f"bars.scales.market_cap={form.scales.get('market_cap', 1.0) / 1e4:g}",
        ST_MISSING: "Export is_st of every row, or leave the column out",
        NAMELESS: "Export the short name of every row: special treatment is told by its mark. Or "
        "leave the column out, and map one of marks: --set bars.columns.is_st=THEIRS",
        ZERO_RATE: "Export the turnover rate, or leave the column and what needs it out: "
        f"{format_flag('panel.without', [*form.left_out, 'turnover_rate'])}",
        NO_VOLUME: "Export the shares traded, or map them: --set bars.columns.volume=THEIRS",
        NOT_TRADED: "Its marks seem inverted: 1 must mean that the stock traded. Correct them, or "
        "leave the column out",
        OTHER_MARK: "It seems inverted: 1 must mean special treatment. Correct it, or leave the "
        "column out, and the names tell",
        ONE_PRICE: "Export the day's high and low: these seem to be the close, three times over",
        ZERO_AMOUNT: "Export the traded value, or map it or a volume-weighted price: "
        "--set bars.columns.amount=THEIRS or --set bars.columns.vwap=THEIRS",
        EXCHANGED: f"Exchange them: --set bars.columns.volume={names['amount']} "
        f"--set bars.columns.amount={names['volume']}",
        ADJUSTED_TWICE: "adj_factor would adjust these prices a second time. Export prices as "
        "traded beside it, or leave adj_factor out of every file",
        OTHER_VWAP: "Export vwap in the adjustment of the prices, or leave the column out and what "
        f"needs it: {format_flag('panel.without', without)}",
        OUTSIDE: "Prices, volume and amount are not of one unit, or prices are adjusted already. "
        "Export prices as traded, and volume and amount of the same day in shares and currency",
    }.get(reason, turnover)


def _mend_units(power: int, form: BarsFormat, finding: Finding) -> str:
    """The units of volume and amount that explain the power of ten between their ratio and prices.

    Several pairs do, each with another traded value: those count that agree with turnover and
    market cap, or without them with what a stock trades in a day.
    """
    shown = _measure(finding)
    scales = [form.scales.get(name, 1.0) for name in ("volume", "amount")]
    usual, within = _USUAL_AMOUNT
    if np.isfinite(shown["market_cap"]):
        usual, within = shown["market_cap"] * _USUAL_TURNOVER[0], _USUAL_TURNOVER[1]
    if np.isfinite(turned := shown["market_cap"] * shown["turnover_rate"] / 2):
        usual, within = turned, 1.0  # all shares are about twice the float
    found = []
    for pair in _UNIT_PAIRS:
        volume, amount = (unit / scale for unit, scale in zip(pair, scales, strict=True))
        value = shown["amount"] * amount
        off = abs(np.log10(value / usual)) if value > 0 else 0.0
        if np.isclose(np.log10(amount / volume), -power):
            found.append((off > within, off if off > within else 0.0, pair, value))
    found.sort(key=lambda item: item[:2])
    likely = [(pair, value) for is_off, _, pair, value in found if not is_off][:2]
    if not likely and not np.isfinite(shown["market_cap"]):
        likely = [(pair, value) for _, _, pair, value in found[:1]]
    return " or ".join(_say_units(pair, value, scales) for pair, value in likely) or (
        "No usual units of volume and amount explain it. Compare a day's volume in shares and its "
        "traded value with another source, and give bars.scales.volume and bars.scales.amount"
    )


def _say_units(pair: tuple[float, float], value: float, scales: Sequence[float]) -> str:
    named = list(zip(("volume", "amount"), pair, scales, strict=True))
    units = " and ".join(f"{name} comes in {_UNIT_WORDS[unit]}" for name, unit, _ in named)
    told = " ".join(
        f"--set bars.scales.{name}={unit:g}" for name, unit, scale in named if unit != scale
    )
    if pair == (_CENT, 1.0):
        prices = " ".join(f"--set bars.scales.{name}=0.01" for name in PRICES)
        units = f"prices come in cents: {prices} or, if prices are right, {units}"
    return f"{units}: {told}" + (f" (then {value:.3g} was traded)" if np.isfinite(value) else "")


def _mend_turnover(form: BarsFormat, finding: Finding) -> str:
    """The unit of turnover, market cap, or volume and amount alike, that makes them agree."""
    shown = _measure(finding)
    if not (shown["amount"] > 0 and shown["market_cap"] > 0):
        return ""
    names = ("turnover_rate", "market_cap", "volume", "amount")
    now = {name: form.scales.get(name, 1.0) for name in names}
    alike = (1.0, 1e3, 1e4, 1e8) if now["volume"] == now["amount"] == 1 else (1.0,)
    told: list[tuple[int, str]] = []
    for rate, cap, both in itertools.product((0.01, 1.0), (1.0, 1e4, 1e8), alike):
        by_rate, by_cap = rate / now["turnover_rate"], cap / now["market_cap"]
        amount, whole = shown["amount"] * both, shown["market_cap"] * by_cap
        turned = shown["turnover_rate"] * by_rate * whole / amount
        if 0.5 <= turned <= 20 and 1e-5 <= amount / whole <= 1:
            units = (rate, cap, now["volume"] * both, now["amount"] * both)
            settings = " ".join(
                f"--set bars.scales.{name}={unit:g}"
                for name, unit in zip(names, units, strict=True)
                if unit != now[name]
            )
            told.append(((by_rate != 1) + (by_cap != 1) + (both != 1), settings))
    fewest = min((number for number, _ in told), default=0)
    return " or ".join(settings for number, settings in told if number == fewest)


def _measure(finding: Finding) -> dict[str, float]:
    """Medians of the examples' numbers; NaN where they have none."""
    rows = [finding.example, *finding.more]
    numbers = {
        name: [row[name] for row in rows if isinstance(row.get(name), float)]
        for name in ("amount", "market_cap", "turnover_rate")
    }
    return {name: float(np.median(some)) if some else np.nan for name, some in numbers.items()}
