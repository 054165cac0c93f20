"""Compare two runs' factors: rank correlation, and a paired test of the difference of their ICs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gangru_dist.evaluation.ic import correlate_factors
from gangru_dist.evaluation.summary import Evaluation, to_plain
from gangru_dist.maths import metrics


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two runs' factors compare."""

    correlation: pd.DataFrame
    """`correlate_factors` on the month-ends that ours is judged by."""
    figures: dict[str, Any]
    """correlation (mean, latest, months) and ic (`compare_ic`); None where undefined."""


def compare_evaluations(
    ours: Evaluation, theirs: Evaluation, our_table: pd.DataFrame, their_table: pd.DataFrame
) -> Comparison:
    """Compare two evaluated factor tables."""
    found = correlate_factors(our_table, their_table, ours.monthly["rebalance"])
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
    figures = {"correlation": to_plain(figures), "ic": paired}
    return Comparison(correlation=found, figures=figures)


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
        runs: Name -> `monthly` of its metrics.json: month, ic, excess_return, ascending.

    Returns:
        months: of each month of any run, by run: ic, and excess, the value of one unit compounded
        by the excess returns of the run's months so far. pairs: run, less (the other run), and
        `compare_ic` of the two.
    """
    by_month: dict[str, dict[str, dict[str, Any]]] = {}
    for name, rows in runs.items():
        value = 1.0
        for row in rows:
            value *= 1 + (row["excess_return"] or 0.0)
            by_month.setdefault(row["month"], {})[name] = {"ic": row["ic"], "excess": value}
    ics = {name: {row["month"]: row["ic"] for row in rows} for name, rows in runs.items()}
    return {
        "months": [{"month": month, "runs": by_month[month]} for month in sorted(by_month)],
        "pairs": [
            {"run": one, "less": other, **compare_ic(ics[one], ics[other])}
            for one, other in itertools.combinations(runs, 2)
        ],
    }
