"""Checks of all bars together: files in another unit, days, factors, lasting moves."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np

from gangru_dist.bars.days import check_shifted
from gangru_dist.bars.formats import BarsFormat
from gangru_dist.bars.identities import check_suspects, mending
from gangru_dist.bars.quality import Quality, check_share, describe
from gangru_dist.base.errors import BarsError
from gangru_dist.config.settings import BarsConfig
from gangru_dist.panel import moves as rules
from gangru_dist.panel.moves import Moves
from gangru_dist.panel.stages import Staged

_logger = logging.getLogger(__name__)

_RESTLESS_ASSETS = 0.01  # share of stocks
_NIGHT = 0.03  # standard deviation of an overnight gap: an upper bound
_FEWEST_STEPS = 20
_SLOPE_OFF, _ERRORS = 0.25, 4  # of the factor's slope from 1, beside so many standard errors
_INVERSE, _HALF = -0.5, 0.25  # slopes: 1 over the factor; less than half a factor
_COUNTED = (rules.JUMP, rules.STEP, rules.VOLUME_JUMP, rules.TURNOVER_JUMP)
_SERIOUS = (*_COUNTED, rules.RESTLESS, rules.STALE_CAP)
_TOGETHER, _FEWEST_TOGETHER = 0.25, 10
"""Share and number of stocks whose factor changes on one day; the real market's most is 5 %."""


def check_staged(staged: Staged, form: BarsFormat, cfg: BarsConfig) -> None:
    """Refuse what the rows of stage 1 show to be wrong as a whole.

    Raises:
        BarsError: A file is in another unit, dates are shifted, or too many rows are bad.
    """
    quality = staged.quality
    check_suspects(quality, sorted(staged.columns), form)
    check_shifted(quality, staged.dates)
    check_share(quality, allowed=cfg.max_quarantined, hint=mending(quality, form))


def check_built(
    moves: Iterable[Moves], quality: Quality, form: BarsFormat, cfg: BarsConfig
) -> None:
    """Refuse what whole stocks show to be wrong; warn of what is counted only.

    Args:
        moves: Of all buckets.
        quality: Of stage 1, of the days and of all buckets.
        form: The mapping.
        cfg: What is allowed.

    Raises:
        BarsError: Factors or lasting moves contradict prices, or too many rows are bad.
    """
    check_moves(quality, add_moves(moves), allowed=cfg.max_jumps)
    check_share(quality, allowed=cfg.max_quarantined, hint=mending(quality, form))
    for name in _SERIOUS:
        if name in quality.notes:
            found = quality.notes[name]
            _logger.warning(
                "bars_suspicious count=%d what=%r example=[%s]",
                found.count,
                name,
                describe(found.example),
            )


def add_moves(parts: Iterable[Moves]) -> Moves:
    """The sums of all buckets."""
    total = Moves()
    for part in parts:
        names = vars(total)
        total = Moves(**{name: getattr(total, name) + getattr(part, name) for name in names})
    return total


def check_moves(quality: Quality, moves: Moves, *, allowed: float) -> None:
    """Refuse bars whose prices and factors contradict each other too often.

    Args:
        quality: Of all rows; its notes hold the lasting moves.
        moves: Of all buckets.
        allowed: `bars.max_jumps`.

    Raises:
        BarsError: Counts, examples and the way out.
    """
    _check_factor(moves, quality)
    odd = {name: quality.notes[name] for name in _COUNTED if name in quality.notes}
    count = sum(finding.count for finding in odd.values())
    if count <= allowed * moves.pairs:
        return
    shown = "; ".join(
        f"{finding.count} x {name}, e.g. "
        + " / ".join(map(describe, (finding.example, *finding.more[:2])))
        for name, finding in odd.items()
    )
    typical = quality.notes.get(rules.TYPICAL)
    near = f" ({typical.count} near a split's ratio: 2:1, 10:3 ...)" if typical else ""
    share = -(-count * 1_000_000 // max(moves.pairs, 1)) / 1e6
    raise BarsError(
        f"{count} of {moves.pairs} daily moves{near} contradict the market's rules, "
        f"bars.max_jumps allows {allowed:.4%}: {shown}. Prices as traded need their adj_factor "
        "(price x adj_factor = adjusted price) in every file, in one unit throughout. If these "
        "moves are real: "
        f"--set bars.max_jumps={share:g}"
    )


def _check_factor(moves: Moves, quality: Quality) -> None:
    """The factor as a whole: right, inverse, or of something else."""
    if moves.restless > _RESTLESS_ASSETS * moves.assets:
        raise BarsError(
            f"{moves.restless} of {moves.assets} stocks: {rules.RESTLESS}, e.g. "
            f"{describe(quality.notes[rules.RESTLESS].example)}. It must be the cumulative factor, "
            "which changes on ex-dates alone; export that one"
        )
    for day, count in moves.steps_on_day.items():
        if count >= max(_FEWEST_TOGETHER, _TOGETHER * moves.on_day[day]):
            raise BarsError(
                f"adj_factor of {count} of {moves.on_day[day]} stocks changes on {day}, and no "
                "market has so many ex-dates on one day: exports of two days were put together, "
                "each with factors that count from its own last day. Export all days again in one "
                "go, or the cumulative backward factor, which later days do not change"
            )
    if moves.steps < _FEWEST_STEPS:
        return
    slope = moves.explained / moves.squared
    if abs(slope - 1) <= _SLOPE_OFF + _ERRORS * _NIGHT / np.sqrt(moves.squared):
        return
    if slope < _INVERSE:
        what = "it is the inverse of what is needed"
    elif slope < _HALF:
        what = "prices are adjusted already, or the factor is another stock's or another day's"
    else:
        what = "it is a daily ratio rather than their product, or of another scale"
    raise BarsError(
        f"adj_factor does not follow the prices: over its {moves.steps} small steps the prices' "
        f"overnight gaps make up {slope:.2f} of what it says, and 1 is right; {what}. Export the "
        "cumulative backward factor (price x adj_factor = adjusted price) beside prices as traded"
    )
