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
"""A day on which fewer of the scored assets have an industry (a market cap) is not neutralized
by it: the adjustment would concern a minority only. An assumption, not studied."""

_NOISE = 1e-10
"""A residual of z-scores below this is rounding: it must not be blown up to a factor."""


@dataclass(frozen=True, kw_only=True)
class Factor:
    """D days x N assets of factor values, and what they rest on."""

    factor: Float[np.ndarray, "D N"]
    """float64, mean 0 and standard deviation 1 a day; NaN where there is no score, and on days
    with fewer than `min_assets` scores."""
    quantile: Int[np.ndarray, "D N"]
    """1 = lowest ... q = highest, 0 where there is no factor."""
    scored: Int[np.ndarray, " D"]
    """Assets with a score."""
    missing_industry: Int[np.ndarray, " D"]
    """Scored assets without an industry: one group of their own."""
    missing_market_cap: Int[np.ndarray, " D"]
    """Scored assets without a market cap: treated as of their industry's mean size."""
    by_industry: Bool[np.ndarray, " D"]
    """Whether industry was removed that day."""
    by_size: Bool[np.ndarray, " D"]
    """Whether log market cap was removed that day."""

    def neutralized(self, day: int) -> str:
        """What was removed on a day: `industry+size`, `industry`, `size` or `` (nothing)."""
        parts = [("industry", self.by_industry[day]), ("size", self.by_size[day])]
        return "+".join(name for name, done in parts if done)


def _known_enough(missing: np.ndarray, scored: np.ndarray) -> np.ndarray:
    return np.asarray((scored > 0) & (scored - missing >= MIN_KNOWN * scored))


def _log_size(market_cap: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Log market cap (log currency), NaN where it is unknown or not positive."""
    if market_cap is None or market_cap.shape != shape:
        return np.full(shape, np.nan)
    return np.asarray(np.log(np.where(market_cap > 0, market_cap, np.nan)))


def _neutralize(
    score: np.ndarray, industry: np.ndarray, size: np.ndarray, by_industry: np.ndarray
) -> np.ndarray:
    """Residuals; a day not in `by_industry` has one group, one of NaN sizes has no regressor."""
    groups = np.where(by_industry[:, None], industry, -1)
    residual = cs_neutralize(score, groups=groups, exposure=size)
    return np.where(np.abs(residual) < _NOISE, 0.0, residual)


def to_factor(
    score: Float[np.ndarray, "D N"],
    industry: Int[np.ndarray, "D M"] | None,
    market_cap: Float[np.ndarray, "D M"] | None,
    cfg: FactorConfig,
) -> Factor:
    """Winsorize, z-score, take the residual on industry and log size, z-score [R].

    Args:
        score: pRet of the universe, NaN = no member.
        industry: Codes, -1 = unknown; None or of zero width = unknown for all.
        market_cap: In currency, NaN = unknown; None or of zero width = unknown for all.
        cfg: Which steps, and their clips.

    Returns:
        The factor. A step whose data are missing (`MIN_KNOWN`) is left out that day, and
        `by_industry`, `by_size` and the counts say so. A day whose scores are all equal, but
        for rounding (`FLAT_SCORE`), has the factor 0 throughout.
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
