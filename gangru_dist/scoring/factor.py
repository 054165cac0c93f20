"""Turn scores into the factor and its quantiles (docs/method.md, 5), for a run or any other factor.

Shapes: D days, N assets, M = N or 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from gangru_dist.config.settings import FactorConfig
from gangru_dist.maths.cross_section import (
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
    removed: dict[str, Bool[np.ndarray, " D"]]
    """Whether the day was neutralized by `industry`, by `size` (log market cap)."""

    def name_exposures(self, day: int) -> str:
        """Exposures removed on a day: `industry+size`, `industry`, `size` or `` (none)."""
        return "+".join(name for name, days in self.removed.items() if days[day])


def to_factor(
    score: Float[np.ndarray, "D N"],
    industry: Int[np.ndarray, "D M"] | None,
    market_cap: Float[np.ndarray, "D M"] | None,
    cfg: FactorConfig,
    *,
    flat: float = FLAT_SCORE,
    clip_tied: bool = True,
) -> Factor:
    """Winsorize, z-score, take the residual on industry and log size, z-score again [R].

    Args:
        score: pRet of the universe, NaN = not a member.
        industry: Codes, -1 = unknown; None or zero width = all unknown.
        market_cap: In currency, NaN = unknown; None or zero width = all unknown.
        cfg: Exposures to remove and the clip.
        flat: Relative spread below which a day's scores count as equal.
        clip_tied: Winsorize also a day of which more than half of the scores are equal: they all
            become the median. False for a factor of anybody, such as a flag that is 0 for most.

    Returns:
        The factor. Neutralization by an exposure is skipped on days with too little data
        (`MIN_KNOWN`); `removed` and the counts record it. A day whose scores are equal up to
        rounding, or explained by the exposures, has factor 0 for all assets.
    """
    member = ~np.isnan(score)
    scored = member.sum(axis=1)
    if industry is None or industry.shape != score.shape:
        industry = np.full(score.shape, -1, dtype=np.int16)
    if market_cap is None or market_cap.shape != score.shape:
        market_cap = np.full(score.shape, np.nan)
    size = np.log(np.where(market_cap > 0, market_cap, np.nan))
    unknown = {"industry": industry < 0, "size": np.isnan(size)}
    missing = {name: (member & one).sum(axis=1) for name, one in unknown.items()}
    enough = scored >= cfg.min_assets
    removed = {
        name: enough & (scored - count >= MIN_KNOWN * scored) & (name in cfg.neutralize)
        for name, count in missing.items()
    }
    clipped = cs_winsorize(score.astype(np.float64), mad=cfg.winsorize_mad, clip_tied=clip_tied)
    z = cs_zscore(clipped, flat=flat)
    z = np.where(enough[:, None], z, np.nan)
    residual = cs_neutralize(
        z,
        groups=np.where(removed["industry"][:, None], industry, -1),  # else one group
        exposure=np.where(removed["size"][:, None], size, np.nan),  # else no regressor
    )
    factor = cs_zscore(np.where(np.abs(residual) < _NOISE, 0.0, residual))
    return Factor(
        factor=factor,
        quantile=cs_quantile(factor, cfg.quantiles),
        scored=scored,
        missing_industry=missing["industry"],
        missing_market_cap=missing["size"],
        removed=removed,
    )
