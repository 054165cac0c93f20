"""From a day's raw predictions to the factor and its quantile (SPEC 6). Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from gangru_dist.config import FactorConfig
from gangru_dist.cross_section import (
    FLAT_SCORE,
    cs_neutralize,
    cs_quantile,
    cs_winsorize,
    cs_zscore,
)

MIN_KNOWN = 0.5
"""Share of scored assets with an industry (a market cap) below which a day is not neutralized by
it: most assets would not be adjusted. An assumption, not studied."""

_NOISE = 1e-10
"""Residuals of z-scores below this are rounding errors and are set to 0."""


@dataclass(frozen=True, kw_only=True)
class Factor:
    """Factor values of D days and N assets, and how they were computed."""

    factor: Float[np.ndarray, "D N"]
    """float64, mean 0 and standard deviation 1 per day; NaN without a score and on days with
    fewer than `min_assets` scores."""
    quantile: Int[np.ndarray, "D N"]
    """1 = lowest ... q = highest, 0 where there is no factor."""
    scored: Int[np.ndarray, " D"]
    """Assets with a score."""
    missing_industry: Int[np.ndarray, " D"]
    """Scored assets without an industry; they form one group."""
    missing_market_cap: Int[np.ndarray, " D"]
    """Scored assets without a market cap; they get their industry's mean size."""
    by_industry: Bool[np.ndarray, " D"]
    """Whether the day was neutralized by industry."""
    by_size: Bool[np.ndarray, " D"]
    """Whether the day was neutralized by log market cap."""

    def neutralized(self, day: int) -> str:
        """Exposures removed on a day: `industry+size`, `industry`, `size` or `` (none)."""
        parts = [("industry", self.by_industry[day]), ("size", self.by_size[day])]
        return "+".join(name for name, done in parts if done)


def _known_enough(missing: np.ndarray, scored: np.ndarray) -> np.ndarray:
    return np.asarray((scored > 0) & (scored - missing >= MIN_KNOWN * scored))


def _log_size(market_cap: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Log market cap (log currency); NaN where unknown or not positive."""
    if market_cap is None or market_cap.shape != shape:
        return np.full(shape, np.nan)
    return np.asarray(np.log(np.where(market_cap > 0, market_cap, np.nan)))


def _neutralize(
    score: np.ndarray, industry: np.ndarray, size: np.ndarray, by_industry: np.ndarray
) -> np.ndarray:
    """Residuals. Days not in `by_industry` have one group; days with NaN sizes, no regressor."""
    groups = np.where(by_industry[:, None], industry, -1)
    residual = cs_neutralize(score, groups=groups, exposure=size)
    return np.where(np.abs(residual) < _NOISE, 0.0, residual)


def to_factor(
    score: Float[np.ndarray, "D N"],
    industry: Int[np.ndarray, "D M"] | None,
    market_cap: Float[np.ndarray, "D M"] | None,
    cfg: FactorConfig,
) -> Factor:
    """Winsorize, z-score, take the residual on industry and log size, z-score again [R].

    Args:
        score: pRet of the universe, NaN = not a member.
        industry: Codes, -1 = unknown; None or zero width = all unknown.
        market_cap: In currency, NaN = unknown; None or zero width = all unknown.
        cfg: Exposures to remove and the clip.

    Returns:
        The factor. Neutralization by an exposure is skipped on days with too little data
        (`MIN_KNOWN`); `by_industry`, `by_size` and the counts record it. A day whose scores are
        equal up to rounding (`FLAT_SCORE`) has factor 0 for all assets.
    """
    member = ~np.isnan(score)
    scored = member.sum(axis=1)
    codes = industry if industry is not None and industry.shape == score.shape else None
    codes = np.full(score.shape, -1, dtype=np.int16) if codes is None else codes
    size = _log_size(market_cap, score.shape)
    missing_industry = (member & (codes < 0)).sum(axis=1)
    missing_cap = (member & np.isnan(size)).sum(axis=1)
    enough = scored >= cfg.min_assets
    by_industry = enough & _known_enough(missing_industry, scored) & ("industry" in cfg.neutralize)
    by_size = enough & _known_enough(missing_cap, scored) & ("size" in cfg.neutralize)
    clipped = cs_winsorize(score.astype(np.float64), mad=cfg.winsorize_mad)
    z = cs_zscore(clipped, flat=FLAT_SCORE)
    z = np.where(enough[:, None], z, np.nan)
    factor = cs_zscore(_neutralize(z, codes, np.where(by_size[:, None], size, np.nan), by_industry))
    return Factor(
        factor=factor,
        quantile=cs_quantile(factor, cfg.quantiles),
        scored=scored,
        missing_industry=missing_industry,
        missing_market_cap=missing_cap,
        by_industry=by_industry,
        by_size=by_size,
    )
