"""The long portfolio beside an index: excess and tracking.

active return   a(t) = r_long(t) - r_index(t), daily
tracking error  standard deviation (n - 1) of a x sqrt(252)
information ratio = mean of a x 252 / tracking error
beta            covariance of r_long and r_index / variance of r_index
excess          long / index, so that its growth is the geometric excess
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gangru_dist import metrics
from gangru_dist.errors import EvaluationError
from gangru_dist.evaluation.portfolio import value_figures


@dataclass(frozen=True, kw_only=True)
class IndexCloses:
    """An index's daily closes, as the user gives them."""

    name: str
    """Of the file, for the reader."""
    dates: np.ndarray
    """(K,) datetime64[D], ascending, unique."""
    close: Float[np.ndarray, " K"]
    """Above 0; points."""

    def on(self, days: np.ndarray) -> tuple[Float[np.ndarray, " T"], int]:
        """The index as a daily value from 1, and the number of days it has no close of.

        Args:
            days: (T,) datetime64[D], trading days. One without a close keeps the one before.

        Raises:
            EvaluationError: The closes begin later or end earlier than these days.
        """
        if self.dates[0] > days[0] or self.dates[-1] < days[-1]:
            raise EvaluationError(
                f"evaluation.index={self.name} has closes from {self.dates[0]} to "
                f"{self.dates[-1]}, the portfolio runs from {days[0]} to {days[-1]}. Give closes "
                "of that whole time, or leave evaluation.index out."
            )
        there = np.isin(days, self.dates)
        place = np.searchsorted(self.dates, days, side="right") - 1
        value = self.close[np.maximum(place, 0)]
        return np.asarray(value / value[0]), int((~there).sum())


def index_figures(
    long: Float[np.ndarray, " T"], net: Float[np.ndarray, " T"], index: Float[np.ndarray, " T"]
) -> dict[str, object]:
    """Figures of the index and of the portfolio beside it; None where undefined.

    Args:
        long: Daily value of the portfolio without costs.
        net: The same with costs.
        index: Daily value of the index.
    """
    return {
        "value": value_figures(index),
        "excess": value_figures(long / index),
        "excess_with_costs": value_figures(net / index),
        **_tracking(long, index),
        "with_costs": _tracking(net, index),
    }


def _tracking(long: np.ndarray, index: np.ndarray) -> dict[str, float | None]:
    ours, theirs = metrics.daily_returns(long), metrics.daily_returns(index)
    figures = dict.fromkeys(("tracking_error", "information_ratio", "beta"), float("nan"))
    if len(ours) > 1:
        active = ours - theirs
        error = float(active.std(ddof=1) * np.sqrt(metrics.DAYS_PER_YEAR))
        figures["tracking_error"] = error
        if error > 0:
            figures["information_ratio"] = float(active.mean() * metrics.DAYS_PER_YEAR / error)
        if np.ptp(theirs) > 0:
            figures["beta"] = float(np.cov(ours, theirs)[0, 1] / theirs.var(ddof=1))
    return {name: value if np.isfinite(value) else None for name, value in figures.items()}
