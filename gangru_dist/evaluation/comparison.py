"""Compare factors: rank correlation, paired test of their ICs, what one adds to the other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gangru_dist.config.settings import EvaluationConfig
from gangru_dist.evaluation.figures import to_plain
from gangru_dist.evaluation.ic import compute_return, correlate_factors
from gangru_dist.evaluation.market import Market, filter_members, settle_prices, to_rebalances
from gangru_dist.evaluation.summary import Evaluation
from gangru_dist.maths import metrics
from gangru_dist.maths.cross_section import cs_neutralize, cs_zscore

_NOISE = 1e-9
"""Of a residual, in standard deviations: what rounding leaves of two factors that are the same."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two runs' factors compare."""

    correlation: pd.DataFrame
    """`correlate_factors` on the month-ends that ours is judged by."""
    figures: dict[str, Any]
    """correlation (mean, latest, months), ic (`compare_ic`), and added, our `measure_added_ic` over
    theirs, and added_theirs, theirs over ours; None where undefined."""


def compare_evaluations(
    ours: Evaluation,
    theirs: Evaluation,
    tables: tuple[pd.DataFrame, pd.DataFrame],
    market: Market,
    cfg: EvaluationConfig,
) -> Comparison:
    """Compare two evaluated factor tables, ours and theirs, over the assets that are judged."""
    if cfg.members:
        tables = (filter_members(tables[0], market), filter_members(tables[1], market))
    found = correlate_factors(*tables, ours.monthly["rebalance"])
    values = metrics.drop_nonfinite(found["correlation"].to_numpy())
    figures = {
        "months": len(values),
        "mean": metrics.mean(values),
        "latest": values[-1] if len(values) else None,
    }
    one, other = (
        dict(zip(e.monthly["month"], e.monthly["ic"], strict=True)) for e in (ours, theirs)
    )
    paired = compare_ic(one, other)
    lag = int(ours.metrics["settings"]["entry_lag"])
    loss = cfg.delisting_loss
    added = measure_added_ic(tables, market, entry_lag=lag, delisting_loss=loss)
    figures = {"correlation": to_plain(figures), "ic": paired}
    figures |= {"added": added[0], "added_theirs": added[1]}
    return Comparison(correlation=found, figures=figures)


def measure_added_ic(
    tables: tuple[pd.DataFrame, pd.DataFrame],
    market: Market,
    *,
    entry_lag: int,
    delisting_loss: float,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the first factor knows beyond the second, and the second beyond the first.

    At each month-end of both, over the assets of both: the rank IC of the residual of the one's
    z-scores on the other's (least squares). Of each: mean, t, newey_west_t, months; None where
    undefined.
    """
    found = [to_rebalances(one, market, entry_lag=entry_lag) for one in tables]
    market = settle_prices(market, delisting_loss)
    rows = [one.complete for one in found]
    _days, *places = np.intersect1d(
        *(one.day[row] for one, row in zip(found, rows, strict=True)), return_indices=True
    )
    ours, theirs = (
        one.factor[row[place]] for one, row, place in zip(found, rows, places, strict=True)
    )
    chosen = rows[0][places[0]]
    earned = compute_return(market, found[0].entry[chosen], found[0].exit[chosen])
    both = np.isfinite(ours) & np.isfinite(theirs)
    one, other = (cs_zscore(np.where(both, side, np.nan)) for side in (ours, theirs))
    results = []
    for factor, base in ((one, other), (other, one)):
        left = cs_neutralize(factor, exposure=base)
        values = metrics.rank_ic(np.where(np.abs(left) < _NOISE, 0.0, left), earned)
        test = metrics.t_test(values)
        figures = {
            "mean": metrics.mean(values),
            "t": test.statistic,
            "newey_west_t": metrics.newey_west_t(values, lags=metrics.newey_west_lags(test.count)),
            "stars": metrics.mark_significance(test.p_value),
            "months": test.count,
        }
        results.append(to_plain(figures))
    return results[0], results[1]


def compare_ic(ours: dict[str, float | None], theirs: dict[str, float | None]) -> dict[str, Any]:
    """Whether our monthly IC is higher than theirs: a paired t-test over the months of both.

    Month -> IC of each. None where undefined.
    """
    months = sorted(ours.keys() & theirs.keys())
    pairs = np.array([(ours[month], theirs[month]) for month in months], dtype=np.float64)
    difference = metrics.drop_nonfinite(np.subtract(*pairs.reshape(-1, 2).T))
    test = metrics.t_test(difference)
    lags = metrics.newey_west_lags(test.count)
    figures = {
        "months": test.count,
        "mean_difference": metrics.mean(difference),
        "t": test.statistic,
        "p_value": test.p_value,
        "newey_west_t": metrics.newey_west_t(difference, lags=lags),
        "stars": metrics.mark_significance(test.p_value),
    }
    found: dict[str, Any] = to_plain(figures)
    return found


def compare_runs(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Any number of runs, month by month and each against each.

    Args:
        runs: Name -> `monthly` of its metrics.json: month, ic, excess_value, ascending.

    Returns:
        months: of each month of any run, by run: ic, and excess, the value of long over universe at
        its end, 1 at the run's start; None in the figures of an earlier version. pairs: run, less
        (the other run), and `compare_ic` of the two.
    """
    by_month: dict[str, dict[str, dict[str, Any]]] = {}
    for name, rows in runs.items():
        for row in rows:
            figures = {"ic": row["ic"], "excess": row.get("excess_value")}
            by_month.setdefault(row["month"], {})[name] = figures
    ics = {name: {row["month"]: row["ic"] for row in rows} for name, rows in runs.items()}
    return {
        "months": [{"month": month, "runs": by_month[month]} for month in sorted(by_month)],
        "pairs": [
            {"run": one, "less": other, **compare_ic(ics[one], ics[other])}
            for one, other in itertools.combinations(runs, 2)
        ],
    }
