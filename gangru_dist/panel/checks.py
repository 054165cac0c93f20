"""Refuse bars that all rows together show to be wrong: units, days, factors, lasting jumps.

Where most rows of a file break the same rule, a unit is wrong, not a row: the message names the
setting that mends it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from gangru_dist.bars.days import check_shifted
from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.quality import Finding, Quality, check_share, describe
from gangru_dist.bars.reader import Bars
from gangru_dist.bars.rows import (
    ADJUSTED_TWICE,
    EXCHANGED,
    NO_VOLUME,
    NOT_TRADED,
    ONE_PRICE,
    OTHER_VWAP,
    OUTSIDE,
    TIMES_PRICE,
    UNIT_REASONS,
    ZERO_AMOUNT,
)
from gangru_dist.base.errors import BarsError, format_flag
from gangru_dist.config.settings import BarsConfig
from gangru_dist.features.price_volume import check_inputs, list_inputs
from gangru_dist.panel import jumps
from gangru_dist.panel.jumps import JumpSums

_logger = logging.getLogger(__name__)

_OPTIONAL = (
    "amount",
    "adj_factor",
    "turnover_rate",
    "market_cap",
    "industry",
    "is_st",
    "list_date",
)

_RESTLESS_ASSETS = 0.01  # share of stocks
_NIGHT = 0.03  # standard deviation of an overnight gap: an upper bound
_FEWEST_STEPS = 20
_SLOPE_OFF, _ERRORS = 0.25, 4  # of the factor's slope from 1, beside so many standard errors
_INVERSE, _HALF = -0.5, 0.25  # slopes: 1 over the factor; less than half a factor
_COUNTED = (jumps.JUMP, jumps.STEP, jumps.VOLUME_JUMP, jumps.TURNOVER_JUMP)
_SERIOUS = (*_COUNTED, jumps.AFTER, jumps.RESTLESS, jumps.STALE_CAP)
_TOGETHER, _FEWEST_TOGETHER = 0.25, 10
"""Share and number of stocks whose factor changes on one day; the real market's most is 5 %."""


def check_headings(bars: Bars, features: Sequence[str]) -> None:
    """Refuse bars that lack what the panel needs; opens every file, reads no row.

    Raises:
        BarsError: A file cannot be opened, a column or the factor is missing.
        PanelError: A feature cannot be computed from these columns.
    """
    columns = {part.file.name: part.has for part in bars.parts if not part.table}
    check_columns(columns, features, bars.form)


def check_columns(
    columns: Mapping[str, Collection[str]], features: Sequence[str], form: BarsFormat
) -> frozenset[str]:
    """Refuse columns that some files lack or no file has; return all that there are.

    Args:
        columns: File -> our columns, its own and those that side tables give.
        features: What is to be computed.
        form: The mapping; it knows which call exports what is missing.

    Raises:
        BarsError: A column must be in every file or in none, and is not.
        PanelError: A feature cannot be computed from what is there.
    """
    for name in form.further:
        lacking = sorted(file for file in columns if name not in columns[file])
        if lacking:
            raise BarsError(
                f"{lacking[0]} has no column {name}, which a feature reads as column:{name}. "
                "Export it with every file; if it goes by another name, say so: "
                f"{format_flag(f'bars.columns.{name}', 'THEIRS')}"
            )
    if "turnover_rate" in list_inputs(features):
        having = sorted(file for file in columns if "turnover_rate" in columns[file])
        lacking = sorted(columns.keys() - set(having))
        if having and lacking:
            raise BarsError(
                f"{lacking[0]} has no column turnover_rate, or an empty one, and {having[0]} has: "
                "amount / market cap stands in for it only if no file has it. "
                "Export it with every file, or with none."
            )
    there = frozenset().union(*columns.values())
    check_inputs(
        features,
        there,
        left_out=form.left_out,
        call=form.calls.get("turnover_rate"),
    )
    return there


def find_lacking(columns: Mapping[str, Collection[str]]) -> dict[str, Finding]:
    """Optional column -> the files without it or with an empty one, the first by name."""
    lacking = {name: [f for f in columns if name not in columns[f]] for name in _OPTIONAL}
    return {
        name: Finding(count=len(files), example={"file": min(files)})
        for name, files in lacking.items()
        if files
    }


def check_staged(
    quality: Quality,
    files: Collection[str],
    dates: np.ndarray,
    form: BarsFormat,
    cfg: BarsConfig,
) -> None:
    """Refuse what the rows of stage 1 show to be wrong as a whole.

    Args:
        quality: Of all rows.
        files: Names of the files that have rows.
        dates: (days,) datetime64[D], distinct days of the usable rows.
        form: The mapping.
        cfg: What is allowed.

    Raises:
        BarsError: A file is in another unit, dates are shifted, or too many rows are bad.
    """
    check_suspects(quality, files, form)
    check_shifted(quality, dates)
    check_share(quality, allowed=cfg.max_quarantined, hint=suggest_setting(quality, form))


