"""Refuse bars by sums over all stocks: wrong factors, lasting jumps, marks of special treatment."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np

from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.quality import Finding, Quality, describe
from gangru_dist.base.errors import BarsError, format_flag
from gangru_dist.panel import jumps
from gangru_dist.panel.adjustment import NO_SOURCE
from gangru_dist.panel.jumps import JumpSums

_logger = logging.getLogger(__name__)

_RESTLESS_ASSETS = 0.01  # share of stocks
_NIGHT = 0.03  # standard deviation of an overnight gap: an upper bound
_FEWEST_STEPS = 20
_SLOPE_OFF, _ERRORS = 0.25, 4  # of the factor's slope from 1, beside so many standard errors
_INVERSE, _HALF = -0.5, 0.25  # slopes: 1 over the factor; less than half a factor
_NEAR_RATIO = 2.0  # moves at a split's ratio for each as wide at none: their share of all widths
_EX_DATES = {2: 1.8, 3: 0.55}
"""Quarter -> ex-dates of a stock's year in it, the least of 2010 to 2020 in China."""
_FEW, _EXPECTED, _QUARTER_DAYS, _YEAR_DAYS = 0.4, 15, 50, 242
"""Share of the usual ex-dates under which the factor lacks some, if so many were to be expected of
a quarter of so many days."""
_MOST_STOPPED, _FEWEST_PAYERS = 0.5, 20
"""Share of last year's payers without an ex-date; the real market's most is 14 %."""
_DILUTED, _FEWEST_ISSUES = 0.25, 10
"""Slope of adjusted prices on growing shares: 0 in the real market, 0.8 there without factors."""
_MOST_SPECIAL, _LEAST_SPECIAL, _FEWEST_ASSETS = 0.3, 0.01, 10
"""Share of rows under special treatment in a year; the real market's is 0.015 to 0.07."""
_LOST, _LEAST_MARKED = 0.1, 3  # of the other years' share, if so many stocks' years should be
COUNTED = (jumps.JUMP, jumps.STEP, jumps.VOLUME_JUMP, jumps.TURNOVER_JUMP, jumps.CAP_JUMP)
"""Moves that contradict the market's rules: `bars.max_jumps` is their share."""
_ENOUGH = 2400
"""Rows of stocks with a year of rows, ten years in all: few markets pay nothing in so many."""
_FEWEST_STATED, _LEAST_STATED, _MOST_STATED = 3, 5e-4, 0.1
"""Ex-dates in all, and their share of days: the real market's is 0.003; a column of other prices
differs on each day."""
_WHOLE = 0.9
"""Share of volumes in whole shares: a volume that is adjusted too has fractions."""
_NEVER = 0.01
"""Share of rows whose amount / volume is none of the day's prices: the real market has none as
traded, 15 % of a year adjusted forward, 87 % adjusted backward."""
_FEWEST_TOGETHER = 10
_TOGETHER = {
    "steps_on_day": (
        "on_day", 0.25,  # the real market's most is 5 %
        "adj_factor of {who} changes on {day}, and no market has so many ex-dates on one day: "
        "exports of two days were put together, each with factors that count from its own last "
        "day. Export all days again in one go, or the cumulative backward factor, which later days "
        "do not change. If it follows from a previous close, the rows of a day before are missing: "
        "export them",
    ),
    "shifts_on_day": (
        "weeks_on_day", 0.25,
        "the prices of {who} leave amount / volume on {day}: exports of two days were put "
        "together, each adjusted to its end. Export all days again in one go, adjusted backward, "
        "or as traded with adj_factor",
    ),
    "surges_on_day": (
        "on_day", 0.5,  # 22 % in July 2015, when half of the market resumed
        "the volume of {who} is twenty times that of the day before, or a twentieth, on {day}: "
        "from it on it comes in another unit. Export all days again in one unit, shares",
    ),
}  # fmt: skip
"""On how many stocks' days something happens -> of how many; the share of them to which it cannot
happen on one day, if they are as many as `_FEWEST_TOGETHER`; and what to say of it."""


