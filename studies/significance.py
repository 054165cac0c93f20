"""What chance explains of a study's best trial."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats

from gangru_dist.maths import metrics


def compute_newey_west_error(values: Float[np.ndarray, " T"], *, lags: int) -> float:
    """Standard error of the mean behind `metrics.newey_west_t`."""
    kept = metrics.drop_nonfinite(values)
    t = metrics.newey_west_t(values, lags=lags)
    return float(kept.mean() / t) if t else float("nan")


def expect_best_icir(icirs: Float[np.ndarray, " K"]) -> float:
    """ICIR that the best of K trials reaches by chance alone, given how much they differ.

    Source:
        Bailey and López de Prado, "The Deflated Sharpe Ratio" (2014), equation 1.
    """
    count = len(icirs)
    if count < 2:
        return 0.0
    tails = 1 - 1 / count, 1 - 1 / (count * np.e)
    normal = stats.norm.ppf(tails)
    expected = (1 - np.euler_gamma) * normal[0] + np.euler_gamma * normal[1]
    return float(np.std(icirs, ddof=1) * expected)


def deflate(
    ratio: float, *, benchmark: float, count: int, skewness: float, kurtosis: float
) -> float:
    """Probability that the true ratio of mean to deviation is above the benchmark.

    Args:
        ratio: Mean over standard deviation of `count` values, per period.
        benchmark: What `ratio` must beat: `expect_best_icir` for the best of several trials.
        count: Values.
        skewness: Of the values.
        kurtosis: Of the values; 3 for normal ones.

    Source:
        As `expect_best_icir`, equation 2.
    """
    spread = 1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2
    return float(stats.norm.cdf((ratio - benchmark) * np.sqrt((count - 1) / spread)))


def deflate_icir(values: Float[np.ndarray, " T"], icirs: Float[np.ndarray, " K"]) -> float:
    """`deflate` of ICs that were chosen as the best of K trials with these ICIRs."""
    kept = metrics.drop_nonfinite(values)
    return deflate(
        metrics.icir(values),
        benchmark=expect_best_icir(icirs),
        count=len(kept),
        skewness=float(stats.skew(kept)),
        kurtosis=float(stats.kurtosis(kept, fisher=False)),
    )