def check_built(
    sums: Iterable[JumpSums], quality: Quality, form: BarsFormat, cfg: BarsConfig
) -> None:
    """Refuse what whole stocks show to be wrong; warn of what is counted only.

    Args:
        sums: Of all buckets.
        quality: Of stage 1, of the days and of all buckets.
        form: The mapping.
        cfg: What is allowed.

    Raises:
        BarsError: Factors or lasting moves contradict prices, or too many rows are bad.
    """
    check_jumps(quality, sum(sums, JumpSums()), allowed=cfg.max_jumps)
    check_share(quality, allowed=cfg.max_quarantined, hint=suggest_setting(quality, form))
    counted = {**quality.quarantined, **quality.notes}
    for name in _SERIOUS:
        if name in counted:
            found = counted[name]
            _logger.warning(
                "bars_suspicious count=%d what=%r example=[%s]",
                found.count,
                name,
                describe(found.example),
            )


def check_jumps(quality: Quality, sums: JumpSums, *, allowed: float) -> None:
    """Refuse bars whose prices and factors contradict each other too often.

    Args:
        quality: Of all rows; its notes hold the lasting jumps.
        sums: Of all buckets.
        allowed: `bars.max_jumps`.

    Raises:
        BarsError: Counts, examples and the way out.
    """
    _check_factor(sums, quality)
    odd = {name: quality.notes[name] for name in _COUNTED if name in quality.notes}
    count = sum(finding.count for finding in odd.values())
    if count <= allowed * sums.pairs:
        return
    shown = "; ".join(
        f"{finding.count} x {name}, e.g. "
        + " / ".join(map(describe, (finding.example, *finding.more[:2])))
        for name, finding in odd.items()
    )
    typical = quality.notes.get(jumps.TYPICAL)
    near = f" ({typical.count} near a split's ratio: 2:1, 10:3 ...)" if typical else ""
    share = -(-count * 1_000_000 // max(sums.pairs, 1)) / 1e6
    raise BarsError(
        f"{count} of {sums.pairs} daily moves{near} contradict the market's rules, "
        f"bars.max_jumps allows {allowed:.4%}: {shown}. Prices as traded need their adj_factor "
        "(price x adj_factor = adjusted price) in every file, in one unit throughout. To go on "
        "(where no limits are known, with such moves as real; else without the rows after one): "
        f"--set bars.max_jumps={share:g}"
    )


def _check_factor(sums: JumpSums, quality: Quality) -> None:
    """The factor as a whole: right, inverse, or of something else."""
    if sums.restless > _RESTLESS_ASSETS * sums.assets:
        raise BarsError(
            f"{sums.restless} of {sums.assets} stocks: {jumps.RESTLESS}, e.g. "
            f"{describe(quality.notes[jumps.RESTLESS].example)}. It must be the cumulative factor, "
            "which changes on ex-dates alone; export that one"
        )
    for day, count in sums.steps_on_day.items():
        if count >= max(_FEWEST_TOGETHER, _TOGETHER * sums.on_day[day]):
            raise BarsError(
                f"adj_factor of {count} of {sums.on_day[day]} stocks changes on {day}, and no "
                "market has so many ex-dates on one day: exports of two days were put together, "
                "each with factors that count from its own last day. Export all days again in one "
                "go, or the cumulative backward factor, which later days do not change"
            )
    if sums.steps < _FEWEST_STEPS:
        return
    slope = sums.explained / sums.squared
    if abs(slope - 1) <= _SLOPE_OFF + _ERRORS * _NIGHT / np.sqrt(sums.squared):
        return
    if slope < _INVERSE:
        what = "it is the inverse of what is needed"
    elif slope < _HALF:
        what = "prices are adjusted already, or the factor is another stock's or another day's"
    else:
        what = "it is a daily ratio rather than their product, or of another scale"
    raise BarsError(
        f"adj_factor does not follow the prices: over its {sums.steps} small steps the prices' "
        f"overnight gaps make up {slope:.2f} of what it says, and 1 is right; {what}. Export the "
        "cumulative backward factor (price x adj_factor = adjusted price) beside prices as traded"
    )


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


def suggest_setting(quality: Quality, form: BarsFormat) -> str:
    """The setting for the commonest reason, if it is one of units; else nothing."""
    found = {name: finding.count for name, finding in quality.quarantined.items()}
    reason = max(found, key=lambda name: found[name], default="")
    return (
        f" or, if all rows are like this: {_mend(reason, form)}" if reason in UNIT_REASONS else ""
    )


def _mend(reason: str, form: BarsFormat) -> str:
    """The setting for what is wrong in every file, ready to paste."""
    if reason in TIMES_PRICE:
        return _mend_unit(TIMES_PRICE[reason], form)
    names = {ours: form.names(ours)[0] for ours in ("volume", "amount")}
    without = [*form.left_out, *form.readers.get("vwap", ())]
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
        OTHER_VWAP: "Export vwap in the adjustment of the prices, or leave the column out and what "
        f"needs it: {format_flag('panel.without', without)}",
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