def check_adjustment(quality: Quality, sums: JumpSums, form: BarsFormat, *, allowed: float) -> None:
    """Refuse prices that are not adjusted as the user says, and a factor that follows from nothing.

    Args:
        quality: Of all rows.
        sums: Of all buckets.
        form: The mapping.
        allowed: `bars.max_quarantined`, of rows without what gives the factor.

    Raises:
        BarsError: The evidence, and the way out.
    """
    source = form.factor_source
    theirs = form.names(source)[0] if source else ""
    traded = format_flag("bars.prices", "traded")
    if form.prices == "traded":
        missing = quality.notes.get(NO_SOURCE)
        if missing is not None and missing.count > allowed * quality.rows:
            raise BarsError(
                f"{missing.count} of {quality.rows} rows have no {theirs}, from which adj_factor "
                f"follows, or one of no day's move, e.g. {describe(missing.example)}. Export it "
                "with all rows, or adj_factor. If its unit is another, say so: "
                f"{format_flag(f'bars.scales.{source}', 0.01)}"
            )
        if source and sums.yearly >= _ENOUGH and not sums.steps_on_day.total():
            raise BarsError(
                f"{theirs} states no ex-date in {sums.yearly} rows of stocks with a year of rows "
                "or more: it was computed from the prices as they are, not by the exchange. Export "
                "adj_factor, or the previous close that the exchange states"
            )
        return
    if sums.stated >= _FEWEST_STATED and (
        _LEAST_STATED <= sums.stated / sums.compared <= _MOST_STATED
    ):
        raise BarsError(
            f"bars.prices=adjusted, but {theirs} states an ex-date on {sums.stated} of "
            f"{sums.compared} days: it differs from the close before, so prices are as traded. "
            f"The factor follows from it without that setting: {traded}"
        )
    whole = sums.whole >= _WHOLE * sums.paid
    if sums.paid >= _ENOUGH and whole and sums.outside < _NEVER * sums.paid:
        if sums.yearly < sums.paid / 2:  # a market that need not pay anything, as of currencies
            _logger.warning(
                "prices_seem_as_traded rows=%d outside=%d see=amount_by_volume",
                sums.paid,
                sums.outside,
            )
            return
        raise BarsError(
            f"bars.prices=adjusted, but amount / volume lies within low to high in "
            f"{sums.paid - sums.outside} of {sums.paid} rows of stocks with a year of rows: "
            "prices are as traded, and each split and dividend would read as a loss. Export their "
            f"adj_factor (docs/data.md names the calls), and leave the setting out: {traded}"
        )


def check_together(sums: JumpSums, *names: str) -> None:
    """Refuse what happens to so many stocks on one day that the file has changed, not they."""
    for name in names:
        among, share, text = _TOGETHER[name]
        of = getattr(sums, among)
        for day, count in sorted(getattr(sums, name).items()):
            if count >= max(_FEWEST_TOGETHER, share * of[day]):
                raise BarsError(text.format(who=f"{count} of {of[day]} stocks", day=day))


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
    odd = {name: quality.notes[name] for name in COUNTED if name in quality.notes}
    count = sum(finding.count for finding in odd.values())
    typical = quality.notes.get(jumps.TYPICAL)
    # where a factor lives and other moves are as wide, so many are at a split's ratio by chance
    by_chance = round(_NEAR_RATIO * sums.wide) if sums.steps >= _FEWEST_STEPS else 0
    if count - min(by_chance, typical.count if typical else 0) > allowed * sums.pairs:
        raise BarsError(_describe_jumps(odd, typical, sums.pairs, allowed))
    check_together(sums, "surges_on_day")


def _describe_jumps(
    odd: Mapping[str, Finding], typical: Finding | None, pairs: int, allowed: float
) -> str:
    """What contradicts the market's rules, and the way out."""
    count = sum(finding.count for finding in odd.values())
    shown = "; ".join(
        f"{finding.count} x {name}, e.g. "
        + " / ".join(map(describe, (finding.example, *finding.more[:2])))
        for name, finding in odd.items()
    )
    near = f" ({typical.count} near a split's ratio: 2:1, 10:3 ...)" if typical else ""
    share = -(-count * 1_000_000 // max(pairs, 1)) / 1e6
    return (
        f"{count} of {pairs} daily moves{near} contradict the market's rules, "
        f"bars.max_jumps allows {allowed:.4%}: {shown}. Prices as traded need their adj_factor "
        "(price x adj_factor = adjusted price) in every file, in one unit throughout. To go on "
        "(where no limits are known, with such moves as real; else without the rows after one): "
        f"--set bars.max_jumps={share:g}"
    )


def _check_factor(sums: JumpSums, quality: Quality) -> None:
    """The factor as a whole: right, inverse, or of something else; and a rate that goes its way."""
    restless = (
        (sums.restless, jumps.RESTLESS, "It must be the cumulative factor, which changes on "
         "ex-dates alone; export that one"),
        (sums.unsteady, jumps.UNSTEADY, "It must be volume / tradable shares of the same row. "
         "Export that one, or leave the column and what needs it out: "
         + format_flag("panel.without", ["turnover_rate"])),
    )  # fmt: skip
    for count, what, way_out in restless:
        if count > _RESTLESS_ASSETS * sums.assets:
            raise BarsError(
                f"{count} of {sums.assets} stocks: {what}, e.g. "
                f"{describe(quality.notes[what].example)}. {way_out}"
            )
    check_together(sums, "steps_on_day")
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


def check_ex_dates(sums: JumpSums, form: BarsFormat) -> None:
    """Refuse a factor that has fewer ex-dates than a market has: it stops, or lacks dividends.

    Args:
        sums: Of all buckets.
        form: Its price limits tell the market.

    Raises:
        BarsError: When it stops, or what it lacks.
    """
    way_out = (
        "Export the cumulative factor of all days again, with dividends and splits. If the prices "
        f"are adjusted already, leave it out and say so: {format_flag('bars.prices', 'adjusted')}"
    )
    for year, payers in sorted(sums.payers.items()):
        stopped = sums.stopped[year]
        if payers >= _FEWEST_PAYERS and stopped > _MOST_STOPPED * payers:
            raise BarsError(
                f"adj_factor of {stopped} of {payers} stocks that paid a dividend in {year - 1} "
                f"does not change in {year}: it stops too early, or lacks dividends. {way_out}"
            )
    years, found = _count_quarters(sums)
    for (year, quarter), stock_years in years.items():
        others = [found[y, q] / n for (y, q), n in years.items() if q == quarter and y != year]
        usual = _EX_DATES.get(quarter, 0.0)
        if form.price_limits == "none":
            usual = float(np.median(others)) if others else 0.0
        expected = usual * stock_years
        if expected >= _EXPECTED and found[year, quarter] < _FEW * expected:
            raise BarsError(
                f"adj_factor changes {found[year, quarter]} times in quarter {quarter} of {year}, "
                f"and {expected:.0f} ex-dates are usual for so many stocks: it stops too early, "
                f"or lacks dividends. {way_out}"
            )
    if sums.issues >= _FEWEST_ISSUES and sums.diluted > sums.grown * (
        _DILUTED + _ERRORS * _NIGHT / np.sqrt(sums.grown)
    ):
        raise BarsError(
            f"adj_factor lacks splits or bonus issues: {sums.issues} times a stock's shares "
            "(market_cap / close) grow, and overnight the adjusted price falls by "
            f"{sums.diluted / sums.grown:.2f} of that; 0 is right. {way_out}"
        )
    if not sums.steps_on_day and len(years) >= 4 and sum(years.values()) >= 2 * _EXPECTED:
        raise BarsError(
            f"adj_factor never changes, in {sums.pairs} daily moves of {sums.assets} stocks: it "
            f"lacks dividends and splits. {way_out}"
        )


def check_marks(sums: JumpSums, form: BarsFormat, *, is_given: bool) -> None:
    """Refuse marks of special treatment that are inverted or lost, for all years or for one.

    Args:
        sums: Of all buckets.
        form: Its price limits tell the market.
        is_given: Whether the bars have marks, or names that have them.

    Raises:
        BarsError: The year, the shares and the way out.
    """
    shares = {year: sums.special_in[year] / rows for year, rows in sorted(sums.rows_in.items())}
    for year, share in shares.items():
        if share > _MOST_SPECIAL and sums.assets >= _FEWEST_ASSETS:
            raise BarsError(
                f"is_st marks {share:.0%} of the rows of {year}, and no market has had more than "
                "8 % under special treatment: its marks seem inverted, 1 must mean that a stock "
                "is. Correct them, or map another column: --set bars.columns.is_st=THEIRS"
            )
    for year, share in shares.items():
        usual = float(np.median([other for y, other in shares.items() if y != year] or [0.0]))
        if is_given and share < _LOST * usual and usual * _count_years(sums, year) >= _LEAST_MARKED:
            raise BarsError(
                f"is_st marks {share:.2%} of the rows of {year}, and {usual:.2%} of the other "
                "years: the marks of that year are lost. Export them, or the names, of every day"
            )
    found = sum(sums.special_in.values()) / max(sum(sums.rows_in.values()), 1)
    if form.price_limits == "none" or not is_given or found >= _LOST * _LEAST_SPECIAL:
        return
    expected = _LEAST_SPECIAL * sum(_count_years(sums, year) for year in shares)
    told = (
        f"is_st marks {found:.2%} of the rows of {sums.assets} stocks, and in China's market at "
        f"least {_LEAST_SPECIAL:.0%} always were under special treatment"
    )
    if expected >= _EXPECTED:
        raise BarsError(
            f"{told}: the marks are lost, or the names have none (ST, *ST). Export them of every "
            "day. If none of these stocks ever was (an index's members), leave the columns is_st "
            "and name out"
        )
    if expected >= 1:
        _logger.warning("bars_suspicious what=%r", told)


def _count_years(sums: JumpSums, year: int) -> float:
    """A stock's years that all stocks make up in one."""
    return sums.rows_in[year] / _YEAR_DAYS


def _count_quarters(
    sums: JumpSums,
) -> tuple[dict[tuple[int, int], float], Counter[tuple[int, int]]]:
    """(year, quarter) -> a stock's years that all stocks make up in it, and changes of the factor.

    Of whole quarters only.
    """
    days: Counter[tuple[int, int]] = Counter()
    years: dict[tuple[int, int], float] = defaultdict(float)
    found: Counter[tuple[int, int]] = Counter()
    for day, pairs in sums.on_day.items():
        quarter = (day.year, (day.month + 2) // 3)
        days[quarter] += 1
        years[quarter] += pairs / _YEAR_DAYS
        found[quarter] += sums.steps_on_day[day]
    return {key: years[key] for key in sorted(years) if days[key] >= _QUARTER_DAYS}, found
